package pgstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// stored is a record's row as it was read.
type stored struct {
	revision uint64 // 0: there is no row
	sealed   []byte // nil of a connection that was deleted
}

// attempt is what is to take the place of a row, and its outcome for the caller.
type attempt[T any] struct {
	result T
	after  stored     // the row once it is done, by which it is known again
	write  *statement // nil: all is to stay as it is
}

// record is one record that is to be replaced.
type record[T any] struct {
	key   string // whoever replaces the same one has the same
	make  bool   // it is to be made, and need not be looked for first
	read  func(ctx context.Context) (stored, error)
	wrote func(after stored) // may be nil
	// unsure is told that it ends without knowing whether it has written. May be nil.
	unsure func()
	// work finds out what takes the place of a row. It runs again if another was
	// faster. Its error ends it.
	work func(ctx context.Context, was stored) (attempt[T], error)
}

func (r *record[T]) note(after stored) {
	if r.wrote != nil {
		r.wrote(after)
	}
}

// slowWrite is how long a write may take that is seen in Changes in time.
const slowWrite = time.Second

// replace replaces a record, on the condition that it is still as it was read:
// two round trips if nobody else writes it. Those of this process wait for one
// another, so that it is other processes alone by whom a try can be lost.
//
// A write that is in doubt is looked for: if the row is not as it would have left
// it, nor as it was, it is tried on what is there. done says how long the last
// statement took.
func replace[T any](ctx context.Context, s *Store, r record[T]) (result T, done time.Duration, err error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, 0, err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, writeFor, errNoAnswer)
	defer cancel()
	leave, err := s.turns.wait(bounded, r.key)
	if err != nil {
		return none, 0, endOf(ctx, bounded)
	}
	defer leave()
	var was stored
	var doubts []attempt[T]
	defer func() {
		if err != nil && len(doubts) > 0 && r.unsure != nil {
			r.unsure()
		}
	}()
	began := time.Now()
	for t := newTries(); ; r.make = false {
		if !r.make {
			if was, err = r.read(bounded); err != nil {
				return none, 0, explainBounded(ctx, bounded, err)
			}
		}
		for _, a := range doubts {
			if a.after.revision == was.revision && bytes.Equal(a.after.sealed, was.sealed) {
				r.note(a.after)
				return a.result, time.Since(began), nil
			}
		}
		a, err := r.work(bounded, was)
		if err != nil || a.write == nil {
			return a.result, 0, err
		}
		sent := time.Now()
		found, err := s.commit(bounded, a.write)
		if err == nil && found {
			r.note(a.after)
			return a.result, time.Since(sent), nil
		}
		var again bool
		if err == nil { // another was faster
			again = t.loss(bounded)
		} else {
			what := outcomeOf(err)
			if what == doubtful {
				doubts = append(doubts, a)
			}
			again = t.again(bounded, what)
		}
		if !again {
			return none, 0, explainBounded(ctx, bounded, err)
		}
	}
}

// endOf returns why bounded has ended, of which ctx is the caller's.
func endOf(ctx, bounded context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return context.Cause(bounded)
}

func explainBounded(ctx, bounded context.Context, err error) error {
	if bounded.Err() != nil {
		return endOf(ctx, bounded)
	}
	return explain(ctx, err)
}

// statement is one SQL statement that is built from parts.
type statement struct {
	sql  strings.Builder
	args []any
	// then is a second one, for the same transaction, if the first found its row.
	then *statement
}

// arg returns the place of an argument in the statement.
func (q *statement) arg(v any) string {
	q.args = append(q.args, v)
	return "$" + strconv.Itoa(len(q.args))
}

// add appends text, in which each question mark is the place of an argument.
func (q *statement) add(text string, args ...any) *statement {
	for _, arg := range args {
		before, after, _ := strings.Cut(text, "?")
		q.sql.WriteString(before)
		q.sql.WriteString(q.arg(arg))
		text = after
	}
	q.sql.WriteString(text)
	return q
}

// write begins a statement that changes one row, and no other if it does not find
// that; change ends with what it returns of it.
func write(change string, args ...any) *statement {
	return new(statement).add(`with done as (`).add(change, args...).add(` returning 1)`)
}

// tell adds events to what is written.
func (q *statement) tell(ids, sealed [][]byte) {
	if len(ids) > 0 {
		q.add(`, told as (insert into lanyard_events_new (id, written_at, sealed)
			select x.id, now(), x.sealed from unnest(?::bytea[], ?::bytea[]) as x (id, sealed) where exists (select 1 from done))`, ids, sealed)
	}
}

// commit runs what write has begun, and reports whether it found its row.
func (s *Store) commit(ctx context.Context, q *statement) (found bool, err error) {
	err = s.once(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		found, err = commitOn(ctx, conn, q)
		return err
	})
	return found, err
}

func commitOn(ctx context.Context, conn *pgx.Conn, q *statement) (found bool, err error) {
	sql := q.sql.String() + ` select count(*) from done`
	var rows int
	if q.then == nil {
		err = conn.QueryRow(ctx, sql, q.args...).Scan(&rows)
		return rows > 0, err
	}
	committing := false
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, sql, q.args...).Scan(&rows); err != nil || rows == 0 {
			return err
		}
		_, err := tx.Exec(ctx, q.then.sql.String(), q.then.args...)
		committing = err == nil
		return err
	})
	if committing && err != nil {
		err = &commitError{err}
	}
	return rows > 0, err
}

// row reads the revision and the sealed bytes of a row, a zero one if there is
// none.
func (s *Store) row(ctx context.Context, sql, id string) (was stored, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		was = stored{}
		err := conn.QueryRow(ctx, sql, []byte(id)).Scan(&was.revision, &was.sealed)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return was, err
}

// turns lets those of this process who write the same record wait for one another.
type turns struct {
	places [256]chan struct{} // nil until Open
}

var turnSeed = maphash.MakeSeed()

func newTurns() (t turns) {
	for i := range t.places {
		t.places[i] = make(chan struct{}, 1)
	}
	return t
}

// wait returns when it is the caller's turn, who then has to call leave.
func (t *turns) wait(ctx context.Context, key string) (leave func(), err error) {
	place := t.places[maphash.String(turnSeed, key)%uint64(len(t.places))]
	select {
	case place <- struct{}{}:
		return func() { <-place }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// maxIDLen is as in the other engine.
const maxIDLen = 512

func checkID(id string) error {
	if id == "" || len(id) > maxIDLen {
		return fmt.Errorf("an ID has 1 to %d bytes, not %d", maxIDLen, len(id))
	}
	return nil
}

var errNewID = errors.New("an ID can't be changed")

// orNotFound returns ErrNotFound if there is no record in the row.
func (was stored) orNotFound() error {
	if was.sealed == nil {
		return tokenstore.ErrNotFound
	}
	return nil
}
