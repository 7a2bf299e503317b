package pgstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// askFor bounds what is read, or may be done twice without harm.
	askFor = 5 * time.Second
	// writeFor bounds a write of a record with all its tries.
	writeFor = 10 * time.Second
	// againFor is for how long a database that can't be reached is tried again: it
	// may be starting, or another may be taking its place.
	againFor = 3 * time.Second
)

// The pauses between tries.
const (
	firstPause = 20 * time.Millisecond
	maxPause   = 250 * time.Millisecond
	maxLoss    = 8 * time.Millisecond
)

// tries counts the tries of one call.
type tries struct {
	began  time.Time
	n      int // pauses
	losses int
}

func newTries() *tries { return &tries{began: time.Now()} }

// again waits before the next try of what has failed so, and reports whether
// there is to be one.
func (t *tries) again(ctx context.Context, what outcome) bool {
	if what == refused || time.Since(t.began) > againFor {
		return false
	}
	return t.pause(ctx)
}

// pause waits a little longer each time, and another time than others do.
func (t *tries) pause(ctx context.Context) bool {
	wait := min(firstPause<<min(t.n, 8), maxPause)
	t.n++
	return sleep(ctx, wait/2+rand.N(wait/2)) == nil //nolint:gosec // no secret
}

// ask runs use with a connection, and again with another one where the database
// has failed: use reads, or does what may be done twice. What it returns besides
// errors of the database ends it at once.
func (s *Store) ask(ctx context.Context, use func(ctx context.Context, conn *pgx.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, askFor, errNoAnswer)
	defer cancel()
	return s.askUntil(ctx, bounded, use)
}

// askUntil is ask with a bound that is set already; ctx is the caller's.
func (s *Store) askUntil(ctx, bounded context.Context, use func(ctx context.Context, conn *pgx.Conn) error) error {
	for t := newTries(); ; {
		err := s.once(bounded, use)
		if err == nil {
			return nil
		}
		if own, ok := errors.AsType[*ownError](err); ok {
			return own.err
		}
		if bounded.Err() != nil || !t.again(bounded, outcomeOf(err)) {
			if bounded.Err() != nil && ctx.Err() == nil {
				err = context.Cause(bounded)
			}
			return explain(ctx, err)
		}
	}
}

// loss waits before the next try where another process was faster: not at all
// at first, and then for a moment, lest the same two meet again.
func (t *tries) loss(ctx context.Context) bool {
	if t.losses++; t.losses == 1 {
		return true
	}
	return sleep(ctx, rand.N(maxLoss)) == nil //nolint:gosec // no secret
}

// sleep waits for d, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// ownError is an error that is not the database's.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// once runs use with a connection of the pool. One that has failed, or leads to a
// server that takes no writes any more, does not go back to it.
func (s *Store) once(ctx context.Context, use func(ctx context.Context, conn *pgx.Conn) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return notSent(err)
	}
	defer conn.Release()
	if err = s.assure(ctx, conn.Conn()); err != nil {
		return notSent(err)
	}
	err = use(ctx, conn.Conn())
	if err != nil && outcomeOf(err) == doubtful {
		s.recent.suspect() // behind a pooler another server may answer from now on
	}
	if demoted(err) {
		_ = conn.Conn().Close(ctx)
		s.pool.Reset()
	}
	return err
}

// exec runs a statement that may be run twice, and returns how many rows it
// changed.
func (s *Store) exec(ctx context.Context, sql string, args ...any) (rows int64, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		tag, err := conn.Exec(ctx, sql, args...)
		rows = tag.RowsAffected()
		return err
	})
	return rows, err
}

// query returns the rows of a query, each as scan reads it.
func query[T any](ctx context.Context, s *Store, scan func(row pgx.CollectableRow) (T, error), sql string, args ...any) (all []T, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, scan)
		return err
	})
	return all, err
}
