package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// raw sends a request as it is written, byte for byte, and returns the answer
// as it arrived. The lines end with CRLF; KEY stands for the key and ID for
// the connection.
func (w *world) raw(id, request string) (head, body string) {
	w.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.site.Proxy))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	request = strings.NewReplacer("\n", "\r\n", "KEY", w.clientKey, "ID", id).Replace(request)
	if _, err := io.WriteString(conn, request); err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	w.note(b)
	head, body, _ = strings.Cut(string(b), "\r\n\r\n")
	return head, body
}

const naming = "Host: 127.0.0.1\nConnection: close\nLanyard-Key: KEY\nConnection-Id: ID\n"

// What a request says arrives as it was said, through Caddy and all.
func TestRequestsArriveAsSent(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	tests := []struct {
		name, request string
		want          func(*fakeprovider.Seen) // changes what is expected
	}{
		{"escaped slash", "GET /raw/a%2Fb HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Path = "/api/raw/a%2Fb" }},
		{"lower-case escape", "GET /raw/%c3%a4 HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Path = "/api/raw/%c3%a4" }},
		{"needless escape", "GET /raw/%61 HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Path = "/api/raw/%61" }},
		{"empty segments", "GET /raw//a///b/ HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Path = "/api/raw//a///b/" }},
		{"semicolon and plus", "GET /raw/a;b+c HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Path = "/api/raw/a;b+c" }},
		{"semicolon in the query", "GET /raw/x?a;b HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Path, s.Query, s.HasQuery = "/api/raw/x", "a;b", true }},
		{"odd query", "GET /raw/x?q=%zz&&=&q=+%20 HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Path, s.Query, s.HasQuery = "/api/raw/x", "q=%zz&&=&q=+%20", true }},
		{"empty query", "GET /raw/x? HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Path, s.HasQuery = "/api/raw/x", true }},
		{"headers twice, empty, in order", "GET /raw/x HTTP/1.1\n" + naming + "X-A: 2\nX-A: 1\nX-B:\nAccept: a, b\n\n", func(s *fakeprovider.Seen) {
			s.Path = "/api/raw/x"
			s.Header["X-A"], s.Header["X-B"], s.Header["Accept"] = []string{"2", "1"}, []string{""}, []string{"a, b"}
		}},
		{"the app's own agent and coding", "GET /raw/x HTTP/1.1\n" + naming + "User-Agent: app/1\nAccept-Encoding: br\n\n", func(s *fakeprovider.Seen) {
			s.Path = "/api/raw/x"
			s.Header["User-Agent"], s.Header["Accept-Encoding"] = []string{"app/1"}, []string{"br"}
		}},
		{"what is not the provider's business", "GET /raw/x HTTP/1.1\n" + naming + "Cookie: a=b\nX-Forwarded-For: 1.2.3.4\nForwarded: for=1\nVia: 1.1 a\nTe: trailers\n\n", func(s *fakeprovider.Seen) {
			s.Path = "/api/raw/x"
			s.Header["Te"] = []string{"trailers"}
		}},
		{"body of known length", "PUT /raw/x HTTP/1.1\n" + naming + "Content-Length: 3\n\nabc", func(s *fakeprovider.Seen) {
			s.Method, s.Path, s.ContentLength = "PUT", "/api/raw/x", 3
			s.Header["Content-Length"] = []string{"3"}
		}},
		{"chunked body with a trailer", "POST /raw/x HTTP/1.1\n" + naming + "Transfer-Encoding: chunked\nTrailer: X-Sum\n\n3\nabc\n0\nX-Sum: 7\n\n", func(s *fakeprovider.Seen) {
			s.Method, s.Path, s.ContentLength, s.TransferEncoding = "POST", "/api/raw/x", -1, []string{"chunked"}
			s.Trailer = http.Header{"X-Sum": {"7"}}
		}},
		{"a method of its own", "PURGE /raw/x HTTP/1.1\n" + naming + "\n", func(s *fakeprovider.Seen) { s.Method, s.Path = "PURGE", "/api/raw/x" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			head, body := w.raw(id, tt.request)
			var got fakeprovider.Seen
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%s\n%s", head, body)
			}
			want := fakeprovider.Seen{
				Method: "GET", Host: strings.TrimPrefix(w.site.Fake, "http://"), Proto: "HTTP/1.1",
				Header: http.Header{"Authorization": {"Bearer [masked]"}},
			}
			tt.want(&want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// What a provider answers arrives as it was answered, and Caddy adds nothing.
func TestAnswersArriveAsGiven(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	tests := []struct {
		name, request string
		status        int
		header        http.Header // exact, by name; nil: not there
		body          string
	}{
		{
			"one Server, the provider's", "GET /status/200?header=Server:+acme&header=X-A:+1&header=X-A:+2&body=hi HTTP/1.1\n", 200,
			http.Header{"Server": {"acme"}, "X-A": {"1", "2"}, "Via": nil, "Alt-Svc": nil, "Content-Length": {"2"}},
			"hi",
		},
		{"no Server where the provider names none", "GET /status/200?body=hi HTTP/1.1\n", 200, http.Header{"Server": nil}, "hi"},
		{"204", "GET /status/204 HTTP/1.1\n", 204, http.Header{"Content-Length": nil}, ""},
		{"304", "GET /status/304?header=ETag:+x HTTP/1.1\n", 304, http.Header{"Etag": {"x"}}, ""},
		{"a redirect is not followed", "GET /status/302?header=Location:+https://other.example/x HTTP/1.1\n", 302, http.Header{"Location": {"https://other.example/x"}}, ""},
		{"an error is the provider's own", "GET /status/418?body=teapot HTTP/1.1\n", 418, http.Header{"Lanyard-Error": nil}, "teapot"},
		{"HEAD tells the length", "HEAD /download?bytes=12345 HTTP/1.1\n", 200, http.Header{"Content-Length": {"12345"}}, ""},
		{"nobody speaks for Lanyard", "GET /status/200?header=Lanyard-Error:+x&header=Lanyard-Hint:+x&body=hi HTTP/1.1\n", 200, http.Header{"Lanyard-Error": nil, "Lanyard-Hint": nil}, "hi"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			head, body := w.raw(id, tt.request+naming+"\n")
			method, _, _ := strings.Cut(tt.request, " ")
			res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head+"\r\n\r\n"+body)), &http.Request{Method: method})
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.status || string(b) != tt.body {
				t.Errorf("HTTP %d %q, want %d %q", res.StatusCode, b, tt.status, tt.body)
			}
			for name, want := range tt.header {
				if d := cmp.Diff(want, res.Header[name]); d != "" {
					t.Errorf("%s: -want +got\n%s", name, d)
				}
			}
		})
	}
}

// A coding that the app asked for comes through coded, and trailers come after
// the body.
func TestCodingsAndTrailersPass(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	head, body := w.raw(id, "GET /gzip HTTP/1.1\n"+naming+"Accept-Encoding: gzip\n\n")
	if !strings.Contains(head, "Content-Encoding: gzip") || !strings.Contains(body, "\x1f\x8b") {
		t.Errorf("not gzip any more:\n%s", head)
	}
	head, body = w.raw(id, "GET /trailers HTTP/1.1\n"+naming+"Te: trailers\n\n")
	if !strings.Contains(head, "Trailer: ") || !strings.Contains(body, "X-Sum: sum\r\n") {
		t.Errorf("no trailers:\n%s\n%s", head, body)
	}
}
