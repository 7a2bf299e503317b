package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// After an unknown outcome the same refresh token is not sent while the access
// token serves, though nobody knows how long that is.
func TestUnknownOutcomeWithoutAnEnd(t *testing.T) {
	t.Run("the end is guessed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokenstore.Connection) { c.Token.ExpiryUnknown = true })
			r.prov.script = []step{{sendErr: unknown()}}
			time.Sleep(tokenLife - 4*time.Minute)
			for range 23 {
				r.wantToken("at-0")
				r.resolve()
				time.Sleep(10 * time.Second)
			}
			r.wantCalls("rt-0")
			time.Sleep(10 * time.Second)
			r.resolve()
			r.wantToken("at-new-2")
		})
	})
	t.Run("there is none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokenstore.Connection) { c.Token.ExpiresAt = time.Time{} })
			r.prov.script = []step{{sendErr: unknown()}}
			for range 3 {
				if err := r.Refresh(t.Context(), r.id, operator); err == nil {
					t.Fatal("Refresh() = nil after an unknown outcome")
				}
				r.wantToken("at-0")
				r.resolve()
				time.Sleep(time.Hour)
			}
			r.wantCalls("rt-0")
			if due, err := r.store.DueConnections(t.Context(), time.Now().AddDate(1, 0, 0)); err != nil || len(due) > 0 {
				t.Errorf("due: %v, %v; want nothing", due, err)
			}
			if g, err := r.Renew(t.Context(), r.id, 1); err != nil || g.Token.Generation != 2 {
				t.Errorf("once refused: Renew() = %+v, %v; want generation 2", g, err)
			}
		})
	})
}

// The run before ended in the middle of a second try.
func TestRecoverASecondTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			c.Token.IssuedAt, c.Token.ExpiresAt = time.Now().Add(-2*tokenLife), time.Now().Add(-tokenLife)
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, Unknown: 1,
				StartedAt: time.Now(), Deadline: time.Now().Add(20 * time.Second),
			}
		})
		if err := r.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.wantCalls("rt-0")
		r.wantToken("at-new-1")
	})
}

// gone is a store that is out from its first update on.
type gone struct {
	*memstore.Store
	mu  sync.Mutex
	out bool
}

func (s *gone) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out {
		return tokenstore.Connection{}, tokenstore.ErrUnavailable
	}
	return s.Store.Connection(ctx, id)
}

func (s *gone) UpdateConnection(
	context.Context, string, func(*tokenstore.Connection) error,
) (tokenstore.Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = true
	return tokenstore.Connection{}, tokenstore.ErrUnavailable
}

func TestValidTokenOutlastsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ref := refresh.New(refresh.Config{
			Store: &gone{Store: r.store}, Logger: zap.NewNop(),
			Provider: func(string, map[string]string) (refresh.Provider, bool) { return r.prov, true },
		})
		defer func() { _ = ref.Close(t.Context()) }()
		if _, err := ref.Find(t.Context(), r.id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tokenLife - 4*time.Minute)
		for range 4*60 - 1 { // in the soft margin, then in the hard one
			g, err := ref.Find(t.Context(), r.id)
			if err == nil {
				_, err = ref.Token(t.Context(), g)
			}
			if err != nil {
				t.Fatalf("a call with a valid token: %v", err)
			}
			time.Sleep(time.Second)
		}
		r.wantCalls()
	})
}

// down is a token endpoint that can't be reached. It counts.
type down struct {
	mu    sync.Mutex
	calls map[string]int // :: refresh token → how often it was to be sent
}

func (d *down) Refresh(_ context.Context, t tokenstore.Token) (tokenstore.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[t.RefreshToken.Reveal()]++
	return tokenstore.Answer{}, tokenstore.ErrNotSent
}

func (*down) Parse(tokenstore.Answer, tokenstore.Token, []string) (tokenstore.Token, error) {
	return tokenstore.Token{}, tokenstore.ErrOutcomeUnknown
}

func (*down) Grace() bool { return false }

func (d *down) Origin() any { return d }

