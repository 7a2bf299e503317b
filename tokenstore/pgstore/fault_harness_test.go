package pgstore_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// faultKeys returns a keyset, for the Stores of one database.
func faultKeys(t *testing.T) *seal.Keyset {
	t.Helper()
	text, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// faultStore opens a store until the test's end.
func faultStore(t *testing.T, dsn string, keys tokenstore.Codec) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: keys})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func aConnection() tokenstore.Connection {
	return tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "github", Provider: "github", UserID: "user-1",
		Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2, Name: "0",
	}
}

// workers write to a store, each to connections of its own, and count what the
// store has acknowledged.
type workers struct {
	t      *testing.T
	stop   chan struct{}
	all    sync.WaitGroup
	counts []*count

	mu       sync.Mutex
	lastGood time.Time // when something was acknowledged last
	refused  int       // answers with ErrUnavailable
	appended []string  // the user IDs of events whose append was acknowledged
}

// count is what is known of one connection: each change adds one to the number
// that is its name, and writes one event.
type count struct {
	id       string
	revision uint64 // the highest that was acknowledged
	name     int    // the same of the name
}

// work starts n workers, on the stores in turns.
func work(t *testing.T, n int, stores ...*pgstore.Store) *workers {
	t.Helper()
	w := &workers{t: t, stop: make(chan struct{})}
	for i := range n {
		c := &count{revision: 1}
		made, err := stores[0].CreateConnection(t.Context(), aConnection())
		must(t, err)
		c.id = made.ID
		w.counts = append(w.counts, c)
		w.all.Go(func() { w.run(stores[i%len(stores)], c) })
	}
	w.all.Go(func() { w.follow(stores[0]) })
	return w
}

// follow reads the log as it grows: what has a number keeps it.
func (w *workers) follow(s *pgstore.Store) {
	cursor, seq := "", uint64(0)
	for {
		page, next, err := s.ListEvents(w.t.Context(), tokenstore.EventFilter{}, cursor, 100)
		if err != nil {
			if !errors.Is(err, tokenstore.ErrUnavailable) {
				w.t.Errorf("ListEvents = %v", err)
			}
			next = cursor
		}
		for _, e := range page {
			if seq++; e.Seq != seq || e.Type == tokenstore.EventLost {
				w.t.Errorf("event %d is number %d, %s", seq, e.Seq, e.Type)
			}
		}
		cursor = next
		select {
		case <-w.stop:
			return
		case <-time.After(20 * time.Millisecond): // between two looks
		}
	}
}

func (w *workers) run(s *pgstore.Store, c *count) {
	for round := 0; ; round++ {
		select {
		case <-w.stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		if round%4 == 3 {
			user := fmt.Sprintf("%s, round %d", c.id, round)
			w.note(s.AppendEvents(ctx, tokenstore.Event{Type: tokenstore.EventUsed, UserID: user}), user)
		} else {
			w.note(c.add(ctx, s), "")
		}
		cancel()
	}
}

// add changes the connection once.
func (c *count) add(ctx context.Context, s *pgstore.Store) error {
	got, err := s.UpdateConnection(ctx, c.id, func(conn *tokenstore.Connection) error {
		n, err := strconv.Atoi(conn.Name)
		if err != nil {
			return err
		}
		conn.Name = strconv.Itoa(n + 1)
		conn.Happened(tokenstore.Event{Type: tokenstore.EventChanged})
		return nil
	})
	if err != nil {
		return fmt.Errorf("UpdateConnection: %w", err)
	}
	n, err := strconv.Atoi(got.Name)
	if err != nil || got.Revision <= c.revision || n <= c.name || got.Revision != uint64(n)+1 {
		return fmt.Errorf("UpdateConnection returned revision %d and the name %q after %d and %d", got.Revision, got.Name, c.revision, c.name)
	}
	c.revision, c.name = got.Revision, n
	return nil
}

// note judges the end of a write: it was made, or the store said that it is
// not to be reached.
func (w *workers) note(err error, appended string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.lastGood = time.Now()
		if appended != "" {
			w.appended = append(w.appended, appended)
		}
	case errors.Is(err, tokenstore.ErrUnavailable):
		w.refused++
	default:
		w.t.Errorf("a write ended with %v; want ErrUnavailable", err)
	}
}

// back waits until something is acknowledged that was asked for after now, and
// returns how long that took.
func (w *workers) back() time.Duration {
	w.t.Helper()
	now := time.Now()
	for time.Since(now) < 30*time.Second {
		w.mu.Lock()
		last := w.lastGood
		w.mu.Unlock()
		if last.After(now) {
			return last.Sub(now)
		}
		time.Sleep(5 * time.Millisecond) // between two looks at a condition
	}
	w.t.Fatal("nothing is written half a minute after the server is back")
	return 0
}

// check ends the workers and compares what the store has with what it said.
func (w *workers) check(s *pgstore.Store) {
	w.t.Helper()
	close(w.stop)
	w.all.Wait()
	events, seqs := map[string]int{}, []uint64(nil)
	for cursor := ""; ; {
		page, next, err := s.ListEvents(w.t.Context(), tokenstore.EventFilter{}, cursor, 1000)
		must(w.t, err)
		for _, e := range page {
			events[cmp.Or(e.ConnectionID, e.UserID)]++
			seqs = append(seqs, e.Seq)
		}
		if len(page) == 0 {
			break
		}
		cursor = next
	}
	changes := 0
	for _, c := range w.counts {
		got, err := s.Connection(w.t.Context(), c.id)
		if err != nil {
			w.t.Errorf("Connection = %v", err)
			continue
		}
		changes += c.name
		if got.Revision < c.revision || got.Name != strconv.FormatUint(got.Revision-1, 10) {
			w.t.Errorf("revision %d with the name %q; revision %d was acknowledged", got.Revision, got.Name, c.revision)
		}
		if n := events[c.id]; got.Name != strconv.Itoa(n) {
			w.t.Errorf("%d events for %s changes", n, got.Name)
		}
	}
	for _, user := range w.appended {
		if events[user] == 0 {
			w.t.Errorf("the event of %s was acknowledged, and is not in the log", user)
		}
	}
	want := make([]uint64, len(seqs))
	for i := range want {
		want[i] = uint64(i) + 1
	}
	if !slices.Equal(seqs, want) {
		w.t.Errorf("the log has gaps, or numbers twice: %v", seqs)
	}
	w.t.Logf("%d changes, %d events appended, %d refused as unavailable", changes, len(w.appended), w.refused)
}
