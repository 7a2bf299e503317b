package pgstore

import (
	"context"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations
var migrationFiles embed.FS

// migrations are the steps from one version of the tables to the next, which is
// their place here, beginning with 1. Each may be run twice: not every database
// undoes the making of a table with the transaction that made it.
var migrations = []migration{
	{file: "migrations/0001_store.sql", oldest: 1},
}

type migration struct {
	file string
	// oldest is the version that a Lanyard has to know at least to use tables of
	// this one: its own, unless all that the step adds may be left alone.
	oldest int
}

var newestVersion = len(migrations)

// schemaVersion is of which version the tables are.
type schemaVersion struct {
	newest int // 0: there are none
	oldest int // what a Lanyard has to know at least
}

// usable returns an error that wraps ErrVersion if this Lanyard must not use
// tables of this version.
func (v schemaVersion) usable() error {
	if v.oldest > newestVersion {
		return fmt.Errorf("%w: they have version %d, which needs one that knows version %d, and this one knows %d (nothing was changed)",
			ErrVersion, v.newest, v.oldest, newestVersion)
	}
	return nil
}

const (
	selectVersion = `select version, oldest_reader from lanyard_schema where one = 1`
	makeSchema    = `create table if not exists lanyard_schema (one int primary key, version int not null, oldest_reader int not null)`
	beginSchema   = `insert into lanyard_schema (one, version, oldest_reader) values (1, 0, 0) on conflict (one) do nothing`
	setVersion    = `update lanyard_schema set version = $1, oldest_reader = $2 where one = 1`
)

// schemaVersion returns the version of the tables that are there.
func (s *Store) schemaVersion(ctx context.Context) (v schemaVersion, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		v, err = readVersion(ctx, conn, selectVersion)
		return err
	})
	if err != nil {
		return v, fmt.Errorf("looking for the tables: %w", err)
	}
	return v, nil
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func readVersion(ctx context.Context, q querier, sql string) (v schemaVersion, err error) {
	err = q.QueryRow(ctx, sql).Scan(&v.newest, &v.oldest)
	if codeOf(err) == codeUndefinedTable || errors.Is(err, pgx.ErrNoRows) {
		return schemaVersion{}, nil
	}
	return v, err
}

// migrate makes the tables those of the newest version. One does that at a time:
// whoever has the row of lanyard_schema. The others wait, and find it done.
func (s *Store) migrate(ctx context.Context) error {
	err := s.retryingMigration(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for _, sql := range []string{makeSchema, beginSchema} {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			v, err := readVersion(ctx, tx, selectVersion+` for update`)
			if err != nil {
				return err
			}
			for i := v.newest; i < newestVersion; i++ {
				sql, err := migrationFiles.ReadFile(migrations[i].file)
				if err != nil {
					return &ownError{err}
				}
				if _, err := tx.Exec(ctx, string(sql)); err != nil {
					return fmt.Errorf("version %d: %w", i+1, err)
				}
				if _, err := tx.Exec(ctx, setVersion, i+1, migrations[i].oldest); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("making the tables: %w", err)
	}
	return nil
}

// retryingMigration is ask, but waits as long as ctx, and outlives what databases
// answer to two who make the same table at once.
func (s *Store) retryingMigration(ctx context.Context, use func(ctx context.Context, conn *pgx.Conn) error) error {
	for t := newTries(); ; {
		err := s.askUntil(ctx, ctx, use)
		switch codeOf(err) {
		case codeUniqueViolation, codeDuplicateTable, codeDuplicateType, codeInternal:
			if t.again(ctx, notDone) {
				continue
			}
		}
		return err
	}
}
