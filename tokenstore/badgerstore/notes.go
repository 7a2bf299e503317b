package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxSealedNote is what a note with a text of 1 MiB has at most, as base64 in JSON.
const maxSealedNote = 3 << 19

// Note implements tokenstore.Store.
func (s *Store) Note(ctx context.Context, id string) (n tokenstore.Note, err error) {
	if err := ctx.Err(); err != nil {
		return tokenstore.Note{}, err
	}
	err = s.view(func(txn *badger.Txn) error {
		n, _, err = s.note(txn, id)
		return err
	})
	if err != nil {
		return tokenstore.Note{}, fmt.Errorf("badgerstore: reading a note: %w", err)
	}
	return n, nil
}

// UpdateNote implements tokenstore.Store.
func (s *Store) UpdateNote(
	ctx context.Context, id string, change func(*tokenstore.Note) error,
) (n tokenstore.Note, err error) {
	var refused error // by change: returned as it is
	err = s.write(ctx, func(w *write) error {
		if err := checkID(id); err != nil {
			return err
		}
		old, revision, err := s.note(w.txn, id)
		if errors.Is(err, tokenstore.ErrNotFound) {
			old, err = tokenstore.Note{ID: id}, nil
		}
		if err != nil {
			return err
		}
		n = old
		if refused = change(&n); refused != nil {
			n = old
			return refused
		}
		if n.ID != id {
			return errors.New("a note's ID can't be changed")
		}
		n.Revision = revision + 1
		return s.putNote(w, &n)
	})
	switch {
	case err == nil, errors.Is(err, tokenstore.ErrUnchanged):
		return n, nil
	case errors.Is(err, refused):
		return tokenstore.Note{}, err
	}
	return tokenstore.Note{}, fmt.Errorf("badgerstore: changing a note: %w", err)
}

// DeleteNote implements tokenstore.Store.
func (s *Store) DeleteNote(ctx context.Context, id string) error {
	err := s.write(ctx, func(w *write) error {
		if checkID(id) != nil {
			return nil //nolint:nilerr // then there is none
		}
		there, err := exists(w.txn, noteKey(id))
		if there {
			w.remove(noteKey(id))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("badgerstore: deleting a note: %w", err)
	}
	s.damage.set(string(noteKey(id)), false)
	return nil
}

// ListNotes implements tokenstore.Store.
func (s *Store) ListNotes(ctx context.Context, prefix string) (notes []tokenstore.Note, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: noteKey(prefix)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			id := string(bytes.TrimPrefix(it.Item().Key(), []byte(keyNote)))
			n, _, err := s.note(txn, id)
			switch {
			case err == nil:
				notes = append(notes, n)
			case errors.Is(err, tokenstore.ErrCorrupt), errors.Is(err, tokenstore.ErrNotFound): // or its time has come
			default:
				return fmt.Errorf("note %q: %w", id, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("badgerstore: listing notes: %w", err)
	}
	return notes, nil
}

// note reads a note and checks that it is the one asked for. A note that is to
// be forgotten is ErrNotFound, with its revision. Damage is logged once.
func (s *Store) note(txn *badger.Txn, id string) (n tokenstore.Note, revision uint64, err error) {
	if checkID(id) != nil {
		return n, 0, tokenstore.ErrNotFound
	}
	codec, of := s.sealing()
	err = readValue(txn, noteKey(id), func(rev uint64, sealed []byte) error {
		revision = rev
		n, err = codec.OpenNote(sealed, of.associatedData(tokenstore.KindNote, id, rev))
		switch {
		case err != nil:
			return err
		case n.ID != id || n.Revision != rev:
			return fmt.Errorf("%w: it is another note", tokenstore.ErrCorrupt)
		case n.Forgotten(time.Now()):
			return tokenstore.ErrNotFound
		}
		return nil
	})
	if errors.Is(err, tokenstore.ErrCorrupt) && s.damage.set(string(noteKey(id)), true) {
		s.log.Error("note is damaged", zap.String("error_code", "store_corrupt"), zap.String("note_id", id), zap.Error(err))
	}
	return n, revision, err
}

func (s *Store) putNote(w *write, n *tokenstore.Note) error {
	codec, of := s.sealing()
	sealed, err := codec.SealNote(n, of.associatedData(tokenstore.KindNote, n.ID, n.Revision))
	if err != nil {
		return err
	}
	if len(sealed) > maxSealedNote {
		return errors.New("a note is too long")
	}
	e := badger.NewEntry(noteKey(n.ID), newValue(n.Revision, sealed))
	if !n.KeepUntil.IsZero() {
		e.ExpiresAt = uint64(max(n.KeepUntil.Add(forgetSlack).Unix(), 1))
	}
	w.setEntry(e)
	return nil
}
