package connect_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

const (
	public   = "https://connect.example.com"
	appURL   = "https://app.example.com/cb"
	codeText = "code-canary"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// fakeProvider answers as its fields say, and counts.
type fakeProvider struct {
	issuer       string
	issRequired  bool
	authorizeErr error
	issuerErr    error
	parseErr     error
	texts        map[string]string
	parsing      func()                                           // nil: nothing
	scopes       []string                                         // granted; nil: as asked
	exchange     func(context.Context) (tokenstore.Answer, error) // nil: answers at once
	codeParam    string                                           // empty: code
	provisional  bool
	callback     func(rawQuery string) (map[string]string, error) // nil: tells nothing
	keyed

	mu        sync.Mutex // guards below
	exchanges []Exchange
	asked     [][]string
	states    []string
	revoked   []string // access tokens
}

// Exchange is one request to the fake's token endpoint.
type Exchange struct{ Code, Verifier string }

func (p *fakeProvider) AuthorizeURL(_ context.Context, state, verifier secret.String, scopes []string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.states = append(p.asked, scopes), append(p.states, state.Reveal())
	sum := sha256.Sum256([]byte(verifier.Reveal()))
	q := url.Values{"state": {state.Reveal()}, "scope": {strings.Join(scopes, " ")}, "code_challenge": {b64(sum[:])}}
	return "https://idp.example/authorize?" + q.Encode(), p.authorizeErr
}

func (p *fakeProvider) CodeParam() string { return cmp.Or(p.codeParam, "code") }

func (p *fakeProvider) Callback(rawQuery string) (map[string]string, error) {
	if p.callback == nil {
		return nil, nil
	}
	return p.callback(rawQuery)
}

func (p *fakeProvider) Exchange(ctx context.Context, code, verifier secret.String, callback map[string]string) (tokenstore.Answer, error) {
	p.mu.Lock()
	p.exchanges = append(p.exchanges, Exchange{code.Reveal(), verifier.Reveal()})
	n := len(p.exchanges)
	p.mu.Unlock()
	if p.exchange != nil {
		return p.exchange(ctx)
	}
	return tokenstore.Answer{
		Status: 200, SentAt: time.Now(), Body: secret.New(fmt.Sprintf("token-canary-%d", n)), Callback: callback,
	}, nil
}

func (p *fakeProvider) Parse(a tokenstore.Answer, _ tokenstore.Token, asked []string) (tokenstore.Token, error) {
	if p.parsing != nil {
		p.parsing()
	}
	if p.reading != nil {
		if err := p.reading(a); err != nil {
			return tokenstore.Token{}, err
		}
	}
	if p.parseErr != nil {
		return tokenstore.Token{}, p.parseErr
	}
	scopes := p.scopes
	if scopes == nil {
		scopes = asked
	}
	return tokenstore.Token{
		AccessToken: a.Body, RefreshToken: secret.New("refresh-" + a.Body.Reveal()), Scopes: scopes,
		Metadata: maps.Clone(a.Callback), Provisional: p.provisional, IssuedAt: a.SentAt,
	}, nil
}

func (p *fakeProvider) Issuer(context.Context) (string, bool, error) {
	return p.issuer, p.issRequired, p.issuerErr
}

// discard is Config.Discard.
func (p *fakeProvider) discard(
	_ context.Context, _, _ string, _ map[string]string, _ tokenstore.Account, t tokenstore.Token,
) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked = append(p.revoked, t.AccessToken.Reveal())
}

func (p *fakeProvider) Denied(code string) bool {
	return code == "access_denied" || code == "user_cancelled"
}
func (p *fakeProvider) ScopeText(scope string) string { return p.texts[scope] }

func (p *fakeProvider) exchanged() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.exchanges)
}

// bench is a Handler with all that is around it.
type bench struct {
	t      testing.TB
	h      *connect.Handler
	store  tokenstore.Store
	mem    *memstore.Store
	p      *fakeProvider
	cfg    connect.Config
	signer *connect.Signer
	logs   *observer.ObservedLogs
	bodies *strings.Builder // every page and header that went out
	mu     *sync.Mutex
	// addr is what the requests come from; empty: each from another address.
	addr     string
	requests atomic.Uint32
	audit    *auditLog
}

