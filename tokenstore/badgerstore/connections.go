package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// CreateConnection implements tokenstore.Store.
func (s *Store) CreateConnection(ctx context.Context, c tokenstore.Connection) (tokenstore.Connection, error) {
	if err := checkID(c.ID); err != nil {
		return tokenstore.Connection{}, fmt.Errorf("badgerstore: creating a connection: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return tokenstore.Connection{}, fmt.Errorf("badgerstore: creating connection %q: %w", c.ID, err)
	}
	c = c.Clone()
	create := s.writeNew
	if c.LastFlow != "" { // it holds what a code exchange brought
		create = s.write
	}
	now := time.Now().UTC().Round(0)
	if c.CreatedAt.IsZero() {
		c.CreatedAt = now
	}
	c.UpdatedAt, c.Revision = now, 1
	news := c.TakeNews()
	// Sealed beside the committer, as updates are.
	with, put := s.sealer.now.Load(), write{}
	sealErr := s.putConnection(&put, with, nil, &c)
	err := create(ctx, func(w *write) error {
		for _, key := range [][]byte{connectionKey(c.ID), deletedKey(c.ID)} {
			if taken, err := exists(w.txn, key); err != nil {
				return err
			} else if taken {
				return tokenstore.ErrExists
			}
		}
		if now := s.sealer.now.Load(); now != with {
			put = write{}
			sealErr = s.putConnection(&put, now, nil, &c)
		}
		w.entries = append(w.entries, put.entries...)
		w.found = connectionKey(c.ID)
		s.tell(w, news)
		return sealErr
	})
	if err != nil {
		return tokenstore.Connection{}, fmt.Errorf("badgerstore: creating connection %q: %w", c.ID, err)
	}
	return c, nil
}

// Connection implements tokenstore.Store.
func (s *Store) Connection(ctx context.Context, id string) (c tokenstore.Connection, err error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Connection{}, err
	}
	err = s.view(func(txn *badger.Txn) error {
		c, err = s.connection(txn, id)
		return err
	})
	if err != nil {
		return tokenstore.Connection{}, fmt.Errorf("badgerstore: reading a connection: %w", err)
	}
	return c, nil
}

// DeleteConnection implements tokenstore.Store.
func (s *Store) DeleteConnection(
	ctx context.Context, id string, news ...tokenstore.Event,
) (c tokenstore.Connection, err error) {
	err = s.write(ctx, func(w *write) error {
		if c, err = s.connection(w.txn, id); err != nil {
			return err
		}
		w.remove(connectionKey(id))
		w.set(deletedKey(id), present)
		s.putIndex(w, &c, nil)
		c.News = news
		s.tell(w, c.TakeNews())
		return nil
	})
	if errors.Is(err, tokenstore.ErrCorrupt) {
		c, err = s.deleteDamaged(ctx, id, news)
	}
	if err != nil {
		return tokenstore.Connection{}, fmt.Errorf("badgerstore: deleting a connection: %w", err)
	}
	return c, nil
}

// maxPassed is how many positions a page passes over at most that are in one
// range of keys and not in another.
const maxPassed = 1000

