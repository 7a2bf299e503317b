package pgstore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// moveBatch is how many records are written or read at a time.
const moveBatch = 500

// The tables that a load fills, but the identity's.
const emptyStore = `delete from lanyard_connections; delete from lanyard_lists; delete from lanyard_flows; delete from lanyard_notes;
	delete from lanyard_events; delete from lanyard_events_new; delete from lanyard_leases;
	update lanyard_log set oldest = 1, newest = 0 where one = 1`

// Load takes records in, which keep their revisions, times and places in the log,
// in one transaction; check is then called with what is there, and its error
// undoes all. The store does not open after that until EndLoad: what was there
// before is in force until then. The database has to be without a store, or with
// an empty one, or with one that a Load has left.
//
// Errors wrap tokenstore.ErrNotEmpty or ErrUnavailable; one of records ends it.
func Load(
	ctx context.Context, dsn secret.String, cfg Config,
	records iter.Seq2[tokenstore.Record, error], check func(iter.Seq2[tokenstore.Record, error]) error,
) error {
	s, err := open(ctx, dsn, cfg, true)
	if err != nil {
		return fmt.Errorf("pgstore: loading: %w", err)
	}
	defer func() { _ = s.Close() }()
	err = s.once(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if err := beginLoad(ctx, tx); err != nil {
				return err
			}
			l := loader{s: s, with: s.sealer.now.Load(), tx: tx}
			for r, err := range records {
				if err == nil {
					err = l.add(ctx, r)
				}
				if err != nil {
					return err
				}
			}
			if err := l.end(ctx); err != nil {
				return err
			}
			return check(s.records(ctx, tx))
		})
	})
	if err != nil {
		return fmt.Errorf("pgstore: loading: %w", explain(ctx, err))
	}
	return nil
}

// beginLoad makes sure that nobody has or makes anything in the store.
func beginLoad(ctx context.Context, tx pgx.Tx) error {
	// One at a time, and nobody numbers events meanwhile.
	if _, err := tx.Exec(ctx, `select 1 from lanyard_log where one = 1 for update`); err != nil {
		return err
	}
	var loading, some bool
	err := tx.QueryRow(ctx, `select exists (select 1 from lanyard_move where one = 1 and state = 'loading'),
		exists (select 1 from lanyard_connections) or exists (select 1 from lanyard_flows) or exists (select 1 from lanyard_events)
		or exists (select 1 from lanyard_events_new) or exists (select 1 from lanyard_notes)`).Scan(&loading, &some)
	switch {
	case err != nil:
		return err
	case some && !loading:
		return tokenstore.ErrNotEmpty
	}
	// Without arguments, so that they are one message.
	if _, err := tx.Conn().PgConn().Exec(ctx, emptyStore).ReadAll(); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `insert into lanyard_move (one, state, token, place, until) values (1, 'loading', '', '', clock_timestamp())
		on conflict (one) do nothing`)
	return err
}

// EndLoad puts what Load has taken in in force.
func EndLoad(ctx context.Context, dsn secret.String) error { return endLoad(ctx, dsn, "") }

// DropLoad removes what Load has taken in, if it is not in force.
func DropLoad(ctx context.Context, dsn secret.String) error { return endLoad(ctx, dsn, emptyStore) }

func endLoad(ctx context.Context, dsn secret.String, first string) error {
	pool, err := newPool(ctx, dsn, nil)
	if err != nil {
		return fmt.Errorf("pgstore: %w", err)
	}
	defer pool.Close()
	s := &Store{pool: pool}
	err = s.alter(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `delete from lanyard_move where one = 1 and state = 'loading'`)
		if err == nil && tag.RowsAffected() > 0 && first != "" {
			_, err = tx.Conn().PgConn().Exec(ctx, first).ReadAll()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("pgstore: ending a load: %w", err)
	}
	return nil
}

// Loading reports whether a Load has left a store in the database that is not in
// force yet.
func Loading(ctx context.Context, dsn secret.String) (bool, error) {
	pool, err := newPool(ctx, dsn, nil)
	if err != nil {
		return false, fmt.Errorf("pgstore: %w", err)
	}
	defer pool.Close()
	s := &Store{pool: pool}
	v, err := s.schemaVersion(ctx)
	if err != nil || v.newest == 0 {
		return false, err
	}
	m, err := s.move(ctx)
	return m.state == moveLoading, err
}

// Records returns what is in the store, which has to be frozen: events that have
// no number yet get theirs first. A connection that can't be opened is
// tokenstore.ErrCorrupt and ends it; an event that can't stands as an EventLost;
// flows and notes that can't, or whose time has come, are left out.
func (s *Store) Records(ctx context.Context) iter.Seq2[tokenstore.Record, error] {
	return func(yield func(tokenstore.Record, error) bool) {
		_, err := s.numbered(ctx)
		if err == nil {
			err = s.once(ctx, func(ctx context.Context, conn *pgx.Conn) error {
				for r, err := range s.records(ctx, conn) {
					if err != nil {
						return err
					}
					if !yield(r, nil) {
						yield = nil
						return nil
					}
				}
				return nil
			})
		}
		if err != nil && yield != nil {
			yield(tokenstore.Record{}, fmt.Errorf("pgstore: reading everything: %w", explain(ctx, err)))
		}
	}
}

