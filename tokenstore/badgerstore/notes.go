package badgerstore

import (
	"context"
	"errors"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Note implements tokenstore.Store.
func (s *Store) Note(context.Context, string) (tokenstore.Note, error) {
	return tokenstore.Note{}, errors.ErrUnsupported
}

// UpdateNote implements tokenstore.Store.
func (s *Store) UpdateNote(context.Context, string, func(*tokenstore.Note) error) (tokenstore.Note, error) {
	return tokenstore.Note{}, errors.ErrUnsupported
}

// DeleteNote implements tokenstore.Store.
func (s *Store) DeleteNote(context.Context, string) error { return errors.ErrUnsupported }

// ListNotes implements tokenstore.Store.
func (s *Store) ListNotes(context.Context, string) ([]tokenstore.Note, error) {
	return nil, errors.ErrUnsupported
}

// NewestConnection implements tokenstore.Store.
func (s *Store) NewestConnection(context.Context, tokenstore.Filter) (tokenstore.Connection, error) {
	return tokenstore.Connection{}, errors.ErrUnsupported
}
