package caddymodule_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const longKey = "0123456789abcdefghijABCDEFGHIJ_-"

func TestProvisionErrors(t *testing.T) {
	t.Setenv("LANYARD_TEST_EMPTY", "")
	t.Setenv("LANYARD_TEST_KEY", longKey)
	t.Setenv("LANYARD_TEST_SHORT", "tooshort")
	base := `{"public_url": "https://connect.example.com", `
	acme := func(params, redirectURI string) string {
		return `"providers": {"acme": {"authorize_url": "https://id.acme.example/a", "token_url": "https://id.acme.example/t",
			"api_url": "https://api.acme.example/{region}", "params": {"region": {"pattern": "^(eu|us)$"}}, "inject": {"headers": {"Acme-Version": "2026"}}}},
			"integrations": {"acme": {"client_id": "a", "params": ` + params + `, "redirect_uri": "` + redirectURI + `"}}}`
	}
	for _, tt := range []struct{ name, config, want string }{
		{"nothing", `{}`, "public_url: it is required"},
		{"public_url http", `{"public_url": "http://connect.example.com"}`, "public_url:"},
		{"public_url query", `{"public_url": "https://connect.example.com?x=1"}`, "public_url:"},
		{"public_url user", `{"public_url": "https://u@connect.example.com"}`, "public_url:"},
		{"public_url unset", `{"public_url": "{env.LANYARD_TEST_EMPTY}"}`, "public_url: evaluated placeholder {env.LANYARD_TEST_EMPTY} is empty"},
		{"unknown field", base + `"api_kyes": []}`, "api_kyes"},
		{"store", base + `"store": {"engine": "redis"}}`, "store: \"redis\" is not a store; there are `badger` and `postgres`"},
		{"completion", base + `"completion": "on"}`, "completion: \"on\" is not known"},
		{"keyset", base + `"keyset": "{env.LANYARD_TEST_KEY}"}`, "keyset:"},
		{"keyset file", base + `"keyset": "{file./nowhere/keys.json}"}`, "keyset: evaluated placeholder {file./nowhere/keys.json} is empty"},
		{"api_key short", base + `"api_keys": ["{env.LANYARD_TEST_SHORT}"]}`, "api_key: the key needs at least 32 characters"},
		{"api_key with a space", base + `"api_keys": ["tooshort tooshort tooshort tooshort "]}`, "api_key: the key needs at least 32 characters, all of ASCII and none of them a space"},
		{"api_key not ASCII", base + `"api_keys": ["tooshörttooshörttooshörttooshört"]}`, "api_key: the key needs at least 32 characters, all of ASCII"},
		{"api_key empty", base + `"api_keys": [""]}`, "api_key: the key is missing"},
		{"client short", base + `"clients": [{"name": "app", "key": "{env.LANYARD_TEST_SHORT}"}]}`, "client app: the key needs at least 32 characters"},
		{"client characters", base + `"clients": [{"name": "app", "key": "0123456789abcdefghijABCDEFGHIJ_."}]}`, "client app: the key needs"},
		{"client no name", base + `"clients": [{"key": "{env.LANYARD_TEST_KEY}"}]}`, "client: each one needs a name"},
		{"client is api key", base + `"api_keys": ["` + longKey + `"], "clients": [{"name": "app", "key": "{env.LANYARD_TEST_KEY}"}]}`, "client app: its key is also another client's, or an api_key"},
		{"client twice", base + `"clients": [{"name": "a", "key": "` + longKey + `"}, {"name": "b", "key": "` + longKey + `"}]}`, "client b: its key is also"},
		{"client limit without values", base + `"clients": [{"name": "app", "key": "` + longKey + `", "users": []}]}`, "client app: users: needs at least one value"},
		{"client method", base + `"clients": [{"name": "app", "key": "` + longKey + `", "methods": ["get"]}]}`, "client app: methods: \"get\" is not a method"},
		{"client path", base + `"clients": [{"name": "app", "key": "` + longKey + `", "paths": ["/a/../b"]}]}`, "client app: paths: \"/a/../b\" is no path"},
		{"client integration", base + `"clients": [{"name": "app", "key": "` + longKey + `", "integrations": ["githb"]}], "integrations": {"github": {"client_id": "a"}}}`, "client app: integrations: no integration \"githb\": did you mean github? known: github"},
		{"redirect_url", base + `"redirect_urls": ["https://*.example.com/cb"]}`, "redirect_url \"https://*.example.com/cb\":"},
		{"integration name", base + `"integrations": {"Git Hub": {"provider": "github", "client_id": "a"}}}`, "integration Git Hub: its name must be"},
		{"integration null", base + `"integrations": {"github": null}}`, "integration github: it is empty"},
		{"provider near", base + `"integrations": {"githbu": {"client_id": "a"}}}`, "integration githbu: no provider \"githbu\": did you mean github? `caddy lanyard providers` lists"},
		{"provider far", base + `"integrations": {"main": {"provider": "my-own-server", "client_id": "a"}}}`, "integration main: no provider \"my-own-server\": `caddy lanyard providers` lists"},
		{"client_id", base + `"integrations": {"github": {}}}`, "integration github: client_id is missing"},
		{"entry", base + `"providers": {"acme": {"authorize_url": "https://id.acme.example/a", "token_url": "https://id.acme.example/t"}}, "integrations": {"acme": {"client_id": "a"}}}`, "integration acme: api_url is missing"},
		{"scope", base + `"integrations": {"contextfile": {"client_id": "a", "scopes": ["profile:read", "tasks:raed"]}}}`, "integration contextfile: scopes: \"tasks:raed\" is none of its provider's: did you mean tasks:read? known: "},
		{"param of none", base + `"integrations": {"github": {"client_id": "a", "params": {"shop": "x"}}}}`, "integration github: param shop is none of the provider's"},
		{"param form", base + acme(`{"region": "asia"}`, "x"), "integration acme: param region is not of the form ^(eu|us)$"},
		{"param unset", base + acme(`{"region": "{env.LANYARD_TEST_EMPTY}"}`, "x"), "param region: evaluated placeholder {env.LANYARD_TEST_EMPTY} is empty"},
		{"redirect_uri", base + acme(`{}`, "a b"), "integration acme: redirect_uri has a space"},
		{"entry text", base + strings.Replace(acme(`{}`, "x"), "2026", "{env.LANYARD_TEST_EMPTY}", 1), "inject: set Acme-Version: evaluated placeholder"},
		{"entry word", base + `"providers": {"acme": {"token_uri": "https://id.acme.example"}}}`, "token_uri"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := provision(t, tt.config, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v\nwant one with: %s", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), longKey) || strings.Contains(err.Error(), "tooshort")) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

// A secret with braces looks like a placeholder, of which Caddy's replacer
// would print the name.
func TestSecretWithBracesIsNotPrinted(t *testing.T) {
	_, err := provision(t, config(t.TempDir(), `"api_keys": ["abc{canary-in-braces}0123456789012345678901234567"]`), nil)
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error = %v, want one that does not show the key", err)
	}
}

func TestHandlersNeedTheApp(t *testing.T) {
	for _, name := range []string{"lanyard_connect", "lanyard_api", "lanyard_proxy"} {
		_, err := provision(t, "", map[string]string{name: `{}`})
		if err == nil || !strings.Contains(err.Error(), name+" needs a `lanyard` block in the global options") {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}

func TestProxyProvisionErrors(t *testing.T) {
	for _, tt := range []struct{ name, handler, want string }{
		{"integration", `{"integration": "githbu"}`, "no integration \"githbu\": did you mean github? known: github"},
		{"links", `{"links": "on"}`, "links \"on\" is not known"},
		{"prefix", `{"prefix": "github"}`, "prefix \"github\" does not begin with a slash"},
		{"prefix end", `{"prefix": "/github/"}`, "prefix \"/github/\" does not begin with a slash, or ends with one"},
		{"spool", `{"spool": -1}`, "spool -1 is negative"},
		{"names", `{"names": ["localhost:9080"]}`, "names: \"localhost:9080\" is not a host name"},
		{"names wildcard", `{"names": ["*"]}`, "names: \"*\" is not a host name"},
		{"names placeholder", `{"names": ["{env.NAME}"]}`, "names: \"{env.NAME}\" is not a host name"},
		{"origin", `{"allow_origin": ["https://App.example.com"]}`, "allow_origin: \"https://App.example.com\" is not an origin"},
		{"origin path", `{"allow_origin": ["https://app.example.com/"]}`, "allow_origin: \"https://app.example.com/\" is not an origin"},
		{"origin wildcard", `{"allow_origin": ["https://*.example.com"]}`, "allow_origin: \"https://*.example.com\" is not an origin"},
		{"origin alone", `{"allow_origin": ["*"]}`, "allow_origin: \"*\" is not an origin"},
		{"compression", `{"transport": {"compression": true}}`, "bodies are passed on as they are"},
		{"http3", `{"transport": {"versions": ["3"]}}`, "HTTP/3"},
		{"version", `{"transport": {"versions": ["9"]}}`, "unsupported HTTP version"},
		{"A129 bytes before the guard", `{"transport": {"proxy_protocol": "v1"}}`, "proxy_protocol: a provider's API takes none"},
		{"A129 TLS before the guard", `{"transport": {"tls": {"server_name": "{http.request.host}"}}}`, "tls_server_name: no placeholders here"},
		{"word", `{"lynx": "off"}`, "lynx"},
	} {
		_, err := provision(t, config(t.TempDir(), `"integrations": {"github": {"client_id": "a"}}`), map[string]string{"lanyard_proxy": tt.handler})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error = %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

// Provisioning is what `caddy validate` does, beside a running instance too.
func TestProvisionTouchesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	in, err := provision(t, config(dir, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	in.end()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after provisioning the data directory is there (%v)", err)
	}
	started(t, config(dir, ""), nil)
	again, err := provision(t, config(dir, ""), nil)
	if err != nil {
		t.Errorf("provisioning beside a running instance: %v", err)
	}
	again.end()
}

func TestFirstStartMakesKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	in := started(t, config(dir, ""), nil)
	in.end()
	logs := read(t, in.log)
	files := []string{"lanyard-keys.json", "lanyard-api-key", "lanyard-client-key"}
	made := map[string]string{}
	for _, name := range files {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", name, info.Mode())
		}
		made[name] = read(t, path)
		if !strings.Contains(logs, path) || strings.Contains(logs, made[name]) {
			t.Errorf("the log must name %s and not show what is in it:\n%s", path, logs)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory: %v, %v; want mode 0700", info, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	allowed := append([]string{"badger", "lanyard-store.json", "lanyard-ballast"}, files...)
	for _, e := range entries {
		if !slices.Contains(allowed, e.Name()) && !strings.HasPrefix(e.Name(), "lanyard-mark-") && !strings.HasPrefix(e.Name(), "lanyard-known-") {
			t.Errorf("the data directory has %s beside the keys and the store", e.Name())
		}
	}
	started(t, config(dir, ""), nil)
	for _, name := range files {
		if got := read(t, dir, name); got != made[name] {
			t.Errorf("the second start changed %s", name)
		}
	}
}

func TestConfiguredKeysMakeNoFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	keys, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LANYARD_TEST_KEYSET", string(keys))
	t.Setenv("LANYARD_TEST_API", "api"+longKey)
	t.Setenv("LANYARD_TEST_CLIENT", "client"+longKey)
	in := started(t, config(dir, `"keyset": "{env.LANYARD_TEST_KEYSET}", "api_keys": ["{env.LANYARD_TEST_API}"],
		"clients": [{"name": "app", "key": "{env.LANYARD_TEST_CLIENT}"}]`), nil)
	if logs := read(t, in.log); strings.Contains(logs, "stands in the configuration") {
		t.Errorf("placeholders were warned about:\n%s", logs)
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if name := e.Name(); name != "badger" && name != "lanyard-store.json" && name != "lanyard-ballast" &&
			!strings.HasPrefix(name, "lanyard-mark-") && !strings.HasPrefix(name, "lanyard-known-") {
			err = errors.Join(err, errors.New(name))
		}
	}
	if err != nil {
		t.Errorf("the data directory has %v (%v), want the store alone", entries, err)
	}
}

func TestLiteralSecretsAreWarnedAbout(t *testing.T) {
	keys, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(string(keys))
	if err != nil {
		t.Fatal(err)
	}
	in := started(t, config(t.TempDir(), `"keyset": `+string(text)+`, "api_keys": ["api`+longKey+`"],
		"clients": [{"name": "app", "key": "client`+longKey+`"}],
		"integrations": {"github": {"client_id": "a", "client_secret": "literal-client-secret"}}`), nil)
	logs := read(t, in.log)
	for _, field := range []string{`"keyset"`, `"api_key"`, `"client app"`, `"integration github: client_secret"`} {
		if !strings.Contains(logs, `"field":`+field) {
			t.Errorf("no warning names %s:\n%s", field, logs)
		}
	}
	for _, s := range []string{longKey, "literal-client-secret", string(keys)} {
		if strings.Contains(logs, s) {
			t.Errorf("the log shows %q", s)
		}
	}
}

func TestStoreWithoutItsKeys(t *testing.T) {
	dir := t.TempDir()
	started(t, config(dir, ""), nil).end()
	if err := os.Remove(filepath.Join(dir, "lanyard-keys.json")); err != nil {
		t.Fatal(err)
	}
	in, err := provision(t, config(dir, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.app.Start(); !errors.Is(err, tokenstore.ErrKeyMissing) {
		t.Errorf("Start() = %v, want ErrKeyMissing", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lanyard-keys.json")); !errors.Is(err, os.ErrNotExist) {
		t.Error("new keys were made beside an old store")
	}
	keys, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("LANYARD_TEST_KEYSET", string(keys))
	in, err = provision(t, config(dir, `"keyset": "{env.LANYARD_TEST_KEYSET}"`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.app.Start(); !errors.Is(err, tokenstore.ErrKeyMissing) {
		t.Errorf("Start() with another keyset = %v, want ErrKeyMissing", err)
	}
}

func TestDamagedKeyFileIsAnError(t *testing.T) {
	for _, name := range []string{"lanyard-keys.json", "lanyard-api-key", "lanyard-client-key"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := provision(t, config(dir, ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.app.Start(); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s: Start() = %v, want an error that names the file", name, err)
		}
		in.end()
	}
}

// Caddy starts apps in any order, so that requests may come first.
func TestRequestsWaitForTheStart(t *testing.T) {
	in, err := provision(t, config(t.TempDir(), ""), map[string]string{"lanyard_api": `{}`})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if w := in.serve("lanyard_api", health(ctx)); w.Code != http.StatusServiceUnavailable || w.Header().Get("Lanyard-Error") != "store_unavailable" {
		t.Errorf("before the start, patience over: %d %s", w.Code, w.Body)
	}
	served := make(chan int)
	go func() { served <- in.serve("lanyard_api", health(t.Context())).Code }()
	if err := in.app.Start(); err != nil {
		t.Fatal(err)
	}
	if got := <-served; got != http.StatusOK {
		t.Errorf("a request that waited for the start got %d, want 200", got)
	}
}

func TestRequestsAfterAFailedStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "lanyard-keys.json"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := provision(t, config(dir, ""), map[string]string{
		"lanyard_api": `{}`, "lanyard_connect": `{}`, "lanyard_proxy": `{}`, "lanyard_demo": `{"part": "provider"}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.app.Start(); err == nil {
		t.Fatal("Start() with a torn keyset succeeded")
	}
	for name := range in.http {
		if w := in.serve(name, loopback(health(t.Context()), "127.0.0.1")); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s answered %d, want 503", name, w.Code)
		}
	}
}

func health(ctx context.Context) *http.Request {
	return httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/health/ready", nil)
}
