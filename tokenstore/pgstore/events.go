package pgstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Events are written without a number, so that no write waits for another. Who
// lists them gives those their numbers that have none yet: one at a time, under
// the lock of the row that says which there are (number.go).

const (
	// maxAppend is how many events are one write.
	maxAppend = 128
	// eventRevision is every event's: none is ever changed.
	eventRevision = 1
	newIDLen      = 16
	insertEvents  = `insert into lanyard_events_new (id, written_at, sealed)
		select x.id, now(), x.sealed from unnest($1::bytea[], $2::bytea[]) as x (id, sealed) on conflict (id) do nothing`
)

func (with *sealing) eventData(seq uint64) []byte {
	return with.data(tokenstore.KindEvent, strconv.FormatUint(seq, 10), eventRevision)
}

// newEventData is the associated data of an event without a number.
func (with *sealing) newEventData(id []byte) []byte {
	return with.data(tokenstore.KindEvent, "new/"+hex.EncodeToString(id), eventRevision)
}

// sealEvents seals events that have no number yet, under IDs of their own that
// sort as they do.
func sealEvents(with *sealing, events []tokenstore.Event, lost func(e *tokenstore.Event, err error)) (ids, sealed [][]byte) {
	id := make([]byte, newIDLen)
	_, _ = rand.Read(id) // never fails
	for i, e := range events {
		id = binary.BigEndian.AppendUint32(slices.Clone(id[:newIDLen-4]), uint32(i))
		if e.At.IsZero() {
			e.At = time.Now().UTC().Round(0)
		}
		e.Seq = 0
		b, err := with.codec.SealEvent(&e, with.newEventData(id))
		if err != nil {
			lost(&e, err)
			continue
		}
		ids, sealed = append(ids, id), append(sealed, b)
	}
	return ids, sealed
}

// sealNews seals the news of a record's change. One that can't be sealed is left
// out: the change, which may be all that is left of a token, is worth more.
func (s *Store) sealNews(with *sealing, news []tokenstore.Event) (ids, sealed [][]byte) {
	if len(news) == 0 {
		return nil, nil
	}
	return sealEvents(with, news, func(e *tokenstore.Event, err error) {
		s.log.Error("event was lost", zap.String("event", string(e.Type)), connectionField(e.ConnectionID), zap.Error(err))
	})
}

func connectionField(id string) zap.Field { return zap.String("connection_id", id) }
func errorField(err error) zap.Field      { return zap.Error(err) }

// AppendEvents implements tokenstore.Store. Where a write was in doubt, an event
// may be in the log twice.
func (s *Store) AppendEvents(ctx context.Context, events ...tokenstore.Event) error {
	if len(events) == 0 {
		return ctx.Err()
	}
	for some := range slices.Chunk(events, maxAppend) {
		var err error
		ids, sealed := sealEvents(s.sealer.now.Load(), some, func(_ *tokenstore.Event, failed error) { err = failed })
		if err == nil {
			_, err = s.exec(ctx, insertEvents, ids, sealed)
		}
		if err != nil {
			return fmt.Errorf("pgstore: appending events: %w", err)
		}
	}
	return nil
}

// eventRow is an event with its number, as it is stored.
type eventRow struct {
	seq    uint64
	sealed []byte // nil if it is not there
}

func scanEvent(row pgx.CollectableRow) (e eventRow, err error) {
	err = row.Scan(&e.seq, &e.sealed)
	return e, err
}

// ListEvents implements tokenstore.Store. A cursor beyond the newest event is no
// cursor of this log: it was put back to what it was before.
func (s *Store) ListEvents(
	ctx context.Context, f tokenstore.EventFilter, cursor string, limit int,
) (page []tokenstore.Event, next string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if limit < 1 {
		return nil, "", errors.New("pgstore: limit of a list is less than 1")
	}
	after, err := tokenstore.ParseEventCursor(cursor)
	if err == nil {
		page, err = s.listEvents(ctx, f, after, limit)
	}
	if err != nil {
		return nil, "", fmt.Errorf("pgstore: listing events: %w", err)
	}
	switch {
	case f.NewestFirst && len(page) < limit:
		cursor = ""
	case len(page) > 0:
		cursor = tokenstore.EventCursor(page[len(page)-1].Seq)
	}
	return page, cursor, nil
}

func (s *Store) listEvents(ctx context.Context, f tokenstore.EventFilter, after uint64, limit int) (page []tokenstore.Event, err error) {
	head, err := s.numbered(ctx)
	if err != nil {
		return nil, err
	}
	if after > head.newest {
		return nil, fmt.Errorf("%w: it is beyond the newest event", tokenstore.ErrBadCursor)
	}
	first, last := max(after+1, head.oldest), head.newest
	if f.NewestFirst {
		first = head.oldest
		if after != 0 {
			last = after - 1
		}
	}
	if first > last {
		return nil, nil
	}
	rows, err := s.eventRows(ctx, f, first, last, limit)
	for _, row := range rows {
		e, err := s.listedEvent(ctx, f, row)
		if err != nil {
			return nil, err
		}
		page = append(page, e)
	}
	return page, err
}

// eventRows returns the rows of a page of the events from first to last. In a
// list of all there is one for each number, whether it is there or not.
func (s *Store) eventRows(ctx context.Context, f tokenstore.EventFilter, first, last uint64, limit int) ([]eventRow, error) {
	order := ""
	if f.NewestFirst {
		order = " desc"
	}
	if f.ConnectionID != "" {
		return query(ctx, s, scanEvent, `select seq, sealed from lanyard_events where history = $1 and seq between $2 and $3
			order by seq`+order+` limit $4`, s.keys.history(f.ConnectionID), first, last, limit)
	}
	if n := uint64(limit); last-first >= n { //nolint:gosec // at least 1
		if f.NewestFirst {
			first = last - n + 1
		} else {
			last = first + n - 1
		}
	}
	// Each number by itself: where rows are spread by a hash of it, there is no range.
	seqs := make([]int64, 0, last-first+1)
	for seq := first; seq <= last; seq++ {
		seqs = append(seqs, int64(seq)) //nolint:gosec // counts events
	}
	found, err := query(ctx, s, scanEvent, `select seq, sealed from lanyard_events where seq = any($1::bigint[])`, seqs)
	if err != nil {
		return nil, err
	}
	rows := make([]eventRow, len(seqs))
	for i := range rows {
		rows[i].seq = first + uint64(i)
	}
	for _, row := range found {
		rows[row.seq-first] = row
	}
	if f.NewestFirst {
		slices.Reverse(rows)
	}
	return rows, nil
}

// listedEvent returns what a list shows: an event that is not there, doesn't open
// or is another connection's is EventLost.
func (s *Store) listedEvent(ctx context.Context, f tokenstore.EventFilter, row eventRow) (tokenstore.Event, error) {
	with := s.sealer.now.Load()
	e, err := with.codec.OpenEvent(row.sealed, with.eventData(row.seq))
	switch {
	case err == nil && e.Seq == row.seq && (f.ConnectionID == "" || f.ConnectionID == e.ConnectionID):
		return e, nil
	case err != nil:
		if err = s.cantOpen(ctx, row.sealed, err); errors.Is(err, tokenstore.ErrUnavailable) {
			return e, err
		}
	}
	if s.damage.set("event "+strconv.FormatUint(row.seq, 10), true) {
		s.log.Error("event is damaged", zap.String("error_code", "store_corrupt"), zap.Uint64("seq", row.seq), zap.Error(err))
	}
	return tokenstore.Event{Seq: row.seq, Type: tokenstore.EventLost, ConnectionID: f.ConnectionID}, nil
}
