package proxy_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/proxy"
)

func TestAnswers(t *testing.T) {
	const date = "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n"
	zipped := &bytes.Buffer{}
	z := gzip.NewWriter(zipped)
	_, _ = io.WriteString(z, "hello")
	_ = z.Close()
	tests := []struct {
		name, method, answer string
		header               http.Header // besides Date
		body                 string
	}{
		{"plain", "GET", "200 OK\r\nContent-Length: 2\r\nContent-Type: text/x\r\n\r\nhi", http.Header{"Content-Length": {"2"}, "Content-Type": {"text/x"}}, "hi"},
		{"no type is guessed", "GET", "200 OK\r\nContent-Length: 6\r\n\r\n<html>", http.Header{"Content-Length": {"6"}}, "<html>"},
		{"one server", "GET", "200 OK\r\nServer: provider\r\nAlt-Svc: clear\r\nContent-Length: 0\r\n\r\n", http.Header{"Server": {"provider"}, "Alt-Svc": {"clear"}, "Content-Length": {"0"}}, ""},
		{"no server", "GET", "200 OK\r\nContent-Length: 0\r\n\r\n", http.Header{"Content-Length": {"0"}}, ""},
		{
			"order and number", "GET", "200 OK\r\nSet-Cookie: b=2\r\nVary: x\r\nSet-Cookie: a=1\r\nX-Empty:\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
			http.Header{"Set-Cookie": {"b=2", "a=1", "b=2"}, "Vary": {"x"}, "X-Empty": {""}, "Content-Length": {"0"}},
			"",
		},
		{
			"codings", "GET", fmt.Sprintf("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", zipped.Len(), zipped),
			http.Header{"Content-Encoding": {"gzip"}, "Content-Length": {fmt.Sprint(zipped.Len())}},
			zipped.String(),
		},
		{"chunked", "GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", http.Header{"Transfer-Encoding": {"chunked"}}, "hi"},
		{"chunked and empty", "GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", http.Header{"Transfer-Encoding": {"chunked"}}, ""},
		{"until the end", "GET", "200 OK\r\n\r\nhi", http.Header{"Transfer-Encoding": {"chunked"}}, "hi"},
		{"HEAD", "HEAD", "200 OK\r\nContent-Length: 1234567\r\nETag: \"x\"\r\n\r\n", http.Header{"Content-Length": {"1234567"}, "Etag": {`"x"`}}, ""},
		{"204", "DELETE", "204 No Content\r\nX: y\r\n\r\n", http.Header{"X": {"y"}}, ""},
		{"304", "GET", "304 Not Modified\r\nETag: W/\"x\"\r\nCache-Control: max-age=0\r\n\r\n", http.Header{"Etag": {`W/"x"`}, "Cache-Control": {"max-age=0"}}, ""},
		{
			"304 with what GET would have", "GET", "304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\nContent-Type: text/x\r\n\r\n",
			http.Header{"Etag": {`"x"`}, "Content-Length": {"9"}, "Content-Type": {"text/x"}},
			"",
		},
		{"a redirect", "POST", "307 Temporary Redirect\r\nLocation: https://evil.test/x\r\nContent-Length: 0\r\n\r\n", http.Header{"Location": {"https://evil.test/x"}, "Content-Length": {"0"}}, ""},
		{"an odd status", "GET", "799 Odd\r\nContent-Length: 0\r\n\r\n", http.Header{"Content-Length": {"0"}}, ""},
		{"lanyard's words", "GET", "200 OK\r\nLanyard-Error: x\r\nLanyard-Hint: token-refreshed\r\nContent-Length: 0\r\n\r\n", http.Header{"Content-Length": {"0"}}, ""},
		{
			"hop by hop", "GET", "200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
			http.Header{"Content-Length": {"0"}},
			"",
		},
		{"a provider's own 403", "GET", "403 Forbidden\r\nContent-Length: 2\r\n\r\nno", http.Header{"Content-Length": {"2"}}, "no"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer := strings.Replace("HTTP/1.1 "+tt.answer, "\r\n", "\r\n"+date, 1)
			address, _ := rawUpstream(t, answer)
			r := newRigFor(t, address)
			conn, reader := r.dial(t)
			_, _ = io.WriteString(conn, tt.method+" /x HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"\r\n")
			res, err := http.ReadResponse(reader, &http.Request{Method: tt.method})
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			if len(res.TransferEncoding) > 0 {
				res.Header["Transfer-Encoding"] = res.TransferEncoding
			}
			tt.header["Date"] = []string{"Mon, 02 Jan 2006 15:04:05 GMT"}
			if want := tt.answer[:3]; res.Status[:3] != want {
				t.Errorf("status %s, want %s", res.Status, want)
			}
			if diff := cmp.Diff(tt.header, res.Header); diff != "" {
				t.Errorf("header (-want +got)\n%s", diff)
			}
			if string(body) != tt.body {
				t.Errorf("body = %q, want %q", body, tt.body)
			}
		})
	}
}

func TestTrailersBothWays(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		want := http.Header{"X-Sum": {"1", "2"}, "X-Late": {"3"}}
		if diff := cmp.Diff(want, r.Trailer); diff != "" {
			t.Errorf("request trailers (-want +got)\n%s", diff)
		}
		w.Header().Set("Trailer", "X-Down, Lanyard-Error")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Down", "4")
		w.Header().Set("Lanyard-Error", "x")
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", "5")
	})
	conn, reader := r.dial(t)
	_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Authorization, Lanyard-Key, Proxy-Authorization\r\n"+slotLine+
		"\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\nX-Late: 3\r\nAuthorization: Bearer x\r\nLanyard-Key: y\r\nProxy-Authorization: z\r\nCookie: c\r\n\r\n")
	res, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "body" {
		t.Errorf("body = %q, %v", body, err)
	}
	if diff := cmp.Diff(http.Header{"X-Down": {"4"}, "X-Unannounced": {"5"}}, res.Trailer); diff != "" {
		t.Errorf("trailers (-want +got)\n%s", diff)
	}
}

