package dashboard_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/dashboard"
	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// desk is a dashboard on a store in memory, mounted below /admin.
type desk struct {
	t       *testing.T
	store   *memstore.Store
	parts   *parts
	handler *dashboard.Handler
	who     dashboard.Visitor
	server  *httptest.Server
	client  *http.Client
}

// parts stand for what the dashboard asks of others.
type parts struct {
	store      *memstore.Store
	refreshErr error
	asked      []string // what was asked of it
	by         tokenstore.Actor
	outcome    revoke.Outcome
}

func (p *parts) Refresh(_ context.Context, id string, by tokenstore.Actor) error {
	p.asked, p.by = append(p.asked, "refresh "+id), by
	return p.refreshErr
}

func (*parts) LastUsed(string) time.Time { return time.Time{} }

func (*parts) Link(c tokenstore.Connection, redirectURL, _ string, _ []string, _ bool) (string, time.Time) {
	return "https://connect.example/connect?connection_id=" + c.ID + "&redirect_url=" + url.QueryEscape(redirectURL), time.Now().Add(15 * time.Minute)
}

func (p *parts) Revoke(ctx context.Context, id string, by tokenstore.Actor) (tokenstore.Connection, revoke.Outcome, error) {
	p.asked, p.by = append(p.asked, "revoke "+id), by
	c, err := p.store.UpdateConnection(ctx, id, func(c *tokenstore.Connection) error { c.Revoke(); return nil })
	return c, p.outcome, err
}

func (p *parts) Delete(ctx context.Context, id string, by tokenstore.Actor, atProvider bool) (tokenstore.Connection, revoke.Outcome, error) {
	p.asked, p.by = append(p.asked, "delete "+id), by
	if !atProvider {
		return tokenstore.Connection{}, p.outcome, errors.New("the provider is to be asked")
	}
	c, err := p.store.DeleteConnection(ctx, id)
	return c, p.outcome, err
}

func (p *parts) Record(ctx context.Context, events ...tokenstore.Event) error {
	return p.store.AppendEvents(ctx, events...)
}

// canary stands in every credential of the tests, and may stand on no page.
const canary = "CANARY"

func newDesk(t *testing.T) *desk {
	t.Helper()
	store := memstore.New()
	d := &desk{t: t, store: store, parts: &parts{store: store}, who: dashboard.Visitor{Name: "ada"}}
	var err error
	d.handler, err = dashboard.New(dashboard.Config{
		Store: store, Refresher: d.parts, Links: d.parts, Revoker: d.parts, Audit: d.parts,
		Integrations: map[string]dashboard.Integration{"fake": {
			Title: "Fake Provider", Scheme: tokenstore.AuthOAuth2,
			ScopeText: func(s string) string { return map[string]string{"read": "See what you have"}[s] },
			Hosts: func(_ map[string]string, t *tokenstore.Token) (hosts []string, reason string) {
				if t.Metadata["given"] == "" { // it is told where the API is
					return nil, tokenstore.ReasonAPIUnknown
				}
				return []string{"api.fake.example"}, ""
			},
		}},
		RedirectURLs: []string{"https://app.example/callback"}, Key: secret.New("key"), Live: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	d.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		below, ok := strings.CutPrefix(r.URL.EscapedPath(), "/admin")
		if !ok {
			http.Error(w, "elsewhere", http.StatusNotFound)
			return
		}
		d.handler.Serve(w, r, below, d.who)
	}))
	t.Cleanup(d.server.Close)
	t.Cleanup(d.handler.Close)
	d.client = &http.Client{Jar: new(jar), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return d
}

// jar keeps every cookie that it is given.
type jar struct{ cookies []*http.Cookie }

func (j *jar) SetCookies(_ *url.URL, cookies []*http.Cookie) {
	j.cookies = append(j.cookies, cookies...)
}
func (j *jar) Cookies(*url.URL) []*http.Cookie { return j.cookies }

// connection stores one that is ACTIVE, but for what change says.
func (d *desk) connection(change func(*tokenstore.Connection)) tokenstore.Connection {
	d.t.Helper()
	c := tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "fake", Provider: "fake", UserID: "user_1", Status: tokenstore.StatusActive,
		AuthScheme: tokenstore.AuthOAuth2, RequestedScopes: []string{"read"},
		Token: tokenstore.Token{
			AccessToken: secret.New(canary + "access"), RefreshToken: secret.New(canary + "refresh"), Generation: 7,
			IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Scopes: []string{"read"},
			Metadata: map[string]string{"given": "given"},
		},
	}
	if change != nil {
		change(&c)
	}
	c, err := d.store.CreateConnection(d.t.Context(), c)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// answer is what came back.
type answer struct {
	status   int
	location string
	header   http.Header
	body     string
}

func (d *desk) do(method, path string, form url.Values, change func(*http.Request)) answer {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		d.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(r)
	}
	res, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if strings.Contains(string(body), canary) {
		d.t.Errorf("%s %s shows a credential", method, path)
	}
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		d.t.Errorf("%s %s has the policy %q", method, path, csp)
	}
	return answer{res.StatusCode, res.Header.Get("Location"), res.Header, string(body)}
}

func (d *desk) get(path string) answer {
	d.t.Helper()
	return d.do(http.MethodGet, path, nil, nil)
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// token returns the token of the forms of a page.
func (d *desk) token(path string) string {
	d.t.Helper()
	m := csrfField.FindStringSubmatch(d.get(path).body)
	if m == nil {
		d.t.Fatalf("no form at %s", path)
	}
	return m[1]
}

// post sends a form as the page at from has it.
func (d *desk) post(from, path string) answer {
	d.t.Helper()
	return d.do(http.MethodPost, path, url.Values{"csrf": {d.token(from)}}, nil)
}

func (d *desk) want(a answer, status int, texts ...string) {
	d.t.Helper()
	if a.status != status {
		d.t.Fatalf("HTTP %d; want %d: %s", a.status, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			d.t.Errorf("the page does not say %q: %s", text, a.body)
		}
	}
}

// events returns what is in the log.
func (d *desk) events() []tokenstore.Event {
	d.t.Helper()
	events, _, err := d.store.ListEvents(d.t.Context(), tokenstore.EventFilter{}, "", 1000)
	if err != nil {
		d.t.Fatal(err)
	}
	return events
}

// fromRemote makes a request look as if it had come over these addresses.
func fromRemote(r *http.Request, local, remote string) *http.Request {
	host, _, _ := net.SplitHostPort(local)
	r.RemoteAddr = remote
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.ParseIP(host), Port: 80})))
}

func regexpFind(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in %s", pattern, text)
	}
	return m[1]
}
