package pgstore_test

import (
	"context"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

func newKeyset(t *testing.T) []byte {
	t.Helper()
	text, err := seal.Generate()
	must(t, err)
	return text
}

func parsed(t *testing.T, text []byte) *seal.Keyset {
	t.Helper()
	ks, err := seal.Parse(text)
	must(t, err)
	return ks
}

func open(t *testing.T, dsn string, ks tokenstore.Codec) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: ks})
	must(t, err)
	return s
}

// opened is open until the test's end.
func opened(t *testing.T, dsn string, ks tokenstore.Codec) *pgstore.Store {
	t.Helper()
	s := open(t, dsn, ks)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// sql is an attacker, or a database administrator, in the store's database.
type sql struct {
	t    *testing.T
	conn *pgx.Conn
}

func direct(t *testing.T, dsn string) sql {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close(context.Background())) })
	return sql{t, conn}
}

// run runs a statement and returns how many rows it changed.
func (q sql) run(statement string, args ...any) int64 {
	q.t.Helper()
	tag, err := q.conn.Exec(q.t.Context(), statement, args...)
	must(q.t, err)
	return tag.RowsAffected()
}

// changed runs a statement that has to change something.
func (q sql) changed(statement string, args ...any) {
	q.t.Helper()
	if q.run(statement, args...) == 0 {
		q.t.Fatalf("nothing was changed by %s", statement)
	}
}

// count returns the number that a query returns.
func (q sql) count(query string) (n int) {
	q.t.Helper()
	must(q.t, q.conn.QueryRow(q.t.Context(), query).Scan(&n))
	return n
}

// tables returns the names of the store's tables.
func (q sql) tables() []string {
	q.t.Helper()
	rows, err := q.conn.Query(q.t.Context(), `select table_name from information_schema.tables where table_schema = 'public' order by 1`)
	must(q.t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(q.t, err)
	return names
}

// dump returns every row of every table, as the database has it.
func (q sql) dump() (rows []string) {
	q.t.Helper()
	for _, table := range q.tables() {
		found, err := q.conn.Query(q.t.Context(), `select '`+table+` ' || x::text from `+table+` x`)
		must(q.t, err)
		lines, err := pgx.CollectRows(found, pgx.RowTo[string])
		must(q.t, err)
		rows = append(rows, lines...)
	}
	slices.Sort(rows)
	return rows
}

func TestStore(t *testing.T) {
	server, ks := pgtest.Shared(t), parsed(t, newKeyset(t))
	storetest.Run(t, func(t *testing.T) tokenstore.Store { return open(t, server.Database(t), ks) })
}

func TestShared(t *testing.T) {
	server, ks := pgtest.Shared(t), parsed(t, newKeyset(t))
	storetest.RunShared(t, func(t *testing.T) tokenstore.Shared { return open(t, server.Database(t), ks) })
}
