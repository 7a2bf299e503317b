package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// A user is named in place of a connection where a proxy is bound to one
// integration, and what becomes of the user's connections holds at once.
func TestNamingByUser(t *testing.T) {
	port := freePort(t)
	w := newWorld(t, func(w *world, _ *fakeprovider.Config) {
		w.site.Sites = fmt.Sprintf(":%d {\n bind 127.0.0.1\n lanyard_proxy /fake/* fake\n}\n", port)
	})
	call := func(target, user string) answer {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Lanyard-Key", w.clientKey)
		req.Header.Set("User-Id", user)
		return w.do(req)
	}
	bound := fmt.Sprintf("http://localhost:%d/fake/me", port)
	want := func(status int, code string) {
		t.Helper()
		if a := call(bound, "u1"); a.Status != status || a.Header.Get("Lanyard-Error") != code {
			t.Errorf("HTTP %d %s: %s; want %d %s", a.Status, a.Header.Get("Lanyard-Error"), a.Body, status, code)
		}
	}
	want(404, "connection_not_found")
	first := w.connect("u1")
	want(200, "")
	second := w.connect("u1")
	want(200, "")
	w.api(http.MethodDelete, "/v1/connections/"+second, nil, nil)
	want(200, "")
	w.api(http.MethodPost, "/v1/connections/"+first+"/revoke", nil, nil)
	want(424, "reconnect_required")
	if a := call(bound, "u1"); !strings.Contains(a.Body, "connect_url") {
		t.Errorf("no way back: %s", a.Body)
	}
	if a := call(w.proxyURL("/me"), "u1"); a.Status != 400 || a.Header.Get("Lanyard-Error") != "connection_required" {
		t.Errorf("at an unbound proxy: HTTP %d: %s", a.Status, a.Body)
	}
}

// A key that goes in the query is in no link, log or answer: the sweep at the
// end of the world looks for it.
func TestKeyInTheQuery(t *testing.T) {
	const key = "canary-query-key-0123456789"
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if keys := r.URL.Query()["key"]; len(keys) != 1 || keys[0] != key {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Link", fmt.Sprintf("<http://%s%s?page=2&key=%s>; rel=\"next\"", r.Host, r.URL.Path, key))
		_, _ = io.WriteString(w, r.URL.Query().Get("page"))
	}))
	defer upstream.Close()
	w := newWorld(t, func(w *world, _ *fakeprovider.Config) {
		w.site.Extra = fmt.Sprintf(`
			provider keyed {
				api_url %s/v1
				key query key
				allow_private
			}
			integration keyed {
				auth_scheme API_KEY
			}`, upstream.URL)
	})
	var c connection
	a := w.api(http.MethodPost, "/v1/connections", map[string]any{
		"integration": "keyed", "user_id": "u1", "auth_scheme": "API_KEY", "credentials": map[string]string{"api_key": key},
	}, &c)
	if a.Status != http.StatusCreated || c.Status != "ACTIVE" {
		t.Fatalf("begin: HTTP %d: %s", a.Status, a.Body)
	}
	a = w.call(c.ID, "/list?key=mine&page=1&k%65y=mine") // A106: a second credential in the query
	if a.Status != 200 || a.Body != "1" || a.Header.Get("Link") != "<"+w.proxyURL("/list?page=2")+`>; rel="next"` {
		t.Errorf("HTTP %d %s %q", a.Status, a.Body, a.Header.Get("Link"))
	}
	if a := w.api(http.MethodPost, "/v1/connections/"+c.ID+"/revoke", nil, nil); !strings.Contains(a.Body, `"provider_revoked_reason":"no_endpoint"`) {
		t.Errorf("revoke: HTTP %d: %s", a.Status, a.Body)
	}
	if log, err := os.ReadFile(w.path("output.log")); err != nil || strings.Contains(string(log), key) {
		t.Errorf("the key is in the log, or there is none: %v", err)
	}
}

// A revocation that a provider did not confirm is made after a crash.
func TestARevocationOutlivesACrash(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	w.fake.Faults.Revoke(fakeprovider.Status(503).Always())
	a := w.api(http.MethodDelete, "/v1/connections/"+id, nil, nil)
	if a.Status != 200 || !strings.Contains(a.Body, `"provider_revoked":"pending"`) {
		t.Fatalf("delete: HTTP %d: %s", a.Status, a.Body)
	}
	w.kill()
	w.fake.Faults.Clear()
	w.start()
	w.eventually("the grant is revoked", func() error {
		for _, g := range w.fake.Ledger().Grants {
			if !g.Revoked {
				return errors.New("it is not")
			}
		}
		return nil
	})
}
