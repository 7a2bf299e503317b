package webhook_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

func TestDelivery(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.happens(tokenstore.EventActive, "before") // a new endpoint gets what happens from now on
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "c1")
		for _, quiet := range []tokenstore.EventType{tokenstore.EventUsed, tokenstore.EventDeleted, tokenstore.EventWebhookLost} {
			a.happens(quiet, "c1")
		}
		time.Sleep(time.Second)
		a.wants("connection.active c1")
		a.happens(tokenstore.EventExpired, "c1")
		time.Sleep(time.Second)
		a.wants("connection.expired c1")
		time.Sleep(8 * time.Hour) // its place is written again meanwhile
		a.wants()
	})
}

func TestNamedTypes(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.s.Use(endpoint(t, tokenstore.EventDeleted))
		a.happens(tokenstore.EventActive, "c1")
		a.happens(tokenstore.EventDeleted, "c1")
		time.Sleep(time.Second)
		a.wants("connection.deleted c1")
	})
}

// TestOrder: what is behind a failure waits, other connections don't, and the
// pauses double.
func TestOrder(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		failures := 3
		a.answers(func(d delivery) (int, string) {
			if d.Conn == "bad" && failures > 0 {
				failures--
				return []int{500, 302, 0}[failures], ""
			}
			return 200, ""
		})
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "bad")
		a.happens(tokenstore.EventActive, "good")
		a.happens(tokenstore.EventExpired, "bad")
		a.happens(tokenstore.EventExpired, "good")
		time.Sleep(time.Minute)
		synctest.Wait()
		byConn := map[string][]delivery{}
		for _, d := range a.got {
			byConn[d.Conn] = append(byConn[d.Conn], d)
		}
		bad, good := byConn["bad"], byConn["good"]
		if len(good) != 2 || good[0].Type != "connection.active" || good[1].At > time.Second {
			t.Errorf("the other connection's: %+v", good)
		}
		if len(bad) != 5 || bad[3].Type != "connection.active" || bad[4].Type != "connection.expired" {
			t.Fatalf("the failing connection's: %+v", bad)
		}
		for i, most := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second} {
			if bad[i+1].ID != bad[0].ID {
				t.Errorf("webhook-id %q, then %q", bad[0].ID, bad[i+1].ID)
			}
			if pause := bad[i+1].At - bad[i].At; pause > most || pause < most*3/4 {
				t.Errorf("pause %d = %v, want up to %v", i, pause, most)
			}
		}
		if bad[4].ID == bad[0].ID {
			t.Errorf("two events have the webhook-id %q", bad[4].ID)
		}
	})
}

func TestRestart(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.answers(func(d delivery) (int, string) {
			if d.Conn == "c2" {
				return 503, ""
			}
			return 200, ""
		})
		a.s.Use(endpoint(t))
		for i := range 4 {
			a.happens(tokenstore.EventActive, fmt.Sprintf("c%d", i))
		}
		time.Sleep(3 * time.Second)
		if got := a.take(); len(got) != 4 {
			t.Fatalf("sent: %q", got)
		}
		a.s.Close()
		a.happens(tokenstore.EventExpired, "c2") // while it does not run
		a.answers(nil)
		a.restart()
		a.s.Use(endpoint(t))
		time.Sleep(time.Second)
		got := a.take()
		slices.Sort(got)
		if diff := cmp.Diff([]string{"connection.active c2", "connection.expired c2"}, got); diff != "" {
			t.Errorf("after the restart (-want +got):\n%s", diff)
		}
		time.Sleep(time.Minute)
		a.restart()
		a.s.Use(endpoint(t))
		time.Sleep(time.Minute)
		a.wants()
	})
}

func TestGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.answers(func(d delivery) (int, string) {
			if d.Type == "connection.active" {
				return 500, ""
			}
			return 200, ""
		})
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "c1")
		a.happens(tokenstore.EventExpired, "c1")
		time.Sleep(27 * time.Hour)
		if got := a.take(); slices.Contains(got, "connection.expired c1") || len(got) < 25 || len(got) > 60 {
			t.Errorf("in 27 hours: %q", got)
		}
		time.Sleep(2 * time.Hour)
		if got := a.take(); got[len(got)-1] != "connection.expired c1" {
			t.Errorf("in 29 hours: %q", got)
		}
		events, _, err := a.store.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 100)
		if err != nil || len(events) != 3 {
			t.Fatal(events, err)
		}
		e := events[2]
		if e.Type != tokenstore.EventWebhookLost || e.Reason != "connection.active" || e.ConnectionID != "c1" || e.UserID != "u1" ||
			e.Actor.Kind != tokenstore.ActorLanyard {
			t.Errorf("event = %+v", e)
		}
		if n := a.logged("webhook given up"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}

func TestRetryAfterHoldsTheEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		first := true
		a.answers(func(delivery) (int, string) {
			defer func() { first = false }()
			if first {
				return 429, "600"
			}
			return 200, ""
		})
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Second)
		a.wants("connection.active c1")
		a.happens(tokenstore.EventActive, "c2")
		time.Sleep(598 * time.Second)
		a.wants()
		time.Sleep(10 * time.Second)
		if got := a.take(); len(got) != 2 {
			t.Errorf("after the pause: %q", got)
		}
	})
}

func TestGone(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.answers(func(delivery) (int, string) { return http.StatusGone, "" })
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Hour)
		a.wants("connection.active c1")
		a.happens(tokenstore.EventActive, "c2")
		time.Sleep(time.Hour)
		a.wants()
		a.answers(nil)
		a.s.Use(endpoint(t)) // the next configuration
		time.Sleep(time.Second)
		if got := a.take(); len(got) != 2 {
			t.Errorf("after the next configuration: %q", got)
		}
	})
}

func TestReload(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.answers(func(delivery) (int, string) { return 0, "" })
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Second)
		a.wants("connection.active c1")
		a.s.Use(endpoint(t)) // the same: it does not begin again
		time.Sleep(time.Second)
		a.wants()
		a.answers(nil)
		a.s.Use(endpoint(t, tokenstore.EventActive, tokenstore.EventDeleted)) // another: it goes on where that was
		a.happens(tokenstore.EventDeleted, "c1")
		time.Sleep(time.Second)
		a.wants("connection.active c1", "connection.deleted c1")
		a.s.Use(nil)
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Hour)
		a.wants()
	})
}

func TestStoreThatWasRestored(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.s.Use(endpoint(t))
		for range 5 {
			a.happens(tokenstore.EventActive, "c1")
		}
		time.Sleep(2 * time.Second)
		a.take()
		a.s.Close()
		notes, err := a.store.ListNotes(t.Context(), "webhook/")
		if err != nil || len(notes) != 1 {
			t.Fatal(notes, err)
		}
		a.store = memstore.New()
		a.happens(tokenstore.EventActive, "old")
		if _, err := a.store.UpdateNote(t.Context(), notes[0].ID, func(n *tokenstore.Note) error {
			n.Text = notes[0].Text
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		a.restart()
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "new")
		time.Sleep(time.Second)
		a.wants("connection.active new")
		if n := a.logged("webhooks begin anew: the audit log was put back to what it was before"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}

func TestStoreThatFails(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.store.FailWrites(tokenstore.ErrFull)
		a.s.Use(endpoint(t))
		time.Sleep(time.Minute)
		if n := a.logged("webhooks wait for the store"); n != 1 {
			t.Errorf("logged %d times in a minute", n)
		}
		a.store.FailWrites(nil)
		time.Sleep(6 * time.Second)
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Second)
		a.wants("connection.active c1")
	})
}

// readAhead is a store that remembers how far it was read.
type readAhead struct {
	*memstore.Store
	mu  sync.Mutex
	far uint64
}

func (s *readAhead) ListEvents(
	ctx context.Context, f tokenstore.EventFilter, cursor string, limit int,
) ([]tokenstore.Event, string, error) {
	page, next, err := s.Store.ListEvents(ctx, f, cursor, limit)
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit > 1 && len(page) > 0 { // not a look for the end
		s.far = max(s.far, page[len(page)-1].Seq)
	}
	return page, next, err
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t)
		a.s.Close()
		store := &readAhead{Store: a.store}
		a.s = webhook.New(webhook.Config{Store: store, Transport: a, Encode: func(tokenstore.Event) ([]byte, error) {
			return []byte(`{}`), nil
		}})
		defer func() { a.s.Close() }()
		a.answers(func(delivery) (int, string) { return 503, "" })
		a.s.Use(endpoint(t))
		for i := range 1300 {
			a.happens(tokenstore.EventActive, fmt.Sprintf("c%d", i%300))
		}
		time.Sleep(time.Minute)
		store.mu.Lock()
		far := store.far
		store.mu.Unlock()
		if far != 1000 {
			t.Errorf("read %d events ahead, want 1000", far)
		}
		a.answers(nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		seen := map[string]bool{}
		for _, d := range a.got {
			seen[d.ID] = true
		}
		if len(seen) != 1300 {
			t.Errorf("%d events came, want 1300", len(seen))
		}
	})
}

func TestLogsHoldNoPath(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.answers(func(delivery) (int, string) { return 0, "" })
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Hour)
		var all bytes.Buffer
		for _, l := range a.logs.All() {
			fmt.Fprintln(&all, l.Message, l.ContextMap())
		}
		for _, s := range []string{"path-canary", hookSecret[6:20]} {
			if strings.Contains(all.String(), s) {
				t.Errorf("%q is in the log:\n%s", s, &all)
			}
		}
		if !strings.Contains(all.String(), "https://app.example.com") || !strings.Contains(all.String(), "connection refused") {
			t.Errorf("the log says too little:\n%s", &all)
		}
	})
}
