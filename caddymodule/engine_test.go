package caddymodule_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var both = map[string]string{"lanyard_api": `{}`, "lanyard_proxy": `{}`}

// api calls the management API of one configuration.
func (in *instance) api(method, path, key, body string) *httptest.ResponseRecorder {
	in.t.Helper()
	r := httptest.NewRequestWithContext(in.t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	return in.serve("lanyard_api", r)
}

const github = `"integrations": {"github": {"client_id": "a"}}`

func TestReloadKeepsTheStore(t *testing.T) {
	dir := t.TempDir()
	old := started(t, config(dir, github), both)
	key := read(t, dir, "lanyard-api-key")
	if w := old.api(http.MethodPost, "/v1/connections", key, `{"integration": "github", "user_id": "ada"}`); w.Code != http.StatusCreated {
		t.Fatalf("begin: %d %s", w.Code, w.Body)
	}
	// Caddy starts the new configuration before it ends the old one.
	next := started(t, config(dir, github+`, "redirect_urls": ["https://app.example.com/cb"]`), both)
	old.end()
	w := next.api(http.MethodGet, "/v1/connections", key, "")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ada"`) {
		t.Errorf("after the reload the list is: %d %s", w.Code, w.Body)
	}
	next.end()
	last := started(t, config(dir, github), both)
	if w := last.api(http.MethodGet, "/v1/connections", key, ""); !strings.Contains(w.Body.String(), `"ada"`) {
		t.Errorf("after the store was closed and opened the list is: %d %s", w.Code, w.Body)
	}
}

// The engine asks the configuration in force for its provider. One that was
// given up, because another app's start failed, must leave the old in force.
func TestFailedReloadLeavesTheOldInForce(t *testing.T) {
	dir := t.TempDir()
	old := started(t, config(dir, github), both)
	failed := started(t, config(dir, ""), both)
	if name := inForce(t, dir); name != "" {
		t.Fatalf("integrations in force after the reload: %q, want none", name)
	}
	failed.end()
	if name := inForce(t, dir); name != "github" {
		t.Errorf("integrations in force after the reload failed: %q, want github", name)
	}
	key := read(t, dir, "lanyard-api-key")
	if w := old.api(http.MethodGet, "/v1/integrations", key, ""); w.Code != http.StatusOK {
		t.Errorf("the old configuration answers %d", w.Code)
	}
}

// A refresh that waits for its provider's metadata belongs to no configuration.
func TestReloadDropsNoRefresh(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"issuer": %[1]q, "authorization_endpoint": "%[1]s/authorize", "token_endpoint": "%[1]s/token"}`, srv.URL)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token": "at-2", "token_type": "Bearer", "expires_in": 3600}`)
	})
	mux.HandleFunc("/api/me", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) })
	dir := t.TempDir()
	started(t, config(dir, ""), nil).end()
	id := tokenstore.NewID()
	seed(t, dir, tokenstore.Connection{
		ID: id, Integration: "acme", Provider: "acme", UserID: "ada", Status: tokenstore.StatusActive,
		AuthScheme: tokenstore.AuthOAuth2, CreatedAt: time.Now(),
		Token: tokenstore.Token{
			AccessToken: secret.New("at-1"), RefreshToken: secret.New("rt-1"), Generation: 1,
			IssuedAt: time.Now().Add(-2 * time.Hour), ExpiresAt: time.Now().Add(-time.Hour),
		},
	})
	acme := fmt.Sprintf(`"providers": {"acme": {"issuer": %q, "api_url": "%s/api", "allow_private": true}},
		"integrations": {"acme": {"client_id": "a"}}`, srv.URL, srv.URL)
	old := started(t, config(dir, acme), both)
	answers := make(chan *httptest.ResponseRecorder)
	go func() {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/me", nil)
		r.Header.Set("Lanyard-Key", read(t, dir, "lanyard-client-key"))
		r.Header.Set("Connection-Id", id)
		answers <- old.serve("lanyard_proxy", r)
	}()
	select {
	case <-asked:
	case w := <-answers:
		t.Fatalf("the call did not wait: %d %s", w.Code, w.Body)
	}
	started(t, config(dir, acme), both)
	old.end()
	close(answer)
	if w := <-answers; w.Code != http.StatusOK || w.Body.String() != "Bearer at-2" {
		t.Errorf("the call that waited: %d %s", w.Code, w.Body)
	}
}

func TestOtherKeysetInAReload(t *testing.T) {
	dir := t.TempDir()
	old := started(t, config(dir, github), both)
	keys, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LANYARD_TEST_KEYSET", string(keys))
	next, err := provision(t, config(dir, github+`, "keyset": "{env.LANYARD_TEST_KEYSET}"`), both)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.app.Start(); !errors.Is(err, tokenstore.ErrKeyMissing) || !strings.Contains(err.Error(), "the one that is open stays in force") {
		t.Errorf("Start() = %v, want ErrKeyMissing", err)
	}
	next.end()
	if w := old.api(http.MethodGet, "/v1/integrations", read(t, dir, "lanyard-api-key"), ""); w.Code != http.StatusOK {
		t.Errorf("the old configuration answers %d", w.Code)
	}
	same, err := provision(t, config(dir, github+`, "keyset": "{file.`+filepath.Join(dir, "lanyard-keys.json")+`}"`), both)
	if err != nil {
		t.Fatal(err)
	}
	if err := same.app.Start(); err != nil {
		t.Errorf("the same keyset, named: Start() = %v", err)
	}
}

