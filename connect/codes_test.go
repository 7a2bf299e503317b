package connect_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// failingStore fails the calls it is told to.
type failingStore struct {
	tokenstore.Store
	fail map[string]error // :: method → its error
}

func (s failingStore) CreateFlow(ctx context.Context, f tokenstore.Flow) error {
	if err := s.fail["CreateFlow"]; err != nil {
		return err
	}
	return s.Store.CreateFlow(ctx, f)
}

func (s failingStore) Flow(ctx context.Context, id string) (tokenstore.Flow, error) {
	if err := s.fail["Flow"]; err != nil {
		return tokenstore.Flow{}, err
	}
	return s.Store.Flow(ctx, id)
}

// UpdateFlow fails by what the change makes of a flow: `take`, `answer` or
// `finish`.
func (s failingStore) UpdateFlow(ctx context.Context, id string, change func(*tokenstore.Flow) error) (tokenstore.Flow, error) {
	return s.Store.UpdateFlow(ctx, id, func(f *tokenstore.Flow) error {
		if err := change(f); err != nil {
			return err
		}
		switch {
		case f.Stage == tokenstore.FlowFinished:
			return s.fail["finish"]
		case f.Answer != nil:
			return s.fail["answer"]
		}
		return s.fail["take"]
	})
}

func (s failingStore) CreateConnection(ctx context.Context, c tokenstore.Connection) (tokenstore.Connection, error) {
	if err := s.fail["CreateConnection"]; err != nil {
		return tokenstore.Connection{}, err
	}
	return s.Store.CreateConnection(ctx, c)
}

func (s failingStore) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	if err := s.fail["Connection"]; err != nil {
		return tokenstore.Connection{}, err
	}
	return s.Store.Connection(ctx, id)
}

// failStore makes these calls of the store fail.
func failStore(calls ...string) func(*bench) {
	return func(b *bench) {
		s := failingStore{b.mem, map[string]error{}}
		for _, c := range calls {
			s.fail[c] = fmt.Errorf("disk: %w", tokenstore.ErrUnavailable)
		}
		b.store = s
		b.remake()
	}
}

func refuses(kind tokenstore.RefusalKind) func(*bench) {
	return func(b *bench) { b.p.parseErr = &tokenstore.RefusalError{Kind: kind, Code: "x", Status: 400} }
}

func noAnswer(err error) func(*bench) {
	return func(b *bench) {
		b.p.exchange = func(context.Context) (tokenstore.Answer, error) { return tokenstore.Answer{}, err }
	}
}

