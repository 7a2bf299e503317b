package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

func TestNewRefuses(t *testing.T) {
	full := func() api.Config {
		return api.Config{
			Store: memstore.New(), Refresher: &fakeRefresher{}, Revoker: new(revoke.Revoker), Links: fakeLinks{}, Keeper: &fakeKeeper{},
			Audit: fakeAudit{memstore.New()}, Brake: guard.NewBrake(),
			Keys:  []guard.Key{{Name: "api", Value: secret.New(apiKey)}},
			Ready: func(context.Context) error { return nil },
		}
	}
	for name, change := range map[string]func(*api.Config){
		"no store":     func(c *api.Config) { c.Store = nil },
		"no refresher": func(c *api.Config) { c.Refresher = nil },
		"no revoker":   func(c *api.Config) { c.Revoker = nil },
		"no links":     func(c *api.Config) { c.Links = nil },
		"no keeper":    func(c *api.Config) { c.Keeper = nil },
		"no audit":     func(c *api.Config) { c.Audit = nil },
		"no brake":     func(c *api.Config) { c.Brake = nil },
		"no ready":     func(c *api.Config) { c.Ready = nil },
		"no key":       func(c *api.Config) { c.Keys = nil },
		"empty key":    func(c *api.Config) { c.Keys = []guard.Key{{Name: "api"}} },
		"other name":   func(c *api.Config) { c.Integrations = map[string]api.Integration{"a": {Name: "b"}} },
	} {
		cfg := full()
		change(&cfg)
		if _, err := api.New(cfg); err == nil {
			t.Errorf("%s: New() succeeded", name)
		}
	}
	h, err := api.New(full())
	if err != nil {
		t.Fatalf("New() = %v", err)
	}
	h.Close()
}

func TestHandles(t *testing.T) {
	b := newBench(t)
	basic := func(pair string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del("Authorization")
			user, password, _ := strings.Cut(pair, ":")
			r.SetBasicAuth(user, password)
		}
	}
	tests := []struct {
		name, path string
		change     func(*http.Request)
		want       bool
	}{
		{"plain", "/v1/connections", nil, true},
		{"unknown path", "/v1/whatever", nil, true},
		{"another path", "/v2/connections", nil, false},
		{"only a prefix in letters", "/v1x/connections", nil, false},
		{"without a slash", "/v1", nil, false},
		{"escaped", "/%761/connections", nil, false},
		{"Connection-Id", "/v1/connections", header("Connection-Id", "conn_A"), false},
		{"empty Connection-Id", "/v1/connections", header("Connection-Id", ""), false},
		{"User-Id", "/v1/connections", header("User-Id", "u1"), false},
		{"slot", "/v1/connections", header("Authorization", "Bearer KEY.conn_A"), false},
		{"slot, scheme token", "/v1/connections", header("Authorization", "token KEY.conn_A"), false},
		{"slot, open proxy", "/v1/connections", header("Authorization", "Bearer conn_A"), false},
		{"slot, Basic", "/v1/connections", basic("x:KEY.conn_A"), false},
		{"slot, Basic, open proxy", "/v1/connections", basic("x:conn_A"), false},
		{"Basic without", "/v1/connections", basic("x:KEY"), true},
		{"provider's own header", "/v1/connections", header("Private-Token", "KEY.conn_A"), false},
		{"provider's own header, open proxy", "/v1/connections", header("Private-Token", "conn_A"), false},
		{"provider's own header without", "/v1/connections", header("Private-Token", "KEY"), true},
		{"health that names one", "/v1/health/live", header("Connection-Id", "conn_A"), false},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "http://localhost"+tt.path, nil)
		r.Header.Set("Authorization", "Bearer "+apiKey)
		if tt.change != nil {
			tt.change(r)
		}
		if got := b.h.Handles(r); got != tt.want {
			t.Errorf("%s: Handles() = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestWhoMayCall(t *testing.T) {
	b := newBench(t)
	key := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Authorization"] = values }
	}
	tests := []struct {
		name   string
		change func(*http.Request)
		status int
		code   string
	}{
		{"no key", key(), 401, "key_required"},
		{"wrong key", key("Bearer " + apiKey[:len(apiKey)-1] + "2"), 401, "key_required"},
		{"empty key", key("Bearer "), 401, "key_required"},
		{"key in another scheme", key("Basic " + apiKey), 401, "key_required"},
		{"two keys", key("Bearer "+apiKey, "Bearer "+apiKey), 401, "key_required"},
		{"key in Lanyard-Key", func(r *http.Request) { r.Header = http.Header{"Lanyard-Key": {apiKey}} }, 401, "key_required"},
		{"the other key", key("Bearer another-api-key"), 200, ""},
		{"origin", header("Origin", "https://evil.example"), 403, "browser_request_blocked"},
		{"own origin", header("Origin", "http://localhost"), 403, "browser_request_blocked"},
		{"null origin", header("Origin", "null"), 403, "browser_request_blocked"},
		{"cross site", header("Sec-Fetch-Site", "cross-site"), 403, "browser_request_blocked"},
		{"same origin", header("Sec-Fetch-Site", "same-origin"), 403, "browser_request_blocked"},
		{"typed in", header("Sec-Fetch-Site", "none"), 200, ""},
		{"foreign host", func(r *http.Request) { r.Host = "evil.example" }, 421, "host_invalid"},
	}
	var unauthorised string
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := b.do(http.MethodGet, "/v1/connections", "", tt.change)
			b.wants(a, tt.status, tt.code)
			if a.status != 401 {
				return
			}
			if got := a.header.Get("WWW-Authenticate"); got != `Bearer realm="lanyard"` {
				t.Errorf("WWW-Authenticate = %q", got)
			}
			if unauthorised != "" && a.text != unauthorised {
				t.Errorf("answers to missing and wrong keys differ: %s, %s", a.text, unauthorised)
			}
			unauthorised = a.text
		})
	}
}

