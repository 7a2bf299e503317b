package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// forgetSlack is how long Badger keeps a flow or note past its KeepUntil, which is
// what decides: Badger counts in whole seconds.
const forgetSlack = time.Hour

// CreateFlow implements tokenstore.Store.
func (s *Store) CreateFlow(ctx context.Context, f tokenstore.Flow) error {
	if err := checkID(f.ID); err != nil {
		return fmt.Errorf("badgerstore: creating a flow: %w", err)
	}
	err := s.writeNew(ctx, func(w *write) error {
		_, revision, err := s.flow(w.txn, f.ID)
		if err == nil {
			return tokenstore.ErrExists
		}
		if !errors.Is(err, tokenstore.ErrNotFound) {
			return err
		}
		return s.putFlow(w, &f, revision+1)
	})
	if err != nil {
		return fmt.Errorf("badgerstore: creating a flow: %w", err)
	}
	return nil
}

// Flow implements tokenstore.Store.
func (s *Store) Flow(ctx context.Context, id string) (f tokenstore.Flow, err error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Flow{}, err
	}
	err = s.view(func(txn *badger.Txn) error {
		f, _, err = s.flow(txn, id)
		return err
	})
	if err != nil {
		return tokenstore.Flow{}, fmt.Errorf("badgerstore: reading a flow: %w", err)
	}
	return f, nil
}

// UpdateFlow implements tokenstore.Store.
func (s *Store) UpdateFlow(
	ctx context.Context, id string, change func(*tokenstore.Flow) error,
) (f tokenstore.Flow, err error) {
	var refused error // by change: returned as it is
	err = s.write(ctx, func(w *write) error {
		old, revision, err := s.flow(w.txn, id)
		if err != nil {
			return err
		}
		f = old.Clone()
		if refused = change(&f); refused != nil {
			f = old
			return refused
		}
		if f.ID != id {
			return errors.New("a flow's ID can't be changed")
		}
		f = f.Clone() // change may have kept what it was given
		return s.putFlow(w, &f, revision+1)
	})
	switch {
	case err == nil, errors.Is(err, tokenstore.ErrUnchanged):
		return f, nil
	case errors.Is(err, refused):
		return tokenstore.Flow{}, err
	}
	return tokenstore.Flow{}, fmt.Errorf("badgerstore: changing a flow: %w", err)
}

// TakenFlows implements tokenstore.Store. One flow that can't be opened doesn't
// keep the others from being finished.
func (s *Store) TakenFlows(ctx context.Context) (taken []tokenstore.Flow, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.view(func(txn *badger.Txn) error {
		var damaged []error
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(keyTaken)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			f, _, err := s.flow(txn, string(it.Item().Key()[len(keyTaken):]))
			switch {
			case err == nil:
				taken = append(taken, f)
			case !errors.Is(err, tokenstore.ErrNotFound): // else its time has come
				damaged = append(damaged, err)
			}
		}
		return errors.Join(damaged...)
	})
	if err != nil {
		return taken, fmt.Errorf("badgerstore: finding taken flows: %w", err)
	}
	return taken, nil
}

// flow reads a flow and checks that it is the one asked for. A flow that is to
// be forgotten is ErrNotFound, with its revision.
func (s *Store) flow(txn *badger.Txn, id string) (f tokenstore.Flow, revision uint64, err error) {
	if checkID(id) != nil {
		return f, 0, tokenstore.ErrNotFound
	}
	codec, of := s.sealing()
	err = readValue(txn, flowKey(id), func(rev uint64, sealed []byte) error {
		revision = rev
		f, err = codec.OpenFlow(sealed, of.associatedData(tokenstore.KindFlow, id, rev))
		switch {
		case err != nil:
			return err
		case f.ID != id:
			return fmt.Errorf("%w: it is another flow", tokenstore.ErrCorrupt)
		case !time.Now().Before(f.KeepUntil()):
			return tokenstore.ErrNotFound
		}
		return nil
	})
	return f, revision, err
}

// putFlow writes f and its news under a revision of its own, which no other write
// of this flow had: records of flows have none inside.
func (s *Store) putFlow(w *write, f *tokenstore.Flow, revision uint64) error {
	codec, of := s.sealing()
	sealed, err := codec.SealFlow(f, of.associatedData(tokenstore.KindFlow, f.ID, revision))
	if err != nil {
		return err
	}
	s.tell(w, f.News)
	f.News = nil
	forget := uint64(max(f.KeepUntil().Add(forgetSlack).Unix(), 1))
	w.setEntry(&badger.Entry{Key: flowKey(f.ID), Value: newValue(revision, sealed), ExpiresAt: forget})
	if f.Stage == tokenstore.FlowTaken {
		w.setEntry(&badger.Entry{Key: takenKey(f.ID), Value: present, ExpiresAt: forget})
	} else {
		w.remove(takenKey(f.ID))
	}
	return nil
}
