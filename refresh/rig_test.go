package refresh_test

import (
	"context"
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
	pause time.Duration
	// grants are the scopes in its answers, nil if they tell none.
	grants []string
	// provisional is what its answers' tokens say of themselves.
	provisional bool

	mu     sync.Mutex
	calls  []string // the refresh tokens presented
	script []step   // what the next calls do; then all succeed
	n      int
}

// operator is who asks for a refresh in these tests.
var operator = tokenstore.Actor{Kind: tokenstore.ActorAPIKey, Name: "api_key 1", From: "192.0.2.1"}

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
	scopes := p.grants
	if len(scopes) == 0 {
		scopes = asked
	}
	if len(scopes) == 0 {
		scopes = prev.Scopes
	}
	return tokenstore.Token{
		AccessToken: secret.New("at-new-" + n), RefreshToken: secret.New("rt-new-" + n),
		IssuedAt: a.SentAt, ExpiresAt: a.SentAt.Add(tokenLife), Scopes: scopes, Provisional: p.provisional,
	}, nil
}

func (p *provider) Grace() bool { return p.grace }

func (p *provider) Origin() any { return p }

func (p *provider) Pause() time.Duration { return p.pause }

func (p *provider) Pace() (concurrency int, interval time.Duration) { return 16, 0 }

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
func (r *rig) start() { r.startOver(r.store) }

// startOver is start with another view of the store.
func (r *rig) startOver(store tokenstore.Store) {
	r.startWith(store, func() refresh.Provider { return r.prov })
}

// startWith is startOver with another view of the provider.
func (r *rig) startWith(store tokenstore.Store, prov func() refresh.Provider) {
	ref := refresh.New(refresh.Config{
		Store: store, Logger: zap.NewNop(),
		Provider: func(name string, _ map[string]string) (refresh.Provider, bool) { return prov(), name == "acme" },
	})
	r.Refresher = ref
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = ref.Close(ctx)
	})
}

// resolve is what the keeper does, and what comes of it.
func (r *rig) resolve() {
	r.Resolve(r.t.Context(), r.id)
	synctest.Wait()
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