// TestCallbackFailures ends flows in every way there is, with an app and
// without.
func TestCallbackFailures(t *testing.T) {
	unreg := func(b *bench) { b.cfg.RedirectURLs = []string{"https://app.example.com/other"}; b.remake() }
	gone := func(b *bench) {
		in := b.cfg.Integrations["github"]
		b.cfg.Integrations = map[string]connect.Integration{"gitlab": in}
		b.remake()
	}
	tests := []struct {
		name      string
		change    func(*bench) // after the link was opened
		more      []string     // nil: a code
		code      string
		page      int // status of the page where there is no app
		pageOnly  bool
		exchanges int
		open      bool // the flow stays as it was
	}{
		{name: "A053 denied", more: []string{"error", "access_denied"}, code: "user_denied", page: 200},
		{name: "denied in the provider's words", more: []string{"error", "user_cancelled"}, code: "user_denied", page: 200},
		{name: "scope", more: []string{"error", "invalid_scope"}, code: "invalid_scope", page: 400},
		{name: "A054 server_error", more: []string{"error", "server_error"}, code: "source_error", page: 502},
		{name: "busy", more: []string{"error", "temporarily_unavailable"}, code: "source_error", page: 502},
		{name: "unauthorized_client", more: []string{"error", "unauthorized_client"}, code: "source_error", page: 502},
		{name: "A054 hostile error", more: []string{"error", "<img src=x onerror=alert(1)>"}, code: "source_error", page: 502},
		{name: "A054 error with a line break", more: []string{"error", "a\r\nX:1"}, code: "source_error", page: 502},
		{name: "A054 long error", more: []string{"error", strings.Repeat("e", 10<<10)}, code: "source_error", page: 502},
		{name: "error in upper case", more: []string{"error", "ACCESS_DENIED"}, code: "source_error", page: 502},
		{name: "A034 exchange not sent", change: noAnswer(tokenstore.ErrNotSent), code: "source_error", page: 502, exchanges: 1},
		{name: "A034 exchange unknown", change: noAnswer(tokenstore.ErrOutcomeUnknown), code: "source_error", page: 502, exchanges: 1},
		{name: "A029 code refused", change: refuses(tokenstore.RefusedGrant), code: "source_error", page: 502, exchanges: 1},
		{name: "client refused", change: refuses(tokenstore.RefusedClient), code: "source_error", page: 502, exchanges: 1},
		{name: "refused for now", change: refuses(tokenstore.RefusedForNow), code: "source_error", page: 502, exchanges: 1},
		{name: "scope refused", change: refuses(tokenstore.RefusedScope), code: "invalid_scope", page: 400, exchanges: 1},
		{name: "A034 unreadable answer", change: func(b *bench) { b.p.parseErr = tokenstore.ErrOutcomeUnknown }, code: "source_error", page: 502, exchanges: 1},
		{name: "issuer not to be had", change: func(b *bench) { b.p.issuerErr = errors.New("no metadata") }, code: "source_error", page: 502},
		{name: "integration gone", change: gone, code: "provisioning_failed", page: 503},
		{name: "flow not readable", change: failStore("Flow"), code: "provisioning_failed", page: 503, pageOnly: true, open: true},
		{name: "flow not taken", change: failStore("take"), code: "provisioning_failed", page: 503, pageOnly: true, open: true},
		{name: "flow not ended", change: failStore("finish"), more: []string{"error", "x"}, code: "provisioning_failed", page: 503, pageOnly: true, open: true},
		{name: "answer not stored", change: failStore("answer"), code: "provisioning_failed", page: 503, exchanges: 1},
		{name: "connection not stored", change: failStore("CreateConnection"), code: "provisioning_failed", page: 503, exchanges: 1},
		{name: "integration and redirect URL gone", change: func(b *bench) {
			gone(b)
			if len(b.cfg.RedirectURLs) > 0 {
				unreg(b)
			}
		}, code: "provisioning_failed", page: 503, pageOnly: true},
		{name: "A051 redirect URL gone", change: unreg, code: "redirect_uri_mismatch", page: 400, pageOnly: true},
		{name: "A051 redirect URL gone, denied", change: unreg, more: []string{"error", "access_denied"}, code: "redirect_uri_mismatch", page: 400, pageOnly: true},
	}
	for _, app := range []bool{true, false} {
		for _, tt := range tests {
			if !app && tt.code == "redirect_uri_mismatch" {
				continue
			}
			t.Run(fmt.Sprintf("%s app=%v", tt.name, app), func(t *testing.T) {
				b := newBench(t)
				if !app {
					b.cfg.RedirectURLs = nil
					b.remake()
				}
				br := b.browser()
				state := br.open(b.link())
				if tt.change != nil {
					tt.change(b)
				}
				w := br.callback(state, tt.more...)
				if app && !tt.pageOnly {
					wantApp(t, w, tt.code)
				} else {
					wantPage(t, w, tt.page, tt.code)
				}
				b.store = b.mem
				if got := b.connections(); len(got) != 0 || b.p.exchanged() != tt.exchanges {
					t.Errorf("%d exchanges, connections %+v", b.p.exchanged(), got)
				}
				f := b.flow(state)
				if tt.open != (f.Stage == tokenstore.FlowOpen) || !tt.open && f.Outcome != tt.code {
					t.Errorf("flow is %s %s", f.Stage, f.Outcome)
				}
				if b.logs.FilterField(zapString("error_code", tt.code)).Len() == 0 {
					t.Errorf("log has no %s: %v", tt.code, b.logs.All())
				}
				for _, stored := range []string{"answer not stored", "connection not stored"} {
					if tt.name == stored && len(b.p.revoked) != 1 {
						t.Error("a credential that nobody holds was not revoked")
					}
				}
			})
		}
	}
}

