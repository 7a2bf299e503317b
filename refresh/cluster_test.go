package refresh_test

import (
	"context"
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

// authority is a token endpoint that numbers what it gives out, and takes each
// refresh token once, or again and again.
type authority struct {
	delay  time.Duration
	grace  bool                       // it takes a refresh token again
	answer func(nth int) (status int) // instead of 200 or 400; zero: as usual. May be nil

	mu       sync.Mutex
	begun    []time.Time
	spent    map[string]bool
	underway int
	most     int
	least    time.Duration // that a request had left when it came
}

// silent is the status of what is never answered.
const silent = -1

func (a *authority) Refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Answer, error) {
	sent := time.Now()
	a.mu.Lock()
	a.begun = append(a.begun, sent)
	n := len(a.begun)
	status, rt := 200, t.RefreshToken.Reveal()
	if a.spent[rt] && !a.grace {
		status = 400
	}
	if a.answer != nil && a.answer(n) != 0 {
		status = a.answer(n)
	}
	if status == 200 {
		if a.spent == nil {
			a.spent = map[string]bool{}
		}
		a.spent[rt] = true
	}
	if end, ok := ctx.Deadline(); ok && (a.least == 0 || time.Until(end) < a.least) {
		a.least = time.Until(end)
	}
	delay := a.delay
	if status == silent {
		delay = time.Hour
	}
	a.underway++
	a.most = max(a.most, a.underway)
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.underway--
	}()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return tokenstore.Answer{}, fmt.Errorf("%w: %w", tokenstore.ErrOutcomeUnknown, ctx.Err())
	}
	return tokenstore.Answer{SentAt: sent, ReceivedAt: time.Now(), Status: status, Body: secret.New(fmt.Sprint(n))}, nil
}

func (a *authority) Parse(in tokenstore.Answer, _ tokenstore.Token, _ []string) (tokenstore.Token, error) {
	switch in.Status {
	case 400:
		return tokenstore.Token{}, invalidGrant()
	case 503:
		return tokenstore.Token{}, &tokenstore.UnreadableError{Status: 503}
	}
	n := in.Body.Reveal()
	return tokenstore.Token{
		AccessToken: secret.New("at-" + n), RefreshToken: secret.New("rt-" + n),
		IssuedAt: in.SentAt, ExpiresAt: in.SentAt.Add(tokenLife),
	}, nil
}

func (*authority) Grace() bool { return false }

func (a *authority) Origin() any { return a }

func (*authority) Pace() (concurrency int, interval time.Duration) { return 4, 0 }

func (*authority) Pause() time.Duration { return 0 }

func (a *authority) requests() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]time.Time(nil), a.begun...)
}

// view is how one process sees the store that it shares with others.
type view struct {
	memstore.Shared
	slow    time.Duration // how long what was read takes to come
	lawless bool          // it gives a lease to everybody, as one that was put back by a moment
	// after is called when an update has been made, the nth: the process may stand
	// still there. May be nil.
	after func(nth int)

	mu      sync.Mutex
	updates int
	leases  int           // asked for
	down    bool          // nothing is answered any more
	gate    chan struct{} // the process stands still until it is closed; nil: it does not
	looked  time.Time
	deaf    bool // it is told of no change
	broken  bool // it can't be told
}

func (v *view) enter(ctx context.Context) error {
	v.mu.Lock()
	gate := v.gate
	v.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down {
		return tokenstore.ErrUnavailable
	}
	return nil
}

func (v *view) fail(down bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.down = down
}

// deafen has the view tell of no change, or not even that.
func (v *view) deafen(deaf, broken bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.deaf, v.broken = deaf, broken
}

func (v *view) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gate = make(chan struct{})
}

func (v *view) goOn() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gate != nil {
		close(v.gate)
	}
	v.gate = nil
}

func (v *view) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	if err := v.enter(ctx); err != nil {
		return tokenstore.Connection{}, err
	}
	c, err := v.Shared.Connection(ctx, id)
	time.Sleep(v.slow)
	return c, err
}

func (v *view) UpdateConnection(ctx context.Context, id string, change func(*tokenstore.Connection) error) (tokenstore.Connection, error) {
	if err := v.enter(ctx); err != nil {
		return tokenstore.Connection{}, err
	}
	c, err := v.Shared.UpdateConnection(ctx, id, change)
	v.mu.Lock()
	v.updates++
	nth, after := v.updates, v.after
	v.mu.Unlock()
	if after != nil {
		after(nth)
		_ = v.enter(ctx)
	}
	return c, err
}

