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
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// tokenLife is the life of the tokens in these tests: the soft margin begins
// 5 minutes before its end, the hard one 10 seconds.
const tokenLife = time.Hour

// provider is a token endpoint whose answers are scripted. It rotates.
type provider struct {
	store tokenstore.Store // looked at while a request is under way, may be nil
	delay time.Duration
	grace bool

	mu     sync.Mutex
	calls  []string // the refresh tokens presented
	script []step   // what the next calls do; then all succeed
	n      int
}

type step struct {
	sendErr error                   // no answer comes
	parse   error                   // the answer says no
	hook    func(*provider, string) // while the request is under way
}

func (p *provider) Refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Answer, error) {
	p.mu.Lock()
	p.calls = append(p.calls, t.RefreshToken.Reveal())
	var s step
	if len(p.script) > 0 {
		s, p.script = p.script[0], p.script[1:]
	}
	p.n++
	n := p.n
	p.mu.Unlock()
	a := tokenstore.Answer{SentAt: time.Now(), Status: 200, Body: secret.New(fmt.Sprint(n))}
	if s.hook != nil {
		s.hook(p, t.RefreshToken.Reveal())
	}
	if p.delay > 0 {
		select {
		case <-time.After(p.delay):
		case <-ctx.Done():
			return a, fmt.Errorf("%w: %w", tokenstore.ErrOutcomeUnknown, ctx.Err())
		}
	}
	if s.sendErr != nil {
		return a, s.sendErr
	}
	if s.parse != nil {
		a.Status = 400
		a.Body = secret.New("refused")
		p.mu.Lock()
		p.script = append([]step{{parse: s.parse}}, p.script...) // Parse takes it
		p.mu.Unlock()
	}
	a.ReceivedAt = time.Now()
	return a, nil
}

func (p *provider) Parse(a tokenstore.Answer, prev tokenstore.Token, asked []string) (tokenstore.Token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.Status != 200 {
		s := p.script[0]
		p.script = p.script[1:]
		return tokenstore.Token{}, s.parse
	}
	n := a.Body.Reveal()
	scopes := asked // the answer tells none
	if len(scopes) == 0 {
		scopes = prev.Scopes
	}
	return tokenstore.Token{
		AccessToken: secret.New("at-new-" + n), RefreshToken: secret.New("rt-new-" + n),
		IssuedAt: a.SentAt, ExpiresAt: a.SentAt.Add(tokenLife), Scopes: scopes,
	}, nil
}

func (p *provider) Grace() bool { return p.grace }

func (p *provider) presented() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.calls...)
}

// rig is a Refresher over a memory store with one connection.
type rig struct {
	*refresh.Refresher
	t     *testing.T
	store *memstore.Store
	prov  *provider
	id    string
}

func newRig(t *testing.T, change ...func(*tokenstore.Connection)) *rig {
	t.Helper()
	c := tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "acme", Provider: "acme", UserID: "u1",
		Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2, CreatedAt: time.Now(),
		Token: tokenstore.Token{
			AccessToken: secret.New("at-0"), RefreshToken: secret.New("rt-0"),
			IssuedAt: time.Now(), ExpiresAt: time.Now().Add(tokenLife), Generation: 1,
		},
	}
	for _, f := range change {
		f(&c)
	}
	r := &rig{t: t, store: memstore.New(), prov: &provider{}, id: c.ID}
	r.prov.store = r.store
	if _, err := r.store.CreateConnection(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	r.start()
	return r
}

// start makes a new Refresher over the same store, as a new process would.
func (r *rig) start() {
	ref := refresh.New(refresh.Config{
		Store: r.store, Logger: zap.NewNop(),
		Provider: func(name string) (refresh.Provider, bool) { return r.prov, name == "acme" },
	})
	r.Refresher = ref
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = ref.Close(ctx)
	})
}

