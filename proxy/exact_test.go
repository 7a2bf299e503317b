package proxy_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/proxy"
)

const slotLine = "Authorization: Bearer " + clientKey + "." + connID + "\r\n"

func TestTargetsGoAsSent(t *testing.T) {
	tests := []struct{ target, api, prefix, want string }{
		{"/", "", "", "/"},
		{"/a/b", "", "", "/a/b"},
		{"/a%2Fb%2f", "", "", "/a%2Fb%2f"},
		{"//evil.test/x", "", "", "//evil.test/x"},
		{"/@evil.test/", "", "", "/@evil.test/"},
		{"/a//b///", "", "", "/a//b///"},
		{"/a;b=1;c/d+e", "", "", "/a;b=1;c/d+e"},
		{"/a%20b%C3%A9%25", "", "", "/a%20b%C3%A9%25"},
		{"/a%5Cb/%7Euser/~user", "", "", "/a%5Cb/%7Euser/~user"},
		{`/a{b}|"<c>^` + "`", "", "", `/a{b}|"<c>^` + "`"},
		{"/é", "", "", "/é"},
		{"/a...b/.well-known/..x", "", "", "/a...b/.well-known/..x"},
		{"/x?", "", "", "/x?"},
		{"/x?a;b", "", "", "/x?a;b"},
		{"/x?a=1&a=2;3&%zz=%&b=c#d", "", "", "/x?a=1&a=2;3&%zz=%&b=c#d"},
		{"/x?a=b?c=/../d\\", "", "", "/x?a=b?c=/../d\\"},
		{"http://localhost/x?a", "", "", "/x?a"},
		{"http://localhost", "", "", "/"},
		{"http://localhost?q", "", "", "/?q"},
		{"/x", "/api/v1", "", "/api/v1/x"},
		{"/x%2F", "/api%2Fv1/", "", "/api%2Fv1/x%2F"},
		{"//x", "/api", "", "/api//x"},
		{"/github/user?q", "/v2", "/github", "/v2/user?q"},
		{"/github", "/v2", "/github", "/v2"},
		{"/github?q", "", "/github", "/?q"},
		{"/github//x", "", "/github", "//x"},
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			var got string
			upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RequestURI }))
			defer upstream.Close()
			r := newRigFor(t, upstream.URL+tt.api, func(c *proxy.Config, _ *proxy.Upstream) { c.Prefix = tt.prefix })
			res := r.raw(t, "GET "+tt.target+" HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"\r\n")
			if res.StatusCode != http.StatusOK || got != tt.want {
				t.Errorf("upstream got %q, answer %d; want %q", got, res.StatusCode, tt.want)
			}
		})
	}
}

func TestPathsThatAreInvalid(t *testing.T) {
	r := newRig(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("upstream got %s", r.RequestURI) },
		func(c *proxy.Config, _ *proxy.Upstream) { c.Prefix = "/p" })
	for _, path := range []string{
		"/p/..", "/p/.", "/p/a/../b", "/p/./a", "/p/%2e%2e/a", "/p/%2E%2e/a", "/p/.%2e", "/p/%252e%252e/a", "/p/%252E/a",
		"/p/%252e%252e/%25", "/p/..;/a", "/p/..;x=1/a", "/p/..%2fa", "/p/%2e%2e%5ca", `/p/a\b`, "/p/a%00b", "/p/%252e%252e%252fa", "/../p/a",
	} {
		res := r.raw(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"\r\n")
		body, _ := io.ReadAll(res.Body)
		wantProblem(t, res, string(body), http.StatusBadRequest, "path_invalid")
	}
	for _, target := range []string{"*", "foo:/p/a", "foo:p", "http:/p/a", "foo:/p?://localhost/p/a"} {
		res := r.raw(t, "GET "+target+" HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"\r\n")
		body, _ := io.ReadAll(res.Body)
		wantProblem(t, res, string(body), http.StatusBadRequest, "path_invalid")
	}
	for _, path := range []string{"/", "/px", "/P/x", "/p%2Fx", "/x/p"} {
		res := r.raw(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"\r\n")
		body, _ := io.ReadAll(res.Body)
		wantProblem(t, res, string(body), http.StatusNotFound, "not_found")
	}
	res := r.raw(t, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n"+slotLine+"\r\n")
	if res.StatusCode < 400 && res.Header.Get("Allow") != "" {
		t.Errorf("OPTIONS * = %d", res.StatusCode)
	}
}

func TestRequestHeaders(t *testing.T) {
	address, heads := rawUpstream(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	r := newRigFor(t, address)
	tests := []struct{ name, sent, want string }{
		{"nothing added", "", ""},
		{"kept", "Accept: a\r\nAccept: b\r\nX-Multi: 2, 3\r\nX-Multi: 1\r\nX-Empty:\r\n", "Accept: a\r\nAccept: b\r\nX-Empty: \r\nX-Multi: 2, 3\r\nX-Multi: 1\r\n"},
		{"encodings", "Accept-Encoding: br;q=1, zstd\r\nUser-Agent: a/1\r\n", "User-Agent: a/1\r\nAccept-Encoding: br;q=1, zstd\r\n"},
		{"own", "Lanyard-Key: " + clientKey + "\r\nConnection-Id: " + connID + "\r\nUser-Id: u\r\nLanyard-Future: x\r\n", ""},
		{"credentials", "Cookie: a=b\r\nProxy-Authorization: Basic eA==\r\nProxy-X: y\r\n", ""},
		{"where it came from", "X-Forwarded-For: 1\r\nX-Forwarded-Anything: 1\r\nForwarded: for=1\r\nVia: 1.1 x\r\nX-Real-IP: 1\r\n", ""},
		{"hop by hop", "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n", ""},
		{"the credential is not the app's to remove", "Connection: Authorization, close\r\n", ""},
		{"te", "TE: gzip, trailers\r\nConnection: TE\r\n", "Te: trailers\r\n"},
		{"h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.raw(t, "GET /x HTTP/1.1\r\nHost: localhost\r\n"+slotLine+tt.sent+"\r\n")
			got := <-heads
			want := "GET /x HTTP/1.1\r\nHost: " + r.upstream.Host + "\r\n" + tt.want + "Authorization: Bearer " + token(1) + "\r\n\r\n"
			if sortedLines(got) != sortedLines(want) {
				t.Errorf("upstream got (-want +got)\n%s", cmp.Diff(want, got))
			}
		})
	}
}

// sortedLines orders header lines by name, and keeps the order within one.
func sortedLines(head string) string {
	lines := strings.Split(head, "\r\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		nameA, _, _ := strings.Cut(a, ":")
		nameB, _, _ := strings.Cut(b, ":")
		return strings.Compare(nameA, nameB)
	})
	return strings.Join(lines, "\n")
}