func (v *view) TakeLease(ctx context.Context, name, owner string, life time.Duration) error {
	v.mu.Lock()
	v.leases++
	v.mu.Unlock()
	if err := v.enter(ctx); err != nil || v.lawless {
		return err
	}
	return v.Shared.TakeLease(ctx, name, owner, life)
}

func (v *view) RenewLease(ctx context.Context, name, owner string, life time.Duration) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	return v.Shared.RenewLease(ctx, name, owner, life)
}

func (v *view) DropLease(ctx context.Context, name, owner string) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	return v.Shared.DropLease(ctx, name, owner)
}

// Changes promises no more than tokenstore.Shared does: who has not looked for
// more than a second is not told what it has missed.
func (v *view) Changes(ctx context.Context, since tokenstore.ChangeMark) ([]tokenstore.Change, tokenstore.ChangeMark, error) {
	if err := v.enter(ctx); err != nil {
		return nil, since, err
	}
	v.mu.Lock()
	if v.deaf || time.Since(v.looked) > time.Second {
		since = ""
	}
	broken := v.broken
	if !broken {
		v.looked = time.Now()
	}
	v.mu.Unlock()
	if broken {
		return nil, since, tokenstore.ErrUnavailable
	}
	return v.Shared.Changes(ctx, since)
}

func (v *view) Revisions(ctx context.Context, ids []string) (map[string]uint64, error) {
	if err := v.enter(ctx); err != nil {
		return nil, err
	}
	return v.Shared.Revisions(ctx, ids)
}

// cluster is several processes over one store.
type cluster struct {
	t     *testing.T
	store memstore.Shared
	end   *authority
	nodes []*node
	id    string // a connection whose token has expired
}

type node struct {
	*refresh.Refresher
	view *view
}

func newCluster(t *testing.T, n int, end *authority) *cluster {
	t.Helper()
	c := &cluster{t: t, store: memstore.Shared{Store: memstore.New()}, end: end}
	c.id = c.add(-time.Minute)
	for range n {
		v := &view{Shared: c.store, looked: time.Now()}
		r := refresh.New(refresh.Config{
			Store: v, Logger: zap.NewNop(),
			Provider: func(string, map[string]string) (refresh.Provider, bool) { return c.end, true },
		})
		c.nodes = append(c.nodes, &node{r, v})
		t.Cleanup(func() {
			v.goOn()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = r.Close(ctx)
		})
	}
	return c
}

// add makes a connection whose token has this time left.
func (c *cluster) add(left time.Duration) string {
	c.t.Helper()
	made, err := c.store.CreateConnection(c.t.Context(), tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "acme", UserID: "u1", Status: tokenstore.StatusActive, CreatedAt: time.Now(),
		Token: tokenstore.Token{
			AccessToken: secret.New("at-0"), RefreshToken: secret.New("rt-0"), Generation: 1,
			IssuedAt: time.Now().Add(left - tokenLife), ExpiresAt: time.Now().Add(left),
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return made.ID
}

// call is what a proxied call does at a node; it returns the access token.
func (n *node) call(ctx context.Context, id string) (string, error) {
	g, err := n.Find(ctx, id)
	if err != nil {
		return "", err
	}
	if g.Disabled || g.Status != tokenstore.StatusActive {
		return "", tokenstore.ErrNotActive
	}
	if g, err = n.Token(ctx, g); err != nil {
		return "", err
	}
	return g.Token.AccessToken.Reveal(), nil
}

// keepCalling calls until there is a token or the time is over.
func (n *node) keepCalling(ctx context.Context, id string, most time.Duration) (at string, err error) {
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(time.Second) {
		if at, err = n.call(ctx, id); err == nil {
			return at, nil
		}
	}
	return at, err
}

// want checks what is stored after one renewal.
func (c *cluster) want(accessToken string) {
	c.t.Helper()
	got, err := c.store.Connection(c.t.Context(), c.id)
	if err != nil {
		c.t.Fatal(err)
	}
	if got.Token.Generation != 2 || got.Token.AccessToken.Reveal() != accessToken || got.Status != tokenstore.StatusActive {
		c.t.Errorf("stored: generation %d, %q, %s (%s); want 2, %q, ACTIVE", got.Token.Generation,
			got.Token.AccessToken.Reveal(), got.Status, got.StatusReason, accessToken)
	}
}

func (c *cluster) wantRequests(n int) {
	c.t.Helper()
	if got := c.end.requests(); len(got) != n {
		c.t.Errorf("%d token requests, at %v; want %d", len(got), got, n)
	}
}
