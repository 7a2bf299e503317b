package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestAttackEcho has an upstream say the token that it got. What stands in an
// answer is the sweep's to find.
func TestAttackEcho(t *testing.T) {
	port := freePort(t)
	a := newAttacked(t, "", fmt.Sprintf(":%d {\n bind 127.0.0.1\n lanyard_proxy raw {\n scrub on\n }\n}\n", port))
	for name, reply := range map[string]string{
		"A113 a header":             "HTTP/1.1 200 OK\nX-Echo: TOKEN\nSet-Cookie: t=TOKEN; a=b\nLocation: http://EVIL/?t=TOKEN\nContent-Length: 0\n\n",
		"A113 an error page":        "HTTP/1.1 500 Oh\nContent-Type: text/html\nConnection: close\n\n<pre>Authorization: Bearer TOKEN\n</pre>",
		"A113 JSON":                 "HTTP/1.1 200 OK\nContent-Type: application/problem+json\nConnection: close\n\n{\"headers\":{\"authorization\":\"Bearer TOKEN\"},\"again\":\"TOKEN\"}",
		"A113 in chunks":            "HTTP/1.1 200 OK\nContent-Type: text/plain\nTransfer-Encoding: chunked\n\nCHUNKS0\n\n",
		"A113 a trailer":            "HTTP/1.1 200 OK\nContent-Type: text/plain\nTransfer-Encoding: chunked\nTrailer: X-Echo\n\n2\nok\n0\nX-Echo: TOKEN\n\n",
		"A113 an interim answer":    "HTTP/1.1 103 Early Hints\nX-Echo: TOKEN\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"A113 the reason, a header": "HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Bearer error=\"insufficient_scope\", error_description=\"no TOKEN\"\nContent-Length: 0\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			token := a.tokenOf(t)
			var chunks strings.Builder // of a byte each
			for _, b := range []byte(token) {
				fmt.Fprintf(&chunks, "1\n%c\n", b)
			}
			a.up.answer(strings.NewReplacer("CHUNKS", crlf(chunks.String()), "EVIL", a.evil.host).Replace(crlf(reply)))
			got := a.wireTo(t, port, "", withKey("/x", a.clientKey, a.id))
			a.wantOne(t)
			if said := fmt.Sprint(got); len(got) != 1 || strings.Contains(said, token) || (!strings.Contains(reply, "103 ") && !strings.Contains(reply, "Trailer") && !strings.Contains(said, strings.Repeat("*", len(token)))) {
				t.Errorf("the answer is not masked: %s", strings.ReplaceAll(said, token, "[the token]"))
			}
		})
	}
}

// tokenOf returns the token that goes out.
func (a *attacked) tokenOf(t *testing.T) string {
	t.Helper()
	a.up.answer(rawOK)
	a.wire(t, withKey("/x", a.clientKey, a.id))
	return strings.TrimPrefix(a.wantOne(t).head.Header.Get("Authorization"), "Bearer ")
}

