package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

// damaged is a store whose note of the endpoint's place does not open any more.
type damaged struct {
	webhook.Store
	gone bool
}

func (d *damaged) Note(ctx context.Context, id string) (tokenstore.Note, error) {
	if !d.gone {
		return tokenstore.Note{}, fmt.Errorf("reading: %w", tokenstore.ErrCorrupt)
	}
	return d.Store.Note(ctx, id)
}

func (d *damaged) UpdateNote(ctx context.Context, id string, f func(*tokenstore.Note) error) (tokenstore.Note, error) {
	if !d.gone {
		return tokenstore.Note{}, fmt.Errorf("changing: %w", tokenstore.ErrCorrupt)
	}
	return d.Store.UpdateNote(ctx, id, f)
}

func (d *damaged) DeleteNote(ctx context.Context, id string) error {
	d.gone = true
	return d.Store.(interface {
		DeleteNote(context.Context, string) error
	}).DeleteNote(ctx, id)
}

// TestDamagedPlace: one damaged note must not end an endpoint's webhooks for
// good.
func TestDamagedPlace(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		s := webhook.New(webhook.Config{
			Store: &damaged{Store: a.store}, Transport: a,
			Encode: func(e tokenstore.Event) ([]byte, error) {
				return fmt.Appendf(nil, `{"seq":%d,"connection_id":%q}`, e.Seq, e.ConnectionID), nil
			},
		})
		defer s.Close()
		s.Use(endpoint(t))
		time.Sleep(time.Minute)
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Hour)
		a.wants("connection.active c1")
	})
}

// TestNotAllAgainAfterARestart: what was taken behind an event that is not taken
// is not sent a second time.
func TestNotAllAgainAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		a.answers(func(d delivery) (int, string) {
			if d.Conn == "bad" {
				return http.StatusInternalServerError, ""
			}
			return http.StatusOK, ""
		})
		a.s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "bad")
		for i := range 500 {
			a.happens(tokenstore.EventActive, fmt.Sprintf("good%d", i))
		}
		time.Sleep(time.Hour)
		a.take()
		a.restart()
		a.s.Use(endpoint(t))
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(a.take()); got != 1 {
			t.Errorf("after the restart %d webhooks came, want that of the bad connection alone", got)
		}
		// And it is not lost.
		a.answers(nil)
		time.Sleep(time.Hour)
		a.wants("connection.active bad")
	})
}

// TestRemovedAndPutBack: an endpoint that is taken out and put back while a
// request to it is under way is never sent two webhooks of one connection at once.
func TestRemovedAndPutBack(t *testing.T) {
	bubble(t, func(t *testing.T, a *app) {
		under, most := 0, 0
		slow := roundTripper(func(r *http.Request) (*http.Response, error) {
			a.mu.Lock()
			under++
			most = max(most, under)
			a.mu.Unlock()
			time.Sleep(3 * time.Second)
			a.mu.Lock()
			under--
			a.mu.Unlock()
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
		})
		s := webhook.New(webhook.Config{
			Store: a.store, Transport: slow,
			Encode: func(_ tokenstore.Event) ([]byte, error) { return []byte(`{}`), nil },
		})
		defer s.Close()
		s.Use(endpoint(t))
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Second)
		s.Use(nil)
		s.Use(endpoint(t))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if most != 1 {
			t.Errorf("%d requests of one connection were under way at once", most)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestWaitedInTheLog: an event that was read late, since as many as may wait in
// memory were before it, is tried for its whole time too, and not once.
func TestWaitedInTheLog(t *testing.T) {
	t.Cleanup(webhook.SetMaxAhead(3))
	bubble(t, func(t *testing.T, a *app) {
		a.answers(func(delivery) (int, string) { return 500, "" })
		a.s.Use(endpoint(t))
		for i := range 4 {
			a.happens(tokenstore.EventActive, fmt.Sprintf("c%d", i))
		}
		time.Sleep(29*time.Hour + 30*time.Minute) // the first three are given up
		a.take()
		a.answers(nil)
		time.Sleep(2 * time.Hour)
		a.wants("connection.active c3")
	})
}
