package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Freeze has the store take no more writes until Thaw: they are refused with
// tokenstore.ErrReadOnly. What was given to it before is written when it returns.
func (s *Store) Freeze(ctx context.Context) error {
	s.frozen.Store(true)
	// The committer takes writes in their order: what came before has an answer
	// when this one has its own.
	err := s.submit(ctx, &job{last: true, run: func(*write) error { return tokenstore.ErrUnchanged }, done: make(chan error, 1)})
	if err != nil && !errors.Is(err, tokenstore.ErrUnchanged) {
		return fmt.Errorf("badgerstore: waiting for the last writes: %w", err)
	}
	return nil
}

// Thaw has it take writes again. A store that was moved takes none, which is
// tokenstore.ErrMoved.
func (s *Store) Thaw() error {
	if _, id := s.sealing(); id.MovedTo != "" {
		return fmt.Errorf("badgerstore: %w to %s", tokenstore.ErrMoved, id.MovedTo)
	}
	s.frozen.Store(false)
	return nil
}

// Frozen reports whether it takes no writes.
func (s *Store) Frozen() bool { return s.frozen.Load() }

// Moved notes that what was in the store is elsewhere now, as `to` says in a
// word or two without a secret: it takes no writes any more, and does not open
// again before Unmove. It has to be frozen.
func (s *Store) Moved(to string) error {
	err := s.changeSealing(func(now *sealing) error {
		if !s.frozen.Load() {
			return errors.New("it takes writes: freeze it first")
		}
		now.id.MovedTo = to
		return writeIdentity(s.dir, now.id)
	})
	if err != nil {
		return fmt.Errorf("badgerstore: marking the store as moved: %w", err)
	}
	return nil
}

// Unmove takes back that the store in dir was moved, and returns where to. The
// caller has to know that nothing else has what was in it: refresh tokens that
// were used there are spent here.
func Unmove(dir string, cfg RestoreConfig) (from string, err error) {
	_, err = locked(dir, cfg, func(dir string) (Restored, error) {
		id, err := readIdentity(dir)
		if err == nil && id.MovedTo != "" {
			from, id.MovedTo = id.MovedTo, ""
			err = writeIdentity(dir, id)
		}
		return Restored{}, err
	})
	if err != nil {
		return "", fmt.Errorf("badgerstore: %w", err)
	}
	return from, nil
}

// checkMoved refuses a store that was moved.
func (id identity) checkMoved(dir string) error {
	if id.Loading {
		return fmt.Errorf("%w: run `caddy lanyard migrate` again", tokenstore.ErrLoading)
	}
	if id.MovedTo == "" {
		return nil
	}
	return fmt.Errorf("%w to %s, so that what is in %s may be old (nothing was changed): configure that one, "+
		"or, if what is there is not in use, take this one back with `caddy lanyard migrate --undo --data %s`",
		tokenstore.ErrMoved, id.MovedTo, filepath.Join(dir, badgerDir), dir)
}
