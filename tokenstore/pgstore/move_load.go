package pgstore

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// loader collects records of one kind, and writes them together.
type loader struct {
	s    *Store
	with *sealing
	tx   pgx.Tx

	sql    string // of the rows that wait
	cols   [][]any
	listed struct{ digests, places [][]byte }
	head   eventRange
}

const (
	loadConnections = `insert into lanyard_connections (id, revision, sealed, due, changed_at, relisted_at)
		select x.id, x.revision, x.sealed, x.due, clock_timestamp(), clock_timestamp()
		from unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bytea[]) as x (id, revision, sealed, due)`
	loadLists = `insert into lanyard_lists (digest, place)
		select x.digest, x.place from unnest($1::bytea[], $2::bytea[]) as x (digest, place)`
	loadEvents = `insert into lanyard_events (seq, history, sealed)
		select x.seq, x.history, x.sealed from unnest($1::bigint[], $2::bytea[], $3::bytea[]) as x (seq, history, sealed)`
	loadFlows = `insert into lanyard_flows (id, revision, sealed, taken, keep_until)
		select x.id, 1, x.sealed, x.taken, x.keep_until from unnest($1::bytea[], $2::bytea[], $3::boolean[], $4::timestamptz[]) as x (id, sealed, taken, keep_until)`
	loadNotes = `insert into lanyard_notes (id, revision, sealed, keep_until)
		select x.id, x.revision, x.sealed, x.keep_until from unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::timestamptz[]) as x (id, revision, sealed, keep_until)`
)

// add writes r, now or with those that come.
func (l *loader) add(ctx context.Context, r tokenstore.Record) error {
	codec := l.with.codec
	switch {
	case r.Connection != nil:
		c := r.Connection
		sealed, err := codec.SealConnection(c, l.with.data(tokenstore.KindConnection, c.ID, c.Revision))
		if err = errors.Join(err, checkID(c.ID)); err != nil {
			return err
		}
		for digest := range l.s.keys.lists(c) {
			l.listed.digests = append(l.listed.digests, []byte(digest))
			l.listed.places = append(l.listed.places, place(tokenstore.PositionOf(c)))
		}
		return l.row(ctx, loadConnections, []byte(c.ID), int64(c.Revision), sealed, dueKey(c.Due())) //nolint:gosec // counts writes
	case r.Event != nil:
		e := r.Event
		sealed, err := codec.SealEvent(e, l.with.eventData(e.Seq))
		if err != nil {
			return err
		}
		if l.head.oldest == 0 {
			l.head.oldest = e.Seq
		}
		l.head.newest = e.Seq
		return l.row(ctx, loadEvents, int64(e.Seq), l.s.keys.history(e.ConnectionID), sealed) //nolint:gosec // counts events
	case r.Flow != nil:
		sealed, err := codec.SealFlow(r.Flow, l.with.data(tokenstore.KindFlow, r.Flow.ID, 1))
		if err = errors.Join(err, checkID(r.Flow.ID)); err != nil {
			return err
		}
		return l.row(ctx, loadFlows, []byte(r.Flow.ID), sealed, r.Flow.Stage == tokenstore.FlowTaken, r.Flow.KeepUntil())
	case r.Note != nil:
		n := r.Note
		sealed, err := codec.SealNote(n, l.with.data(tokenstore.KindNote, n.ID, n.Revision))
		if err = errors.Join(err, checkID(n.ID)); err != nil {
			return err
		}
		var until *time.Time
		if !n.KeepUntil.IsZero() {
			until = &n.KeepUntil
		}
		return l.row(ctx, loadNotes, []byte(n.ID), int64(n.Revision), sealed, until) //nolint:gosec // counts writes
	}
	return l.row(ctx, loadConnections, []byte(r.Deleted), int64(1), []byte(nil), []byte(nil))
}

// row adds a row to those that wait, which are of one kind.
func (l *loader) row(ctx context.Context, sql string, values ...any) error {
	if sql != l.sql || len(l.cols[0]) >= moveBatch {
		if err := l.flush(ctx); err != nil {
			return err
		}
		l.sql, l.cols = sql, make([][]any, len(values))
	}
	for i, v := range values {
		l.cols[i] = append(l.cols[i], v)
	}
	return nil
}

func (l *loader) flush(ctx context.Context) error {
	if l.sql == "" {
		return nil
	}
	args := make([]any, len(l.cols))
	for i, col := range l.cols {
		args[i] = column(col)
	}
	_, err := l.tx.Exec(ctx, l.sql, args...)
	if err == nil && len(l.listed.digests) > 0 {
		_, err = l.tx.Exec(ctx, loadLists, l.listed.digests, l.listed.places)
		l.listed.digests, l.listed.places = nil, nil
	}
	l.sql = ""
	return err
}

// column makes of values, all of one type, what is sent as an array.
func column(values []any) any {
	switch values[0].(type) {
	case []byte:
		return typed[[]byte](values)
	case int64:
		return typed[int64](values)
	case bool:
		return typed[bool](values)
	case time.Time:
		return typed[time.Time](values)
	}
	return typed[*time.Time](values)
}

func typed[T any](values []any) []T {
	list := make([]T, len(values))
	for i, v := range values {
		list[i], _ = v.(T)
	}
	return list
}

// end writes what waits, and which events there are.
func (l *loader) end(ctx context.Context) error {
	err := l.flush(ctx)
	if err == nil && l.head.newest > 0 {
		_, err = l.tx.Exec(ctx, `update lanyard_log set oldest = $1, newest = $2 where one = 1`, l.head.oldest, l.head.newest)
	}
	return err
}
