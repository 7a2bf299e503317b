package proxy_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func basic(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

func TestNamingAndKeys(t *testing.T) {
	slot := clientKey + "." + connID
	strange := strings.Repeat("x", 40)
	ok := func(_ *proxy.Config, _ *proxy.Upstream) {}
	ownHeader := func(_ *proxy.Config, up *proxy.Upstream) { up.Header, up.Prefix = "X-Api-Key", "" }
	open := func(c *proxy.Config, _ *proxy.Upstream) { c.Open = true }
	path := func(c *proxy.Config, _ *proxy.Upstream) { c.Path = true }
	bound := func(c *proxy.Config, _ *proxy.Upstream) { c.Integration = "other" }

	tests := []struct {
		name   string
		change change
		path   string
		header http.Header
		status int // 200: reached the upstream
		code   string
	}{
		{"two headers", ok, "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {connID}}, 200, ""},
		{"bearer key and header", ok, "/x", http.Header{"Authorization": {"Bearer " + clientKey}, "Connection-Id": {connID}}, 200, ""},
		{"scheme in any case", ok, "/x", http.Header{"Authorization": {"bearer " + slot}}, 200, ""},
		{"bearer slot", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}}, 200, ""},
		{"token slot", ok, "/x", http.Header{"Authorization": {"token " + slot}}, 200, ""},
		{"bare slot", ok, "/x", http.Header{"Authorization": {slot}}, 200, ""},
		{"slot in a parameter", ok, "/x", http.Header{"Authorization": {"Token token=" + slot}}, 200, ""},
		{"slot in the last of parameters", ok, "/x", http.Header{"Authorization": {`OAuth oauth_consumer_key="a.b", oauth_token="` + slot + `"`}}, 200, ""},
		{"another key in a parameter", ok, "/x", http.Header{"Authorization": {"Token token=" + strange + "." + connID}}, 401, "key_required"},
		{"basic slot", ok, "/x", http.Header{"Authorization": {basic("any", slot)}}, 200, ""},
		{"own header", ownHeader, "/x", http.Header{"X-Api-Key": {slot}}, 200, ""},
		{"own header is not this one", ok, "/x", http.Header{"X-Api-Key": {slot}}, 400, "connection_required"},
		{"said twice alike", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "Connection-Id": {connID}, "Lanyard-Key": {clientKey}}, 200, ""},
		{"the app's own basic says nothing", ok, "/x", http.Header{"Authorization": {basic("a", "b")}, "Connection-Id": {connID}, "Lanyard-Key": {clientKey}}, 200, ""},

		{"said again in other headers", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "X-Api-Key": {slot}, "Private-Token": {"x " + slot}}, 200, ""},
		{"said again twice over", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "X-Api-Key": {slot, slot}}, 200, ""},
		{"said by one header twice", ownHeader, "/x", http.Header{"X-Api-Key": {slot, slot}}, 400, "connection_ambiguous"},
		{"said again in a parameter", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "X-Api-Key": {`token="` + slot + `"`}}, 200, ""},
		{"said again in the own header", ownHeader, "/x", http.Header{"Connection-Id": {connID}, "Lanyard-Key": {clientKey}, "X-Api-Key": {slot}}, 200, ""},
		{"another key elsewhere says nothing", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "X-Trace": {strange + "." + otherID}}, 200, ""},

		{"no connection", ok, "/x", http.Header{"Lanyard-Key": {clientKey}}, 400, "connection_required"},
		{"empty connection", ok, "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {""}}, 400, "connection_required"},
		{"user only", ok, "/x", http.Header{"Lanyard-Key": {clientKey}, "User-Id": {"u1"}}, 400, "connection_required"},
		{"two connections", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "Connection-Id": {otherID}}, 400, "connection_ambiguous"},
		{"two keys", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "Lanyard-Key": {strange}}, 400, "connection_ambiguous"},
		{"two connections, one in another header", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "X-Api-Key": {clientKey + "." + otherID}}, 400, "connection_ambiguous"},
		{"repeated header", ok, "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {connID, connID}}, 400, "connection_ambiguous"},
		{"repeated key", ok, "/x", http.Header{"Lanyard-Key": {clientKey, clientKey}, "Connection-Id": {connID}}, 400, "connection_ambiguous"},
		{"repeated authorization", ok, "/x", http.Header{"Authorization": {"Bearer " + slot, "Bearer " + slot}}, 400, "connection_ambiguous"},
		{"empty second", ok, "/x", http.Header{"Authorization": {"Bearer " + slot}, "Connection-Id": {""}}, 400, "connection_ambiguous"},
		{"a list", ok, "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {connID + "," + otherID}}, 404, "connection_not_found"},
		{"unknown", ok, "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {otherID}}, 404, "connection_not_found"},
		{"another integration's", bound, "/x", http.Header{"Authorization": {"Bearer " + slot}}, 404, "connection_not_found"},

		{"nothing", ok, "/x", nil, 401, "key_required"},
		{"no key", ok, "/x", http.Header{"Connection-Id": {connID}}, 401, "key_required"},
		{"id alone", ok, "/x", http.Header{"Authorization": {"Bearer " + connID}}, 401, "key_required"},
		{"empty key", ok, "/x", http.Header{"Authorization": {"Bearer ." + connID}}, 401, "key_required"},
		{"wrong key", ok, "/x", http.Header{"Authorization": {"Bearer " + strange + "." + connID}}, 401, "key_required"},
		{"key in other case", ok, "/x", http.Header{"Authorization": {"Bearer " + strings.ToUpper(clientKey) + "." + connID}}, 401, "key_required"},
		{"wrong key, unknown connection", ok, "/x", http.Header{"Authorization": {"Bearer " + strange + "." + otherID}}, 401, "key_required"},
		{"API key", ok, "/x", http.Header{"Authorization": {"Bearer " + apiKey + "." + connID}}, 403, "not_allowed"},

		{"open", open, "/x", http.Header{"Connection-Id": {connID}}, 200, ""},
		{"open, id alone", open, "/x", http.Header{"Authorization": {"Bearer " + connID}}, 200, ""},
		{"open, a token of no meaning", open, "/x", http.Header{"Authorization": {"Bearer x"}, "Connection-Id": {connID}}, 200, ""},
		{"open behind a proxy", open, "/x", http.Header{"Connection-Id": {connID}, "X-Forwarded-For": {"192.0.2.1"}}, 401, "key_required"},
		{"open behind a proxy, Via", open, "/x", http.Header{"Connection-Id": {connID}, "Via": {"1.1 x"}}, 401, "key_required"},
		{"open behind a proxy, Forwarded", open, "/x", http.Header{"Connection-Id": {connID}, "Forwarded": {"for=192.0.2.1"}}, 401, "key_required"},
		{"open behind a proxy, with key", open, "/x", http.Header{"Authorization": {"Bearer " + slot}, "Via": {"1.1 x"}}, 200, ""},

		{"path", path, "/c/" + connID + "/x", http.Header{"Lanyard-Key": {clientKey}}, 200, ""},
		{"path and header alike", path, "/c/" + connID + "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {connID}}, 200, ""},
		{"path and header disagree", path, "/c/" + connID + "/x", http.Header{"Lanyard-Key": {clientKey}, "Connection-Id": {otherID}}, 400, "connection_ambiguous"},
		{"path without key", path, "/c/" + connID + "/x", nil, 401, "key_required"},
		{"path not switched on", ok, "/c/" + connID + "/x", http.Header{"Lanyard-Key": {clientKey}}, 400, "connection_required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reached := false
			r := newRig(t, func(_ http.ResponseWriter, req *http.Request) {
				reached = true
				for name, values := range req.Header {
					if strings.Contains(strings.Join(values, " "), "client-key") || strings.HasPrefix(name, "Lanyard-") || name == "Connection-Id" {
						t.Errorf("upstream got %s: %v", name, values)
					}
				}
				if req.URL.Path != "/x" {
					t.Errorf("upstream got path %s, want /x", req.URL.Path)
				}
				if !strings.Contains(req.Header.Get("Authorization")+req.Header.Get("X-Api-Key"), token(1)) {
					t.Error("upstream got no token")
				}
			}, tt.change)
			req := r.request(t, http.MethodGet, tt.path, nil)
			req.Header = tt.header
			res, body := r.do(t, req)
			if tt.status != http.StatusOK {
				wantProblem(t, res, body, tt.status, tt.code)
			} else if res.StatusCode != http.StatusOK {
				t.Errorf("answer = %d %s, want 200", res.StatusCode, body)
			}
			if reached != (tt.status == http.StatusOK) {
				t.Errorf("reached the upstream = %v", reached)
			}
			if auth := res.Header.Get("WWW-Authenticate"); (tt.status == 401) != (auth == `Bearer realm="lanyard"`) {
				t.Errorf("WWW-Authenticate = %q", auth)
			}
		})
	}
}

// One answer for every key that does not open: nobody learns which it was.
func TestWrongKeysAnswerAlike(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("reached the upstream") })
	answers := map[string]bool{}
	for _, key := range []string{"", "x", clientKey[:len(clientKey)-1], clientKey + "x", "y" + clientKey[1:]} {
		req := r.request(t, http.MethodGet, "/x", nil)
		req.Header = http.Header{"Lanyard-Key": {key}, "Connection-Id": {connID}}
		res, body := r.do(t, req)
		wantProblem(t, res, body, http.StatusUnauthorized, "key_required")
		answers[body] = true
	}
	if len(answers) != 1 {
		t.Errorf("%d different answers: %v", len(answers), answers)
	}
}