// TestReconnectOfDeleted: the connection goes away while the user is at the
// provider. The code is not redeemed.
func TestReconnectOfDeleted(t *testing.T) {
	b := newBench(t)
	c := b.begun()
	br := b.browser()
	state := br.open(b.link(onConnection(c)))
	if _, err := b.store.DeleteConnection(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	wantApp(t, br.callback(state), "provisioning_failed")
	if b.p.exchanged() != 0 || len(b.connections()) != 0 {
		t.Errorf("%d exchanges, connections %+v", b.p.exchanged(), b.connections())
	}
}

func TestStartFailures(t *testing.T) {
	with := func(change func(*connect.Params)) func(*bench) string {
		return func(b *bench) string { return b.link(change) }
	}
	tests := []struct {
		name   string
		change func(*bench)
		link   func(*bench) string // nil: a good one
		code   string
		page   int // 0: told to the app
	}{
		{name: "A014 expired", link: func(b *bench) string {
			return b.signer.Sign(connect.Params{RedirectURL: appURL}, time.Now().Add(-time.Second))
		}, code: "link_expired", page: 410},
		{name: "changed", link: func(b *bench) string { return strings.Replace(b.link(), "u1", "u2", 1) }, code: "link_invalid", page: 400},
		{name: "no query", link: func(*bench) string { return public + "/connect" }, code: "link_invalid", page: 400},
		{name: "no redirect_url", link: with(func(p *connect.Params) { p.RedirectURL = "" }), code: "link_invalid", page: 400},
		{name: "unknown integration", link: with(func(p *connect.Params) { p.Integration = "gitlub" }), code: "link_invalid", page: 0},
		{name: "none configured", change: func(b *bench) { b.cfg.Integrations = nil }, link: with(func(p *connect.Params) { p.Integration = "" }), code: "link_invalid", page: 0},
		{name: "A037 unregistered", link: with(func(p *connect.Params) { p.RedirectURL += "x" }), code: "redirect_uri_mismatch", page: 400},
		{name: "unregistered, none is", change: noRedirects, link: with(func(p *connect.Params) { p.RedirectURL = appURL }), code: "redirect_uri_mismatch", page: 400},
		{name: "undeclared scope", change: func(b *bench) {
			b.integration(func(in *connect.Integration) { in.DeclaredScopes = []string{"read", "write"} })(b)
		}, link: with(func(p *connect.Params) { p.Scopes = []string{"read", "admin"} }), code: "invalid_scope"},
		{name: "no scope at all", link: with(func(p *connect.Params) { p.Scopes = []string{"a\"b"} }), code: "invalid_scope"},
		{name: "provider not to be had", change: func(b *bench) { b.p.authorizeErr = errors.New("no metadata") }, code: "source_error"},
		{name: "flow not stored", change: failStore("CreateFlow"), code: "provisioning_failed"},
		{name: "connection not readable", change: failStore("Connection"), link: with(func(p *connect.Params) { p.ConnectionID = "conn_1" }), code: "provisioning_failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			if tt.change != nil {
				tt.change(b)
				b.remake()
			}
			link := b.link()
			if tt.link != nil {
				link = tt.link(b)
			}
			br := b.browser()
			w := br.get(link)
			switch {
			case tt.page > 0:
				wantPage(t, w, tt.page, tt.code)
			case tt.code == "link_invalid":
				wantPage(t, w, 400, tt.code)
			default:
				wantApp(t, w, tt.code)
			}
			if len(br.jar) != 0 {
				t.Errorf("browser got %v", br.jar)
			}
		})
	}
}

