package pgstore_test

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

// backAgain is within what time writes succeed again after the server is back.
const backAgain = 3 * time.Second

// F050, the store's part: the server crashes in the middle of everything.
func TestServerRestarts(t *testing.T) {
	server := pgtest.New(t)
	dsn, keys := server.Database(t), faultKeys(t)
	one, two := faultStore(t, dsn, keys), faultStore(t, dsn, keys)
	w := work(t, 8, one, two)
	for _, how := range []pgtest.Mode{pgtest.Immediate, pgtest.Fast, pgtest.Immediate, pgtest.Immediate} {
		w.back()
		must(t, server.Restart(how))
		if d := w.back(); d > backAgain {
			t.Errorf("writes went on %v after a restart", d)
		}
	}
	w.check(one)
}

// F050 with the database on another machine, which takes over.
func TestFailover(t *testing.T) {
	pair := pgtest.NewPair(t, pgtest.Synchronous)
	dsn, keys := pair.Database(t), faultKeys(t)
	one, two := faultStore(t, dsn, keys), faultStore(t, dsn, keys)
	w := work(t, 8, one, two)
	for range 3 {
		w.back()
		must(t, pair.Failover())
		if d := w.back(); d > backAgain {
			t.Errorf("writes went on %v after the failover", d)
		}
		must(t, pair.Rebuild())
	}
	w.check(one)
}

