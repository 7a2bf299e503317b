package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxSealedNote is what a note with a text of 1 MiB has at most, as base64 in JSON.
const maxSealedNote = 3 << 19

const (
	selectNote = `select revision, sealed from lanyard_notes where id = $1`
	insertNote = `insert into lanyard_notes (id, revision, sealed, keep_until) values (?, ?, ?, ?) on conflict (id) do nothing`
	updateNote = `update lanyard_notes set revision = ?, sealed = ?, keep_until = ? where id = ? and revision = ?`
)

// Note implements tokenstore.Store.
func (s *Store) Note(ctx context.Context, id string) (n tokenstore.Note, err error) {
	was, err := s.row(ctx, selectNote, id)
	if err == nil {
		n, err = s.openNote(ctx, id, was)
	}
	if err != nil {
		return tokenstore.Note{}, fmt.Errorf("pgstore: reading a note: %w", err)
	}
	return n, nil
}

// UpdateNote implements tokenstore.Store.
func (s *Store) UpdateNote(
	ctx context.Context, id string, change func(*tokenstore.Note) error,
) (tokenstore.Note, error) {
	var refusal error // by change: returned as it is
	n, _, err := replace(ctx, s, record[tokenstore.Note]{
		key:  "n/" + id,
		read: func(ctx context.Context) (stored, error) { return s.row(ctx, selectNote, id) },
		work: func(ctx context.Context, was stored) (a attempt[tokenstore.Note], err error) {
			refusal = nil
			if err := checkID(id); err != nil {
				return a, err
			}
			old, err := s.openNote(ctx, id, was)
			if errors.Is(err, tokenstore.ErrNotFound) {
				old, err = tokenstore.Note{ID: id}, nil
			}
			if err != nil {
				return a, err
			}
			n := old
			if refusal = change(&n); refusal != nil {
				return attempt[tokenstore.Note]{result: old}, refusal
			}
			if n.ID != id {
				return a, errNewID
			}
			n.Revision = was.revision + 1
			return s.noteAttempt(n, was.revision)
		},
	})
	switch {
	case err == nil, refusal != nil && errors.Is(err, tokenstore.ErrUnchanged):
		return n, nil
	case refusal != nil && errors.Is(err, refusal):
		return tokenstore.Note{}, err
	}
	return tokenstore.Note{}, fmt.Errorf("pgstore: changing a note: %w", err)
}

func (s *Store) noteAttempt(n tokenstore.Note, was uint64) (a attempt[tokenstore.Note], err error) {
	with := s.sealer.now.Load()
	sealed, err := with.codec.SealNote(&n, with.data(tokenstore.KindNote, n.ID, n.Revision))
	if err == nil && len(sealed) > maxSealedNote {
		err = errors.New("a note is too long")
	}
	if err != nil {
		return a, err
	}
	var keepUntil *time.Time
	if !n.KeepUntil.IsZero() {
		keepUntil = &n.KeepUntil
	}
	q := write(updateNote, n.Revision, sealed, keepUntil, []byte(n.ID), was)
	if was == 0 {
		q = write(insertNote, []byte(n.ID), n.Revision, sealed, keepUntil)
	}
	return attempt[tokenstore.Note]{result: n, after: stored{n.Revision, sealed}, write: q}, nil
}

// DeleteNote implements tokenstore.Store.
func (s *Store) DeleteNote(ctx context.Context, id string) error {
	if _, err := s.exec(ctx, `delete from lanyard_notes where id = $1`, []byte(id)); err != nil {
		return fmt.Errorf("pgstore: deleting a note: %w", err)
	}
	s.damage.set("note "+id, false)
	return nil
}

// ListNotes implements tokenstore.Store.
func (s *Store) ListNotes(ctx context.Context, prefix string) (notes []tokenstore.Note, err error) {
	sql := `select id, revision, sealed from lanyard_notes where id >= $1`
	args := []any{[]byte(prefix)}
	if end := afterPrefix(prefix); end != nil {
		sql += ` and id < $2`
		args = append(args, end)
	}
	rows, err := query(ctx, s, scanRecord, sql+` order by id`, args...)
	if err != nil {
		return nil, fmt.Errorf("pgstore: listing notes: %w", err)
	}
	for _, row := range rows {
		n, err := s.openNote(ctx, row.id, row.stored)
		switch {
		case err == nil:
			notes = append(notes, n)
		case errors.Is(err, tokenstore.ErrCorrupt), errors.Is(err, tokenstore.ErrNotFound): // or its time has come
		default:
			return nil, fmt.Errorf("pgstore: note %q: %w", row.id, err)
		}
	}
	return notes, nil
}

// afterPrefix returns the first bytes after all that begin with prefix, nil if
// there are none.
func afterPrefix(prefix string) []byte {
	end := []byte(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 {
		return nil
	}
	end[len(end)-1]++
	return end
}

// openNote opens a note and checks that it is the one asked for. One that is to
// be forgotten is ErrNotFound. Damage is logged once.
func (s *Store) openNote(ctx context.Context, id string, was stored) (n tokenstore.Note, err error) {
	if err := was.orNotFound(); err != nil {
		return n, err
	}
	with := s.sealer.now.Load()
	n, err = with.codec.OpenNote(was.sealed, with.data(tokenstore.KindNote, id, was.revision))
	switch {
	case err != nil:
		err = s.cantOpen(ctx, was.sealed, err)
	case n.ID != id || n.Revision != was.revision:
		err = fmt.Errorf("%w: it is another note", tokenstore.ErrCorrupt)
	case n.Forgotten(time.Now()):
		err = tokenstore.ErrNotFound
	}
	if errors.Is(err, tokenstore.ErrCorrupt) && s.damage.set("note "+id, true) {
		s.log.Error("note is damaged", zap.String("error_code", "store_corrupt"), zap.String("note_id", id), zap.Error(err))
	}
	if err != nil {
		return tokenstore.Note{}, err
	}
	return n, nil
}
