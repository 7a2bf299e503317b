package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const wrongKey = "wrong-key-0123456789-0123456789-abcd"

func TestRefusalsAreEvents(t *testing.T) {
	tests := []struct {
		name   string
		path   string
		header http.Header
		change func(*fakeGrants)
		want   []string
	}{
		{"A065 no key", "/x", http.Header{"Connection-Id": {connID}}, nil, []string{"key.refused / from 127.0.0.1: " + connID + "  proxy denied true"}},
		{"A065 wrong key", "/x", http.Header{"Lanyard-Key": {wrongKey}}, nil, []string{"key.refused / from 127.0.0.1:   proxy denied true"}},
		{"an ID that is none is not told", "/x", http.Header{"Lanyard-Key": {wrongKey}, "Connection-Id": {"conn_<script>"}}, nil, []string{"key.refused / from 127.0.0.1:   proxy denied true"}},
		{"API key", "/x", http.Header{"Lanyard-Key": {apiKey}}, nil, []string{"call.refused api_key/api from 127.0.0.1:   api_key denied true"}},
		{"unknown connection", "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {otherID}}, nil, []string{"call.refused client/app from 127.0.0.1: " + otherID + "  connection_unknown denied true"}},
		{"foreign host", "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {connID}, "Lanyard-Host": {"evil.test"}}, nil, []string{"call.refused client/app from 127.0.0.1: " + connID + " acme host_not_allowed denied true"}},
		{"A093 web page", "/x", http.Header{"Origin": {"https://evil.test"}}, nil, []string{"call.refused / from 127.0.0.1:   browser_request_blocked denied true"}},
		{"deleted meanwhile", "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {connID}}, func(f *fakeGrants) { f.tokenErr = tokenstore.ErrNotFound }, []string{"call.refused client/app from 127.0.0.1: " + connID + " acme connection_unknown denied true"}},
		{"its state is none", "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {connID}}, func(f *fakeGrants) { f.set(func(g *tokenstore.Grant) { g.Status = tokenstore.StatusRevoked }) }, nil},
		{"nor is a bad path", "/%2e%2e/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {connID}}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			upstream, got := counted(t)
			log := &fakeAudit{}
			r := newRig(t, upstream, func(c *proxy.Config, _ *proxy.Upstream) { c.Audit = log })
			if tt.change != nil {
				tt.change(r.grants)
			}
			req := r.request(t, "GET", tt.path, nil)
			req.Header = tt.header
			r.do(t, req)
			if diff := cmp.Diff(tt.want, log.lines()); diff != "" {
				t.Errorf("events (-want +got)\n%s", diff)
			}
			if paths := got(); len(paths) > 0 {
				t.Errorf("upstream got %q", paths)
			}
		})
	}
	t.Run("A091 foreign name", func(t *testing.T) {
		upstream, _ := counted(t)
		log := &fakeAudit{}
		r := newRig(t, upstream, func(c *proxy.Config, _ *proxy.Upstream) { c.Audit = log })
		req := r.request(t, "GET", "/x", nil)
		req.Host = "evil.test"
		r.do(t, req)
		if diff := cmp.Diff([]string{"call.refused / from 127.0.0.1:   host_invalid denied true"}, log.lines()); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

// One event for each token generation and client key, before the token goes
// out; a replay uses two generations.
func TestUseIsAnEvent(t *testing.T) {
	log := &fakeAudit{}
	var atUpstream [][]string
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		atUpstream = append(atUpstream, log.lines())
		revoked(echo)(w, req)
	}, func(c *proxy.Config, _ *proxy.Upstream) {
		c.Audit = log
		c.Clients = append(c.Clients, proxy.Client{Key: guard.Key{Name: "second", Value: secret.New(wrongKey)}})
	})
	uses := map[uint64]*tokenstore.Uses{1: {}, 2: {}}
	r.grants.set(func(g *tokenstore.Grant) { g.Uses = uses[1] })
	r.grants.uses = uses
	for range 2 {
		r.do(t, r.request(t, "GET", "/x", nil))
	}
	other := r.request(t, "GET", "/x", nil)
	other.Header.Set("Authorization", "Bearer "+wrongKey+"."+connID)
	r.do(t, other)
	used := func(who string) []string {
		return []string{"connection.used client/" + who + " from 127.0.0.1: " + connID + " acme  denied false"}
	}
	want := [][]string{used("app"), used("app"), nil, used("second")}
	if diff := cmp.Diff(want, atUpstream); diff != "" {
		t.Errorf("events before each request upstream (-want +got)\n%s", diff)
	}
}

// The next call tells what could not be written.
func TestNoUseIsLost(t *testing.T) {
	upstream, _ := counted(t)
	log := &fakeAudit{out: true}
	r := newRig(t, upstream, func(c *proxy.Config, _ *proxy.Upstream) { c.Audit = log })
	r.grants.set(func(g *tokenstore.Grant) { g.Uses = new(tokenstore.Uses) })
	call := func() {
		t.Helper()
		if res, body := r.do(t, r.request(t, "GET", "/x", nil)); res.StatusCode != http.StatusOK {
			t.Errorf("answer = %d %s", res.StatusCode, body)
		}
	}
	call()
	log.mu.Lock()
	log.out = false
	log.mu.Unlock()
	call()
	call()
	want := []string{"connection.used client/app from 127.0.0.1: " + connID + " acme  denied false"}
	if diff := cmp.Diff(want, log.lines()); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
}

func TestA066WrongKeysAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &fakeAudit{}
		cfg, r := newConfig(t, "http://127.0.0.1:1", func(c *proxy.Config, _ *proxy.Upstream) { c.Audit = log })
		h, err := proxy.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		codes := func(key string, n int, more ...string) map[string]int {
			out := map[string]int{}
			for range n {
				w := serve(t, h, key, more...)
				out[w.Header().Get("Lanyard-Error")]++
				if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") != "1" {
					t.Errorf("Retry-After = %q, want 1", w.Header().Get("Retry-After"))
				}
			}
			return out
		}
		if diff := cmp.Diff(map[string]int{"key_required": 20, "rate_limited": 980}, codes(wrongKey, 1000)); diff != "" {
			t.Errorf("a thousand wrong keys (-want +got)\n%s", diff)
		}
		if n := len(log.lines()); n != 1000 {
			t.Errorf("%d events, want 1000", n)
		}
		if diff := cmp.Diff(map[string]int{"connection_not_found": 100}, codes(clientKey, 100)); diff != "" {
			t.Errorf("the right key, from the same address (-want +got)\n%s", diff)
		}
		if diff := cmp.Diff(map[string]int{"key_required": 1}, codes(wrongKey, 1, "192.0.2.9:1")); diff != "" {
			t.Errorf("a wrong key from another address (-want +got)\n%s", diff)
		}
		if diff := cmp.Diff(map[string]int{"key_required": 30}, codes("", 30)); diff != "" {
			t.Errorf("no key is no guess (-want +got)\n%s", diff)
		}
		if len(r.grants.refused) > 0 {
			t.Error("a token was renewed")
		}
	})
}

// serve gives h a request for an unknown connection.
func serve(t *testing.T, h http.Handler, key string, from ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://localhost/x", nil)
	r.Header.Set("Connection-Id", otherID)
	if key != "" {
		r.Header.Set("Lanyard-Key", key)
	}
	if len(from) > 0 {
		r.RemoteAddr = from[0]
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
