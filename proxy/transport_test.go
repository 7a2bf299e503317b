package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// behind serves a stock reverse proxy to target over a Transport of ours.
func behind(t *testing.T, api, target string, changes ...change) *rig {
	t.Helper()
	cfg, r := newConfig(t, api, changes...)
	transport, err := proxy.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(to)
			pr.SetXForwarded()
			pr.Out.Host = "evil.test"
		},
		Transport: transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, err.Error())
		},
	})
	return r
}

func TestTransportUnderAnotherProxy(t *testing.T) {
	upstream := httptest.NewServer(revoked(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "evil.test" {
			t.Errorf("upstream got Host %s", r.Host)
		}
		for _, name := range []string{"X-Forwarded-For", "Lanyard-Key", "Connection-Id"} {
			if r.Header.Get(name) != "" {
				t.Errorf("upstream got %s", name)
			}
		}
		echo(w, r)
	}))
	defer upstream.Close()
	r := behind(t, upstream.URL, upstream.URL)
	res, body := r.do(t, r.request(t, http.MethodPost, "/x", strings.NewReader("hello")))
	if res.StatusCode != http.StatusOK || body != "hello" {
		t.Errorf("answer = %d %q, want the replayed 200", res.StatusCode, body)
	}

	req := r.request(t, http.MethodGet, "/x", nil)
	req.Header.Del("Authorization")
	res, body = r.do(t, req)
	wantProblem(t, res, body, http.StatusUnauthorized, "key_required")

	req = r.request(t, http.MethodGet, "/x", nil)
	req.Header.Set("Origin", "https://evil.test")
	res, body = r.do(t, req)
	wantProblem(t, res, body, http.StatusForbidden, "browser_request_blocked")

	res, body = r.do(t, r.request(t, http.MethodTrace, "/x", nil))
	wantProblem(t, res, body, http.StatusMethodNotAllowed, "method_not_allowed")
	if res.Header.Get("Allow") == "" {
		t.Error("no Allow in a 405 (RFC 9110 section 15.5.6)")
	}

	r.grants.set(func(g *tokenstore.Grant) { g.Status = tokenstore.StatusExpired })
	res, body = r.do(t, r.request(t, http.MethodPost, "/x", strings.NewReader("hello")))
	wantProblem(t, res, body, http.StatusFailedDependency, "reconnect_required")
}

func TestTransportLearnsThatAConnectionIsDead(t *testing.T) {
	upstream := httptest.NewServer(refuseEarly(t, 5, func(http.ResponseWriter, *http.Request) { t.Error("replayed") }))
	defer upstream.Close()
	r := behind(t, upstream.URL, upstream.URL)
	r.grants.renewErr = tokenstore.ErrReconnect
	res, body := r.do(t, r.request(t, http.MethodPost, "/x", strings.NewReader("hello")))
	wantProblem(t, res, body, http.StatusFailedDependency, "reconnect_required")
}

// Whatever the other proxy is told to reach, only the integration's own hosts
// see the token.
func TestTransportPinsTheHost(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("reached") }))
	defer elsewhere.Close()
	r := behind(t, "http://api.test", elsewhere.URL)
	res, body := r.do(t, r.request(t, http.MethodGet, "/x", nil))
	wantProblem(t, res, body, http.StatusForbidden, "host_not_allowed")

	declared := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { wantToken(t, r, 1) }))
	defer declared.Close()
	r = behind(t, "http://api.test", declared.URL, func(_ *proxy.Config, up *proxy.Upstream) {
		up.Hosts = []string{strings.TrimPrefix(declared.URL, "http://")}
	})
	if res, body := r.do(t, r.request(t, http.MethodGet, "/x", nil)); res.StatusCode != http.StatusOK {
		t.Errorf("declared host = %d %s", res.StatusCode, body)
	}

	r = behind(t, "https://"+strings.TrimPrefix(elsewhere.URL, "http://"), elsewhere.URL)
	res, body = r.do(t, r.request(t, http.MethodGet, "/x", nil))
	wantProblem(t, res, body, http.StatusForbidden, "host_not_allowed")
}

// A failure of the upstream itself stays one.
func TestTransportPassesErrorsOn(t *testing.T) {
	r := behind(t, "http://127.0.0.1:1", "http://127.0.0.1:1")
	if res, _ := r.do(t, r.request(t, http.MethodGet, "/x", nil)); res.StatusCode != http.StatusTeapot {
		t.Errorf("answer = %d, want the other proxy's", res.StatusCode)
	}
}

func TestA105EarlyDataByTransport(t *testing.T) {
	upstream, got := counted(t)
	server := httptest.NewServer(upstream)
	defer server.Close()
	r := behind(t, server.URL, server.URL)
	for method, want := range map[string]int{http.MethodPost: http.StatusTooEarly, http.MethodGet: http.StatusOK} {
		req := r.request(t, method, "/pay", nil)
		req.Header.Set("Early-Data", "1")
		res, body := r.do(t, req)
		if sent := len(got()); res.StatusCode != want || (sent == 1) != (want == http.StatusOK) {
			t.Errorf("%s: answer = %d %s, sent %d times; want %d", method, res.StatusCode, body, sent, want)
		}
	}
}

func TestA102TunnelsByTransportEndWithTheConnection(t *testing.T) {
	ended := make(chan bool, 10)
	server := httptest.NewServer(switching(t, ended))
	t.Cleanup(server.Close)
	r := behind(t, server.URL, server.URL)
	conn, reader := tunnelled(t, r)
	r.grants.end(otherID)
	wantEcho(t, conn, reader)
	r.grants.end(connID)
	if _, err := reader.ReadByte(); err == nil {
		t.Error("the app's end is still open")
	}
	<-ended // the provider's, too
}