func TestOpenOnUnixSocketAndElsewhere(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer upstream.Close()
	cfg, r := newConfig(t, upstream.URL, func(c *proxy.Config, _ *proxy.Upstream) { c.Open, c.Clients = true, nil })
	handler, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, handler)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req := r.request(t, http.MethodGet, "/x", nil)
	req.Header.Set("Authorization", "Bearer "+connID)
	req.Host = "anything.test"
	res, err := transport.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("by unix socket = %v, %v; want 200", res, err)
	}
	res.Body.Close()

	for _, addresses := range [][2]string{{"192.0.2.1:1", "127.0.0.1:80"}, {"127.0.0.1:1", "192.0.2.2:80"}, {"", ""}} {
		w := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, "http://127.0.0.1/x", nil)
		req.Header.Set("Connection-Id", connID)
		req.RemoteAddr = addresses[0]
		if addr, err := net.ResolveTCPAddr("tcp", addresses[1]); err == nil && addresses[1] != "" {
			req = req.WithContext(contextWithLocal(t, addr))
		}
		handler.ServeHTTP(w, req)
		wantProblem(t, w.Result(), w.Body.String(), http.StatusUnauthorized, "key_required")
	}
}

func TestConnectionsThatCannotBeUsed(t *testing.T) {
	down := errors.New("disk")
	unavailable := &tokenstore.UnavailableError{RetryAfter: 1500 * time.Millisecond, Cause: &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow}}
	full := &tokenstore.UnavailableError{RetryAfter: time.Second, Cause: fmt.Errorf("storing refresh intent: %w", tokenstore.ErrFull)}
	misconfigured := &tokenstore.UnavailableError{RetryAfter: time.Minute, Cause: &tokenstore.RefusalError{Kind: tokenstore.RefusedClient}}
	tests := []struct {
		name    string
		prepare func(*fakeGrants)
		want    problem
		retry   string
	}{
		{"initiated", status(tokenstore.StatusInitiated, ""), problem{409, "connection_not_active", "initiated", "yes"}, ""},
		{"failed", status(tokenstore.StatusFailed, "timeout"), problem{409, "connection_not_active", "timeout", "yes"}, ""},
		{"expired", status(tokenstore.StatusExpired, "invalid_grant"), problem{424, "reconnect_required", "invalid_grant", "yes"}, ""},
		{"revoked", status(tokenstore.StatusRevoked, "revoked"), problem{424, "reconnect_required", "revoked", "yes"}, ""},
		{"disabled", func(f *fakeGrants) { f.set(func(g *tokenstore.Grant) { g.Disabled = true }) }, problem{409, "connection_not_active", "disabled", ""}, ""},
		{"integration gone", func(f *fakeGrants) { f.set(func(g *tokenstore.Grant) { g.Integration = "gone" }) }, problem{409, "connection_not_active", "integration_missing", ""}, ""},
		{"corrupt", func(f *fakeGrants) { f.findErr = tokenstore.ErrCorrupt }, problem{503, "store_corrupt", "", ""}, ""},
		{"store down", func(f *fakeGrants) { f.findErr = tokenstore.ErrUnavailable }, problem{503, "store_unavailable", "", ""}, ""},
		{"store full", func(f *fakeGrants) { f.tokenErr = full }, problem{507, "store_full", "", ""}, "1"},
		{"anything else", func(f *fakeGrants) { f.tokenErr = down }, problem{503, "store_unavailable", "", ""}, ""},
		{"no token now", func(f *fakeGrants) { f.tokenErr = unavailable }, problem{503, "refresh_unavailable", "", ""}, "2"},
		{"client refused", func(f *fakeGrants) { f.tokenErr = misconfigured }, problem{502, "integration_misconfigured", "", ""}, "60"},
		{"dies while refreshing", func(f *fakeGrants) { f.tokenErr = tokenstore.ErrReconnect }, problem{424, "reconnect_required", "invalid_grant", "yes"}, ""},
		{"deleted meanwhile", func(f *fakeGrants) { f.tokenErr = tokenstore.ErrNotFound }, problem{404, "connection_not_found", "", ""}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("reached the upstream") })
			tt.prepare(r.grants)
			res, body := r.do(t, r.request(t, http.MethodGet, "/x", nil))
			got := wantProblem(t, res, body, tt.want.Status, tt.want.Code)
			if got.Reason != tt.want.Reason || (got.ConnectURL != "") != (tt.want.ConnectURL != "") {
				t.Errorf("reason %q, connect_url %q; want %q, %q", got.Reason, got.ConnectURL, tt.want.Reason, tt.want.ConnectURL)
			}
			if retry := res.Header.Get("Retry-After"); retry != tt.retry {
				t.Errorf("Retry-After = %q, want %q", retry, tt.retry)
			}
		})
	}
}