func TestInterimAnswers(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.Header().Set("Lanyard-Error", "x")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Content-Type", "text/x")
		_, _ = io.WriteString(w, "done")
	}))
	defer upstream.Close()
	cfg, r := newConfig(t, upstream.URL)
	handler, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Before", "set by another handler")
		handler.ServeHTTP(w, r)
	}))
	var hints []http.Header
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == http.StatusEarlyHints {
			hints = append(hints, http.Header(h))
		}
		return nil
	}})
	res, body := r.do(t, r.request(t, http.MethodGet, "/x", nil).WithContext(ctx))
	want := []http.Header{{"Link": {"<" + r.proxy.URL + "/style.css>; rel=preload"}}}
	if diff := cmp.Diff(want, hints); diff != "" {
		t.Errorf("interim answers (-want +got)\n%s", diff)
	}
	if body != "done" || res.Header.Get("Link") != "" || res.Header.Get("Content-Type") != "text/x" || res.Header.Get("X-Before") == "" {
		t.Errorf("answer = %v %q", res.Header, body)
	}
	old := r.raw(t, "GET /x HTTP/1.0\r\nHost: localhost\r\n"+slotLine+"\r\n")
	if old.StatusCode != http.StatusOK {
		t.Errorf("an HTTP/1.0 client's first answer = %d, want the final one (RFC 9110 section 15.2)", old.StatusCode)
	}
}

func TestExpectContinue(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "100-continue" {
			t.Errorf("Expect = %q", r.Header.Get("Expect"))
		}
		if r.URL.Path == "/refused" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})
	conn, reader := r.dial(t)
	_, _ = io.WriteString(conn, "PUT /x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"+slotLine+"\r\n")
	if res, err := http.ReadResponse(reader, nil); err != nil || res.StatusCode != http.StatusContinue {
		t.Fatalf("first answer = %v, %v; want 100", res, err)
	}
	_, _ = io.WriteString(conn, "body")
	res, err := http.ReadResponse(reader, nil)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("second answer = %v, %v; want 200 and no other 100", res, err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "body" {
		t.Errorf("body = %q", body)
	}

	conn, reader = r.dial(t)
	_, _ = io.WriteString(conn, "PUT /refused HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"+slotLine+"\r\n")
	for {
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusContinue {
			continue
		}
		if res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close {
			t.Errorf("refused = %d, close %v; want 413 and the connection closed", res.StatusCode, res.Close)
		}
		break
	}
}

// A 100 that nobody asked for is for the proxy alone.
func TestUnaskedContinue(t *testing.T) {
	address, _ := rawUpstream(t, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	r := newRigFor(t, address)
	if res := r.raw(t, "GET /x HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"\r\n"); res.StatusCode != http.StatusOK {
		t.Errorf("first answer = %d, want 200", res.StatusCode)
	}
}

func TestUpstreamFailures(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	r := newRigFor(t, "http://"+l.Addr().String())
	res, body := r.do(t, r.request(t, http.MethodPost, "/x?secret=canary", strings.NewReader("body")))
	wantProblem(t, res, body, http.StatusBadGateway, "upstream_unreachable")

	garbled, _ := rawUpstream(t, "canary "+token(1)+"\r\n\r\n")
	r = newRigFor(t, garbled)
	res, body = r.do(t, r.request(t, http.MethodGet, "/x?secret=canary", nil))
	wantProblem(t, res, body, http.StatusBadGateway, "upstream_unreachable")

	for _, answer := range []string{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 099 Odd\r\n\r\n"} {
		odd, _ := rawUpstream(t, answer)
		r = newRigFor(t, odd)
		res, body = r.do(t, r.request(t, http.MethodGet, "/x", nil))
		wantProblem(t, res, body, http.StatusBadGateway, "upstream_unreachable")
	}

	stuck := make(chan struct{})
	r = newRig(t, func(http.ResponseWriter, *http.Request) { <-stuck },
		func(c *proxy.Config, _ *proxy.Upstream) {
			c.Transport.(*http.Transport).ResponseHeaderTimeout = 20 * time.Millisecond
		})
	defer close(stuck)
	res, body = r.do(t, r.request(t, http.MethodGet, "/x", nil))
	wantProblem(t, res, body, http.StatusGatewayTimeout, "upstream_timeout")
}

// An answer that breaks off must not look complete.
func TestTruncatedAnswerIsCut(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		address, _ := rawUpstream(t, answer)
		r := newRigFor(t, address)
		res, err := r.client.Do(r.request(t, http.MethodGet, "/x", nil))
		if err != nil {
			continue // cut before the header was out
		}
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%q read as complete: %q", answer, body)
		}
		res.Body.Close()
	}
}

func TestLogOfACall(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	r.do(t, r.request(t, http.MethodGet, "/x?q=canary", nil))
	r.proxy.Close() // the line is written after the answer
	for _, want := range []string{`"level":"debug"`, `"msg":"request proxied"`, `"connection_id":"` + connID + `"`, `"integration":"acme"`, `"status":418`} {
		if !strings.Contains(r.logged.String(), want) {
			t.Errorf("log = %s; want %s", r.logged.String(), want)
		}
	}
}

func TestClientHangUpCancelsUpstream(t *testing.T) {
	entered, canceled := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(canceled)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if res, err := r.client.Do(r.request(t, http.MethodGet, "/x", nil).WithContext(ctx)); err == nil {
		res.Body.Close()
		t.Errorf("answer = %d after hanging up", res.StatusCode)
	}
	<-canceled
}