func TestKeysBelongToTheirConfiguration(t *testing.T) {
	dir := t.TempDir()
	old := started(t, config(dir, ""), both)
	made := read(t, dir, "lanyard-api-key")
	t.Setenv("LANYARD_TEST_API", "api"+longKey)
	next := started(t, config(dir, `"api_keys": ["{env.LANYARD_TEST_API}"]`), both)
	for _, tt := range []struct {
		in   *instance
		key  string
		want int
	}{
		{old, made, http.StatusOK},
		{next, "api" + longKey, http.StatusOK},
		{next, made, http.StatusUnauthorized},
		{next, read(t, dir, "lanyard-client-key"), http.StatusUnauthorized},
	} {
		if w := tt.in.api(http.MethodGet, "/v1/integrations", tt.key, ""); w.Code != tt.want {
			t.Errorf("got %d, want %d: %s", w.Code, tt.want, w.Body)
		}
	}
}

func TestHandlersPassOn(t *testing.T) {
	in := started(t, config(t.TempDir(), ""), map[string]string{"lanyard_api": `{}`, "lanyard_connect": `{}`})
	for _, tt := range []struct {
		handler, url, header string
		want                 int
	}{
		{"lanyard_connect", "https://connect.example.com/", "", 299},
		{"lanyard_connect", "https://connect.example.com/connector", "", 299},
		{"lanyard_connect", "https://connect.example.com/connect", "", http.StatusBadRequest},
		{"lanyard_api", "http://localhost/v2/x", "", 299},
		{"lanyard_api", "http://localhost/v1/connections", "conn_ABC", 299},
		{"lanyard_api", "http://localhost/v1/connections", "", http.StatusUnauthorized},
		{"lanyard_api", "http://evil.example/v1/connections", "", http.StatusMisdirectedRequest},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.url, nil)
		if tt.header != "" {
			r.Header.Set("Connection-Id", tt.header)
		}
		if w := in.serve(tt.handler, r); w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.handler, tt.url, w.Code, tt.want)
		}
	}
}

// loopback makes r come from remote to 127.0.0.1.
func loopback(r *http.Request, remote string) *http.Request {
	r = r.WithContext(contextWithLocalAddr(r.Context(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9082}))
	r.RemoteAddr = net.JoinHostPort(remote, "40000")
	return r
}

func TestDemoAnswersOnLoopbackOnly(t *testing.T) {
	in := started(t, config(t.TempDir(), ""), map[string]string{"lanyard_demo": `{"part": "provider"}`})
	get := func(local net.Addr, remote string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:9082/.well-known/oauth-authorization-server", nil)
		r = r.WithContext(contextWithLocalAddr(r.Context(), local))
		r.RemoteAddr = net.JoinHostPort(remote, "40000")
		return in.serve("lanyard_demo", r).Code
	}
	here := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9082}
	there := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 9082}
	for _, tt := range []struct {
		local  net.Addr
		remote string
		want   int
	}{
		{here, "127.0.0.1", http.StatusOK},
		{&net.TCPAddr{IP: net.IPv6loopback, Port: 9082}, "::1", http.StatusOK},
		{here, "10.0.0.2", http.StatusForbidden},
		{there, "127.0.0.1", http.StatusForbidden},
		{there, "10.0.0.2", http.StatusForbidden},
		{nil, "127.0.0.1", http.StatusForbidden},
	} {
		if got := get(tt.local, tt.remote); got != tt.want {
			t.Errorf("from %s to %v: %d, want %d", tt.remote, tt.local, got, tt.want)
		}
	}
}

func TestDemoAppNeedsItsSurroundings(t *testing.T) {
	t.Setenv("LANYARD_TEST_API", "api"+longKey)
	for _, tt := range []struct{ more, want string }{
		{`"api_keys": ["{env.LANYARD_TEST_API}"]`, "leave out api_key and client"},
		{``, "needs lanyard_api and lanyard_proxy"},
	} {
		in, err := provision(t, config(t.TempDir(), tt.more), map[string]string{"lanyard_demo": `{"part": "app"}`})
		if err != nil {
			t.Fatal(err)
		}
		if err := in.app.Start(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Start() = %v, want an error with %q", err, tt.want)
		}
	}
}

// A directory that can't be made is an error, and the next start is free to
// succeed: nothing stays behind in the pool.
func TestStartAgainAfterAFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := provision(t, config(dir, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.app.Start(); err == nil {
		t.Fatal("Start() on a file succeeded")
	}
	in.end()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	started(t, config(dir, ""), nil)
}
