package pgstore_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func hexOf(text string) string { return hex.EncodeToString([]byte(text)) }

// TestTwoStores: two processes on one database lose no change of each other, and
// number the events of both without gaps.
func TestTwoStores(t *testing.T) {
	const workers, each = 8, 25
	dsn, ks := pgtest.Shared(t).Database(t), parsed(t, newKeyset(t))
	one, two := opened(t, dsn, ks), opened(t, dsn, ks)
	conn, err := one.CreateConnection(t.Context(), aConnection())
	must(t, err)
	var all sync.WaitGroup
	for i := range 2 * workers {
		s := one
		if i%2 == 1 {
			s = two
		}
		all.Go(func() {
			for n := range each {
				_, err := s.UpdateConnection(t.Context(), conn.ID, func(c *tokenstore.Connection) error {
					count, err := strconv.Atoi(c.Name)
					c.Name = strconv.Itoa(count + 1)
					c.Status = []tokenstore.Status{tokenstore.StatusActive, tokenstore.StatusExpired}[count%2]
					c.Happened(tokenstore.Event{Reason: c.Name})
					return err
				})
				if err == nil {
					err = s.AppendEvents(t.Context(), tokenstore.Event{Reason: fmt.Sprint(i, " ", n)})
				}
				if err == nil && n%5 == 0 {
					_, _, err = s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 1)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	const want = 2 * workers * each
	got, err := two.Connection(t.Context(), conn.ID)
	if err != nil || got.Name != strconv.Itoa(want) || got.Revision != want+1 {
		t.Errorf("after %d changes: %q, revision %d, %v", want, got.Name, got.Revision, err)
	}
	for _, status := range []tokenstore.Status{tokenstore.StatusActive, tokenstore.StatusExpired} {
		page, _, err := one.ListConnections(t.Context(), tokenstore.Filter{Status: status}, "", 10)
		if n := len(page); err != nil || (n == 1) != (status == got.Status) {
			t.Errorf("%d connections are listed as %s, and it is %s: %v", n, status, got.Status, err)
		}
	}
	events, _, err := one.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 10*want)
	if err != nil || len(events) != 2*want {
		t.Fatalf("%d events of %d, %v", len(events), 2*want, err)
	}
	seen, changes := map[string]int{}, 0
	for i, e := range events {
		if e.Seq != uint64(i)+1 || e.Type == tokenstore.EventLost {
			t.Errorf("event %d has the number %d, %s", i+1, e.Seq, e.Type)
		}
		seen[e.Reason]++
		if e.ConnectionID != "" {
			// Each change began when the one before it was there.
			if changes++; e.Reason != strconv.Itoa(changes) {
				t.Errorf("change %s stands at the place of change %d", e.Reason, changes)
			}
		}
	}
	if len(seen) != 2*want {
		t.Errorf("%d different events of %d", len(seen), 2*want)
	}
}

// TestLeasesOfTwo: a lease is the store's, whoever asks.
func TestLeasesOfTwo(t *testing.T) {
	dsn, ks := pgtest.Shared(t).Database(t), parsed(t, newKeyset(t))
	one, two := opened(t, dsn, ks), opened(t, dsn, ks)
	must(t, one.TakeLease(t.Context(), "refresh/1", "one", time.Hour))
	if err := two.TakeLease(t.Context(), "refresh/1", "two", time.Hour); !errors.Is(err, tokenstore.ErrLeased) {
		t.Errorf("TakeLease of what another store's has = %v", err)
	}
	must(t, one.DropLease(t.Context(), "refresh/1", "one"))
	must(t, two.TakeLease(t.Context(), "refresh/1", "two", time.Hour))
}

// TestSlowWriteIsTold: what a look could not see since it was not there yet is
// told by one that begins after it.
func TestSlowWriteIsTold(t *testing.T) {
	dsn, ks := pgtest.Shared(t).Database(t), parsed(t, newKeyset(t))
	s := opened(t, dsn, ks)
	conn, err := s.CreateConnection(t.Context(), aConnection())
	must(t, err)
	direct(t, dsn).changed(`update lanyard_connections set changed_at = now() - interval '1 minute'`)
	_, mark, err := s.Changes(t.Context(), "")
	must(t, err)
	told := func() bool {
		t.Helper()
		changes, _, err := s.Changes(t.Context(), mark)
		must(t, err)
		return len(changes) == 1 && changes[0].ID == conn.ID
	}
	if s.Touch(t.Context(), conn.ID, 900*time.Millisecond); told() {
		t.Error("a fast write was marked anew")
	}
	if s.Touch(t.Context(), conn.ID, 1100*time.Millisecond); !told() {
		t.Error("a slow write was not marked anew")
	}
}

// TestMaxEvents: a full log loses its oldest events, and knows where it begins.
func TestMaxEvents(t *testing.T) {
	dsn, ks := pgtest.Shared(t).Database(t), parsed(t, newKeyset(t))
	s := opened(t, dsn, ks)
	s.SetMaxEvents(5)
	for i := range 12 {
		must(t, s.AppendEvents(t.Context(), tokenstore.Event{Reason: strconv.Itoa(i + 1), ConnectionID: "conn_a"}))
		if i%4 == 3 {
			_, _, err := s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 1)
			must(t, err)
		}
	}
	for _, f := range []tokenstore.EventFilter{{}, {ConnectionID: "conn_a"}} {
		page, _, err := s.ListEvents(t.Context(), f, "", 100)
		if err != nil || len(page) != 5 || page[0].Seq != 8 || page[4].Reason != "12" {
			t.Errorf("ListEvents = %+v, %v; want numbers 8 to 12", page, err)
		}
	}
	if n := direct(t, dsn).count(`select count(*) from lanyard_events`); n != 5 {
		t.Errorf("%d events are kept", n)
	}
}

// TestForget: what is long past its time is removed, and nothing else.
func TestForget(t *testing.T) {
	dsn, ks := pgtest.Shared(t).Database(t), parsed(t, newKeyset(t))
	s := opened(t, dsn, ks)
	now := time.Now().UTC()
	for id, until := range map[string]time.Time{"old": now.Add(-72 * time.Hour), "new": now.Add(time.Hour)} {
		must(t, s.CreateFlow(t.Context(), tokenstore.Flow{ID: id, ExpiresAt: until}))
		_, err := s.UpdateNote(t.Context(), id, func(n *tokenstore.Note) error { n.KeepUntil = until; return nil })
		must(t, err)
		must(t, s.TakeLease(t.Context(), id, "me", time.Until(until)))
	}
	_, err := s.UpdateNote(t.Context(), "ever", func(*tokenstore.Note) error { return nil })
	must(t, err)
	must(t, s.Forget(t.Context()))
	q := direct(t, dsn)
	for table, want := range map[string]int{"lanyard_flows": 1, "lanyard_notes": 2, "lanyard_leases": 1} {
		if n := q.count(`select count(*) from ` + table); n != want {
			t.Errorf("%s has %d rows, want %d", table, n, want)
		}
	}
}

// TestManyLabels: a page of several lists ends after a bounded number of looks,
// and goes on; the shortest list decides what NewestConnection costs.
func TestManyLabels(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 3,000 connections")
	}
	s := opened(t, pgtest.Shared(t).Database(t), parsed(t, newKeyset(t)))
	var rare string
	var all sync.WaitGroup
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	conns := make([]tokenstore.Connection, 3000)
	for i := range conns {
		conns[i] = aConnection()
		conns[i].CreatedAt = at.Add(time.Duration(i) * time.Second)
		conns[i].Labels = map[string]string{"many": "1"}
		if i == 10 {
			conns[i].Labels["rare"], rare = "1", conns[i].ID
		}
		if i%2 == 0 {
			conns[i].Labels["half"] = "even"
		} else {
			conns[i].Labels["other"] = "odd"
		}
	}
	for w := range 8 {
		all.Go(func() {
			for i := w; i < len(conns); i += 8 {
				if _, err := s.CreateConnection(t.Context(), conns[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	f := tokenstore.Filter{Labels: map[string]string{"half": "even", "other": "odd"}}
	pages := 0
	for cursor := ""; ; pages++ {
		page, next, err := s.ListConnections(t.Context(), f, cursor, 10)
		must(t, err)
		if len(page) > 0 {
			t.Fatalf("ListConnections = %v", page)
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if pages > 10 {
		t.Errorf("nothing was told on %d pages", pages)
	}
	f = tokenstore.Filter{UserID: "user-1", Labels: map[string]string{"many": "1", "rare": "1"}}
	if got, err := s.NewestConnection(t.Context(), f); err != nil || got.ID != rare {
		t.Errorf("NewestConnection = %q, %v", got.ID, err)
	}
	if page, next, err := s.ListConnections(t.Context(), f, "", 10); err != nil || len(page) != 1 || next != "" {
		t.Errorf("ListConnections = %d connections, %q, %v", len(page), next, err)
	}
	f = tokenstore.Filter{Labels: map[string]string{"many": "1", "half": "even"}}
	n := 0
	for cursor := ""; ; {
		page, next, err := s.ListConnections(t.Context(), f, cursor, 700)
		must(t, err)
		n += len(page)
		if cursor = next; cursor == "" {
			break
		}
	}
	if n != 1500 {
		t.Errorf("%d connections on all pages, want 1500", n)
	}
}