// token is what a proxied call does.
func (r *rig) token(ctx context.Context) (*tokenstore.Grant, error) {
	g, err := r.Find(ctx, r.id)
	if err != nil {
		return nil, err
	}
	if g.Status != tokenstore.StatusActive {
		return nil, tokenstore.ErrReconnect
	}
	return r.Token(ctx, g)
}

func (r *rig) wantToken(want string) {
	r.t.Helper()
	g, err := r.token(r.t.Context())
	if err != nil {
		r.t.Fatalf("Token() error = %v, want %s", err, want)
	}
	if got := g.Token.AccessToken.Reveal(); got != want {
		r.t.Fatalf("Token() = %s, want %s", got, want)
	}
}

func (r *rig) wantCalls(want ...string) {
	r.t.Helper()
	if got := r.prov.presented(); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("refresh tokens presented = %v, want %v", got, want)
	}
}

func (r *rig) connection() tokenstore.Connection {
	r.t.Helper()
	c, err := r.store.Connection(r.t.Context(), r.id)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) wantStatus(status tokenstore.Status, reason string) {
	r.t.Helper()
	if c := r.connection(); c.Status != status || c.StatusReason != reason {
		r.t.Fatalf("connection is %s (%s), want %s (%s)", c.Status, c.StatusReason, status, reason)
	}
}

func invalidGrant() error {
	return &tokenstore.RefusalError{Kind: tokenstore.RefusedGrant, Code: "invalid_grant", Status: 400}
}

func unknown() error { return fmt.Errorf("connection reset: %w", tokenstore.ErrOutcomeUnknown) }

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
		if err := r.Refresh(t.Context(), r.id); err != nil {
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

func TestDeadRefreshToken(t *testing.T) {
	t.Run("access token over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{parse: invalidGrant()}}
			time.Sleep(tokenLife)
			for range 3 {
				if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
					t.Fatalf("Token() = %v, want ErrReconnect", err)
				}
			}
			r.wantCalls("rt-0")
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
			if c := r.connection(); !c.Token.AccessToken.IsZero() || !c.Token.RefreshToken.IsZero() {
				t.Error("the dead tokens are still kept")
			}
		})
	})
	t.Run("access token serves to its end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{parse: invalidGrant()}}
			time.Sleep(tokenLife - 2*time.Minute)
			r.wantToken("at-0")
			synctest.Wait()
			r.wantStatus(tokenstore.StatusActive, tokenstore.ReasonInvalidGrant)
			time.Sleep(2*time.Minute - time.Second)
			r.wantToken("at-0")
			time.Sleep(time.Second)
			if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("after its end: %v, want ErrReconnect", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
			r.wantCalls("rt-0")
		})
	})
	t.Run("access token refused too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{parse: invalidGrant()}}
			if _, err := r.Renew(t.Context(), r.id, 1); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("Renew() = %v, want ErrReconnect", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
		})
	})
	t.Run("found out by an operator, then refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			if _, err := r.Renew(t.Context(), r.id, 1); err != nil {
				t.Fatal(err)
			}
			r.prov.mu.Lock()
			r.prov.script = []step{{parse: invalidGrant()}}
			r.prov.mu.Unlock()
			if err := r.Refresh(t.Context(), r.id); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Fatalf("Refresh() = %v, want ErrReconnect", err)
			}
			if _, err := r.Renew(t.Context(), r.id, 2); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("Renew() within a minute = %v, want ErrReconnect: nobody has to be asked", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
		})
	})
	t.Run("there was none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokenstore.Connection) { c.Token.RefreshToken = secret.String{} })
			if _, err := r.Renew(t.Context(), r.id, 1); !errors.Is(err, tokenstore.ErrNotRenewed) {
				t.Errorf("Renew() = %v, want ErrNotRenewed", err)
			}
			time.Sleep(tokenLife - time.Second)
			r.wantToken("at-0")
			time.Sleep(time.Second)
			if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("Token() = %v, want ErrReconnect", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonNoRefreshToken)
		})
	})
}

