package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// tenantFront is the fake provider behind paths that begin with a tenant's name.
type tenantFront struct {
	*httptest.Server
	mu    sync.Mutex
	fake  http.Handler   // guarded by mu
	paths map[string]int // guarded by mu :: escaped path → requests
}

func newTenants(t *testing.T) *tenantFront {
	t.Helper()
	n := &tenantFront{paths: map[string]int{}}
	n.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		fake := n.fake
		n.paths[r.URL.EscapedPath()]++
		n.mu.Unlock()
		rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/t/acme/")
		if !ok {
			http.NotFound(rw, r)
			return
		}
		r.URL.Path, r.URL.RawPath = "/"+rest, ""
		fake.ServeHTTP(rw, r)
	}))
	t.Cleanup(n.Close)
	return n
}

// asked returns the paths that were asked for since the last call.
func (n *tenantFront) asked() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.paths
	n.paths = map[string]int{}
	return was
}

// extra is the provider with a parameter of this pattern, and its integration.
func (n *tenantFront) extra(pattern string) string {
	return fmt.Sprintf(`
		provider tenants {
			param tenant %q
			authorize_url %[2]s/t/{tenant}/authorize
			token_url %[2]s/t/{tenant}/token
			revoke_url %[2]s/t/{tenant}/revoke
			api_url %[2]s/t/{tenant}/api
			allow_private
		}
		integration tenants {
			client_id {env.FAKE_CLIENT_ID}
			client_secret {env.FAKE_CLIENT_SECRET}
			scopes read
		}`, pattern, n.URL)
}

func newTenantWorld(t *testing.T) (*world, *tenantFront) {
	t.Helper()
	n := newTenants(t)
	w := newWorld(t, func(w *world, c *fakeprovider.Config) {
		w.site.Extra = n.extra("^[a-z]+$")
		c.RedirectURIs = append(c.RedirectURIs, w.site.Public+"/callback/tenants")
	})
	n.mu.Lock()
	n.fake = w.fake
	n.mu.Unlock()
	return w, n
}

func (w *world) beginTenant(params any) (answer, connection) {
	w.t.Helper()
	body := map[string]any{"integration": "tenants", "user_id": "u1", "redirect_url": w.app.url + "/callback", "state": "app-state"}
	if params != nil {
		body["params"] = params
	}
	a := w.api(http.MethodPost, "/v1/connections", body, nil)
	if a.Status != http.StatusCreated {
		return a, connection{}
	}
	var c connection
	if err := json.Unmarshal([]byte(a.Body), &c); err != nil {
		w.t.Fatal(err)
	}
	return a, c
}

