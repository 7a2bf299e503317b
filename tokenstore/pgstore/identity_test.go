package pgstore_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// notOpened checks that a database is not opened, and nothing in it changed.
func notOpened(t *testing.T, dsn string, ks tokenstore.Codec, want error) {
	t.Helper()
	q := direct(t, dsn)
	before := q.dump()
	s, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: ks})
	if !errors.Is(err, want) {
		t.Errorf("Open = %v, want %v", err, want)
	}
	if err == nil {
		must(t, s.Close())
	}
	if diff := cmp.Diff(before, q.dump()); diff != "" {
		t.Errorf("the database was changed: %s", diff)
	}
}

func TestWrongKeyset(t *testing.T) {
	dsn, ks := pgtest.Shared(t).Database(t), newKeyset(t)
	s := open(t, dsn, parsed(t, ks))
	conn, err := s.CreateConnection(t.Context(), aConnection())
	must(t, err)
	must(t, s.Close())
	notOpened(t, dsn, parsed(t, newKeyset(t)), tokenstore.ErrKeyMissing)
	again := opened(t, dsn, parsed(t, ks))
	if _, err := again.Connection(t.Context(), conn.ID); err != nil {
		t.Errorf("Connection = %v", err)
	}
	direct(t, dsn).run(`update lanyard_identity set record = replace(record, '"index_keys":["', '"index_keys":["AAAA')`)
	notOpened(t, dsn, parsed(t, ks), tokenstore.ErrKeyMissing)
}

// Of several that begin with one database and keysets of their own, one has it.
func TestOneKeyset(t *testing.T) {
	dsn := pgtest.Shared(t).Database(t)
	var won atomic.Int32
	var all sync.WaitGroup
	for range 5 {
		ks := parsed(t, newKeyset(t))
		all.Go(func() {
			s, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: ks})
			switch {
			case err == nil:
				won.Add(1)
				must(t, s.Close())
			case !errors.Is(err, tokenstore.ErrKeyMissing):
				t.Errorf("Open = %v, want ErrKeyMissing", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 5 keysets have the store", won.Load())
	}
}

func TestIdentityLost(t *testing.T) {
	dsn, ks := pgtest.Shared(t).Database(t), parsed(t, newKeyset(t))
	s := open(t, dsn, ks)
	_, err := s.CreateConnection(t.Context(), aConnection())
	must(t, err)
	must(t, s.Close())
	direct(t, dsn).changed(`delete from lanyard_identity`)
	notOpened(t, dsn, ks, pgstore.ErrIncomplete)
}

// F057: an older Lanyard goes on with newer tables as long as these let it.
func TestVersions(t *testing.T) {
	dsn, ks := pgtest.Shared(t).Database(t), parsed(t, newKeyset(t))
	must(t, open(t, dsn, ks).Close())
	q := direct(t, dsn)
	q.changed(`update lanyard_schema set version = 99`)
	q.run(`alter table lanyard_connections add column more text`)
	s := opened(t, dsn, ks)
	if _, err := s.CreateConnection(t.Context(), aConnection()); err != nil {
		t.Errorf("CreateConnection in newer tables = %v", err)
	}
	if n := q.count(`select version from lanyard_schema`); n != 99 {
		t.Errorf("an older Lanyard has made the tables version %d", n)
	}
	q.changed(`update lanyard_schema set oldest_reader = 99`)
	notOpened(t, dsn, ks, pgstore.ErrVersion)
}

// A table that somebody else makes meanwhile can be there as a type first.
func TestTypeBeforeTable(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, ks := server.Database(t), parsed(t, newKeyset(t))
	q := direct(t, dsn)
	q.run(`create type lanyard_schema as enum ()`)
	q.run(`create sequence tries`)
	q.run(`create function tried() returns event_trigger language plpgsql as $$ begin perform nextval('tries'); end $$`)
	_, err := server.SQL(`\c `+q.conn.Config().Database, // superusers alone make such triggers
		`create event trigger tried on ddl_command_start when tag in ('CREATE TABLE') execute function tried()`)
	must(t, err)
	done := make(chan error, 1)
	go func() {
		s, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: ks})
		if err == nil {
			err = s.Close()
		}
		done <- err
	}()
	for q.count(`select last_value from tries`) < 2 { // the first has failed
		select {
		case err := <-done:
			t.Fatalf("Open = %v, with no second try", err)
		case <-time.After(time.Millisecond):
		}
	}
	q.run(`drop type lanyard_schema`)
	if err := <-done; err != nil {
		t.Errorf("Open = %v", err)
	}
}

// A role that may make no tables can use those that are there, and what it lacks
// is said where they are not.
func TestNoTablesToMake(t *testing.T) {
	server := pgtest.Shared(t)
	dsn, ks := server.Database(t), parsed(t, newKeyset(t))
	q := direct(t, dsn)
	q.run(`revoke create on schema public from public`)
	role := "r" + strings.ToLower(tokenstore.NewID()[5:15])
	var user string
	must(t, q.conn.QueryRow(t.Context(), `select current_user`).Scan(&user))
	_, err := server.SQL(`create role `+role, `grant `+role+` to `+user)
	must(t, err)
	q.run(`grant usage on schema public to ` + role)
	asRole := dsn + "&options=-c%20role%3D" + role
	_, err = pgstore.Open(t.Context(), secret.New(asRole), pgstore.Config{Codec: ks})
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("Open without the right to make tables = %v", err)
	}
	must(t, open(t, dsn, ks).Close())
	q.run(`grant select, insert, update, delete on all tables in schema public to ` + role)
	s := opened(t, asRole, ks)
	if _, err := s.CreateConnection(t.Context(), aConnection()); err != nil {
		t.Errorf("CreateConnection = %v", err)
	}
	must(t, s.Forget(t.Context()))
}

func TestDSNIsNotRepeated(t *testing.T) {
	for _, dsn := range []string{
		"postgres://lanyard:hunter2@127.0.0.1:1/lanyard?sslmode=disable",
		"postgres://lanyard:hunter2@127.0.0.1:port/lanyard",
		"postgres://lanyard:hunter2%@127.0.0.1/lanyard",
		"host=127.0.0.1 port=1 user=lanyard password=hunter2",
		"host=127.0.0.1 port=1 user=lanyard password='hunter2",
		"host=127.0.0.1 hunter2",
		"hunter2",
	} {
		_, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: parsed(t, newKeyset(t))})
		if err == nil {
			t.Fatal("Open succeeded")
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open = %v", err)
		}
	}
}