// newBench returns a bench with completion, one integration `github` and one
// registered redirect URL, as changed by change.
func newBench(tb testing.TB, change ...func(*bench)) *bench {
	tb.Helper()
	core, logs := observer.New(zap.DebugLevel)
	p, mem := &fakeProvider{}, memstore.New()
	b := &bench{
		t: tb, store: mem, mem: mem, p: p, signer: signer(public, apiKey), logs: logs,
		bodies: new(strings.Builder), mu: new(sync.Mutex), audit: new(auditLog),
	}
	b.cfg = connect.Config{
		PublicURL: mustURL(public), Signer: b.signer, Store: mem, Completion: true,
		RedirectURLs: []string{appURL}, Brand: ui.Brand{Name: "Acme Planner"}, Logger: zap.New(core),
		Audit: b.audit, ClientIP: b.clientIP, Discard: p.discard,
		Integrations: map[string]connect.Integration{
			"github": {Name: "github", Title: "GitHub", ProviderName: "github-cat", Provider: p, Scopes: []string{"read", "write"}},
		},
	}
	for _, c := range change {
		c(b)
	}
	b.remake()
	return b
}

// auditLog keeps what was refused.
type auditLog struct {
	mu     sync.Mutex // guards events
	events []tokenstore.Event
}

func (a *auditLog) Refused(_ context.Context, e tokenstore.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, e)
}

func (b *bench) clientIP(*http.Request) string {
	if b.addr != "" {
		return b.addr
	}
	n := b.requests.Add(1)
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}).String()
}

func (b *bench) remake() {
	b.t.Helper()
	b.cfg.Store = b.store
	h, err := connect.New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.h = h
}

func noRedirects(b *bench)  { b.cfg.RedirectURLs = nil }
func noCompletion(b *bench) { b.cfg.Completion = false }

func (b *bench) integration(change func(*connect.Integration)) func(*bench) {
	return func(b *bench) {
		in := b.cfg.Integrations["github"]
		change(&in)
		b.cfg.Integrations["github"] = in
	}
}

// browser has cookies.
type browser struct {
	b   *bench
	jar map[string]string
}

func (b *bench) browser() *browser { return &browser{b, map[string]string{}} }

func (br *browser) do(r *http.Request) *httptest.ResponseRecorder {
	for _, name := range slices.Sorted(maps.Keys(br.jar)) {
		r.AddCookie(&http.Cookie{Name: name, Value: br.jar[name]})
	}
	w := httptest.NewRecorder()
	br.b.h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(br.jar, c.Name)
		} else {
			br.jar[c.Name] = c.Value
		}
	}
	br.b.mu.Lock()
	defer br.b.mu.Unlock()
	fmt.Fprintf(br.b.bodies, "%s\n%v\n", w.Body.String(), w.Header())
	return w
}

// cookie returns one of the browser's cookies.
func (br *browser) cookie() (name, value string) {
	for name, value = range br.jar {
		return name, value
	}
	return "", ""
}

func (br *browser) get(target string) *httptest.ResponseRecorder {
	return br.do(httptest.NewRequest(http.MethodGet, target, nil))
}

// link returns a link for user u1 that returns to the app with state `app-state`.
func (b *bench) link(change ...func(*connect.Params)) string {
	p := connect.Params{Integration: "github", UserID: "u1", RedirectURL: appURL, State: "app-state"}
	if len(b.cfg.RedirectURLs) == 0 {
		p.RedirectURL = ""
	}
	for _, c := range change {
		c(&p)
	}
	return b.signer.Sign(p, time.Now().Add(15*time.Minute))
}

var continueLink = regexp.MustCompile(`href="(https://idp\.example/authorize[^"]*)"`)

