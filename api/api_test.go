package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

const (
	apiKey      = "api-key-canary-0123456789abcdef01"
	appURL      = "https://app.example.com/cb"
	otherAppURL = "https://app.example.com/other"
)

// fakeRefresher answers with err.
type fakeRefresher struct {
	err  error
	by   tokenstore.Actor // who asked last
	used time.Time
}

func (f *fakeRefresher) Refresh(_ context.Context, _ string, by tokenstore.Actor) error {
	f.by = by
	return f.err
}
func (f *fakeRefresher) LastUsed(string) time.Time { return f.used }

// fakeLinks writes what it was asked for into the link.
type fakeLinks struct{}

func (fakeLinks) Link(
	c tokenstore.Connection, redirectURL, state string, scopes []string, formPost bool,
) (string, time.Time) {
	q := url.Values{
		"connection_id": {c.ID}, "redirect_url": {redirectURL}, "state": {state},
		"scopes": {strings.Join(scopes, " ")},
	}
	if formPost {
		q.Set("response_mode", "form_post")
	}
	return "https://connect.example.com/connect?" + q.Encode(), time.Now().Add(15 * time.Minute)
}

// fakeAudit writes every event, refusals too.
type fakeAudit struct{ store tokenstore.Store }

func (f fakeAudit) Record(ctx context.Context, events ...tokenstore.Event) error {
	return f.store.AppendEvents(ctx, events...)
}

func (f fakeAudit) Refused(ctx context.Context, e tokenstore.Event) {
	e.Denied = true
	_ = f.store.AppendEvents(ctx, e)
}

// fakeRevoker keeps a ledger of the access tokens it was asked to revoke.
type fakeRevoker struct {
	mu     sync.Mutex
	err    error
	single bool
	asked  []string
}

func (f *fakeRevoker) Scheme() string { return tokenstore.AuthOAuth2 }

func (f *fakeRevoker) RevokesSingle() bool { return f.single }

func (f *fakeRevoker) Revoke(_ context.Context, t tokenstore.Token) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, t.AccessToken.Reveal())
	return f.err
}

func (f *fakeRevoker) answerFrom(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeRevoker) ledger() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, " ")
}

// bench is a Handler with everything around it.
type bench struct {
	t         *testing.T
	h         *api.Handler
	store     *memstore.Store
	refresher *fakeRefresher
	revoker   *fakeRevoker
	logs      *observer.ObservedLogs
	ready     error
}

func newBench(t *testing.T, change ...func(*api.Config)) *bench {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	b := &bench{t: t, store: memstore.New(), refresher: &fakeRefresher{}, revoker: &fakeRevoker{}, logs: logs}
	cfg := api.Config{
		Store: b.store, Refresher: b.refresher, Links: fakeLinks{}, Keeper: &fakeKeeper{}, Brake: guard.NewBrake(),
		Integrations: map[string]api.Integration{
			"github": {
				Name: "github", Provider: "github", Title: "GitHub", Scopes: []string{"read:user"},
				DeclaredScopes: []string{"read:user", "repo"}, CallbackURL: "https://connect.example.com/callback/github",
			},
			"gl": {Name: "gl", Provider: "gitlab", Title: "GitLab", CredentialHeader: "Private-Token"},
		},
		RedirectURLs: []string{appURL, otherAppURL},
		Keys:         []guard.Key{{Name: "other", Value: secret.New("another-api-key")}, {Name: "api", Value: secret.New(apiKey)}},
		Ready:        func(context.Context) error { return b.ready },
		Logger:       zap.New(core),
	}
	for _, c := range change {
		c(&cfg)
	}
	if cfg.Audit == nil {
		cfg.Audit = fakeAudit{cfg.Store}
	}
	cfg.Revoker = b.newRevoker(&cfg)
	h, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	b.h = h
	return b
}

// newRevoker returns the real one, before the provider of the bench.
func (b *bench) newRevoker(cfg *api.Config) *revoke.Revoker {
	b.t.Helper()
	rv, err := revoke.New(revoke.Config{
		Store: cfg.Store, Logger: cfg.Logger,
		Provider: func(name string, params map[string]string) (revoke.Provider, error) {
			in, ok := cfg.Integrations[name]
			if !ok {
				return nil, revoke.ErrIntegrationMissing
			}
			if in.CheckParams != nil {
				if err := in.CheckParams(params); err != nil {
					return nil, err
				}
			}
			return b.revoker, nil
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(rv.Close)
	return rv
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	text   string
	json   map[string]any
}

func (a answer) code() string { s, _ := a.json["code"].(string); return s }

func (b *bench) do(method, target, body string, change ...func(*http.Request)) answer {
	b.t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+apiKey)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	res := w.Result()
	text, _ := io.ReadAll(res.Body)
	b.described(r, body, res, text)
	a := answer{status: res.StatusCode, header: res.Header, text: string(text)}
	if err := json.Unmarshal(text, &a.json); err != nil {
		b.t.Fatalf("%s %s = %d with a body that is not JSON: %q", method, target, res.StatusCode, text)
	}
	want := "application/json"
	if res.StatusCode >= 400 {
		want = "application/problem+json"
		if got := res.Header.Get("Lanyard-Error"); got != a.code() || got == "" {
			b.t.Errorf("%s %s: Lanyard-Error %q, code %q", method, target, got, a.code())
		}
	}
	if got := res.Header.Get("Content-Type"); got != want {
		b.t.Errorf("%s %s: Content-Type %q, want %q", method, target, got, want)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		b.t.Errorf("%s %s: Cache-Control %q", method, target, got)
	}
	return a
}

// wants fails unless a has this status and, for problems, code.
func (b *bench) wants(a answer, status int, code string) {
	b.t.Helper()
	if a.status != status || a.code() != code {
		b.t.Fatalf("answer = %d %q; want %d %q: %s", a.status, a.code(), status, code, a.text)
	}
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

// put stores a connection of user u1 at github as change makes it.
func (b *bench) put(change func(*tokenstore.Connection)) tokenstore.Connection {
	b.t.Helper()
	c := tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "github", Provider: "github", UserID: "u1",
		Status: tokenstore.StatusInitiated, AuthScheme: tokenstore.AuthOAuth2, RequestedScopes: []string{"read:user"},
	}
	change(&c)
	c, err := b.store.CreateConnection(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) stored(id string) tokenstore.Connection {
	b.t.Helper()
	c, err := b.store.Connection(context.Background(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) count() int {
	page, _, err := b.store.ListConnections(context.Background(), tokenstore.Filter{}, "", 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(page)
}

func token(name string) tokenstore.Token {
	now := time.Now().UTC()
	return tokenstore.Token{
		AccessToken: secret.New("access-" + name), RefreshToken: secret.New("refresh-" + name),
		IssuedAt: now, ExpiresAt: now.Add(time.Hour), Scopes: []string{"read:user"},
	}
}

func active(name string) func(*tokenstore.Connection) {
	return func(c *tokenstore.Connection) { c.Activate(token(name), c.RequestedScopes, time.Now().UTC()) }
}

func staged(name string) func(*tokenstore.Connection) {
	return func(c *tokenstore.Connection) {
		c.Stage(tokenstore.Staged{
			Token: token(name), RequestedScopes: []string{"read:user"}, FlowID: "flow",
			CodeHash: secret.New("code-" + name).Hash(), Until: time.Now().Add(tokenstore.CompletionLife),
		})
	}
}

func completion(code, user string) string {
	return fmt.Sprintf(`{"completion_code":%q,"user_id":%q}`, code, user)
}