// ListConnections implements tokenstore.Store. Each filter without labels has a
// range of keys of its own, and so has each label: a page costs the reading of
// what is on it, and where several ranges are needed, at most maxPassed looks.
func (s *Store) ListConnections(
	ctx context.Context, f tokenstore.Filter, cursor string, limit int,
) (page []tokenstore.Connection, next string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if limit < 1 {
		return nil, "", errors.New("badgerstore: limit of a list is less than 1")
	}
	var start place
	if cursor != "" {
		after, err := tokenstore.ParseCursor(cursor)
		if err != nil {
			return nil, "", fmt.Errorf("badgerstore: listing connections: %w", err)
		}
		start = append(placeOf(after), 0) // the one right after it
	}
	err = s.view(func(txn *badger.Txn) error {
		page, next, err = s.listPage(txn, f, start, limit)
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("badgerstore: listing connections: %w", err)
	}
	return page, next, nil
}

func (s *Store) listPage(
	txn *badger.Txn, f tokenstore.Filter, start place, limit int,
) (page []tokenstore.Connection, next string, err error) {
	w := newWalk(txn, s.keys.listPrefixes(f), false)
	defer w.close()
	for at := w.first(start); at != nil; at = w.next() {
		if !w.agreed {
			if w.passed >= maxPassed && w.before != nil {
				return page, w.before.position().Cursor(), nil
			}
			continue
		}
		if len(page) == limit { // and there is one more
			return page, tokenstore.PositionOf(&page[limit-1]).Cursor(), nil
		}
		c, err := s.listed(txn, f, at)
		if err != nil {
			return nil, "", err
		}
		page = append(page, c)
	}
	return page, "", nil
}

// listed reads the connection to which the indexes of f lead at a place. One
// that can't be opened is Damaged.
func (s *Store) listed(txn *badger.Txn, f tokenstore.Filter, at place) (tokenstore.Connection, error) {
	p := at.position()
	c, err := s.connection(txn, p.ID)
	if errors.Is(err, tokenstore.ErrNotFound) || (err == nil && !f.Matches(&c)) {
		err = fmt.Errorf("%w: an index leads to another record", tokenstore.ErrCorrupt)
		s.noteDamage(p.ID, err)
	}
	switch {
	case errors.Is(err, tokenstore.ErrCorrupt):
		return tokenstore.Connection{ID: p.ID, CreatedAt: p.CreatedAt, Damaged: true}, nil
	case err != nil:
		return c, fmt.Errorf("connection %q: %w", p.ID, err)
	}
	return c, nil
}

// NewestConnection implements tokenstore.Store.
func (s *Store) NewestConnection(ctx context.Context, f tokenstore.Filter) (c tokenstore.Connection, err error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Connection{}, err
	}
	err = s.view(func(txn *badger.Txn) error {
		w := newWalk(txn, s.keys.listPrefixes(f), true)
		defer w.close()
		for at := w.first(nil); at != nil; at = w.next() {
			if w.agreed {
				c, err = s.listed(txn, f, at)
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return tokenstore.ErrNotFound
	})
	if err == nil && c.Damaged {
		err = fmt.Errorf("%w: connection %q", tokenstore.ErrCorrupt, c.ID)
	}
	if err != nil {
		return tokenstore.Connection{}, fmt.Errorf("badgerstore: finding the newest connection: %w", err)
	}
	return c, nil
}

// DueConnections implements tokenstore.Store, from the index alone: whoever
// looks at a connection that is due asks it again. Those that are known to be
// damaged are left out: they were logged, and nothing can be done for them.
func (s *Store) DueConnections(ctx context.Context, t time.Time) (ids []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	end := string(appendTime([]byte(keyDue), t))
	err = s.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(keyDue)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := string(it.Item().Key())
			if key[:len(end)] > end {
				break
			}
			if id := key[len(end):]; !s.damage.has(id) {
				ids = append(ids, id)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("badgerstore: finding what is due: %w", err)
	}
	return ids, nil
}

// connection reads a record.
func (s *Store) connection(txn *badger.Txn, id string) (c tokenstore.Connection, err error) {
	if checkID(id) != nil {
		return c, tokenstore.ErrNotFound
	}
	err = readValue(txn, connectionKey(id), func(revision uint64, sealed []byte) error {
		c, err = s.sealer.now.Load().openConnection(id, revision, sealed)
		return err
	})
	s.noteDamage(id, err)
	return c, err
}

// openConnection opens a record and checks that it is the one asked for.
func (with *sealing) openConnection(id string, revision uint64, sealed []byte) (tokenstore.Connection, error) {
	c, err := with.codec.OpenConnection(sealed, with.id.associatedData(tokenstore.KindConnection, id, revision))
	if err == nil && (c.ID != id || c.Revision != revision) {
		err = fmt.Errorf("%w: it is another record", tokenstore.ErrCorrupt)
	}
	return c, err
}

// putConnection writes c, which replaces old or is new.
func (s *Store) putConnection(w *write, with *sealing, old, c *tokenstore.Connection) error {
	sealed, err := with.codec.SealConnection(c, with.id.associatedData(tokenstore.KindConnection, c.ID, c.Revision))
	if err != nil {
		return err
	}
	w.set(connectionKey(c.ID), newValue(c.Revision, sealed))
	s.putIndex(w, old, c)
	return nil
}

// putIndex writes what differs between the index keys of old and c, one of
// which may be nil.
func (s *Store) putIndex(w *write, old, c *tokenstore.Connection) {
	if old != nil && c != nil && sameLists(old, c) {
		putDue(w, old, c)
		return
	}
	stale := make(map[string]bool)
	if old != nil {
		for _, key := range s.keys.indexKeys(old) {
			stale[string(key)] = true
		}
	}
	if c != nil {
		for _, key := range s.keys.indexKeys(c) {
			if stale[string(key)] {
				delete(stale, string(key))
				continue
			}
			w.set(key, present)
		}
	}
	for key := range stale {
		w.remove([]byte(key))
	}
}

// putDue is putIndex where the lists are the same.
func putDue(w *write, old, c *tokenstore.Connection) {
	before, after := dueKey(old.Due(), old.ID), dueKey(c.Due(), c.ID)
	if bytes.Equal(before, after) {
		return
	}
	if before != nil {
		w.remove(before)
	}
	if after != nil {
		w.set(after, present)
	}
}
