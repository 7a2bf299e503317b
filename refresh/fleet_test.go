package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// endpoint is a token endpoint for many connections. It rotates.
type endpoint struct {
	concurrency int
	interval    time.Duration
	delay       time.Duration
	life        time.Duration

	mu       sync.Mutex
	fail     func(t tokenstore.Token) error // nil: it works
	begun    []time.Time                    // when each request came
	sent     map[string]int                 // :: refresh token → how often it came
	spent    map[string]bool                // refresh tokens that were redeemed
	reused   int
	underway int
	most     int // under way at the same time
}

func newEndpoint() *endpoint {
	return &endpoint{concurrency: 16, interval: 20 * time.Millisecond, delay: 100 * time.Millisecond, life: tokenLife, spent: map[string]bool{}, sent: map[string]int{}}
}

func (e *endpoint) Refresh(_ context.Context, t tokenstore.Token) (tokenstore.Answer, error) {
	e.mu.Lock()
	e.begun = append(e.begun, time.Now())
	e.sent[t.RefreshToken.Reveal()]++
	e.underway++
	e.most = max(e.most, e.underway)
	fail := e.fail
	e.mu.Unlock()
	a := tokenstore.Answer{SentAt: time.Now(), Status: 200, Body: t.RefreshToken}
	time.Sleep(e.delay)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.underway--
	if fail != nil {
		if err := fail(t); err != nil {
			if refusal, ok := errors.AsType[*tokenstore.RefusalError](err); ok {
				a.Status, a.Body = refusal.Status, secret.New(fmt.Sprint(int(refusal.RetryAfter)))
				return a, nil
			}
			return a, err
		}
	}
	if e.spent[t.RefreshToken.Reveal()] {
		e.reused++
	}
	e.spent[t.RefreshToken.Reveal()] = true
	a.ReceivedAt = time.Now()
	return a, nil
}

func (e *endpoint) Parse(a tokenstore.Answer, _ tokenstore.Token, _ []string) (tokenstore.Token, error) {
	var wait int
	_, _ = fmt.Sscan(a.Body.Reveal(), &wait)
	switch a.Status {
	case 429:
		return tokenstore.Token{}, &tokenstore.RefusalError{Status: 429, Code: "too_many_requests", RetryAfter: time.Duration(wait)}
	case 401:
		return tokenstore.Token{}, &tokenstore.RefusalError{Kind: tokenstore.RefusedClient, Status: 401, Code: "invalid_client"}
	}
	next := a.Body.Reveal() + "+"
	return tokenstore.Token{
		AccessToken: secret.New("at-" + next), RefreshToken: secret.New(next),
		IssuedAt: a.SentAt, ExpiresAt: a.SentAt.Add(e.life),
	}, nil
}

func (*endpoint) Grace() bool { return false }

func (e *endpoint) Origin() any { return e }

func (e *endpoint) Pace() (concurrency int, interval time.Duration) { return e.concurrency, e.interval }

func (e *endpoint) Pause() time.Duration { return 0 }

func (e *endpoint) set(fail func(tokenstore.Token) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = fail
}

func (e *endpoint) requests() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.begun)
}

// repeated reports whether a refresh token came more than once.
func (e *endpoint) repeated() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.sent {
		if n > 1 {
			return true
		}
	}
	return false
}

// fleet is a Refresher with many connections at one endpoint.
type fleet struct {
	*refresh.Refresher
	t     *testing.T
	store *memstore.Store
	end   *endpoint
	ids   []string
}

// newFleet makes n connections whose tokens end after left.
func newFleet(t *testing.T, n int, left time.Duration, end *endpoint) *fleet {
	t.Helper()
	f := &fleet{t: t, store: memstore.New(), end: end}
	for i := range n {
		id := tokenstore.NewID()
		f.ids = append(f.ids, id)
		_, err := f.store.CreateConnection(t.Context(), tokenstore.Connection{
			ID: id, Integration: "acme", Status: tokenstore.StatusActive,
			Token: tokenstore.Token{
				AccessToken: secret.New("at"), RefreshToken: secret.New(fmt.Sprint("rt-", i)), Generation: 1,
				IssuedAt: time.Now().Add(left - end.life), ExpiresAt: time.Now().Add(left),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	f.Refresher = refresh.New(refresh.Config{
		Store: f.store, Logger: zap.NewNop(),
		Provider: func(string, map[string]string) (refresh.Provider, bool) { return f.end, true },
	})
	t.Cleanup(func() { _ = f.Close(context.Background()) })
	return f
}

// call is what a proxied call does.
func (f *fleet) call(id string) error {
	g, err := f.Find(f.t.Context(), id)
	if err != nil {
		return err
	}
	next, err := f.Token(f.t.Context(), g)
	if err == nil && !next.Token.ExpiresAt.After(time.Now()) {
		return errors.New("the token has expired")
	}
	return err
}

// tick is what the engine does every two seconds.
func (f *fleet) tick() {
	f.RenewAhead()
	due, err := f.store.DueConnections(f.t.Context(), time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, id := range due {
		f.Resolve(f.t.Context(), id)
	}
}

func notSent(tokenstore.Token) error {
	return fmt.Errorf("%w: connection refused", tokenstore.ErrNotSent)
}
