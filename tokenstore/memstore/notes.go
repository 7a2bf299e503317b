package memstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Note implements tokenstore.Store.
func (s *Store) Note(ctx context.Context, id string) (tokenstore.Note, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return tokenstore.Note{}, err
	}
	n, ok := s.note(id)
	if !ok {
		return tokenstore.Note{}, fmt.Errorf("memstore: note: %w", tokenstore.ErrNotFound)
	}
	return n, nil
}

func (s *Store) note(id string) (tokenstore.Note, bool) {
	n, ok := s.notes[id]
	if !ok || n.Forgotten(time.Now()) {
		return tokenstore.Note{ID: id}, false
	}
	return n, true
}

// UpdateNote implements tokenstore.Store.
func (s *Store) UpdateNote(ctx context.Context, id string, change func(*tokenstore.Note) error) (tokenstore.Note, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return tokenstore.Note{}, err
	}
	n, _ := s.note(id)
	old := n
	switch err := change(&n); {
	case errors.Is(err, tokenstore.ErrUnchanged):
		return old, nil
	case err != nil:
		return tokenstore.Note{}, err
	case n.ID != id:
		return tokenstore.Note{}, errors.New("memstore: a note's ID can't be changed")
	}
	n.Revision = old.Revision + 1
	s.notes[id] = n
	return n, nil
}

// DeleteNote implements tokenstore.Store.
func (s *Store) DeleteNote(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return err
	}
	delete(s.notes, id)
	return nil
}

// ListNotes implements tokenstore.Store.
func (s *Store) ListNotes(ctx context.Context, prefix string) ([]tokenstore.Note, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var notes []tokenstore.Note
	for _, id := range slices.Sorted(maps.Keys(s.notes)) {
		if n, ok := s.note(id); ok && strings.HasPrefix(id, prefix) {
			notes = append(notes, n)
		}
	}
	return notes, nil
}

// NewestConnection implements tokenstore.Store.
func (s *Store) NewestConnection(ctx context.Context, f tokenstore.Filter) (tokenstore.Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return tokenstore.Connection{}, err
	}
	var newest *tokenstore.Connection
	for _, c := range s.connections {
		if f.Matches(&c) && (newest == nil || tokenstore.PositionOf(newest).Compare(tokenstore.PositionOf(&c)) < 0) {
			newest = &c
		}
	}
	if newest == nil {
		return tokenstore.Connection{}, fmt.Errorf("memstore: newest connection: %w", tokenstore.ErrNotFound)
	}
	return newest.Clone(), nil
}
