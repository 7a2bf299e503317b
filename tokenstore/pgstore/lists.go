package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// firstChunk is how many places of one list are read at least where there are
	// others to be in, maxChunk how many at most, and maxPassed how many a page
	// passes over at most.
	firstChunk = 64
	maxChunk   = 1024
	maxPassed  = 2048
)

// What a list has at its next places: the records of those that are in the other
// lists too. Each is looked up by itself, whatever the database believes of how
// many there are.
const (
	selectListed = `select l.place, c.revision, c.sealed from
		(select place from lanyard_lists where digest = $1 and place > $2 order by place limit $3) l`
	selectListedLast = `select l.place, c.revision, c.sealed from
		(select place from lanyard_lists where digest = $1 and place < $2 order by place desc limit $3) l`
	lookUpListed = ` left join lateral (select revision, sealed from lanyard_connections where id = substr(l.place, 13)`
	alsoListed   = ` and (select count(*) from lanyard_lists o where o.place = l.place and o.digest = any($4::bytea[])) = $5`
	endLookUp    = ` limit 1) c on true`
	// countListed tells which list is short.
	countListed = `select x.n, (select count(*) from (select 1 from lanyard_lists where digest = x.digest and place > $2 limit 1024) y)
		from unnest($1::bytea[], $3::int[]) as x (digest, n)`
)

// lastPlace is after every place.
var lastPlace = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// place of a list, and the record that belongs there if all lists have it.
type listedRow struct {
	place  []byte
	stored stored
}

// walk goes through the places that several lists have in common: those of the
// shortest, each of which is looked for in the others.
type walk struct {
	s       *Store
	digests [][]byte // the shortest list's first
	reverse bool
	at      []byte // the last place that was looked at
	chunk   int
	ended   bool
}

func (s *Store) newWalk(ctx context.Context, f tokenstore.Filter, after []byte, reverse bool, chunk int) (*walk, error) {
	w := &walk{s: s, digests: s.keys.filter(f), reverse: reverse, at: after, chunk: chunk}
	if len(w.digests) == 1 {
		return w, nil
	}
	w.chunk = min(max(chunk, firstChunk), maxChunk)
	from := after
	if reverse {
		from = []byte{}
	}
	numbers := make([]int32, len(w.digests))
	for i := range numbers {
		numbers[i] = int32(i)
	}
	counts, err := query(ctx, s, pgx.RowToStructByPos[struct{ N, Places int }], countListed, w.digests, from, numbers)
	shortest := 0
	for _, c := range counts {
		if c.Places < counts[shortest].Places {
			shortest = c.N
		}
	}
	w.digests[0], w.digests[shortest] = w.digests[shortest], w.digests[0]
	return w, err
}

// next returns the next places, with the records of those that all lists have. It
// returns none at the end.
func (w *walk) next(ctx context.Context) ([]listedRow, error) {
	if w.ended {
		return nil, nil
	}
	sql, order := selectListed, ` order by l.place`
	if w.reverse {
		sql, order = selectListedLast, ` order by l.place desc`
	}
	sql += lookUpListed
	args := []any{w.digests[0], w.at, w.chunk}
	if others := w.digests[1:]; len(others) > 0 {
		sql += alsoListed
		args = append(args, others, len(others))
	}
	rows, err := query(ctx, w.s, func(row pgx.CollectableRow) (l listedRow, err error) {
		var revision *uint64
		err = row.Scan(&l.place, &revision, &l.stored.sealed)
		if revision != nil {
			l.stored.revision = *revision
		}
		return l, err
	}, sql+endLookUp+order, args...)
	if err != nil {
		return nil, err
	}
	w.ended = len(rows) < w.chunk
	if len(rows) > 0 {
		w.at = rows[len(rows)-1].place
	}
	if len(w.digests) > 1 {
		w.chunk = min(2*w.chunk, maxChunk)
	}
	return rows, nil
}

// ListConnections implements tokenstore.Store. Each filter without labels has a
// list of its own, and so has each label: a page costs the reading of what is on
// it, and where several lists are needed, a look at no more than some thousand
// places of the shortest.
func (s *Store) ListConnections(
	ctx context.Context, f tokenstore.Filter, cursor string, limit int,
) (page []tokenstore.Connection, next string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if limit < 1 {
		return nil, "", errors.New("pgstore: limit of a list is less than 1")
	}
	after := []byte{}
	if cursor != "" {
		p, err := tokenstore.ParseCursor(cursor)
		if err != nil {
			return nil, "", fmt.Errorf("pgstore: listing connections: %w", err)
		}
		after = place(p)
	}
	if page, next, err = s.listPage(ctx, f, after, limit); err != nil {
		return nil, "", fmt.Errorf("pgstore: listing connections: %w", err)
	}
	return page, next, nil
}

func (s *Store) listPage(
	ctx context.Context, f tokenstore.Filter, after []byte, limit int,
) (page []tokenstore.Connection, next string, err error) {
	limit = min(limit, 1<<20)
	w, err := s.newWalk(ctx, f, after, false, limit+1)
	if err != nil {
		return nil, "", err
	}
	for passed := 0; ; {
		rows, err := w.next(ctx)
		if err != nil || len(rows) == 0 {
			return page, "", err
		}
		for _, row := range rows {
			if row.stored.sealed == nil { // not in all lists, or deleted
				passed++
				continue
			}
			if len(page) == limit { // and there is one more
				return page, tokenstore.PositionOf(&page[limit-1]).Cursor(), nil
			}
			c, err := s.listed(ctx, f, row)
			if err != nil {
				return nil, "", err
			}
			page = append(page, c)
		}
		if passed > maxPassed && !w.ended {
			return page, positionOf(w.at).Cursor(), nil
		}
	}
}

// listed opens what f's lists lead to. What can't be opened is Damaged.
func (s *Store) listed(ctx context.Context, f tokenstore.Filter, row listedRow) (tokenstore.Connection, error) {
	p := positionOf(row.place)
	c, err := s.openConnection(ctx, p.ID, row.stored)
	if err == nil && !f.Matches(&c) {
		err = fmt.Errorf("%w: a list leads to another record", tokenstore.ErrCorrupt)
		s.noteDamage(p.ID, err)
	}
	switch {
	case errors.Is(err, tokenstore.ErrCorrupt):
		return tokenstore.Connection{ID: p.ID, CreatedAt: p.CreatedAt, Damaged: true}, nil
	case err != nil:
		return c, fmt.Errorf("connection %q: %w", p.ID, err)
	}
	return c, nil
}

// NewestConnection implements tokenstore.Store.
func (s *Store) NewestConnection(ctx context.Context, f tokenstore.Filter) (tokenstore.Connection, error) {
	c, err := s.newest(ctx, f)
	if err == nil && c.Damaged {
		err = fmt.Errorf("%w: connection %q", tokenstore.ErrCorrupt, c.ID)
	}
	if err != nil {
		return tokenstore.Connection{}, fmt.Errorf("pgstore: finding the newest connection: %w", err)
	}
	return c, nil
}

func (s *Store) newest(ctx context.Context, f tokenstore.Filter) (c tokenstore.Connection, err error) {
	w, err := s.newWalk(ctx, f, lastPlace, true, 1)
	if err != nil {
		return c, err
	}
	for {
		rows, err := w.next(ctx)
		if err == nil && len(rows) == 0 {
			err = tokenstore.ErrNotFound
		}
		if err != nil {
			return c, err
		}
		for _, row := range rows {
			if row.stored.sealed != nil {
				return s.listed(ctx, f, row)
			}
		}
	}
}