func TestUnknownOutcome(t *testing.T) {
	t.Run("waits for the hard margin, then works", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{sendErr: unknown()}}
			time.Sleep(tokenLife - 4*time.Minute)
			for range 23 {
				r.wantToken("at-0")
				time.Sleep(10 * time.Second)
			}
			r.wantCalls("rt-0")
			r.wantToken("at-new-2")
			r.wantCalls("rt-0", "rt-0")
			r.wantStatus(tokenstore.StatusActive, "")
			if c := r.connection(); c.Intent != nil {
				t.Error("the intent is still open")
			}
		})
	})
	t.Run("is tried again at once where there is a grace window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.grace = true
			r.prov.script = []step{{sendErr: unknown()}}
			time.Sleep(tokenLife - 4*time.Minute)
			r.wantToken("at-0")
			time.Sleep(2 * time.Second)
			r.wantToken("at-0")
			synctest.Wait()
			r.wantToken("at-new-2")
		})
	})
	t.Run("then dead is interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{sendErr: unknown()}, {parse: invalidGrant()}}
			time.Sleep(tokenLife)
			if _, err := r.token(t.Context()); err == nil {
				t.Fatal("a token after an unknown outcome")
			}
			r.wantStatus(tokenstore.StatusActive, "")
			time.Sleep(2 * time.Second)
			if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("Token() = %v, want ErrReconnect", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonRefreshInterrupted)
		})
	})
	t.Run("a refused access token does not wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{sendErr: unknown()}}
			time.Sleep(tokenLife - 4*time.Minute)
			r.wantToken("at-0")
			time.Sleep(5 * time.Second)
			if g, err := r.Renew(t.Context(), r.id, 1); err != nil || g.Token.Generation != 2 {
				t.Errorf("Renew() = %+v, %v; want generation 2", g, err)
			}
		})
	})
}

func TestIntentAndAnswerAreStoredFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{hook: func(p *provider, rt string) {
			c, err := p.store.Connection(context.Background(), r.id)
			if err != nil || c.Intent == nil || c.Intent.RefreshTokenHash != secret.New(rt).Hash() {
				t.Errorf("while the request is under way: intent %+v, %v", c.Intent, err)
			}
		}}}
		time.Sleep(tokenLife)
		r.wantToken("at-new-1")
		if c := r.connection(); c.Intent != nil || c.Token.RefreshToken.Reveal() != "rt-new-1" || c.LastRefreshedAt.IsZero() {
			t.Errorf("stored: intent %v, generation %d", c.Intent, c.Token.Generation)
		}
	})
}

func TestScopesStayAsGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			c.RequestedScopes = []string{"read", "write"}
			c.Token.Scopes = []string{"read"}
		})
		if err := r.Refresh(t.Context(), r.id); err != nil {
			t.Fatal(err)
		}
		if c := r.connection(); len(c.Token.Scopes) != 1 || len(c.MissingScopes()) != 1 {
			t.Errorf("scopes after a refresh = %v, missing %v; want those granted at first", c.Token.Scopes, c.MissingScopes())
		}
	})
}

func TestNoIntentNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.wantToken("at-0")
		r.store.FailWrites(tokenstore.ErrUnavailable)
		time.Sleep(tokenLife)
		if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrUnavailable) {
			t.Errorf("Token() = %v, want the store's error", err)
		}
		r.wantCalls()
		r.store.FailWrites(nil)
		time.Sleep(2 * time.Second)
		r.wantToken("at-new-1")
	})
}

func TestAnswerThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{hook: func(*provider, string) { r.store.FailWrites(tokenstore.ErrUnavailable) }}}
		time.Sleep(tokenLife)
		for range 50 { // served from memory, the one exception
			r.wantToken("at-new-1")
			time.Sleep(time.Minute)
		}
		if r.Unsaved() != 1 {
			t.Errorf("Unsaved() = %d, want 1", r.Unsaved())
		}
		if _, err := r.Renew(t.Context(), r.id, 2); err == nil {
			t.Error("Renew() of the unstored token brought one: the provider was asked without an intent")
		}
		time.Sleep(30 * time.Minute) // it is over now, and nobody may ask for the next one
		r.wantCalls("rt-0")

		r.store.FailWrites(nil)
		time.Sleep(2 * time.Minute)
		if c := r.connection(); c.Token.RefreshToken.Reveal() != "rt-new-1" || r.Unsaved() != 0 {
			t.Errorf("once the store can write: generation %d, unsaved %d", c.Token.Generation, r.Unsaved())
		}
		r.wantToken("at-new-2")
		r.wantCalls("rt-0", "rt-new-1")
	})
	t.Run("nor its no", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{parse: invalidGrant(), hook: func(*provider, string) { r.store.FailWrites(tokenstore.ErrUnavailable) }}, {parse: invalidGrant()}}
			time.Sleep(tokenLife)
			if _, err := r.token(t.Context()); err == nil {
				t.Error("a token from a refusal")
			}
			r.wantStatus(tokenstore.StatusActive, "")
			r.store.FailWrites(nil)
			time.Sleep(2 * time.Minute)
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
			r.wantCalls("rt-0")
		})
	})
}

func TestRecover(t *testing.T) {
	t.Run("an answer that was kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokenstore.Connection) {
				c.Intent = &tokenstore.Intent{
					RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, StartedAt: time.Now(), Deadline: time.Now().Add(20 * time.Second),
					Answer: &tokenstore.Answer{Status: 200, SentAt: time.Now(), ReceivedAt: time.Now(), Body: secret.New("77")},
				}
			})
			if err := r.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.wantCalls()
			r.wantToken("at-new-77")
		})
	})
	t.Run("no answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokenstore.Connection) {
				c.Intent = &tokenstore.Intent{RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, StartedAt: time.Now(), Deadline: time.Now().Add(20 * time.Second)}
			})
			r.prov.script = []step{{parse: invalidGrant()}}
			time.Sleep(tokenLife)
			if err := r.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.wantCalls("rt-0")
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonRefreshInterrupted)
		})
	})
}

func TestReconnectedWhileRefreshing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{hook: func(*provider, string) {
			_, err := r.Store().UpdateConnection(context.Background(), r.id, func(c *tokenstore.Connection) error {
				c.Activate(tokenstore.Token{AccessToken: secret.New("at-re"), RefreshToken: secret.New("rt-re"), IssuedAt: time.Now(), ExpiresAt: time.Now().Add(tokenLife)}, nil, time.Now())
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}}}
		time.Sleep(tokenLife)
		r.wantToken("at-re")
		r.wantCalls("rt-0")
		if c := r.connection(); c.Token.RefreshToken.Reveal() != "rt-re" {
			t.Error("the late answer replaced the reconnected credential")
		}
	})
}

func TestLateAnswerOfAnotherCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{hook: func(*provider, string) {
			_, err := r.Store().UpdateConnection(context.Background(), r.id, func(c *tokenstore.Connection) error {
				c.Activate(tokenstore.Token{AccessToken: secret.New("at-re"), RefreshToken: secret.New("rt-re"), IssuedAt: time.Now(), ExpiresAt: time.Now().Add(tokenLife)}, nil, time.Now())
				c.Intent = &tokenstore.Intent{RefreshTokenHash: secret.New("rt-0").Hash(), Deadline: time.Now().Add(tokenLife)}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}}}
		time.Sleep(tokenLife)
		r.wantToken("at-re")
		if c := r.connection(); c.Token.RefreshToken.Reveal() != "rt-re" || c.Intent == nil || c.Intent.Answer != nil {
			t.Error("the late answer was taken for the reconnected credential's")
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
	ref := refresh.New(refresh.Config{Store: st, Logger: zap.NewNop(), Provider: func(string) (refresh.Provider, bool) { return r.prov, true }})
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
	ref := refresh.New(refresh.Config{Store: st, Logger: zap.NewNop(), CacheSize: 256, Provider: func(string) (refresh.Provider, bool) { return r.prov, true }})
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
