package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// ReadExport checks a whole export, and returns what is in it. A connection that
// can't be opened is tokenstore.ErrCorrupt there and ends it; an event that can't
// stands as an EventLost; flows and notes that can't, or whose time has come, are
// left out.
//
// Errors wrap ErrBadBackup or tokenstore.ErrKeyMissing.
func ReadExport(export io.ReadSeeker, codec tokenstore.Codec) (iter.Seq2[tokenstore.Record, error], error) {
	magics := []string{exportMagic}
	header, err := checkBackup(export, magics, codec)
	if err != nil {
		return nil, fmt.Errorf("badgerstore: %w", err)
	}
	id := header.identity()
	return func(yield func(tokenstore.Record, error) bool) {
		r, err := rewind(export, magics)
		if err != nil {
			yield(tokenstore.Record{}, fmt.Errorf("badgerstore: %w", err))
			return
		}
		for stored, err := range r.records(codec) {
			var rec tokenstore.Record
			wanted := true
			if err == nil {
				rec, wanted, err = openRecord(codec, id, stored)
			}
			if err != nil {
				err = fmt.Errorf("badgerstore: %w", err)
			}
			if wanted && !yield(rec, err) || err != nil {
				return
			}
		}
	}, nil
}

// openRecord opens a record of an export, and says whether it is to be moved.
func openRecord(codec tokenstore.Codec, id identity, stored backupRecord) (rec tokenstore.Record, wanted bool, err error) {
	switch stored.Kind {
	case frameDeleted:
		return tokenstore.Record{Deleted: stored.ID}, true, nil
	case frameConnection:
		c, err := openValue(codec, id, stored.ID, stored.Value)
		if err != nil {
			err = fmt.Errorf("connection %s: %w", stored.ID, err)
		}
		return tokenstore.Record{Connection: &c}, true, err
	case frameEvent:
		e, err := openEventValue(codec, id, stored.Seq, stored.Value)
		if err != nil {
			e = tokenstore.Event{Seq: stored.Seq, Type: tokenstore.EventLost}
		}
		return tokenstore.Record{Event: &e}, true, nil
	}
	revision, sealed, err := splitValue(stored.Value)
	if err != nil {
		return rec, false, nil //nolint:nilerr // as it is in lists
	}
	if stored.Kind == frameFlow {
		f, err := codec.OpenFlow(sealed, id.associatedData(tokenstore.KindFlow, stored.ID, revision))
		return tokenstore.Record{Flow: &f}, err == nil && f.ID == stored.ID && time.Now().Before(f.KeepUntil()), nil
	}
	n, err := codec.OpenNote(sealed, id.associatedData(tokenstore.KindNote, stored.ID, revision))
	return tokenstore.Record{Note: &n}, err == nil && n.ID == stored.ID && !n.Forgotten(time.Now()), nil
}

// Load makes a store in dir of records, which come in the order of a store's and
// keep their revisions, times and places in the log; check is then called with
// what is there. The store does not open after that until EndLoad. The directory
// must have none, or one that a Load has left, and has none after an error.
//
// Errors wrap tokenstore.ErrNotEmpty, ErrFull, or tokenstore.ErrUnavailable if
// another process has the directory; one of records or check ends it.
func Load(
	dir string, codec tokenstore.Codec,
	records iter.Seq2[tokenstore.Record, error], check func(iter.Seq2[tokenstore.Record, error]) error,
) error {
	_, err := locked(dir, RestoreConfig{Codec: codec}, func(dir string) (done Restored, err error) {
		if err := dropLoad(dir); err != nil {
			return done, err
		}
		if hasStore(dir) {
			return done, fmt.Errorf("%w: %s", tokenstore.ErrNotEmpty, dir)
		}
		entries := func(yield func(entry, error) bool) {
			for r, err := range records {
				if !yield(entry{r.Connection, r.Event, r.Flow, r.Note, r.Deleted}, err) {
					return
				}
			}
		}
		id := identity{Format: identityFormat, StoreID: randomHex(), Loading: true}
		err = replace(dir, id, codec, entries, &done)
		return done, errors.Join(err, done.Unfinished)
	})
	if err == nil {
		err = checkLoad(dir, codec, check)
	}
	if err != nil {
		return fmt.Errorf("badgerstore: loading: %w", err)
	}
	return nil
}

// checkLoad reads what was loaded, by the way of every store that is opened.
func checkLoad(dir string, codec tokenstore.Codec, check func(iter.Seq2[tokenstore.Record, error]) error) error {
	s, err := openHooked(dir, Config{Codec: codec, loading: true}, failpoint.Hit)
	if err == nil {
		err = errors.Join(check(s.Records(context.Background())), s.Close())
	}
	if err != nil {
		return errors.Join(err, DropLoad(dir, codec))
	}
	return nil
}

// EndLoad puts what Load has made in force.
func EndLoad(dir string, codec tokenstore.Codec) error {
	_, err := locked(dir, RestoreConfig{Codec: codec}, func(dir string) (Restored, error) {
		id, err := readIdentity(dir)
		if err == nil && id.Loading {
			id.Loading = false
			err = writeIdentity(dir, id)
		}
		return Restored{}, err
	})
	if err != nil {
		return fmt.Errorf("badgerstore: ending a load: %w", err)
	}
	return nil
}

// DropLoad removes what Load has made, if it is not in force.
func DropLoad(dir string, codec tokenstore.Codec) error {
	_, err := locked(dir, RestoreConfig{Codec: codec}, func(dir string) (Restored, error) {
		return Restored{}, dropLoad(dir)
	})
	if err != nil {
		return fmt.Errorf("badgerstore: removing a load: %w", err)
	}
	return nil
}

// Loading reports whether a Load has left a store in dir that is not in force yet.
func Loading(dir string) bool {
	id, err := readIdentity(dir)
	return err == nil && id.Loading
}

// dropLoad is DropLoad with the lock held.
func dropLoad(dir string) error {
	if !Loading(dir) {
		return nil
	}
	// Without it there is no store, whatever files are left.
	if err := os.Remove(filepath.Join(dir, identityFile)); err != nil {
		return err
	}
	if err := removeOthers(dir, 0); err != nil { // none has that number
		return err
	}
	return errors.Join(os.Remove(filepath.Join(dir, badgerDir)), syncDir(dir))
}

// Records returns what is in the store as it stands, like ReadExport of an export.
func (s *Store) Records(ctx context.Context) iter.Seq2[tokenstore.Record, error] {
	return func(yield func(tokenstore.Record, error) bool) {
		snap, err := s.snapshot()
		if err != nil {
			yield(tokenstore.Record{}, err)
			return
		}
		defer snap.end()
		id := snap.header.identity()
		stop := errors.New("enough")
		for _, kind := range []struct {
			prefix string
			frame  byte
		}{{keyDeleted, frameDeleted}, {keyConnection, frameConnection}, {keyEvent, frameEvent}, {keyFlow, frameFlow}, {keyNote, frameNote}} {
			err := snap.each(ctx, kind.prefix, func(r stored) error {
				rec := backupRecord{Kind: kind.frame, ID: string(r.key), Value: r.value}
				if kind.frame == frameEvent {
					rec.ID = ""
					rec.Seq, _ = eventSeq(append([]byte(keyEvent), r.key...))
				}
				one, wanted, err := openRecord(snap.codec, id, rec)
				if wanted && !yield(one, err) || err != nil {
					return stop
				}
				return nil
			})
			if errors.Is(err, stop) {
				return
			}
			if err != nil {
				yield(tokenstore.Record{}, fmt.Errorf("badgerstore: %w", err))
				return
			}
		}
	}
}
