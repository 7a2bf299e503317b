package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
	"github.com/lanyard-proxy/lanyard/webhook"
)

// sidecar is one of several processes on one store.
type sidecar struct {
	tokenstore.Shared
	a *app
	s *webhook.Sender

	mu       sync.Mutex
	dead     bool          // it has ended without a word
	still    chan struct{} // it stands still until this is closed: nothing is renewed, nothing is read
	slowNote chan struct{} // a note it writes is not written before this is closed
	sent     int
}

// sidecar begins one that sends to the app.
func (a *app) sidecar() *sidecar {
	p := &sidecar{Shared: memstore.Shared{Store: a.store}, a: a}
	p.s = webhook.New(webhook.Config{
		Store: p, Transport: p, Logger: zap.NewNop(),
		Encode: func(e tokenstore.Event) ([]byte, error) {
			return fmt.Appendf(nil, `{"seq":%d,"connection_id":%q}`, e.Seq, e.ConnectionID), nil
		},
	})
	return p
}

func (p *sidecar) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

// stand has the sidecar stand still until the function that it returns is called.
func (p *sidecar) stand() (goOn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still = make(chan struct{})
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(p.still)
		p.still = nil
	}
}

// goes waits while the sidecar stands still, and says what a dead one does.
func (p *sidecar) goes() error {
	p.mu.Lock()
	still, dead := p.still, p.dead
	p.mu.Unlock()
	if dead {
		return tokenstore.ErrUnavailable
	}
	if still != nil {
		<-still
	}
	return nil
}

func (p *sidecar) TakeLease(ctx context.Context, name, owner string, life time.Duration) error {
	if err := p.goes(); err != nil {
		return err
	}
	return p.Shared.TakeLease(ctx, name, owner, life)
}

func (p *sidecar) RenewLease(ctx context.Context, name, owner string, life time.Duration) error {
	if err := p.goes(); err != nil {
		return err
	}
	return p.Shared.RenewLease(ctx, name, owner, life)
}

func (p *sidecar) DropLease(ctx context.Context, name, owner string) error {
	if err := p.goes(); err != nil {
		return err
	}
	return p.Shared.DropLease(ctx, name, owner)
}

func (p *sidecar) ListEvents(ctx context.Context, f tokenstore.EventFilter, cursor string, limit int) ([]tokenstore.Event, string, error) {
	if err := p.goes(); err != nil {
		return nil, "", err
	}
	return p.Shared.ListEvents(ctx, f, cursor, limit)
}

func (p *sidecar) UpdateNote(ctx context.Context, id string, change func(*tokenstore.Note) error) (tokenstore.Note, error) {
	if err := p.goes(); err != nil {
		return tokenstore.Note{}, err
	}
	p.mu.Lock()
	slow := p.slowNote
	p.mu.Unlock()
	if slow != nil {
		<-slow
	}
	return p.Shared.UpdateNote(context.WithoutCancel(ctx), id, change)
}

// RoundTrip implements http.RoundTripper.
func (p *sidecar) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	dead := p.dead
	p.sent++
	p.mu.Unlock()
	if dead {
		return nil, tokenstore.ErrUnavailable
	}
	return p.a.RoundTrip(r)
}

func (p *sidecar) sends() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

func twoSidecars(t *testing.T, f func(t *testing.T, a *app, one, two *sidecar)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t)
		a.s.Close()
		one, two := a.sidecar(), a.sidecar()
		one.s.Use(endpoint(t))
		time.Sleep(time.Second)
		two.s.Use(endpoint(t))
		time.Sleep(time.Second)
		defer one.s.Close()
		defer two.s.Close()
		f(t, a, one, two)
	})
}

// TestOneSidecarSends: each webhook is sent by one of them, and by the next as
// soon as that one ends.
func TestOneSidecarSends(t *testing.T) {
	twoSidecars(t, func(t *testing.T, a *app, one, two *sidecar) {
		var want []string
		for i := range 50 {
			a.happens(tokenstore.EventActive, "c1")
			want = append(want, "connection.active c1")
			if time.Sleep(700 * time.Millisecond); i == 20 {
				one.s.Close()
			}
		}
		time.Sleep(10 * time.Second)
		a.wants(want...)
		if one.sends() < 20 || one.sends()+two.sends() != 50 {
			t.Errorf("one sent %d, the other %d", one.sends(), two.sends())
		}
	})
}

// TestTakeover: what a sidecar that was killed has not sent is sent by another,
// and again only what was taken in its last second or so.
func TestTakeover(t *testing.T) {
	twoSidecars(t, func(t *testing.T, a *app, one, two *sidecar) {
		for range 100 {
			a.happens(tokenstore.EventActive, "c1")
			time.Sleep(100 * time.Millisecond)
		}
		one.kill()
		if got := two.sends(); got != 0 {
			t.Errorf("who stood by sent %d", got)
		}
		time.Sleep(500 * time.Millisecond)
		a.mu.Lock()
		taken := len(a.got)
		a.mu.Unlock()
		a.happens(tokenstore.EventActive, "c2")
		time.Sleep(21 * time.Second)
		synctest.Wait()
		again := taken + two.sends() - 101
		if got := a.take(); again < 0 || again > 15 || !slices.Contains(got, "connection.active c2") {
			t.Errorf("%d came before, %d after, of 101", taken, two.sends())
		}
	})
}

// TestStoodStill: a sidecar that stood still for longer than its lease sends
// nothing when it goes on, since another does.
func TestStoodStill(t *testing.T) {
	twoSidecars(t, func(t *testing.T, a *app, one, two *sidecar) {
		a.answers(func(delivery) (int, string) { return 500, "" })
		a.happens(tokenstore.EventActive, "c1")
		time.Sleep(time.Second)
		goOn := one.stand()
		time.Sleep(time.Minute)
		synctest.Wait()
		before, tried := one.sends(), two.sends()
		if tried == 0 {
			t.Error("nobody took over")
		}
		if before > 3 { // those within its lease
			t.Errorf("tried %d times behind another's back", before)
		}
		a.answers(nil)
		goOn()
		time.Sleep(time.Hour)
		if one.sends() != before {
			t.Errorf("%d more sent by who had stood still", one.sends()-before)
		}
	})
}

// TestStalePlace: the place that a sidecar writes which stood still does not put
// back what the one after it has written.
func TestStalePlace(t *testing.T) {
	twoSidecars(t, func(t *testing.T, a *app, one, _ *sidecar) {
		written := make(chan struct{})
		one.mu.Lock()
		one.slowNote = written
		one.mu.Unlock()
		a.happens(tokenstore.EventActive, "c1") // its place is under way from now on
		time.Sleep(2 * time.Second)
		goOn := one.stand()
		time.Sleep(30 * time.Second)
		for range 10 {
			a.happens(tokenstore.EventActive, "c2")
		}
		time.Sleep(10 * time.Second)
		place := func() string {
			notes, err := a.store.ListNotes(t.Context(), "webhook/")
			if err != nil || len(notes) != 1 {
				t.Fatalf("notes %v, %v", notes, err)
			}
			return notes[0].Text.Reveal()
		}
		was := place()
		close(written)
		goOn()
		time.Sleep(time.Minute)
		if now := place(); now != was {
			t.Errorf("place is %s, and was %s", now, was)
		}
	})
}
