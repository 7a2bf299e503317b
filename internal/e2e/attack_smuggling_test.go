package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestAttackSmuggling sends requests that two servers could take for another
// number of requests, or for requests to somebody else.
func TestAttackSmuggling(t *testing.T) {
	a := newAttacked(t, "", "")
	a.in(t, "framing", a.framing)
	a.in(t, "targets", a.targets)
	a.in(t, "answers", a.hostileAnswers)
	a.in(t, "A107 huge headers", a.hugeHeaders)
	a.in(t, "it works after all that", func(t *testing.T) {
		if a.up.take(); a.call(a.id, "/x").Status != http.StatusOK {
			t.Error("it does not")
		}
		a.wantOne(t)
	})
}

// framing sends bodies whose end can be read in two ways, and a request behind
// each. That one may be answered once, or not at all.
func (a *attacked) framing(t *testing.T) {
	const chunked, three = "Transfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n"
	tests := []struct {
		name, rest string // of the request, from its framing headers on
		good       bool   // it is a whole request
	}{
		{"a good one, to compare", chunked + three + "0\r\n\r\n", true},
		{"a chunk extension", chunked + "3;a=b\r\nabc\r\n0\r\n\r\n", true},
		{"a size that ends with LF", chunked + "3\nabc\r\n0\r\n\r\n", false},
		{"an extension that ends with LF", chunked + "3;a\nabc\r\n0\r\n\r\n", false},
		{"an extension with CR", chunked + "3;a\rb\r\nabc\r\n0\r\n\r\n", false},
		{"an extension with LF in a string", chunked + "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n", false},
		{"a negative size", chunked + "-3\r\nabc\r\n0\r\n\r\n", false},
		{"a size with a plus", chunked + "+3\r\nabc\r\n0\r\n\r\n", false},
		{"a size with 0x", chunked + "0x3\r\nabc\r\n0\r\n\r\n", false},
		{"a size with an underscore", chunked + "0_3\r\nabc\r\n0\r\n\r\n", false},
		{"17 digits", chunked + "00000000000000003\r\nabc\r\n0\r\n\r\n", false},
		{"17 digits that overflow", chunked + "10000000000000003\r\nabc\r\n0\r\n\r\n", false},
		{"no size", chunked + "\r\nabc\r\n0\r\n\r\n", false},
		{"no CRLF after a chunk", chunked + "3\r\nabc0\r\n\r\n", false},
		{"LF after a chunk", chunked + "3\r\nabc\n0\r\n\r\n", false},
		{"no CRLF at the end", chunked + three + "0\r\n", false},
		{"LF at the end", chunked + three + "0\n\n", false},
		{"a trailer with a Content-Length", chunked + three + "0\r\nContent-Length: 60\r\n\r\n", true},
		{"a trailer without a colon", chunked + three + "0\r\nX\r\n\r\n", false},
		{"a coding that only ends with chunked", "Transfer-Encoding: xchunked\r\n\r\n" + three + "0\r\n\r\n", false},
		{"two codings", "Transfer-Encoding: gzip, chunked\r\n\r\n" + three + "0\r\n\r\n", false},
		{"chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + three + "0\r\n\r\n", false},
		{"identity", "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", false},
		{"a vertical tab before chunked", "Transfer-Encoding: \x0bchunked\r\n\r\n" + three + "0\r\n\r\n", false},
		{"a space after the name", "Transfer-Encoding : chunked\r\n\r\n" + three + "0\r\n\r\n", false},
		// RFC 9112 section 6.3: the length is ignored, and removed before it is
		// passed on.
		{"CL.TE", "Content-Length: 3\r\n" + chunked + three + "0\r\n\r\n", true},
		{"TE.CL", chunked[:len(chunked)-2] + "Content-Length: 5\r\n\r\n" + three + "0\r\n\r\n", true},
		{"two lengths", "Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc", false},
		{"two lengths that are equal", "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", true},
		{"a list of lengths", "Content-Length: 3, 5\r\n\r\nabc", false},
		{"a length with a plus", "Content-Length: +3\r\n\r\nabc", false},
		{"a length with a sign", "Content-Length: -3\r\n\r\nabc", false},
		{"a hexadecimal length", "Content-Length: 0x3\r\n\r\nabc", false},
		{"a length that overflows", "Content-Length: 18446744073709551619\r\n\r\nabc", false},
		{"an empty length", "Content-Length:\r\n\r\nabc", false},
		{"a length of a GET", "Content-Length: 3\r\n\r\nabc", true},
		{"lines that end with CR", "X-A: a\rContent-Length: 3\r\rabc", false},
		{"an HTTP/0.9 line behind", "Content-Length: 0\r\n\r\nGET /behind\r\n\r\n", true},
	}
	for i, tt := range tests {
		t.Run("A097 "+tt.name, func(t *testing.T) {
			method := "POST"
			if strings.HasSuffix(tt.name, "of a GET") {
				method = "GET"
			}
			path := fmt.Sprintf("/a097-%d", i)
			head := strings.ReplaceAll(crlf(named), "Connection: close\r\n", "")
			canary := "GET " + path + "/canary HTTP/1.1\r\n" + crlf(named) + "\r\n"
			got := a.wire(t, method+" "+path+" HTTP/1.1\r\n"+head+tt.rest+canary)

			whole, canaries := 0, 0
			for _, r := range a.up.take() {
				switch {
				case r.head == nil:
					t.Errorf("the upstream got what is no request: %q", r.raw)
				case r.head.URL.Path == "/api"+path+"/canary":
					canaries++
					a.wantTokenOnce(t, r)
				case !strings.HasPrefix(r.head.URL.Path, "/api/a097-"): // one before may come in late
					t.Errorf("the upstream got a request that was not sent: %q", r.raw)
				case r.head.URL.Path == "/api"+path && !r.broken:
					whole++
					a.wantTokenOnce(t, r)
					if r.head.Header["Content-Length"] != nil && r.head.TransferEncoding != nil {
						t.Errorf("two framings went out: %q", r.raw)
					}
				}
			}
			switch {
			case tt.good && (whole != 1 || len(got) == 0 || got[0].Status != http.StatusOK):
				t.Errorf("%d reached the upstream, answers %v; want one and 200", whole, statusesOf(got))
			case !tt.good && whole != 0:
				t.Errorf("a broken request reached the upstream whole, answers %v", statusesOf(got))
			case !tt.good && len(got) > 0 && got[0].Status != http.StatusBadRequest && got[0].Status != http.StatusNotImplemented && got[0].Status != http.StatusUnsupportedMediaType:
				t.Errorf("answers %v, want 400, 501 or none", statusesOf(got))
			case canaries > 1, canaries == 1 && len(got) != 2, !tt.good && canaries != 0:
				t.Errorf("the request behind reached the upstream %d times; answers %v", canaries, statusesOf(got))
			}
		})
	}
}

// targets asks for other hosts in the request line.
func (a *attacked) targets(t *testing.T) {
	tests := []struct {
		name, line string
		want       string // of the request line that arrives; empty: refused
		status     []int
	}{
		{"A087 two slashes", "GET //EVIL/x", "GET /api//EVIL/x HTTP/1.1", nil},
		{"A087 two slashes in the middle", "GET /mock//EVIL/x", "GET /api/mock//EVIL/x HTTP/1.1", nil},
		{"A087 an at sign", "GET /@EVIL/x", "GET /api/@EVIL/x HTTP/1.1", nil},
		{"A087 a port and an at sign", "GET /:80@EVIL/", "GET /api/:80@EVIL/ HTTP/1.1", nil},
		{"A087 a URL as the path", "GET /http://EVIL/x", "GET /api/http://EVIL/x HTTP/1.1", nil},
		{"A087 no slash", "GET @EVIL/x", "", []int{400}},
		{"A087 a backslash", `GET /\EVIL/x`, "", []int{400}},
		{"A087 two backslashes", `GET \\EVIL\x`, "", []int{400}},
		{"A087 an escaped backslash", "GET /%5cEVIL/x", "GET /api/%5cEVIL/x HTTP/1.1", nil},
		{"A087 a host that is not declared", "GET /_host/EVIL/x", "", []int{403}},
		{"A087 one with userinfo", "GET /_host/UPSTREAM%40EVIL/x", "", []int{403}},
		{"A091 an authority that is not ours", "GET http://evil.example/x", "", []int{421}},
		{"A091 https", "GET https://evil.example/x", "", []int{421}},
		{"A091 userinfo", "GET http://127.0.0.1:80@evil.example/x", "", []int{421}},
		// RFC 9112 section 3.2.2: Host is ignored where the target has an
		// authority. It decides nothing here but whether it may pass.
		{"A091 a loopback authority", "GET http://EVIL/x", "GET /api/x HTTP/1.1", nil},
		{"A091 another scheme", "GET ftp://127.0.0.1/x", "GET /api/x HTTP/1.1", nil},
		{"A091 no authority", "GET http:/x", "", []int{400}},
		{"A091 opaque", "GET mailto:x", "", []int{400}},
		{"A089 dots", "GET /v1/../admin", "", []int{400}},
		{"A089 a dot", "GET /v1/./admin", "", []int{400}},
		{"A089 dots at the end", "GET /v1/..", "", []int{400}},
		{"A089 escaped", "GET /v1/%2e%2e/admin", "", []int{400}},
		{"A089 half escaped", "GET /v1/.%2E/admin", "", []int{400}},
		{"A089 escaped twice", "GET /v1/%252e%252e/admin", "", []int{400}},
		{"A089 escaped slashes", "GET /v1/%2e%2e%2fadmin", "", []int{400}},
		{"A089 escaped backslashes", "GET /v1/..%5cadmin", "", []int{400}},
		{"A089 parameters", "GET /v1/..;/admin", "", []int{400}},
		{"A089 escaped parameters", "GET /v1/..%3b/admin", "", []int{400}},
		{"A089 another case", "GET /V1/../admin", "", []int{400}},
		{"A089 absolute", "GET http://127.0.0.1/v1/../admin", "", []int{400}},
		{"A089 three dots are a name", "GET /v1/.../x", "GET /api/v1/.../x HTTP/1.1", nil},
		{"A090 dots in the query", "GET /admin?x=/v1/../..", "GET /api/admin?x=/v1/../.. HTTP/1.1", nil},
		{"A090 an escaped number sign", "GET /admin%23/v1", "GET /api/admin%23/v1 HTTP/1.1", nil},
		{"A090 an escaped question mark", "GET /v1%3f/../admin", "", []int{400}},
		{"A094 NUL escaped", "GET /a%00b", "", []int{400}},
		{"A094 NUL escaped twice", "GET /a%2500b", "", []int{200, 400}},
		{"A094 NUL", "GET /a\x00b", "", []int{400}},
		{"A094 CR", "GET /a\rb", "", []int{400}},
		{"A094 a tab", "GET /a\tb", "", []int{400}},
		{"A094 a space", "GET /a b", "", []int{400}},
		{"A094 a space and a version", "GET /a HTTP/1.1 HTTP/1.1\nX: ", "", []int{400}},
		{"A099 TRACE", "TRACE /x", "", []int{405}},
		{"A099 trace", "trace /x", "", []int{405}},
		{"A099 TRACE, absolute", "TRACE http://127.0.0.1/x", "", []int{405}},
		{"A099 CONNECT", "CONNECT EVIL", "", []int{405}},
		{"A099 CONNECT to ourselves", "CONNECT 127.0.0.1:80", "", []int{405}},
		{"A099 CONNECT with a path", "CONNECT /x", "", []int{405}},
	}
	fill := strings.NewReplacer("EVIL", a.evil.host, "UPSTREAM", a.up.addr)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := a.wire(t, crlf(fill.Replace(tt.line)+" HTTP/1.1\n"+named+"Max-Forwards: 0\n\n"))
			if tt.want == "" {
				if len(got) == 1 && got[0].Status == http.StatusOK && strings.Contains(tt.name, "twice") {
					a.wantOne(t)
					return
				}
				a.wantRefused(t, got, "", tt.status...)
				return
			}
			if r := a.wantOne(t); !strings.HasPrefix(r.raw, fill.Replace(tt.want)+"\r\nHost: "+a.up.addr+"\r\n") {
				t.Errorf("what went out: %q, want %q", r.raw, fill.Replace(tt.want))
			}
		})
	}
}

// hugeHeaders are refused before anything is sent.
func (a *attacked) hugeHeaders(t *testing.T) {
	small := "X-A: " + strings.Repeat("a", 17<<10) + "\n"
	tests := map[string]struct {
		line, lines string
		status      []int
	}{
		"17 KB":           {"GET /x", small, []int{200, 431}},
		"2 MB":            {"GET /x", "X-A: " + strings.Repeat("a", 2<<20) + "\n", []int{431}},
		"200,000 headers": {"GET /x", strings.Repeat("X-A: a\n", 200_000), []int{431}},
		"a URL of 2 MB":   {"GET /" + strings.Repeat("a", 2<<20), "", []int{431, 414}},
	}
	for name, tt := range tests {
		got := a.wire(t, crlf(tt.line+" HTTP/1.1\n"+named+tt.lines+"\n"))
		if len(got) == 1 && got[0].Status == http.StatusOK && name == "17 KB" {
			a.wantOne(t)
			continue
		}
		a.wantRefused(t, got, "", tt.status...)
		if t.Failed() {
			t.Fatal(name)
		}
	}
}
