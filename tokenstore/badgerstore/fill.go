package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// fillTableSize is how long the tables are that are written to the last level.
	// Badger makes them as long in a store of some gigabytes.
	fillTableSize = 16 * mib
	// fillBaseTableSize is Badger's option for that: it doubles it for each level.
	fillBaseTableSize = fillTableSize >> 5
	// tablesInFlight is how many tables Badger writes at a time, and so many more
	// of those that it is making.
	tablesInFlight = 16 + 4
	// fillBatch is how many bytes it is given at a time.
	fillBatch = mib
	// filledVersion is the version of all that is filled in, but for the head.
	filledVersion = 1
)

// filler writes the entries of a new database in the order of their keys, as
// tables of the last level. Badger has nothing to merge then: written as they
// come, in transactions, they would be written six or seven times.
//
// Connections and events come in their order. All else, which is short, is sorted
// before.
type filler struct {
	db     *badger.DB
	out    *badger.StreamWriter // nil until there is an entry
	batch  *z.Buffer            // nil until then
	space  *space
	last   map[byte][]byte // :: kind of keys → the last that was given to out
	given  int64           // bytes
	looked int64           // given when file descriptors were last looked for
	others *sorter
}

// fill writes entries and their head into an empty database, and returns the
// number of the last transaction.
func (s *Store) fill(db *badger.DB, entries iter.Seq2[entry, error]) (seq uint64, err error) {
	f := &filler{
		db: db, space: s.space, last: map[byte][]byte{}, others: &sorter{path: filepath.Join(db.Opts().Dir, "sorting")},
	}
	h, err := f.all(s, entries)
	if err = errors.Join(err, f.close()); err != nil {
		return 0, err
	}
	err = db.Update(func(txn *badger.Txn) error {
		_, id := s.sealing()
		text, err := id.forDatabase()
		if err != nil {
			return err
		}
		h.seq = txn.ReadTs() + 1
		return errors.Join(txn.Set([]byte(keyIdentity), text), txn.Set([]byte(keyHead), h.encode(s.keys.headKey())))
	})
	return h.seq, err
}

// all writes entries, and returns what the head says of them.
func (f *filler) all(s *Store, entries iter.Seq2[entry, error]) (h head, err error) {
	digest := newDigester(s.keys.headKey())
	n := 0
	for e, err := range entries {
		if err == nil && n%100 == 0 {
			err = f.look()
		}
		if err != nil {
			return h, err
		}
		n++
		w := &write{}
		if err := s.putEntry(w, &h, digest, e); err != nil {
			return h, err
		}
		for _, entry := range w.entries {
			if err := f.add(entry); err != nil {
				return h, err
			}
		}
	}
	n = 0
	err = f.others.each(func(e *badger.Entry) error {
		if n++; n%1000 == 0 {
			if err := f.look(); err != nil {
				return err
			}
		}
		return f.give(e)
	})
	if err != nil || f.out == nil {
		return h, err
	}
	if err := errors.Join(f.flush(), f.out.Flush()); err != nil {
		return h, fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	return h, nil
}

// close lets go of all that the filler has. Badger takes other writes then.
func (f *filler) close() error {
	err := f.others.close()
	if f.out != nil {
		f.out.Cancel() // nothing after its Flush
		err = errors.Join(err, f.batch.Release())
	}
	return err
}

// look refuses to go on where Badger may have too little room, or too few file
// descriptors, for the tables that it is making: it ends the process then.
func (f *filler) look() error {
	if f.given >= f.looked+fillTableSize {
		f.looked = f.given
		if !canOpen(f.space.dir, filesForNextLog+tablesInFlight) {
			return fmt.Errorf("%w: the process has too few file descriptors for so large a store (ulimit -n)", tokenstore.ErrUnavailable)
		}
	}
	return f.space.look().refuse(roomForNextLog+min(f.given*5/4, tablesInFlight*fillTableSize), "building the store")
}

func (f *filler) add(e *badger.Entry) error {
	switch kind := string(e.Key[:len(keyConnection)]); {
	case len(e.Value) == 0: // it removes what isn't there
		return nil
	case kind != keyConnection && kind != keyEvent:
		return f.others.add(e)
	case bytes.Compare(e.Key, f.last[e.Key[0]]) <= 0:
		// Badger would panic, in a goroutine of its own.
		return fmt.Errorf("%q comes after %q, or twice", e.Key, f.last[e.Key[0]])
	}
	return f.give(e)
}

// give gives Badger an entry: each kind of keys is a stream of its own there, in
// which they are sorted.
func (f *filler) give(e *badger.Entry) error {
	if f.out == nil {
		f.out, f.batch = f.db.NewStreamWriter(), z.NewBuffer(2*fillBatch, "fill")
		if err := f.out.Prepare(); err != nil {
			return fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
		}
	}
	f.last[e.Key[0]] = append(f.last[e.Key[0]][:0], e.Key...)
	f.given += int64(len(e.Key) + len(e.Value))
	badger.KVToBuffer(&pb.KV{
		Key: e.Key, Value: e.Value, ExpiresAt: e.ExpiresAt, Version: filledVersion, StreamId: uint32(e.Key[0]),
	}, f.batch)
	if f.batch.LenNoPadding() < fillBatch {
		return nil
	}
	return f.flush()
}

func (f *filler) flush() error {
	defer f.batch.Reset()
	if err := f.out.Write(f.batch); err != nil {
		return fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	return nil
}

// putEntry writes e, and counts it in h.
func (s *Store) putEntry(w *write, h *head, digest *digester, e entry) error {
	switch {
	case e.event != nil:
		h.events.add(e.event.Seq)
		return s.putEvent(w, e.event)
	case e.connection != nil:
		h.count(digest, keyConnection, []byte(e.connection.ID), e.connection.Revision)
		return errors.Join(checkID(e.connection.ID), s.putConnection(w, s.sealer.now.Load(), nil, e.connection))
	case e.flow != nil:
		return errors.Join(checkID(e.flow.ID), s.putFlow(w, e.flow, 1))
	case e.note != nil:
		return errors.Join(checkID(e.note.ID), s.putNote(w, e.note))
	}
	w.set(deletedKey(e.deleted), present)
	h.count(digest, keyDeleted, []byte(e.deleted), 0)
	return nil
}