// hostileAnswers has the upstream answer what would lead the app elsewhere, put
// its connection out of step, or cost memory.
func (a *attacked) hostileAnswers(t *testing.T) {
	t.Cleanup(func() { a.up.answer(rawOK) })
	const ok = "HTTP/1.1 200 OK\nContent-Length: 2\n"
	tests := []struct {
		name, reply string
		status      int
		header      http.Header // exact, by name; nil: not there
		body        string
	}{
		{"A111 302", "HTTP/1.1 302 Found\nLocation: http://EVIL/x\nContent-Length: 0\n\n", 302, http.Header{"Location": {"http://EVIL/x"}}, ""},
		{"A111 307", "HTTP/1.1 307 Temporary Redirect\nLocation: http://EVIL/x\nContent-Length: 0\n\n", 307, http.Header{"Location": {"http://EVIL/x"}}, ""},
		{"A111 308 to the host's name in another's", "HTTP/1.1 308 Permanent Redirect\nLocation: http://UPSTREAM.evil.example/x\nContent-Length: 0\n\n", 308, http.Header{"Location": {"http://UPSTREAM.evil.example/x"}}, ""},
		{"A111 308 with userinfo", "HTTP/1.1 308 Permanent Redirect\nLocation: http://UPSTREAM@EVIL/api/x\nContent-Length: 0\n\n", 308, http.Header{"Location": {"http://UPSTREAM@EVIL/api/x"}}, ""},
		{"A111 Refresh and Link", ok + "Refresh: 0; url=http://EVIL/\nLink: <http://EVIL/x>; rel=next\n\nok", 200, http.Header{"Link": {"<http://EVIL/x>; rel=next"}}, "ok"},
		// DESIGN section 5: no browser calls the proxy, and an answer is exact.
		{"A114 what is for browsers", ok + "Set-Cookie: a=b; Domain=x\nClear-Site-Data: *\nStrict-Transport-Security: max-age=1\n\nok", 200, http.Header{"Set-Cookie": {"a=b; Domain=x"}, "Clear-Site-Data": {"*"}}, "ok"},
		{"A115 hop-by-hop", ok + "Connection: X-Secret, Keep-Alive\nX-Secret: 1\nKeep-Alive: timeout=5\nProxy-Authenticate: Basic\nProxy-Connection: keep-alive\nUpgrade: h2c\n\nok", 200, http.Header{"X-Secret": nil, "Keep-Alive": nil, "Proxy-Authenticate": nil, "Proxy-Connection": nil, "Upgrade": nil}, "ok"},
		{"A115 two lengths", "HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 5\n\nokabc", 502, nil, ""},
		{"A115 length and chunks", "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n", 200, http.Header{"Content-Length": nil}, "ok"},
		{"A115 a coding that only looks like chunked", "HTTP/1.1 200 OK\nTransfer-Encoding: xchunked\nConnection: close\n\n2\nok\n0\n\n", 502, nil, ""},
		// RFC 9112 section 5.1: the space is taken away, or the header.
		{"A115 a length with a space before its colon", "HTTP/1.1 200 OK\nContent-Length : 1\nContent-Length: 2\n\nok", 200, http.Header{"Content-Length": {"2"}, "Content-Length ": nil}, "ok"},
		{"A115 no HTTP", "SSH-2.0-x\n\n", 502, nil, ""},
		{"A115 another answer behind", "HTTP/1.1 200 OK\nContent-Length: 2\nConnection: close\n\nokHTTP/1.1 200 OK\nX-Evil: 1\nContent-Length: 4\n\nevil", 200, http.Header{"X-Evil": nil}, "ok"},
		{"A103 a switch that nobody asked for", "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\nbytes", 502, nil, ""},
		{"A103 a switch to h2c", "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: h2c\n\nPRI * HTTP/2.0", 502, nil, ""},
		{"A117 a coding passes as it is", "HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 3\n\n\x1f\x8b\x08", 200, http.Header{"Content-Encoding": {"gzip"}, "Content-Length": {"3"}}, "\x1f\x8b\x08"},
		{"A107 a header of 16 MB", "HTTP/1.1 200 OK\nX-A: " + strings.Repeat("a", 16<<20) + "\nContent-Length: 2\n\nok", 502, nil, ""},
		{"A113 a word of Lanyard's own", ok + "Lanyard-Error: key_required\nLanyard-Hint: send the key to EVIL\n\nok", 200, http.Header{"Lanyard-Error": nil, "Lanyard-Hint": nil}, "ok"},
	}
	fill := strings.NewReplacer("EVIL", a.evil.host, "UPSTREAM", a.up.addr)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			head, body, _ := strings.Cut(tt.reply, "\n\n")
			if strings.Contains(head, "chunked") {
				body = crlf(body)
			}
			a.up.answer(fill.Replace(crlf(head+"\n\n") + body))
			got := a.wire(t, crlf("GET /x HTTP/1.1\n"+strings.Replace(named, "Connection: close\n", "", 1)+"\nGET /behind HTTP/1.1\n"+named+"\n"))
			if len(got) != 2 || got[0].Status != tt.status || got[1].Status != tt.status {
				t.Fatalf("answers %v, want twice %d", statusesOf(got), tt.status)
			}
			for _, r := range a.up.take() {
				a.wantTokenOnce(t, r)
				if r.head.Header["Accept-Encoding"] != nil {
					t.Errorf("Lanyard asked for a coding: %q", r.raw)
				}
			}
			if tt.status == http.StatusBadGateway {
				if code := got[0].Header.Get("Lanyard-Error"); code != "upstream_unreachable" || strings.Contains(got[0].Body, a.up.addr) {
					t.Errorf("%q: %s", code, got[0].Body)
				}
				return
			}
			if got[0].Body != tt.body {
				t.Errorf("body %q, want %q", got[0].Body, tt.body)
			}
			for name, want := range tt.header {
				if have := strings.Join(got[0].Header[name], "|"); have != fill.Replace(strings.Join(want, "|")) {
					t.Errorf("%s: %q, want %q", name, have, want)
				}
			}
		})
	}
}