// open opens a link and returns the state that goes to the provider.
func (br *browser) open(link string) string {
	br.b.t.Helper()
	w := br.get(link)
	target := w.Header().Get("Location")
	if m := continueLink.FindStringSubmatch(w.Body.String()); m != nil {
		target = html.UnescapeString(m[1])
	}
	state := mustURL(target).Query().Get("state")
	if state == "" {
		br.b.t.Fatalf("opening %s = %d %s %s", link, w.Code, w.Header().Get("Location"), w.Body)
	}
	return state
}

func callbackURL(pairs ...string) string {
	q := url.Values{}
	for p := range slices.Chunk(pairs, 2) {
		q.Add(p[0], p[1])
	}
	return public + "/callback/github?" + q.Encode()
}

func (br *browser) callback(state string, more ...string) *httptest.ResponseRecorder {
	if len(more) == 0 {
		more = []string{"code", codeText}
	}
	return br.get(callbackURL(append([]string{"state", state}, more...)...))
}

func (b *bench) connections() []tokenstore.Connection {
	b.t.Helper()
	all, _, err := b.store.ListConnections(context.Background(), tokenstore.Filter{}, "", 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

func (b *bench) flow(state string) tokenstore.Flow {
	b.t.Helper()
	f, err := b.store.Flow(context.Background(), secret.New(state).Hash())
	if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		b.t.Fatal(err)
	}
	return f
}

func (b *bench) connection(id string) tokenstore.Connection {
	b.t.Helper()
	c, err := b.store.Connection(context.Background(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) create(c tokenstore.Connection) tokenstore.Connection {
	b.t.Helper()
	if c.ID == "" {
		c.ID = tokenstore.NewID()
	}
	if c.Integration == "" {
		c.Integration = "github"
	}
	if c.UserID == "" {
		c.UserID = "u1"
	}
	c, err := b.store.CreateConnection(context.Background(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func live(token string) tokenstore.Token {
	return tokenstore.Token{AccessToken: secret.New(token), Generation: 1}
}

// begun makes a connection as the API's begin does.
func (b *bench) begun() tokenstore.Connection {
	return b.create(tokenstore.Connection{
		Status: tokenstore.StatusInitiated, InitiatedUntil: time.Now().Add(15 * time.Minute),
		RequestedScopes: []string{"begin-scope"},
	})
}

func onConnection(c tokenstore.Connection) func(*connect.Params) {
	return func(p *connect.Params) { p.ConnectionID = c.ID }
}

// wantPage checks status and page code. The page for a user's own choice shows
// no code.
func wantPage(tb testing.TB, w *httptest.ResponseRecorder, status int, code string) {
	tb.Helper()
	if w.Code != status || strings.Contains(w.Body.String(), `<dd class="mono">`+code+`</dd>`) != (code != "user_denied") ||
		code == "user_denied" && !strings.Contains(w.Body.String(), "You did not connect") {
		tb.Errorf("got %d %s\n%s\nwant page %d %s", w.Code, w.Header().Get("Location"), w.Body, status, code)
	}
	if loc := w.Header().Get("Location"); loc != "" {
		tb.Errorf("page redirects to %s", loc)
	}
}

// wantApp checks the redirect to the app and returns its parameters.
func wantApp(tb testing.TB, w *httptest.ResponseRecorder, errc string) url.Values {
	tb.Helper()
	loc := w.Header().Get("Location")
	rest, ok := strings.CutPrefix(loc, appURL+"?")
	if w.Code != http.StatusSeeOther || !ok {
		tb.Fatalf("got %d %q\n%s\nwant 303 to the app", w.Code, loc, w.Body)
	}
	q, err := url.ParseQuery(rest)
	if err != nil || q.Get("error") != errc || !slices.Equal(q["state"], []string{"app-state"}) {
		tb.Errorf("app gets %v, want error=%s and its state", q, errc)
	}
	if (errc == "") == q.Has("error_description") {
		tb.Errorf("app gets %v: error_description", q)
	}
	return q
}

func secretHash(s string) string { return secret.New(s).Hash() }
