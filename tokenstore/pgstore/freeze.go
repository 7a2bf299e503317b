package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A store that is moved to another place takes no writes while it is read. Each
// table then has a check that nothing passes: making it waits for the
// transactions under way, and refuses those after it, whoever sends them. Before
// that, those who share the store learn that it is to come (Moving), and begin no
// request whose answer could not be written.

const (
	moveEnding  = "ending"  // those who share it are to begin nothing more
	moveFrozen  = "frozen"  // it takes no writes
	moveMoved   = "moved"   // and never again
	moveLoading = "loading" // another store was taken in, and is not in force yet
)

var frozenTables = []string{"lanyard_connections", "lanyard_flows", "lanyard_notes", "lanyard_events_new"}

const (
	selectMove = `select state, place, until > clock_timestamp() from lanyard_move where one = 1`
	beginMove  = `insert into lanyard_move (one, state, token, place, until) values (1, $1, $2, '', clock_timestamp() + interval '1 minute')
		on conflict (one) do update set state = $1, token = $2, until = excluded.until where lanyard_move.state not in ('moved', 'loading')`
	renewMove = `update lanyard_move set until = clock_timestamp() + interval '1 minute'
		where one = 1 and token = $1 and state in ('ending', 'frozen') and until > clock_timestamp()`
	stepMove = `update lanyard_move set state = $3 where one = 1 and token = $1 and state = $2 and until > clock_timestamp()`
	endMove  = `update lanyard_move set state = 'moved', place = $2 where one = 1 and token = $1 and state = 'frozen' and until > clock_timestamp()`
	dropMove = `delete from lanyard_move where one = 1 and state in ('ending', 'frozen') and (token = $1 or until <= clock_timestamp())`
)

// move is the row.
type move struct {
	state, place string
	live         bool // somebody goes on with it
}

func (s *Store) move(ctx context.Context) (m move, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		m = move{}
		err := conn.QueryRow(ctx, selectMove).Scan(&m.state, &m.place, &m.live)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return m, err
}

// checkMove refuses a store that was moved, or whose taking in has not ended.
func (s *Store) checkMove(ctx context.Context) error {
	m, err := s.move(ctx)
	switch {
	case err != nil:
		return err
	case m.state == moveMoved:
		return fmt.Errorf("%w to %s, so that what is in the database may be old (nothing was changed): configure that one, "+
			"or, if what is there is not in use, take this one back with `caddy lanyard migrate --undo`", tokenstore.ErrMoved, m.place)
	case m.state == moveLoading:
		return fmt.Errorf("%w: run `caddy lanyard migrate` again", tokenstore.ErrLoading)
	}
	return nil
}

// Moving reports whether the store is being moved or was, so that nothing is to
// be begun whose end has to be written. A freeze that nobody goes on with is taken
// back: whoever moved the store may have been killed.
func (s *Store) Moving(ctx context.Context) (bool, error) {
	m, err := s.move(ctx)
	if err == nil && !m.live && (m.state == moveEnding || m.state == moveFrozen) {
		err, m = s.thaw(ctx, ""), move{}
	}
	if err != nil {
		return false, fmt.Errorf("pgstore: looking whether the store is being moved: %w", err)
	}
	return m.state != "", nil
}

// BeginFreeze tells all who share the store to begin nothing more, for a minute:
// token says whose doing that is. One that was begun before is not gone on with.
func (s *Store) BeginFreeze(ctx context.Context, token string) error {
	rows, err := s.exec(ctx, beginMove, moveEnding, token)
	if err == nil && rows == 0 {
		err = tokenstore.ErrMoved
	}
	if err != nil {
		return fmt.Errorf("pgstore: beginning to freeze: %w", err)
	}
	return nil
}

// KeepFrozen has a freeze last another minute, or returns tokenstore.ErrNotFrozen.
func (s *Store) KeepFrozen(ctx context.Context, token string) error {
	return s.step(ctx, "keeping it frozen", renewMove, token)
}

func (s *Store) step(ctx context.Context, what, sql string, args ...any) error {
	rows, err := s.exec(ctx, sql, args...)
	if err == nil && rows == 0 {
		err = tokenstore.ErrNotFrozen
	}
	if err != nil {
		return fmt.Errorf("pgstore: %s: %w", what, err)
	}
	return nil
}

// Freeze has the store take no writes: what was written before is there to be
// read when it returns, and nothing comes after it.
func (s *Store) Freeze(ctx context.Context, token string) error {
	err := s.alter(ctx, func(ctx context.Context, tx pgx.Tx) error {
		for _, table := range frozenTables {
			for _, sql := range []string{` drop constraint if exists lanyard_frozen`, ` add constraint lanyard_frozen check (false) not valid`} {
				if _, err := tx.Exec(ctx, `alter table `+table+sql); err != nil {
					return err
				}
			}
		}
		tag, err := tx.Exec(ctx, stepMove, token, moveEnding, moveFrozen)
		if err == nil && tag.RowsAffected() == 0 {
			err = &ownError{tokenstore.ErrNotFrozen}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("pgstore: freezing: %w", err)
	}
	return nil
}

// Thaw takes a freeze back.
func (s *Store) Thaw(ctx context.Context, token string) error {
	if err := s.thaw(ctx, token); err != nil {
		return fmt.Errorf("pgstore: thawing: %w", err)
	}
	return nil
}

func (s *Store) thaw(ctx context.Context, token string) error {
	return s.alter(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, dropMove, token)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return dropChecks(ctx, tx)
	})
}

func dropChecks(ctx context.Context, tx pgx.Tx) error {
	for _, table := range frozenTables {
		if _, err := tx.Exec(ctx, `alter table `+table+` drop constraint if exists lanyard_frozen`); err != nil {
			return err
		}
	}
	return nil
}

// alterWait is how long a change of a table waits for transactions under way: all
// others wait behind it.
const alterWait = "3s"

func (s *Store) alter(ctx context.Context, use func(ctx context.Context, tx pgx.Tx) error) error {
	bounded, cancel := context.WithTimeoutCause(ctx, openFor, errNoAnswer)
	defer cancel()
	return s.askUntil(ctx, bounded, func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `set local lock_timeout = '`+alterWait+`'`); err != nil {
				return err
			}
			return use(ctx, tx)
		})
	})
}

// Moved notes that what was in the store is elsewhere now: it takes no writes any
// more, and does not open again before Unmove.
func (s *Store) Moved(ctx context.Context, token, to string) error {
	return s.step(ctx, "marking it as moved", endMove, token, to)
}

// Unmove takes back that the store in a database was moved, and returns where to.
// The caller has to know that nothing else has what was in it.
func Unmove(ctx context.Context, dsn secret.String) (from string, err error) {
	pool, err := newPool(ctx, dsn, nil)
	if err != nil {
		return "", fmt.Errorf("pgstore: %w", err)
	}
	defer pool.Close()
	s := &Store{pool: pool}
	m, err := s.move(ctx)
	if err == nil && m.state == moveMoved {
		from = m.place
		err = s.alter(ctx, func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `delete from lanyard_move where one = 1 and state = 'moved'`); err != nil {
				return err
			}
			return dropChecks(ctx, tx)
		})
	}
	if err != nil {
		return "", fmt.Errorf("pgstore: taking a store back: %w", err)
	}
	return from, nil
}
