package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// readCommitted is enough under the lock of the head's row. Where more is the
// default, who writes events all the time would have it begin again and again.
var readCommitted = pgx.TxOptions{IsoLevel: pgx.ReadCommitted}

// maxNumbered is how many events get their numbers in one transaction.
const maxNumbered = 1000

// eventRange says which events there are, by their numbers: none if newest is
// less than oldest.
type eventRange struct{ oldest, newest uint64 }

// newEvent is an event that has no number yet, as it is stored.
type newEvent struct{ id, sealed []byte }

// numbered gives numbers to the events that have none, and returns which events
// there are then.
func (s *Store) numbered(ctx context.Context) (head eventRange, err error) {
	var more bool
	err = s.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `select oldest, newest, exists (select 1 from lanyard_events_new) from lanyard_log where one = 1`).
			Scan(&head.oldest, &head.newest, &more)
	})
	for err == nil && more {
		var events []newEvent
		err = s.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			return pgx.BeginTxFunc(ctx, conn, readCommitted, func(tx pgx.Tx) (err error) {
				head, events, err = s.numberSome(ctx, tx)
				return err
			})
		})
		more = len(events) == maxNumbered
	}
	return head, err
}

// numberSome gives the oldest events without a number the next ones, seals each
// for its number, and removes the oldest of a full log. Who else wants to do so
// waits for the head's row.
func (s *Store) numberSome(ctx context.Context, tx pgx.Tx) (head eventRange, events []newEvent, err error) {
	look := &pgx.Batch{}
	look.Queue(`select oldest, newest from lanyard_log where one = 1 for update`).QueryRow(func(row pgx.Row) error {
		return row.Scan(&head.oldest, &head.newest)
	})
	look.Queue(`select id, sealed from lanyard_events_new order by written_at, id limit $1`, maxNumbered).Query(func(rows pgx.Rows) (err error) {
		events, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e newEvent, err error) {
			err = row.Scan(&e.id, &e.sealed)
			return e, err
		})
		return err
	})
	if err = tx.SendBatch(ctx, look).Close(); err != nil || len(events) == 0 {
		return head, nil, err
	}
	var seqs []int64
	var ids, histories, sealed [][]byte
	with := s.sealer.now.Load()
	for _, e := range events {
		ids = append(ids, e.id)
		event, err := with.codec.OpenEvent(e.sealed, with.newEventData(e.id))
		if err == nil {
			event.Seq = head.newest + 1
			var b []byte
			if b, err = with.codec.SealEvent(&event, with.eventData(event.Seq)); err == nil {
				seqs, sealed = append(seqs, int64(event.Seq)), append(sealed, b) //nolint:gosec // counts events
				histories = append(histories, s.keys.history(event.ConnectionID))
			}
		}
		if err != nil {
			s.log.Error("event was lost", zap.String("error_code", "store_corrupt"), zap.Error(err))
		}
		head.newest++ // lists show in its place that one was lost
	}
	var old []int64
	for head.newest-head.oldest >= s.maxEvents {
		old = append(old, int64(head.oldest)) //nolint:gosec // as above
		head.oldest++
	}
	put := &pgx.Batch{}
	put.Queue(`insert into lanyard_events (seq, history, sealed)
		select x.seq, x.history, x.sealed from unnest($1::bigint[], $2::bytea[], $3::bytea[]) as x (seq, history, sealed)`, seqs, histories, sealed)
	put.Queue(`delete from lanyard_events_new where id = any($1::bytea[])`, ids)
	put.Queue(`delete from lanyard_events where seq = any($1::bigint[])`, old)
	put.Queue(`update lanyard_log set oldest = $1, newest = $2 where one = 1`, head.oldest, head.newest)
	return head, events, tx.SendBatch(ctx, put).Close()
}