func TestConnectionParameters(t *testing.T) {
	w, n := newTenantWorld(t)
	a, c := w.beginTenant(map[string]string{"tenant": "acme"})
	if a.Status != http.StatusCreated {
		t.Fatalf("begin: HTTP %d: %s", a.Status, a.Body)
	}
	browser := newBrowser(t)
	back := w.follow(browser, c.ConnectURL)
	w.complete(c.ID, back.Get("completion_code"), "u1")
	w.wantWorks(c.ID)
	if a := w.api(http.MethodPost, "/v1/connections/"+c.ID+"/refresh", nil, nil); a.Status != http.StatusOK {
		t.Errorf("refresh: HTTP %d: %s", a.Status, a.Body)
	}
	// By a link, without the API.
	back = w.follow(browser, w.appLink("integration", "tenants", "params", "tenant=acme"))
	w.complete(back.Get("connection_id"), back.Get("completion_code"), "u1")
	w.wantWorks(back.Get("connection_id"))

	var shown struct{ Params map[string]string }
	w.api(http.MethodGet, "/v1/connections/"+c.ID, nil, &shown)
	if diff := cmp.Diff(map[string]string{"tenant": "acme"}, shown.Params); diff != "" {
		t.Error(diff)
	}
	for path := range n.asked() {
		if !strings.HasPrefix(path, "/t/acme/") {
			t.Errorf("the provider was asked for %s", path)
		}
	}

	// Another form by a reload: the parameter is judged where it is used.
	t.Run("A127 at use", func(t *testing.T) {
		w.site.Extra = n.extra("^x.*$")
		if err := w.reload(); err != nil {
			t.Fatal(err)
		}
		posts := w.posts()
		if a := w.call(c.ID, "/me"); a.Status != http.StatusConflict || !strings.Contains(a.Body, `"invalid_parameter"`) {
			t.Errorf("call: HTTP %d: %s", a.Status, a.Body)
		}
		if a := w.api(http.MethodPost, "/v1/connections/"+c.ID+"/refresh", nil, nil); a.Status != http.StatusConflict {
			t.Errorf("refresh: HTTP %d: %s", a.Status, a.Body)
		}
		if res := w.browse(newBrowser(t), w.appLink("integration", "tenants", "connection_id", c.ID)); res.StatusCode != http.StatusBadRequest {
			t.Errorf("reconnect: HTTP %d", res.StatusCode)
		}
		a := w.api(http.MethodPost, "/v1/connections/"+c.ID+"/revoke", nil, nil)
		if a.Status != http.StatusOK || !strings.Contains(a.Body, `"provider_revoked_reason":"invalid_parameter"`) {
			t.Errorf("revoke: HTTP %d: %s", a.Status, a.Body)
		}
		w.wantNoPosts(posts)
		if asked := n.asked(); len(asked) != 0 {
			t.Errorf("the provider was asked for %v", asked)
		}
	})
}

func TestParameterBreakout(t *testing.T) {
	w, n := newTenantWorld(t)
	evil := w.evil.host
	for _, value := range []string{
		evil + "/", evil + "#", evil + "?", "x@" + evil, evil + ":443/", "a.b", "%2f", "..", "", strings.Repeat("a", 250), "ｅvil",
		"acme/..", "acme\\", "acme?x=1", "%2e%2e", "ACME", "acme ",
	} {
		t.Run("A127 "+value, func(t *testing.T) {
			a, _ := w.beginTenant(map[string]string{"tenant": value})
			if a.Status != http.StatusBadRequest || a.Header.Get("Lanyard-Error") != "invalid_parameter" {
				t.Errorf("begin: HTTP %d: %s", a.Status, a.Body)
			}
			// The page that asks for it takes no other values, but for the space that
			// a copied one may have behind it.
			_, link, _ := strings.Cut(w.appLink("integration", "tenants"), "?")
			if strings.TrimSpace(value) == value {
				form := url.Values{"state": {link}, "field_tenant": {value}}
				if res := w.sendForm(newBrowser(t), w.site.Public+"/connect/params", form); res.StatusCode != http.StatusUnprocessableEntity || res.Header.Get("Location") != "" {
					t.Errorf("the form: HTTP %d", res.StatusCode)
				}
			}
			if value == "" || strings.Contains(value, ",") {
				return
			}
			w.wantPage(newBrowser(t), w.appLink("integration", "tenants", "params", "tenant="+value), http.StatusBadRequest, "invalid_parameter")
		})
	}
	t.Run("A127 none, and one that there is not", func(t *testing.T) {
		for _, params := range []any{nil, map[string]string{}, map[string]string{"tenant": "acme", "host": evil}, map[string]string{"Tenant": "acme"}} {
			if a, _ := w.beginTenant(params); a.Status != http.StatusBadRequest {
				t.Errorf("begin with %v: HTTP %d", params, a.Status)
			}
		}
		for _, params := range []string{"tenant=acme,host=evil", "Tenant=acme"} {
			w.wantPage(newBrowser(t), w.appLink("integration", "tenants", "params", params), http.StatusBadRequest, "invalid_parameter")
		}
		w.wantPage(newBrowser(t), w.appLink("params", "tenant=acme"), http.StatusBadRequest, "invalid_parameter") // fake has none
	})
	if n := w.count(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
	w.wantPosts(0)
	if asked := n.asked(); len(asked) != 0 {
		t.Errorf("the provider was asked for %v", asked)
	}
}
