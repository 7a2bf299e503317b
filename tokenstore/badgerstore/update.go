package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// update is one change of a connection. Opening the record, changing it and
// sealing it again are most of what a write costs, and there is one committer: so
// whoever wants the change works it out on the record as it is committed, and the
// committer does so again only where another write came in between.
type update struct {
	id     string
	change func(*tokenstore.Connection) error

	// What it was worked out from: the record, the codec and identity that opened
	// it, nil if nothing could be read, and the transaction up to which it was read.
	old  tokenstore.Connection
	with *sealing
	from *generation
	at   uint64

	// What came of it.
	c       tokenstore.Connection // to be returned
	write   write                 // but for news, whose places in the log the committer knows
	news    []tokenstore.Event
	refused error // by change: returned as it is
	err     error // refused, or why it could not be worked out
}

// UpdateConnection implements tokenstore.Store.
func (s *Store) UpdateConnection(
	ctx context.Context, id string, change func(*tokenstore.Connection) error,
) (tokenstore.Connection, error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Connection{}, fmt.Errorf("badgerstore: changing a connection: %w", err)
	}
	u := &update{id: id, change: change}
	s.beginUpdate(u)
	err := s.write(ctx, func(w *write) error { return s.finishUpdate(w, u) })
	switch {
	case err == nil, errors.Is(err, tokenstore.ErrUnchanged):
		return u.c, nil
	case errors.Is(err, u.refused):
		return tokenstore.Connection{}, err
	}
	return tokenstore.Connection{}, fmt.Errorf("badgerstore: changing a connection: %w", err)
}

// beginUpdate works u out beside the committer, if the record can be read: what
// is wrong with it is the committer's to find, which sees what is newest.
func (s *Store) beginUpdate(u *update) {
	err := s.readWith(func() error {
		u.from = s.gen
		return s.gen.view(func(txn *badger.Txn) error {
			u.at = txn.ReadTs()
			return s.readOld(txn, u)
		})
	})
	if err != nil {
		u.with = nil
		return
	}
	s.workOut(u)
}

// finishUpdate is u's turn in the committer.
func (s *Store) finishUpdate(w *write, u *update) error {
	if checkID(u.id) != nil {
		return tokenstore.ErrNotFound
	}
	if u.with != s.sealer.now.Load() || u.from != w.gen || w.gen.written.since(connectionKey(u.id), u.at) {
		if u.err = s.readOld(w.txn, u); u.err == nil {
			s.workOut(u)
		}
	}
	if u.refused == nil || !errors.Is(u.err, u.refused) {
		s.noteDamage(u.id, u.err)
	}
	if u.err != nil {
		return u.err
	}
	w.entries = append(w.entries, u.write.entries...)
	w.found, w.revision = connectionKey(u.id), u.old.Revision
	s.tell(w, u.news)
	return nil
}

// readOld reads the record that u changes.
func (s *Store) readOld(txn *badger.Txn, u *update) error {
	u.with, u.refused = s.sealer.now.Load(), nil
	return readValue(txn, connectionKey(u.id), func(revision uint64, sealed []byte) (err error) {
		u.old, err = u.with.openConnection(u.id, revision, sealed)
		return err
	})
}

// workOut finds out what u writes in place of the record that it has.
func (s *Store) workOut(u *update) {
	u.write, u.news = write{}, nil
	u.c = u.old.Clone()
	if u.refused = u.change(&u.c); u.refused != nil {
		u.c, u.err = u.old, u.refused
		return
	}
	if u.c.ID != u.id {
		u.err = errors.New("a connection's ID can't be changed")
		return
	}
	u.c = u.c.Clone() // change may have kept what it was given
	u.c.UpdatedAt, u.c.Revision = time.Now().UTC().Round(0), u.old.Revision+1
	u.news = u.c.TakeNews()
	u.err = s.putConnection(&u.write, u.with, &u.old, &u.c)
}
