package pgstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// overlap is how far before its mark a look begins: what was written before the
// mark may have been seen only after it. Writes that took longer than slowWrite
// are marked anew, and what is left is for the clocks of a distributed database.
const overlap = 3 * time.Second

// selectChanges has the mark in every row, and in one that is of no connection. Where the clock was put back, or
// that of another server is behind, a look begins at what it is now.
const selectChanges = `select null::bytea, 0::bigint, false, false, now()
	union all
	select id, revision, sealed is null, relisted_at >= least($1::timestamptz, now()) - $2::bigint * interval '1 microsecond', now()
	from lanyard_connections where changed_at >= least($1::timestamptz, now()) - $2::bigint * interval '1 microsecond'`

// Changes implements tokenstore.Shared.
func (s *Store) Changes(ctx context.Context, since tokenstore.ChangeMark) ([]tokenstore.Change, tokenstore.ChangeMark, error) {
	if since == "" {
		now, err := query(ctx, s, pgx.RowTo[time.Time], `select now()`)
		if err != nil {
			return nil, "", fmt.Errorf("pgstore: looking at the clock: %w", err)
		}
		return nil, markOf(now[0]), nil
	}
	micros, err := strconv.ParseInt(string(since), 10, 64)
	if err != nil {
		return nil, since, fmt.Errorf("pgstore: %w: it is no mark", tokenstore.ErrBadCursor)
	}
	mark := since
	changes, err := query(ctx, s, func(row pgx.CollectableRow) (ch tokenstore.Change, err error) {
		var id []byte
		var now time.Time
		err = row.Scan(&id, &ch.Revision, &ch.Deleted, &ch.Relisted, &now)
		ch.ID, mark = string(id), markOf(now)
		if ch.Deleted {
			ch.Revision = 0
		}
		return ch, err
	}, selectChanges, time.UnixMicro(micros), overlap.Microseconds())
	if err != nil {
		return nil, since, fmt.Errorf("pgstore: looking for changes: %w", err)
	}
	return slices.DeleteFunc(changes, func(ch tokenstore.Change) bool { return ch.ID == "" }), mark, nil
}

func markOf(t time.Time) tokenstore.ChangeMark {
	return tokenstore.ChangeMark(strconv.FormatInt(t.UnixMicro(), 10))
}

// Revisions implements tokenstore.Shared.
func (s *Store) Revisions(ctx context.Context, ids []string) (map[string]uint64, error) {
	asked := make([][]byte, len(ids))
	for i, id := range ids {
		asked[i] = []byte(id)
	}
	revisions := make(map[string]uint64, len(ids))
	_, err := query(ctx, s, func(row pgx.CollectableRow) (struct{}, error) {
		var id []byte
		var revision uint64
		err := row.Scan(&id, &revision)
		revisions[string(id)] = revision
		return struct{}{}, err
	}, `select id, revision from lanyard_connections where id = any($1::bytea[]) and sealed is not null`, asked)
	if err != nil {
		return nil, fmt.Errorf("pgstore: reading revisions: %w", err)
	}
	return revisions, nil
}
