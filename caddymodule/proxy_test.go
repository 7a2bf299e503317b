package caddymodule_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/lanyard-proxy/lanyard/caddymodule"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// sites is a configuration for a provider at %[1]s, with its data in %[2]s.
const sites = `{
	admin off
	lanyard {
		public_url https://connect.example.com
		store badger %[2]s
		provider acme {
			authorize_url %[1]s/authorize
			token_url %[1]s/token
			api_url %[1]s/api
			allow_private
		}
		integration acme {
			client_id a
		}
		integration other {
			provider acme
			client_id b
		}
	}
}

http://plain.test {
	bind unix/%[2]s/plain.sock
	lanyard_api /v1/*
	lanyard_proxy
}

http://bound.test {
	bind unix/%[2]s/bound.sock
	lanyard_proxy /acme/* acme
	lanyard_proxy /other/* other
}

http://own.test {
	bind unix/%[2]s/own.sock
	reverse_proxy %[1]s {
		transport lanyard {
			integration acme
		}
	}
}
`

// seed makes a connection in the store of a data directory that nobody holds.
func seed(t *testing.T, dir string, c tokenstore.Connection) {
	t.Helper()
	keys, err := seal.Parse([]byte(read(t, dir, "lanyard-keys.json")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateConnection(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestProxiedCalls(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s", r.Header.Get("Authorization"), r.URL.EscapedPath())
	}))
	t.Cleanup(api.Close)
	dir := t.TempDir()
	started(t, config(dir, ""), nil).end()
	id := tokenstore.NewID()
	seed(t, dir, tokenstore.Connection{
		ID: id, Integration: "acme", Provider: "acme", UserID: "ada", Status: tokenstore.StatusActive,
		AuthScheme: tokenstore.AuthOAuth2, CreatedAt: time.Now(),
		Token: tokenstore.Token{AccessToken: secret.New("at-1"), IssuedAt: time.Now(), Generation: 1},
	})
	serve(t, fmt.Sprintf(sites, api.URL, dir))
	for _, tt := range []struct {
		name, site, path string
		status           int
		body             string
	}{
		{"handler", "plain", "/me%2Fx", 200, "Bearer at-1 /api/me%2Fx"},
		{"provider's own /v1", "plain", "/v1/me", 200, "Bearer at-1 /api/v1/me"},
		{"prefix", "bound", "/acme/me", 200, "Bearer at-1 /api/me"},
		{"prefix alone", "bound", "/acme", 200, "Bearer at-1 /api"},
		{"prefix in another case", "bound", "/ACME/me", 404, ""},
		{"prefix written otherwise", "bound", "/%61cme/me", 404, ""},
		{"another integration's prefix", "bound", "/other/me", 404, ""},
		{"transport", "own", "/api/me", 200, "Bearer at-1 /api/me"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, status := call(t, filepath.Join(dir, tt.site+".sock"), tt.site+".test", tt.path, read(t, dir, "lanyard-client-key"), id)
			if status != tt.status || tt.body != "" && got != tt.body {
				t.Errorf("%d %q, want %d %q", status, got, tt.status, tt.body)
			}
		})
	}
	for _, site := range []string{"plain", "own"} {
		if got, status := call(t, filepath.Join(dir, site+".sock"), site+".test", "/api/me", "wrong", id); status != 401 || strings.Contains(got, "at-1") {
			t.Errorf("%s with a wrong key: %d %q, want 401", site, status, got)
		}
	}
}

// Links are signed with the path of public_url, and that is what a browser asks
// for: what other handlers make of the path since is for their own next ones.
func TestConnectSeesThePathAsItCame(t *testing.T) {
	dir := t.TempDir()
	serve(t, fmt.Sprintf(`{
	admin off
	lanyard {
		public_url https://app.example.com/accounts
		store badger %[1]s
	}
}

http://app.example.com {
	bind unix/%[1]s/app.sock
	route {
		uri strip_prefix /accounts
		rewrite /in /accounts/connect
		lanyard_connect
		respond "passed on: {uri}" 299
	}
}
`, dir))
	for path, want := range map[string]string{
		"/accounts/connect?x=1":          "This link does not work",
		"/accounts/callback/acme?code=1": "This page does not belong to a request we know",
		"/accounts/other":                "passed on: /other",
		"/connect":                       "passed on: /connect",
		"/in":                            "passed on: /accounts/connect",
	} {
		if got, status := call(t, filepath.Join(dir, "app.sock"), "app.example.com", path, "", ""); !strings.Contains(got, want) {
			t.Errorf("%s: %d %q, want %q", path, status, got, want)
		}
	}
}

