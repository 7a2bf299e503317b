package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var (
	_ tokenstore.Counter = (*Store)(nil)
	_ tokenstore.Pooler  = (*Store)(nil)
	_ tokenstore.Sizer   = (*Store)(nil)
)

// countSlice is how many rows are counted in one statement: some milliseconds.
// Tests lower it.
var countSlice = 50_000

// countPlaces counts so many places of a list at most, and returns the last of
// them if there may be more.
const countPlaces = `select
	(select count(*) from (select 1 from lanyard_lists where digest = $1 and place > $2 limit $3) x),
	(select place from lanyard_lists where digest = $1 and place > $2 order by place offset $3 - 1 limit 1)`

// CountConnections implements tokenstore.Counter: each integration with each
// status is a list, of which nothing but an index is read. Half of the time it
// rests.
func (s *Store) CountConnections(ctx context.Context, integrations []string) ([]tokenstore.Count, error) {
	var counts []tokenstore.Count
	for _, status := range tokenstore.Statuses {
		others, err := s.countList(ctx, tokenstore.Filter{Status: status})
		for i := 0; i < len(integrations) && others != 0 && err == nil; i++ {
			var n int
			if n, err = s.countList(ctx, tokenstore.Filter{Integration: integrations[i], Status: status}); n > 0 {
				counts = append(counts, tokenstore.Count{Integration: integrations[i], Status: status, N: n})
				others -= n
			}
		}
		if err != nil {
			return nil, fmt.Errorf("pgstore: counting connections: %w", err)
		}
		if others > 0 {
			counts = append(counts, tokenstore.Count{Status: status, N: others})
		}
	}
	return counts, nil
}

// countList counts what f shows.
func (s *Store) countList(ctx context.Context, f tokenstore.Filter) (n int, err error) {
	digest := s.keys.list(f)
	for from := []byte{}; ; {
		began := time.Now()
		counted, err := query(ctx, s, pgx.RowToStructByPos[struct {
			N    int
			Last []byte
		}], countPlaces, digest, from, int64(countSlice))
		if err != nil {
			return 0, err
		}
		n += counted[0].N
		if from = counted[0].Last; from == nil { // nearly always
			return n, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Since(began)):
		}
	}
}

// Pool implements tokenstore.Pooler.
func (s *Store) Pool() tokenstore.Pool {
	st := s.pool.Stat()
	return tokenstore.Pool{InUse: int(st.AcquiredConns()), Idle: int(st.IdleConns()), Max: int(st.MaxConns())}
}

// Size implements tokenstore.Sizer, as PostgreSQL counts: tables, indexes and what
// is dead in them. A database that only speaks its protocol may refuse.
func (s *Store) Size(ctx context.Context) (int64, error) {
	sizes, err := query(ctx, s, pgx.RowTo[int64], `select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
		from pg_class c where c.relkind = 'r' and c.relname like 'lanyard\_%' and pg_table_is_visible(c.oid)`)
	if err != nil {
		return 0, fmt.Errorf("pgstore: measuring the store: %w", err)
	}
	return sizes[0], nil
}