// The answer to a write is lost after the server has made it: the write is not
// made again, and its caller is told what became of it.
func TestAnswerLostAfterCommit(t *testing.T) {
	dsn, keys := pgtest.Shared(t).Database(t), faultKeys(t)
	network, slow := pgtest.NewNetwork(t, dsn)
	s, direct := faultStore(t, slow, keys), faultStore(t, dsn, keys)
	ctx := t.Context()
	// lost does something, and loses the answer to the statement with word in it.
	lost := func(what, word string, do func() error) {
		t.Helper()
		cut := network.CutAnswer(word)
		if err := do(); err != nil {
			t.Errorf("%s, answer to %q lost: %v", what, word, err)
		}
		select {
		case <-cut:
		default:
			t.Errorf("%s does not say %q to the server", what, word)
		}
	}

	conn := aConnection()
	lost("CreateConnection", "insert into lanyard_connections", func() (err error) {
		conn, err = s.CreateConnection(ctx, conn)
		return err
	})
	done := 0
	change := func() error {
		got, err := s.UpdateConnection(ctx, conn.ID, func(c *tokenstore.Connection) error {
			n, _ := strconv.Atoi(c.Name)
			c.Name = strconv.Itoa(n + 1)
			if n == 1 {
				c.Status = tokenstore.StatusExpired // which other lists show
			}
			c.Happened(tokenstore.Event{Type: tokenstore.EventChanged})
			return nil
		})
		if done++; err == nil && (got.Revision != uint64(done)+1 || got.Name != strconv.Itoa(done)) {
			t.Errorf("after %d changes it is revision %d, name %q", done, got.Revision, got.Name)
		}
		return err
	}
	lost("UpdateConnection", "update lanyard_connections", change)
	lost("UpdateConnection with other lists", "commit", change)
	lost("UpdateConnection", "select revision", change)
	now := time.Now().UTC()
	flow := tokenstore.Flow{ID: "flow", Stage: tokenstore.FlowOpen, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	lost("CreateFlow", "insert into lanyard_flows", func() error { return s.CreateFlow(ctx, flow) })
	lost("UpdateFlow", "update lanyard_flows", func() error {
		_, err := s.UpdateFlow(ctx, "flow", (*tokenstore.Flow).Take)
		return err
	})
	lost("UpdateNote", "insert into lanyard_notes", func() error {
		n, err := s.UpdateNote(ctx, "note", func(n *tokenstore.Note) error {
			if n.Revision > 0 {
				return errors.New("made twice")
			}
			n.Text = secret.New("text")
			return nil
		})
		if err == nil && n.Revision != 1 {
			t.Errorf("the note has revision %d, want 1", n.Revision)
		}
		return err
	})
	lost("TakeLease", "insert into lanyard_leases", func() error { return s.TakeLease(ctx, "lease", "me", time.Hour) })
	lost("DropLease", "delete from lanyard_leases", func() error { return s.DropLease(ctx, "lease", "me") })
	lost("DeleteNote", "delete from lanyard_notes", func() error { return s.DeleteNote(ctx, "note") })
	lost("DeleteConnection", "update lanyard_connections", func() error {
		_, err := s.DeleteConnection(ctx, conn.ID, tokenstore.Event{Type: tokenstore.EventDeleted})
		return err
	})

	events, _, err := direct.ListEvents(ctx, tokenstore.EventFilter{}, "", 100)
	must(t, err)
	if len(events) != done+1 {
		t.Errorf("%d events of %d changes and a deletion", len(events), done)
	}
}

// A server that stands still: every call ends within its bound, and says that
// the store is not to be reached.
func TestServerStandsStill(t *testing.T) {
	server := pgtest.New(t)
	s := faultStore(t, server.Database(t), faultKeys(t))
	ctx := t.Context()
	conn, err := s.CreateConnection(ctx, aConnection())
	must(t, err)
	must(t, server.Pause())
	var all sync.WaitGroup
	for what, call := range map[string]func(context.Context) error{
		"Connection": func(ctx context.Context) error { _, err := s.Connection(ctx, conn.ID); return err },
		"UpdateConnection": func(ctx context.Context) error {
			_, err := s.UpdateConnection(ctx, conn.ID, func(c *tokenstore.Connection) error { c.Name = "new"; return nil })
			return err
		},
		"DueConnections": func(ctx context.Context) error { _, err := s.DueConnections(ctx, time.Now()); return err },
		"AppendEvents":   func(ctx context.Context) error { return s.AppendEvents(ctx, tokenstore.Event{}) },
		"ListEvents": func(ctx context.Context) error {
			_, _, err := s.ListEvents(ctx, tokenstore.EventFilter{}, "", 10)
			return err
		},
		"Note":      func(ctx context.Context) error { _, err := s.Note(ctx, "note"); return err },
		"TakeLease": func(ctx context.Context) error { return s.TakeLease(ctx, "lease", "me", time.Hour) },
		"Changes":   func(ctx context.Context) error { _, _, err := s.Changes(ctx, ""); return err },
	} {
		all.Go(func() {
			began := time.Now()
			err := call(ctx)
			if d := time.Since(began); !errors.Is(err, tokenstore.ErrUnavailable) || d > 15*time.Second {
				t.Errorf("%s = %v after %v; want ErrUnavailable within 15s", what, err, d)
			}
			hurried, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			began = time.Now()
			if err := call(hurried); err == nil || time.Since(began) > 5*time.Second {
				t.Errorf("%s with 200ms = %v after %v", what, err, time.Since(began))
			}
		})
	}
	all.Wait()
	server.Resume()
	began := time.Now()
	for {
		if _, err = s.Connection(ctx, conn.ID); err == nil {
			break
		}
		if time.Since(began) > backAgain {
			t.Fatalf("still %v after the server goes on", err)
		}
		time.Sleep(5 * time.Millisecond) // between two looks at a condition
	}
}

// F053: the contract holds through PgBouncer in transaction mode.
func TestThroughPgBouncer(t *testing.T) {
	server := pgtest.Shared(t)
	through, err := url.Parse(pgtest.PgBouncer(t, server.DSN("postgres")))
	must(t, err)
	open := func(t *testing.T) *pgstore.Store {
		t.Helper()
		database, err := url.Parse(server.Database(t))
		must(t, err)
		database.Host = through.Host
		return faultOpen(t, database.String())
	}
	storetest.Run(t, func(t *testing.T) tokenstore.Store { return open(t) })
	storetest.RunShared(t, func(t *testing.T) tokenstore.Shared { return open(t) })
}

// F055: the contract holds where every transaction is serializable, so that any
// may be told to begin again, as in CockroachDB.
func TestSerializable(t *testing.T) {
	server := pgtest.Shared(t)
	open := func(t *testing.T) *pgstore.Store {
		t.Helper()
		dsn := server.Database(t)
		name := dsn[len(dsn)-len("db123456789012?sslmode=disable") : len(dsn)-len("?sslmode=disable")]
		_, err := server.SQL("alter database " + name + " set default_transaction_isolation = 'serializable'")
		must(t, err)
		return faultOpen(t, dsn)
	}
	storetest.Run(t, func(t *testing.T) tokenstore.Store { return open(t) })
	storetest.RunShared(t, func(t *testing.T) tokenstore.Shared { return open(t) })
	t.Run("under load", func(t *testing.T) {
		s := open(t)
		w := work(t, 8, s)
		for range 20 {
			w.back()
			_, _, err := s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 10)
			must(t, err)
		}
		w.check(s)
	})
}

// faultOpen opens a store that somebody else closes.
func faultOpen(t *testing.T, dsn string) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: faultKeys(t)})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	return s
}

// F053, F057: ten begin with an empty database at once, through PgBouncer.
func TestTenBeginAtOnce(t *testing.T) {
	dsn, keys := pgtest.PgBouncer(t, pgtest.Shared(t).Database(t)), faultKeys(t)
	var all sync.WaitGroup
	stores := make([]*pgstore.Store, 10)
	for i := range stores {
		all.Go(func() {
			s, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: keys})
			if err != nil {
				t.Errorf("Open = %v", err)
				return
			}
			stores[i] = s
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	conn, err := stores[0].CreateConnection(t.Context(), aConnection())
	must(t, err)
	for _, s := range stores {
		if _, err := s.Connection(t.Context(), conn.ID); err != nil {
			t.Errorf("Connection = %v: they are not one store", err)
		}
		must(t, s.Close())
	}
}