func status(s tokenstore.Status, reason string) func(*fakeGrants) {
	return func(f *fakeGrants) {
		f.set(func(g *tokenstore.Grant) { g.Status, g.StatusReason = s, reason })
	}
}

func TestRefusedBeforeAnything(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("reached the upstream") })
	tests := []struct {
		name, request, code string
		status              int
	}{
		{"TRACE", "TRACE /x HTTP/1.1\r\nHost: localhost\r\n", "method_not_allowed", 405},
		{"TRACE in lower case", "trace /x HTTP/1.1\r\nHost: localhost\r\n", "method_not_allowed", 405},
		{"CONNECT", "CONNECT evil.test:443 HTTP/1.1\r\nHost: localhost\r\n", "host_invalid", 421},
		{"CONNECT here", "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n", "method_not_allowed", 405},
		{"foreign host", "GET /x HTTP/1.1\r\nHost: evil.test\r\n", "host_invalid", 421},
		{"foreign authority", "GET http://evil.test/x HTTP/1.1\r\nHost: localhost\r\n", "host_invalid", 421},
		{"web page", "GET /x HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.test\r\n", "browser_request_blocked", 403},
		{"web page, no origin", "GET /x HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n", "browser_request_blocked", 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := r.raw(t, tt.request+"Authorization: Bearer "+clientKey+"."+connID+"\r\n\r\n")
			body, _ := io.ReadAll(res.Body)
			wantProblem(t, res, string(body), tt.status, tt.code)
			if (res.Header.Get("Allow") != "") != (tt.status == 405) {
				t.Errorf("Allow = %q", res.Header.Get("Allow"))
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for name, wrong := range map[string]change{
		"no grants":      func(c *proxy.Config, _ *proxy.Upstream) { c.Grants = nil },
		"no transport":   func(c *proxy.Config, _ *proxy.Upstream) { c.Transport = nil },
		"no key":         func(c *proxy.Config, _ *proxy.Upstream) { c.Clients = nil },
		"bad prefix":     func(c *proxy.Config, _ *proxy.Upstream) { c.Prefix = "/a/" },
		"negative spool": func(c *proxy.Config, _ *proxy.Upstream) { c.Spool = -1 },
	} {
		cfg, _ := newConfig(t, "http://localhost", wrong)
		if _, err := proxy.New(cfg); err == nil {
			t.Errorf("%s: New() = nil", name)
		}
	}
}