func TestIssuer(t *testing.T) {
	const issuer = "https://idp.example"
	tests := []struct {
		name     string
		known    string
		required bool
		iss      []string // as callback parameters
		ok       bool
	}{
		{"right", issuer, true, []string{"iss", issuer}, true},
		{"right, not promised", issuer, false, []string{"iss", issuer}, true},
		{"missing, not promised", issuer, false, nil, true},
		{"A030 unknown", "", false, []string{"iss", "https://evil.example"}, true},
		{"A031 missing though promised", issuer, true, nil, false},
		{"A030 wrong", issuer, true, []string{"iss", "https://evil.example"}, false},
		{"A030 wrong, not promised", issuer, false, []string{"iss", "https://evil.example"}, false},
		{"A030 slash", issuer, true, []string{"iss", issuer + "/"}, false},
		{"A030 case", issuer, true, []string{"iss", "https://IDP.example"}, false},
		{"A030 empty", issuer, false, []string{"iss", ""}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.p.issuer, b.p.issRequired = tt.known, tt.required
			br := b.browser()
			denied, coded := br.open(b.link()), br.open(b.link())
			w := br.callback(denied, append([]string{"error", "access_denied"}, tt.iss...)...)
			w2 := br.callback(coded, append([]string{"code", codeText}, tt.iss...)...)
			if tt.ok {
				wantApp(t, w, "user_denied")
				wantApp(t, w2, "")
				return
			}
			wantPage(t, w, 400, "issuer_mismatch")
			wantPage(t, w2, 400, "issuer_mismatch")
			if b.p.exchanged() != 0 || b.flow(denied).Stage != tokenstore.FlowOpen || b.flow(coded).Outcome != "issuer_mismatch" {
				t.Errorf("%d exchanges, flows %+v %+v", b.p.exchanged(), b.flow(denied), b.flow(coded))
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	b := newBench(t)
	b.cfg.PublicURL = mustURL("https://connect.example.com/lan%20yard/")
	b.remake()
	for target, want := range map[string]bool{
		"/lan%20yard/connect": true, "/lan%20yard/connect?x": true, "/lan%20yard/connect/ui.css": true, "/lan%20yard/callback/github": true,
		"/connect": false, "/lan%20yard/connected": false, "/lan%20yard/callback": false, "/lan yard/connect": false,
		"/lan%20yard/%63onnect": false, "/lan%20yard//connect": false, "/LAN%20yard/connect": false, "/": false, "/x/lan%20yard/connect": false,
		"/lan%20yardconnect": false,
	} {
		r := httptest.NewRequest(http.MethodGet, public, nil)
		r.RequestURI = target
		r.URL.Path = "/connect" // as a handler before may have made it
		if got := b.h.Handles(r); got != want {
			t.Errorf("Handles(%q) = %v", target, got)
		}
		w := httptest.NewRecorder()
		b.h.ServeHTTP(w, r)
		if notFound := w.Code == 404; notFound == want && target != "/lan%20yard/connect/ui.css" {
			t.Errorf("ServeHTTP(%q) = %d", target, w.Code)
		}
	}

	b = newBench(t)
	req := func(method, target string, set ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, nil)
		for i := 0; i < len(set); i += 2 {
			r.Header.Set(set[i], set[i+1])
		}
		return b.browser().do(r)
	}
	for _, w := range []*httptest.ResponseRecorder{
		req("HEAD", b.link()),
		req("GET", b.link(), "Sec-Purpose", "prefetch"),
		req("GET", b.link(), "Sec-Purpose", "prefetch;prerender"),
		req("GET", callbackURL("state", "x", "code", "y"), "Sec-Purpose", "prefetch"),
	} {
		if w.Code != 204 || w.Body.Len() != 0 || w.Header().Get("Set-Cookie") != "" {
			t.Errorf("looking ahead = %d %v %s", w.Code, w.Header(), w.Body)
		}
	}
	if len(b.p.asked) != 0 {
		t.Error("looking ahead began a flow")
	}
	wantPage(t, req("POST", b.link()), 405, "method_not_allowed")
	wantPage(t, req("PUT", callbackURL("state", "x", "code", "y")), 405, "method_not_allowed")
	wantPage(t, req("POST", callbackURL("state", "x", "code", "y")), 400, "state_invalid") // no form
	wantPage(t, req("HEAD", callbackURL("state", "x", "code", "y")), 405, "method_not_allowed")
	wantPage(t, req("GET", public+"/connect/other"), 404, "not_found")
	for _, host := range []string{"evil.example", "connect.example.com.evil.example", "connect.example.com:8443", "127.0.0.1"} {
		wantPage(t, req("GET", strings.Replace(b.link(), "connect.example.com", host, 1)), 421, "host_invalid")
	}
	if w := req("GET", strings.Replace(b.link(), "connect.example.com", "Connect.Example.com:443", 1)); w.Code != 303 {
		t.Errorf("own host, written differently = %d", w.Code)
	}
}

func TestNew(t *testing.T) {
	for _, raw := range []string{"http://connect.example.com", "https://", "connect.example.com", "https://u@h", "https://h?x", "https://h#f", "http://127.0.0.2", "ftp://h"} {
		cfg := newBench(t).cfg
		if cfg.PublicURL = mustURL(raw); connectNew(cfg) == nil {
			t.Errorf("New() takes public_url %s", raw)
		}
	}
	for _, raw := range []string{"https://h", "https://h:8443/x/", "http://localhost:9080", "http://127.0.0.1", "http://[::1]:1"} {
		cfg := newBench(t).cfg
		if cfg.PublicURL = mustURL(raw); connectNew(cfg) != nil {
			t.Errorf("New() refuses public_url %s", raw)
		}
	}
	if connectNew(connect.Config{}) == nil {
		t.Error("New() takes an empty Config")
	}
}

func connectNew(cfg connect.Config) error {
	_, err := connect.New(cfg)
	return err
}
