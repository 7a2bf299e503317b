package pgstore

import (
	"context"
	"time"
)

// SetMaxEvents makes the log keep n events.
func (s *Store) SetMaxEvents(n uint64) { s.maxEvents = n }

// SetSettle sets for how long a rekey waits for writes under way.
func (s *Store) SetSettle(d time.Duration) { s.settle = d }

// Forget removes at once what is past its time.
func (s *Store) Forget(ctx context.Context) error { return s.forget(ctx) }

// Touch does what follows a write that took so long.
func (s *Store) Touch(ctx context.Context, id string, took time.Duration) {
	s.touch(ctx, id, took, touchConnection)
}

// NotSent says of an error that there was no connection.
func NotSent(err error) error { return notSent(err) }

// Outcome returns what is known of a statement, and what its caller is told.
func Outcome(ctx context.Context, err error) (string, error) {
	return map[outcome]string{refused: "refused", notDone: "not done", doubtful: "in doubt"}[outcomeOf(err)], explain(ctx, err)
}

// CountBy has connections counted so many at a time until the test's end.
func CountBy(n int) (restore func()) {
	before := countSlice
	countSlice = n
	return func() { countSlice = before }
}