func TestHosts(t *testing.T) {
	var other *httptest.Server
	hit := ""
	r := newRig(t, func(_ http.ResponseWriter, r *http.Request) { hit = "api" + r.RequestURI },
		func(_ *proxy.Config, up *proxy.Upstream) {
			other = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				wantToken(t, r, 1)
				hit = "other" + r.RequestURI
			}))
			up.API.Path = "/v2"
			up.Hosts = []string{strings.TrimPrefix(other.URL, "http://"), "Uploads.test"}
		})
	defer other.Close()
	host := strings.TrimPrefix(other.URL, "http://")
	bare, _, _ := net.SplitHostPort(host)
	tests := []struct {
		path, header string
		status       int
		hit          string
	}{
		{"/x", "", 200, "api/v2/x"},
		{"/x%2F?q", host, 200, "other/x%2F?q"},
		{"/_host/" + host + "/x//y?", "", 200, "other/x//y?"},
		{"/_host/" + host, "", 200, "other/"},
		{"/_host/" + strings.Replace(host, ":", "%3A", 1) + "/x", host, 200, "other/x"},
		{"/x", "evil.test", 403, ""},
		{"/x", bare, 403, ""},
		{"/x", host + ".", 403, ""},
		{"/x", host + "@evil.test", 403, ""},
		{"/x", "uploads.test:443", 403, ""},
		{"/_host/evil.test/x", "", 403, ""},
		{"/_host/" + host + "/x", "uploads.test", 403, ""},
		{"/_host//x", "", 403, ""},
		{"/_host/", "", 403, ""},
		{"/_host", "", 200, "api/v2/_host"},
	}
	for _, tt := range tests {
		hit = ""
		req := r.request(t, http.MethodGet, tt.path, nil)
		if tt.header != "" {
			req.Header.Set("Lanyard-Host", tt.header)
		}
		res, body := r.do(t, req)
		if tt.status == 403 {
			wantProblem(t, res, body, 403, "host_not_allowed")
		}
		if res.StatusCode != tt.status || hit != tt.hit {
			t.Errorf("%s, Lanyard-Host %q: %d, reached %q; want %d, %q", tt.path, tt.header, res.StatusCode, hit, tt.status, tt.hit)
		}
	}
}

// A 304 has a length and no body, by HTTP/2 as well (RFC 9113 section 8.1.1).
func TestNotModifiedByHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(http.StatusNotModified)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	r := newRigFor(t, server.URL, func(c *proxy.Config, _ *proxy.Upstream) { c.Transport = server.Client().Transport })
	res, body := r.do(t, r.request(t, http.MethodGet, "/x", nil))
	if res.StatusCode != http.StatusNotModified || res.Header.Get("Content-Length") != "5" || body != "" {
		t.Errorf("answer = %d %v %q, want the 304 with its length", res.StatusCode, res.Header, body)
	}
}
