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

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

func TestTokenByAge(t *testing.T) {
	tests := []struct {
		name  string
		age   time.Duration
		want  string // the token of the call at this age
		calls int    // token requests, once all has settled
	}{
		{"fresh", 0, "at-0", 0},
		{"before the soft margin", tokenLife - 5*time.Minute - time.Second, "at-0", 0},
		{"in the soft margin", tokenLife - 5*time.Minute, "at-0", 1},
		{"before the hard margin", tokenLife - 11*time.Second, "at-0", 1},
		{"in the hard margin", tokenLife - 10*time.Second, "at-new-1", 1},
		{"expired", 2 * tokenLife, "at-new-1", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.prov.delay = time.Second
				time.Sleep(tt.age)
				r.wantToken(tt.want)
				time.Sleep(2 * time.Second)
				if got := len(r.prov.presented()); got != tt.calls {
					t.Errorf("%d token requests, want %d", got, tt.calls)
				}
				if tt.calls > 0 {
					r.wantToken("at-new-1")
				}
			})
		})
	}
}

func TestOneRefreshForAThousandCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.delay = 3 * time.Second
		time.Sleep(tokenLife)
		var wg sync.WaitGroup
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() {
			if _, err := r.token(impatient); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("impatient caller: %v, want DeadlineExceeded", err)
			}
		})
		for range 1000 {
			wg.Go(func() {
				if g, err := r.token(t.Context()); err != nil || g.Token.Generation != 2 {
					t.Errorf("Token() = %+v, %v; want generation 2", g, err)
				}
			})
		}
		wg.Wait()
		r.wantCalls("rt-0")
	})
}

func TestHundredRefusalsOfOneGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.delay = time.Second
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if g, err := r.Renew(t.Context(), r.id, 1); err != nil || g.Token.Generation != 2 {
					t.Errorf("Renew(1) = %+v, %v; want generation 2", g, err)
				}
			})
		}
		wg.Wait()
		if g, err := r.Renew(t.Context(), r.id, 1); err != nil || g.Token.Generation != 2 {
			t.Errorf("a late refusal: Renew(1) = %+v, %v; want the newer token", g, err)
		}
		r.wantCalls("rt-0")

		if _, err := r.Renew(t.Context(), r.id, 2); !errors.Is(err, tokenstore.ErrNotRenewed) {
			t.Errorf("second forced renewal within a minute: %v, want ErrNotRenewed", err)
		}
		if err := r.Refresh(t.Context(), r.id, operator); err != nil {
			t.Errorf("Refresh() = %v: it does not count", err)
		}
		time.Sleep(time.Minute)
		if g, err := r.Renew(t.Context(), r.id, 3); err != nil || g.Token.Generation != 4 {
			t.Errorf("a minute later: Renew(3) = %+v, %v; want generation 4", g, err)
		}
		time.Sleep(tokenLife - 4*time.Minute)
		if _, err := r.Renew(t.Context(), r.id, 4); err != nil {
			t.Errorf("refused past its soft margin: %v, want a renewal", err)
		}
		if _, err := r.Renew(t.Context(), r.id, 5); err != nil {
			t.Errorf("the one before did not count: %v, want a renewal", err)
		}
	})
}

func TestFailedRefreshFailsNoCallWhileTheTokenIsValid(t *testing.T) {
	causes := map[string]step{
		"not sent": {sendErr: fmt.Errorf("dial: %w", tokenstore.ErrNotSent)},
		"unknown":  {sendErr: unknown()},
		"429":      {parse: &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow, Code: "slow_down", Status: 429}},
		"client":   {parse: &tokenstore.RefusalError{Kind: tokenstore.RefusedClient, Code: "invalid_client", Status: 401}},
	}
	for name, cause := range causes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				for range 1000 {
					r.prov.script = append(r.prov.script, cause)
				}
				time.Sleep(tokenLife - 5*time.Minute)
				for range 299 {
					r.wantToken("at-0")
					time.Sleep(time.Second)
				}
				time.Sleep(2 * time.Second)
				before := len(r.prov.presented())
				if before > 20 {
					t.Errorf("%d token requests in five minutes of failure: no back-off", before)
				}
				_, err := r.token(t.Context())
				if un, ok := errors.AsType[*tokenstore.UnavailableError](err); !ok || un.RetryAfter < time.Second || un.RetryAfter > 15*time.Minute {
					t.Errorf("after its end: %v, want an UnavailableError with a time", err)
				}
				r.wantStatus(tokenstore.StatusActive, "")

				r.prov.mu.Lock()
				r.prov.script = nil
				r.prov.mu.Unlock()
				time.Sleep(75 * time.Second)
				if g, err := r.token(t.Context()); err != nil || g.Token.Generation != 2 {
					t.Errorf("once the endpoint is back: %+v, %v; want generation 2", g, err)
				}
			})
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{parse: &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow, Status: 429, RetryAfter: 5 * time.Minute}}}
		time.Sleep(tokenLife)
		for range 10 {
			_, err := r.token(t.Context())
			if un, ok := errors.AsType[*tokenstore.UnavailableError](err); !ok || un.RetryAfter > 5*time.Minute {
				t.Fatalf("Token() = %v, want UnavailableError", err)
			}
			time.Sleep(20 * time.Second)
		}
		r.wantCalls("rt-0")
		time.Sleep(2 * time.Minute)
		r.wantToken("at-new-2")
	})
}

func TestScopesStayAsGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			c.RequestedScopes = []string{"read", "write"}
			c.Token.Scopes = []string{"read"}
		})
		if err := r.Refresh(t.Context(), r.id, operator); err != nil {
			t.Fatal(err)
		}
		if c := r.connection(); len(c.Token.Scopes) != 1 || len(c.MissingScopes()) != 1 {
			t.Errorf("scopes after a refresh = %v, missing %v; want those granted at first", c.Token.Scopes, c.MissingScopes())
		}
	})
}

// slow is a store whose next read is answered only after `between`.
type slow struct {
	*memstore.Store
	between func()
}

func (s *slow) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	c, err := s.Store.Connection(ctx, id)
	if f := s.between; f != nil {
		s.between = nil
		f()
	}
	return c, err
}

func TestSlowReadBringsNothingBack(t *testing.T) {
	r := newRig(t)
	st := &slow{Store: r.store}
	ref := refresh.New(refresh.Config{Store: st, Logger: zap.NewNop(), Provider: func(string, map[string]string) (refresh.Provider, bool) { return r.prov, true }})
	defer func() { _ = ref.Close(t.Context()) }()
	st.between = func() {
		if _, err := ref.Store().DeleteConnection(t.Context(), r.id); err != nil {
			t.Error(err)
		}
	}
	_, _ = ref.Find(t.Context(), r.id) // began before the deletion
	if _, err := ref.Find(t.Context(), r.id); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("Find() after the deletion = %v, want ErrNotFound", err)
	}
}

func TestChangesAreSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.wantToken("at-0")
		_, err := r.Store().UpdateConnection(t.Context(), r.id, func(c *tokenstore.Connection) error { c.Revoke(); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
			t.Errorf("after a revocation: %v, want ErrReconnect", err)
		}
		if _, err := r.Store().DeleteConnection(t.Context(), r.id); err != nil {
			t.Fatal(err)
		}
		if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrNotFound) {
			t.Errorf("after a deletion: %v, want ErrNotFound", err)
		}
	})
}

// reads counts what the hot path must not do.
type reads struct {
	*memstore.Store
	n int
}

func (s *reads) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	s.n++
	return s.Store.Connection(ctx, id)
}

func TestHotPathReadsNoStore(t *testing.T) {
	r := newRig(t)
	st := &reads{Store: r.store}
	ref := refresh.New(refresh.Config{Store: st, Logger: zap.NewNop(), CacheSize: 256, Provider: func(string, map[string]string) (refresh.Provider, bool) { return r.prov, true }})
	defer func() { _ = ref.Close(t.Context()) }()
	for range 1000 {
		g, err := ref.Find(t.Context(), r.id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ref.Token(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	if st.n != 1 {
		t.Errorf("%d store reads for 1000 calls, want 1", st.n)
	}
	if ref.LastUsed(r.id).IsZero() {
		t.Error("LastUsed() is zero after a thousand uses")
	}
}

func TestCloseWaitsForRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.delay = 5 * time.Second
		time.Sleep(tokenLife - time.Minute)
		r.wantToken("at-0") // starts one behind
		synctest.Wait()
		if err := r.Close(t.Context()); err != nil {
			t.Errorf("Close() = %v", err)
		}
		if c := r.connection(); c.Token.Generation != 2 {
			t.Errorf("generation %d after Close, want 2: the refresh was not waited for", c.Token.Generation)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.delay = 15 * time.Second
		time.Sleep(tokenLife - time.Minute)
		r.wantToken("at-0")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Close(ctx); err == nil {
			t.Error("Close() = nil with a refresh cut short")
		}
		if c := r.connection(); c.Intent == nil || c.Intent.Unknown != 1 {
			t.Errorf("intent = %+v, want one with an unknown outcome", c.Intent)
		}
	})
}