func TestRoutes(t *testing.T) {
	b := newBench(t)
	c := b.put(active("a"))
	tests := []struct {
		method, path, body string
		status             int
		code, allow        string
	}{
		{"GET", "/v1/nothing", "", 404, "not_found", ""},
		{"GET", "/v1/", "", 404, "not_found", ""},
		{"GET", "/v1/connections/", "", 404, "not_found", ""},
		{"GET", "/v1//connections", "", 404, "not_found", ""},
		{"GET", "/v1/x/../connections", "", 404, "not_found", ""},
		{"GET", "/v1/connections/" + c.ID + "/", "", 404, "not_found", ""},
		{"POST", "/v1/connections/" + c.ID + "/nothing", "", 404, "not_found", ""},
		{"GET", "/v1/health/other", "", 404, "not_found", ""},
		{"PUT", "/v1/connections", "", 405, "method_not_allowed", "POST, GET, HEAD"},
		{"OPTIONS", "/v1/connections", "", 405, "method_not_allowed", "POST, GET, HEAD"},
		{"POST", "/v1/connections/" + c.ID, "", 405, "method_not_allowed", "GET, HEAD, PATCH, DELETE"},
		{"GET", "/v1/connections/" + c.ID + "/revoke", "", 405, "method_not_allowed", "POST"},
		{"POST", "/v1/integrations", "", 405, "method_not_allowed", "GET, HEAD"},
		{"POST", "/v1/health/live", "", 405, "method_not_allowed", "GET, HEAD"},
		{"GET", "/v1/connections/conn_UNKNOWN", "", 404, "connection_not_found", ""},
		{"GET", "/v1/connections/unknown", "", 404, "connection_not_found", ""},
		{"GET", "/v1/connections/conn%5FA", "", 404, "connection_not_found", ""},
		{"DELETE", "/v1/connections/conn_UNKNOWN", "", 404, "connection_not_found", ""},
		{"POST", "/v1/connections/conn_UNKNOWN/revoke", "", 404, "connection_not_found", ""},
		{"POST", "/v1/connections/conn_UNKNOWN/refresh", "", 404, "connection_not_found", ""},
		{"POST", "/v1/connections/conn_UNKNOWN/connect", "", 404, "connection_not_found", ""},
		{"POST", "/v1/connections/conn_UNKNOWN/complete", completion("c", "u"), 404, "connection_not_found", ""},
		{"HEAD", "/v1/connections/" + c.ID, "", 200, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			a := b.do(tt.method, tt.path, tt.body)
			b.wants(a, tt.status, tt.code)
			if got := a.header.Get("Allow"); got != tt.allow {
				t.Errorf("Allow = %q, want %q", got, tt.allow)
			}
		})
	}
}

func TestStoreErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{tokenstore.ErrCorrupt, 503, "store_corrupt"},
		{tokenstore.ErrUnavailable, 503, "store_unavailable"},
		{tokenstore.ErrFull, 507, "store_full"},
		{errors.New("something else"), 500, "internal_error"},
	} {
		b := newBench(t, func(c *api.Config) { c.Store = brokenStore{c.Store, fmt.Errorf("store: %w", tt.err)} })
		for _, op := range [][3]string{
			{"POST", "/v1/connections", `{"integration":"github"}`},
			{"GET", "/v1/connections", ""},
			{"GET", "/v1/connections/conn_A", ""},
			{"DELETE", "/v1/connections/conn_A", ""},
			{"POST", "/v1/connections/conn_A/revoke", ""},
			{"POST", "/v1/connections/conn_A/refresh", ""},
			{"POST", "/v1/connections/conn_A/connect", ""},
			{"POST", "/v1/connections/conn_A/complete", completion("c", "u")},
		} {
			a := b.do(op[0], op[1], op[2])
			if a.status != tt.status || a.code() != tt.code {
				t.Errorf("%s %s with %v = %d %q, want %d %q", op[0], op[1], tt.err, a.status, a.code(), tt.status, tt.code)
			}
		}
	}
}

// brokenStore answers everything with err.
type brokenStore struct {
	tokenstore.Store
	err error
}

func (s brokenStore) CreateConnection(context.Context, tokenstore.Connection) (tokenstore.Connection, error) {
	return tokenstore.Connection{}, s.err
}

func (s brokenStore) Connection(context.Context, string) (tokenstore.Connection, error) {
	return tokenstore.Connection{}, s.err
}

func (s brokenStore) UpdateConnection(context.Context, string, func(*tokenstore.Connection) error) (tokenstore.Connection, error) {
	return tokenstore.Connection{}, s.err
}

func (s brokenStore) DeleteConnection(context.Context, string, ...tokenstore.Event) (tokenstore.Connection, error) {
	return tokenstore.Connection{}, s.err
}

func (s brokenStore) ListConnections(context.Context, tokenstore.Filter, string, int) ([]tokenstore.Connection, string, error) {
	return nil, "", s.err
}

func TestHealth(t *testing.T) {
	b := newBench(t)
	stranger := func(r *http.Request) { r.Header.Del("Authorization"); r.Host = "10.1.2.3:9080" }
	b.wants(b.do("GET", "/v1/health/live", "", stranger), 200, "")
	a := b.do("GET", "/v1/health/ready", "", stranger)
	b.wants(a, 200, "")
	if a.json["status"] != "ok" {
		t.Errorf("ready = %s", a.text)
	}
	b.wants(b.do("GET", "/v1/health/ready", "", header("Origin", "https://evil.example")), 403, "browser_request_blocked")
	b.ready = errors.New("dsn-canary")
	b.wants(b.do("GET", "/v1/health/live", "", stranger), 200, "")
	a = b.do("GET", "/v1/health/ready", "", stranger)
	b.wants(a, 503, "not_ready")
	if strings.Contains(a.text, "canary") {
		t.Errorf("anybody can read why it is not ready: %s", a.text)
	}
}