// rows is a connection, or a transaction.
type rows interface {
	querier
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// records reads the tables in parts, so that no query takes long.
func (s *Store) records(ctx context.Context, q rows) iter.Seq2[tokenstore.Record, error] {
	return func(yield func(tokenstore.Record, error) bool) {
		for _, part := range []struct {
			sql  string
			open func(context.Context, scanned) (tokenstore.Record, bool, error)
		}{
			{`select id, revision, sealed from lanyard_connections where sealed is null and id > $1 order by id limit $2`, openDeleted},
			{`select id, revision, sealed from lanyard_connections where sealed is not null and id > $1 order by id limit $2`, s.loadedConnection},
		} {
			if !s.part(ctx, q, part.sql, part.open, yield) {
				return
			}
		}
		if !s.loadedEvents(ctx, q, yield) {
			return
		}
		if !s.part(ctx, q, `select id, revision, sealed from lanyard_flows where id > $1 order by id limit $2`, s.loadedFlow, yield) {
			return
		}
		s.part(ctx, q, `select id, revision, sealed from lanyard_notes where id > $1 order by id limit $2`, s.loadedNote, yield)
	}
}

// scanned is a row.
type scanned struct {
	id       string
	revision uint64
	sealed   []byte
}

// part yields the records of one table, and reports whether to go on.
func (s *Store) part(
	ctx context.Context, q rows, sql string, open func(context.Context, scanned) (tokenstore.Record, bool, error),
	yield func(tokenstore.Record, error) bool,
) bool {
	for after := []byte{}; ; {
		found, err := q.Query(ctx, sql, after, moveBatch)
		var all []scanned
		if err == nil {
			all, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (r scanned, err error) {
				var id []byte
				err = row.Scan(&id, &r.revision, &r.sealed)
				r.id = string(id)
				return r, err
			})
		}
		if err != nil {
			yield(tokenstore.Record{}, err)
			return false
		}
		for _, row := range all {
			r, wanted, err := open(ctx, row)
			if (wanted || err != nil) && !yield(r, err) || err != nil {
				return false
			}
			after = []byte(row.id)
		}
		if len(all) < moveBatch {
			return true
		}
	}
}

func openDeleted(_ context.Context, row scanned) (tokenstore.Record, bool, error) {
	return tokenstore.Record{Deleted: row.id}, true, nil
}

func (s *Store) loadedConnection(ctx context.Context, row scanned) (tokenstore.Record, bool, error) {
	c, err := s.openConnection(ctx, row.id, stored{row.revision, row.sealed})
	if err != nil {
		err = fmt.Errorf("connection %s: %w", row.id, err)
	}
	return tokenstore.Record{Connection: &c}, true, err
}

func (s *Store) loadedFlow(ctx context.Context, row scanned) (tokenstore.Record, bool, error) {
	f, err := s.openFlow(ctx, row.id, stored{row.revision, row.sealed})
	return tokenstore.Record{Flow: &f}, err == nil, unavailable(err)
}

func (s *Store) loadedNote(ctx context.Context, row scanned) (tokenstore.Record, bool, error) {
	n, err := s.openNote(ctx, row.id, stored{row.revision, row.sealed})
	return tokenstore.Record{Note: &n}, err == nil, unavailable(err)
}

// unavailable returns err if it says nothing of the record itself.
func unavailable(err error) error {
	if errors.Is(err, tokenstore.ErrUnavailable) {
		return err
	}
	return nil
}

func (s *Store) loadedEvents(ctx context.Context, q rows, yield func(tokenstore.Record, error) bool) bool {
	var head eventRange
	err := q.QueryRow(ctx, `select oldest, newest from lanyard_log where one = 1`).Scan(&head.oldest, &head.newest)
	for first := head.oldest; err == nil && first <= head.newest; first += moveBatch {
		last := min(first+moveBatch-1, head.newest)
		var found []eventRow
		rows, qerr := q.Query(ctx, `select seq, sealed from lanyard_events where seq between $1 and $2`, first, last)
		if err = qerr; err == nil {
			found, err = pgx.CollectRows(rows, scanEvent)
		}
		sealed := make(map[uint64][]byte, len(found))
		for _, e := range found {
			sealed[e.seq] = e.sealed
		}
		for seq := first; err == nil && seq <= last; seq++ {
			var e tokenstore.Event
			if e, err = s.listedEvent(ctx, tokenstore.EventFilter{}, eventRow{seq, sealed[seq]}); err == nil && !yield(tokenstore.Record{Event: &e}, nil) {
				return false
			}
		}
	}
	if err != nil {
		yield(tokenstore.Record{}, err)
	}
	return err == nil
}
