package api_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// dying is a shared store whose process ends as soon as it has made a connection,
// if it is mortal.
type dying struct {
	memstore.Shared
	mortal bool
	dead   atomic.Bool
}

func (s *dying) alive() error {
	if s.dead.Load() {
		return tokenstore.ErrUnavailable
	}
	return nil
}

func (s *dying) CreateConnection(ctx context.Context, c tokenstore.Connection) (tokenstore.Connection, error) {
	made, err := s.Shared.CreateConnection(ctx, c)
	s.dead.Store(s.mortal)
	return made, err
}

func (s *dying) UpdateNote(ctx context.Context, id string, change func(*tokenstore.Note) error) (tokenstore.Note, error) {
	if err := s.alive(); err != nil {
		return tokenstore.Note{}, err
	}
	return s.Shared.UpdateNote(ctx, id, change)
}

func (s *dying) RenewLease(ctx context.Context, name, owner string, life time.Duration) error {
	if err := s.alive(); err != nil {
		return err
	}
	return s.Shared.RenewLease(ctx, name, owner, life)
}

func (s *dying) DropLease(ctx context.Context, name, owner string) error {
	if err := s.alive(); err != nil {
		return err
	}
	return s.Shared.DropLease(ctx, name, owner)
}

// sidecars returns two handlers on one store, of which the first is slow to
// refresh, and mortal if that is said.
func sidecars(t *testing.T, mortal bool) (one, two *bench, slow *slowRefresher) {
	t.Helper()
	mem := memstore.New()
	slow = &slowRefresher{let: make(chan struct{})}
	one = newBench(t, func(c *api.Config) {
		c.Store, c.Refresher = &dying{Shared: memstore.Shared{Store: mem}, mortal: mortal}, slow
	})
	two = newBench(t, func(c *api.Config) { c.Store = memstore.Shared{Store: mem} })
	one.store, two.store = mem, mem
	return one, two, slow
}

// What is under way at one sidecar is under way at the other, and its answer is
// repeated there.
func TestIdempotencyConflictBetweenSidecars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, slow := sidecars(t, false)
		path := "/v1/connections/" + one.put(active("a")).ID + "/refresh"
		first := make(chan answer)
		go func() { first <- one.do("POST", path, "", once("k")) }()
		time.Sleep(20 * time.Second) // longer than a lease that nobody renews
		two.wants(two.do("POST", path, "", once("k")), 409, "idempotency_conflict")
		close(slow.let)
		a := <-first
		one.wants(a, 200, "")
		if again := two.do("POST", path, "", once("k")); again.text != a.text || again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("again, at the other: %d %s", again.status, again.text)
		}
	})
}

// What a sidecar has begun that was killed is ended by another.
func TestIdempotencyAfterTheCrashOfASidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, _ := sidecars(t, true)
		body := `{"integration":"github"}`
		id := one.begun(one.do("POST", "/v1/connections", body, once("k")))
		time.Sleep(10 * time.Second)
		two.wants(two.do("POST", "/v1/connections", body, once("k")), 409, "idempotency_conflict")
		time.Sleep(6 * time.Second)
		again := two.do("POST", "/v1/connections", body, once("k"))
		if got := two.begun(again); got != id || two.count() != 1 || again.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("again, at the other: %s, %d connections", again.text, two.count())
		}
	})
}