func (*down) Pace() (concurrency int, interval time.Duration) { return 1, 0 }

func (*down) Pause() time.Duration { return 0 }

// With more failing connections than are remembered without a look, each still
// backs off, by itself: each has an integration of its own.
func TestBackOffOfManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, d := memstore.New(), &down{calls: map[string]int{}}
		r := refresh.New(refresh.Config{Store: store, Logger: zap.NewNop(), Provider: func(string, map[string]string) (refresh.Provider, bool) { return d, true }})
		defer func() { _ = r.Close(t.Context()) }()
		ids := make([]string, 4500)
		for i := range ids {
			ids[i] = tokenstore.NewID()
			_, err := store.CreateConnection(t.Context(), tokenstore.Connection{
				ID: ids[i], Integration: fmt.Sprint("acme-", i), Status: tokenstore.StatusActive,
				Token: tokenstore.Token{
					AccessToken: secret.New("at"), RefreshToken: secret.New(fmt.Sprint("rt-", i)), Generation: 1,
					IssuedAt: time.Now().Add(-2 * tokenLife), ExpiresAt: time.Now().Add(-tokenLife),
				},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 30 {
			for _, id := range ids {
				g, err := r.Find(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.Token(t.Context(), g); err == nil {
					t.Fatal("a token from nowhere")
				}
			}
			time.Sleep(time.Second)
		}
		for token, n := range d.calls {
			if n > 8 { // after 1, 2, 4, 8 and 16 seconds
				t.Fatalf("%s was tried %d times in half a minute", token, n)
			}
		}
	})
}

// The keeper asks every two seconds; the provider said fifteen minutes.
func TestResolveIsQuietWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, Unknown: 1, StartedAt: time.Now(), Deadline: time.Now(),
			}
		})
		r.prov.script = []step{{parse: &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow, Status: 429, RetryAfter: 15 * time.Minute}}}
		core, logs := observer.New(zap.DebugLevel)
		ref := refresh.New(refresh.Config{Store: r.store, Logger: zap.New(core), Provider: func(string, map[string]string) (refresh.Provider, bool) { return r.prov, true }})
		defer func() { _ = ref.Close(t.Context()) }()
		for range 400 {
			ref.Resolve(t.Context(), r.id)
			time.Sleep(2 * time.Second)
		}
		r.wantCalls("rt-0")
		if n := logs.Len(); n > 4 {
			t.Errorf("%d log entries for one refusal", n)
		}
	})
}

// A call is refused while a renewal is under way for which the access token
// serves to its end: what that finds out is the end for this caller too.
func TestRefusedDuringADueRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script, r.prov.delay = []step{{parse: invalidGrant()}}, time.Second
		time.Sleep(tokenLife - 2*time.Minute)
		r.wantToken("at-0")
		if _, err := r.Renew(t.Context(), r.id, 1); !errors.Is(err, tokenstore.ErrReconnect) {
			t.Errorf("Renew() = %v, want ErrReconnect", err)
		}
		r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
		r.wantCalls("rt-0")
	})
}

// What failed in the same moment is not tried again in the same moment.
func TestBackOffIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.set(notSent)
		f := newFleet(t, 100, -time.Minute, end)
		for i, id := range f.ids { // each at an integration of its own: no circuit
			_, err := f.store.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error {
				c.Integration = fmt.Sprint("acme-", i)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 5 { // the longer the back-off, the more its spread is
			for _, id := range f.ids {
				go func() { _ = f.call(id) }()
			}
			time.Sleep(time.Minute)
		}
		for _, id := range f.ids {
			go func() { _ = f.call(id) }()
		}
		time.Sleep(end.delay)
		synctest.Wait()
		waits := map[time.Duration]bool{}
		for _, id := range f.ids {
			un, ok := errors.AsType[*tokenstore.UnavailableError](f.call(id))
			if !ok {
				t.Fatal("a token from nowhere")
			}
			waits[un.RetryAfter] = true
		}
		if len(waits) < 50 {
			t.Errorf("100 that failed together are tried again at %d times", len(waits))
		}
	})
}
