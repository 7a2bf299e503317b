package proxy_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What an upstream sends that would never end, or would be taken for another
// answer.
func TestAnswersThatAreNone(t *testing.T) {
	hint := "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for name, tt := range map[string]struct {
		answer string
		status int
	}{
		"A103 101 unasked":                {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502},
		"interim answers":                 {strings.Repeat(hint, 100) + ok, 200},
		"interim answers without end":     {strings.Repeat(hint, 101) + ok, 502},
		"A115 two lengths":                {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", 502},
		"A115 length that is none":        {"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", 502},
		"A115 encoding that is none":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502},
		"A115 length and chunks":          {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200},
		"a head without end":              {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 300<<10), 502},
		"many fields without end":         {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 60<<10), 502},
		"no HTTP":                         {"SSH-2.0-OpenSSH_9.6\r\n", 502},
		"nothing":                         {"", 502},
		"a second answer behind":          {ok + ok, 200},
		"A115 a field that ends the head": {"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 200},
	} {
		t.Run(name, func(t *testing.T) {
			address, sent := rawUpstream(t, tt.answer)
			r := newRigFor(t, address, func(c *proxy.Config, _ *proxy.Upstream) {
				c.Transport.(*http.Transport).MaxResponseHeaderBytes = 256 << 10
			})
			res, body := r.do(t, r.request(t, "GET", "/x", nil))
			if tt.status == 502 {
				wantProblem(t, res, body, 502, "upstream_unreachable")
			} else if res.StatusCode != tt.status || body != "ok" {
				t.Errorf("answer = %d %q", res.StatusCode, body)
			}
			if n := len(sent); n != 1 {
				t.Errorf("%d requests upstream", n)
			}
			// The app's connection is in step: what comes next is the answer to it.
			r.grants.set(func(g *tokenstore.Grant) { g.Disabled = true })
			res, body = r.do(t, r.request(t, "GET", "/x", nil))
			wantProblem(t, res, body, 409, "connection_not_active")
		})
	}
}

// DESIGN has answers pass byte for byte: the proxy is not for browsers, whom
// these concern.
func TestA114FieldsForBrowsersPass(t *testing.T) {
	fields := http.Header{
		"Set-Cookie": {"a=b; Domain=localhost", "c=d"}, "Clear-Site-Data": {`"*"`}, "Strict-Transport-Security": {"max-age=9"},
		"Alt-Svc": {`h3="evil.test:443"`}, "Service-Worker-Allowed": {"/"}, "Refresh": {"0; url=https://evil.test"},
	}
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), fields)
	})
	res, _ := r.do(t, r.request(t, "GET", "/x", nil))
	for name, want := range fields {
		if got := res.Header[name]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	// Not so to a page: it gets no answer of the upstream's at all.
	req := r.request(t, "GET", "/x", nil)
	req.Header.Set("Origin", "https://evil.test")
	res, body := r.do(t, req)
	wantProblem(t, res, body, 403, "browser_request_blocked")
	if len(res.Header["Set-Cookie"]) > 0 {
		t.Errorf("a page got %q", res.Header["Set-Cookie"])
	}
}

// What is compressed stays so, in both directions, and is asked for by the app
// alone.
func TestA110A117CompressedBodiesAreNotOpened(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 2<<20))
	_ = z.Close()
	for _, scrub := range []bool{false, true} {
		var got atomic.Int64
		r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
			if len(req.Header["Accept-Encoding"]) > 0 {
				t.Errorf("upstream got Accept-Encoding %q", req.Header["Accept-Encoding"])
			}
			n, _ := io.Copy(io.Discard, req.Body)
			got.Store(n)
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write(bomb.Bytes())
		}, func(c *proxy.Config, _ *proxy.Upstream) { c.Scrub = scrub })
		req := r.request(t, "POST", "/x", bytes.NewReader(bomb.Bytes()))
		req.Header.Set("Content-Encoding", "gzip")
		res, body := r.do(t, req)
		if body != bomb.String() || res.Header.Get("Content-Encoding") != "gzip" || got.Load() != int64(bomb.Len()) {
			t.Errorf("answer of %d bytes, request of %d; want %d", len(body), got.Load(), bomb.Len())
		}
	}
}

// An API that is the proxy itself: what it gets holds no key of ours, so the
// second hop is the last.
func TestA109Loop(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var hops atomic.Int32
	cfg, r := newConfig(t, "http://"+listener.Addr().String())
	h, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.grants.renewErr = tokenstore.ErrNotRenewed
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		hops.Add(1)
		h.ServeHTTP(w, req)
	}))
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	req := httptest.NewRequest(http.MethodGet, (&url.URL{Scheme: "http", Host: "localhost", Path: "/x"}).String(), nil)
	req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if w.Code != 401 || w.Header().Get("Lanyard-Error") != "" || hops.Load() != 1 {
		t.Errorf("answer = %d after %d further hops, want 401 after 1", w.Code, hops.Load())
	}
}