// serve runs a Caddyfile in this process until the end of the test.
func serve(t *testing.T, caddyfile string) {
	t.Helper()
	b, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		t.Fatal(err)
	}
	var cfg struct {
		Apps struct {
			HTTP    json.RawMessage `json:"http"`
			Lanyard json.RawMessage `json:"lanyard"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(b, &cfg); err != nil {
		t.Fatal(err)
	}
	in, err := provision(t, string(cfg.Apps.Lanyard), nil, string(cfg.Apps.HTTP))
	if err != nil {
		t.Fatal(err)
	}
	for _, app := range in.apps {
		if err := app.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

func call(t *testing.T, socket, host, path, key, id string) (body string, status int) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Lanyard-Key", key)
	r.Header.Set("Connection-Id", id)
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), res.StatusCode
}

// The connections of providers that must be public never lead to this machine,
// whatever a name resolves to, and are never shared with those that may.
func TestUpstreamsAreGuarded(t *testing.T) {
	asked := make(chan string, 8)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	private := fmt.Sprintf(`"providers": {"acme": {"authorize_url": %[1]q, "token_url": %[1]q, "api_url": %[1]q, "allow_private": true}},
		"integrations": {"acme": {"client_id": "a"}}`, srv.URL)
	for _, options := range []string{`{}`, `{"transport": {"dial_timeout": "5s", "keep_alive": {"max_idle_conns_per_host": 2}}}`} {
		in, err := provision(t, config(t.TempDir(), private), map[string]string{"lanyard_proxy": options})
		if err != nil {
			t.Fatal(err)
		}
		rt := caddymodule.UpstreamsOf(in.http["lanyard_proxy"])
		get := func(host string) error {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/asked", nil)
			r.RequestURI = ""
			res, err := rt.RoundTrip(r)
			if err == nil {
				_ = res.Body.Close()
			}
			return err
		}
		if err := get(u.Host); err != nil {
			t.Errorf("%s: the provider that may be private: %v", options, err)
		}
		<-asked
		// The same address by a name that no provider has.
		if err := get(net.JoinHostPort("localhost", u.Port())); !errors.Is(err, provider.ErrAddressBlocked) {
			t.Errorf("%s: error = %v, want ErrAddressBlocked", options, err)
		}
		if len(asked) > 0 {
			t.Errorf("%s: a request was sent", options)
		}
		in.end()
	}
}

func TestReachableListenersAreWarnedAbout(t *testing.T) {
	for bind, want := range map[string]bool{"127.0.0.1": false, "::1": false, "unix//nowhere/x.sock": false, "0.0.0.0": true, "": true} {
		listen := bind + ":9080"
		if strings.Contains(bind, "unix") {
			listen = bind
		}
		if bind == "::1" {
			listen = "[::1]:9080"
		}
		servers := fmt.Sprintf(`{"servers": {"s": {"listen": [%q], "routes": [{"handle": [{"handler": "lanyard_api"}, {"handler": "lanyard_proxy"}]}]}}}`, listen)
		in, err := provision(t, config(t.TempDir(), ""), nil, servers)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.app.Start(); err != nil {
			t.Fatal(err)
		}
		var warnings string
		for line := range strings.Lines(read(t, in.log)) {
			if strings.Contains(line, "other machines can reach this handler") {
				warnings += line
			}
		}
		for _, handler := range []string{"lanyard_api", "lanyard_proxy"} {
			if got := strings.Contains(warnings, `"handler":"`+handler+`"`); got != want {
				t.Errorf("%s on %q: warned = %v, want %v", handler, listen, got, want)
			}
		}
		in.end()
	}
}

func TestEngineLogsWhereTheConfigurationInForceSays(t *testing.T) {
	dir := t.TempDir()
	old := started(t, config(dir, ""), nil)
	log := caddymodule.EngineLogger(dir)
	log.Info("first")
	next := started(t, config(dir, ""), nil)
	old.end()
	log.Named("x").Info("second")
	for _, tt := range []struct {
		in    *instance
		line  string
		wants bool
	}{{old, "first", true}, {old, "second", false}, {next, "first", false}, {next, "second", true}} {
		if got := strings.Contains(read(t, tt.in.log), `"msg":"`+tt.line+`"`); got != tt.wants {
			t.Errorf("%s in its log: %v, want %v", tt.line, got, tt.wants)
		}
	}
}
