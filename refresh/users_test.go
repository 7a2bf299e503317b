package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// countingStore counts what FindUser reads.
type countingStore struct {
	tokenstore.Store
	mu    sync.Mutex
	reads int
	slow  func() // called while NewestConnection is under way
}

func (s *countingStore) NewestConnection(ctx context.Context, f tokenstore.Filter) (tokenstore.Connection, error) {
	s.mu.Lock()
	s.reads++
	slow := s.slow
	s.mu.Unlock()
	c, err := s.Store.NewestConnection(ctx, f)
	if slow != nil {
		slow()
	}
	return c, err
}

func (r *rig) wantUser(want string) {
	r.t.Helper()
	g, err := r.FindUser(r.t.Context(), "acme", "u1")
	if err != nil || g.ConnectionID != want {
		r.t.Helper()
		r.t.Errorf("FindUser() = %v, %v; want %s", g, err, want)
	}
}

func (r *rig) add(change ...func(*tokenstore.Connection)) string {
	r.t.Helper()
	c := tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "acme", UserID: "u1", AuthScheme: tokenstore.AuthOAuth2, CreatedAt: time.Now(),
		Status: tokenstore.StatusActive, RequestedScopes: []string{"a"},
		Token: tokenstore.Token{AccessToken: secret.New("at-x"), Generation: 1},
	}
	for _, f := range change {
		f(&c)
	}
	if _, err := r.Store().CreateConnection(r.t.Context(), c); err != nil {
		r.t.Fatal(err)
	}
	return c.ID
}

func (r *rig) alter(id string, change func(*tokenstore.Connection)) {
	r.t.Helper()
	_, err := r.Store().UpdateConnection(r.t.Context(), id, func(c *tokenstore.Connection) error {
		change(c)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// Whatever happens to a user's connections, the newest usable one is found, and
// as long as nothing happens from memory.
func TestFindUser(t *testing.T) {
	r := newRig(t)
	store := &countingStore{Store: r.store}
	r.startOver(store)
	first := r.id
	r.wantUser(first)
	reads := store.reads
	r.wantUser(first)
	r.alter(first, func(c *tokenstore.Connection) { c.Token.Generation++ }) // a renewal
	r.wantUser(first)
	r.add(func(c *tokenstore.Connection) { c.UserID = "u2" })
	r.add(func(c *tokenstore.Connection) { c.Integration = "other" })
	r.wantUser(first)
	if store.reads != reads {
		t.Errorf("the store was read %d times for what was known", store.reads-reads)
	}

	second := r.add(func(c *tokenstore.Connection) { c.Status = tokenstore.StatusInitiated })
	r.wantUser(first)
	r.alter(second, func(c *tokenstore.Connection) { c.Activate(c.Token, nil, time.Now()) })
	r.wantUser(second)
	third := r.add()
	r.wantUser(third)
	r.add(func(c *tokenstore.Connection) { c.CreatedAt = time.Now().Add(-time.Hour) })
	r.wantUser(third)
	r.alter(third, func(c *tokenstore.Connection) { c.Disabled = true })
	r.wantUser(second)
	r.alter(third, func(c *tokenstore.Connection) { c.Disabled = false })
	r.wantUser(third)
	r.alter(third, (*tokenstore.Connection).Revoke)
	r.wantUser(second)
	if _, err := r.Store().DeleteConnection(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	r.wantUser(first)

	if g, err := r.FindUser(t.Context(), "acme", "nobody"); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("FindUser(nobody) = %v, %v", g, err)
	}
	// None can be used: the newest says why.
	last := r.add(func(c *tokenstore.Connection) { c.UserID, c.Disabled = "u3", true })
	if g, err := r.FindUser(t.Context(), "acme", "u3"); err != nil || g.ConnectionID != last || !g.Disabled {
		t.Errorf("FindUser(u3) = %v, %v", g, err)
	}
	dead := r.add(func(c *tokenstore.Connection) { c.UserID = "u4"; c.Expire("invalid_grant") })
	if g, err := r.FindUser(t.Context(), "acme", "u4"); err != nil || g.ConnectionID != dead || g.Status != tokenstore.StatusExpired {
		t.Errorf("FindUser(u4) = %v, %v", g, err)
	}
	if g, _ := r.Find(t.Context(), last); len(g.Requested) != 1 {
		t.Errorf("Requested = %v", g.Requested)
	}
}

// What is read slowly does not bring back what was changed meanwhile.
func TestFindUserBesideAChange(t *testing.T) {
	r := newRig(t)
	store := &countingStore{Store: r.store}
	r.startOver(store)
	var newer string
	store.slow = func() {
		store.mu.Lock()
		store.slow = nil
		store.mu.Unlock()
		newer = r.add()
	}
	r.wantUser(r.id) // it had been asked before
	r.wantUser(newer)
}

func TestFindUserUnderChange(t *testing.T) {
	r := newRig(t)
	r.startOver(r.store)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 50 {
				user := fmt.Sprint("w", i)
				id := r.add(func(c *tokenstore.Connection) { c.UserID = user })
				if g, err := r.FindUser(t.Context(), "acme", user); err != nil || g.ConnectionID != id {
					t.Errorf("after %d: FindUser() = %v, %v; want %s", n, g, err, id)
				}
			}
		})
	}
	wg.Wait()
}
