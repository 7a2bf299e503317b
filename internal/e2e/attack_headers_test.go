package e2e_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// named names key and connection in a request written by hand.
const named = "Host: 127.0.0.1\nConnection: close\nLanyard-Key: {KEY}\nConnection-Id: {ID}\n"

// unnamed is for those that name them in another way.
const unnamed = "Host: 127.0.0.1\nConnection: close\n"

// TestAttackHeaders sends headers that would take the token away, put another
// in its place, or tell the upstream what is none of its business.
func TestAttackHeaders(t *testing.T) {
	a := newAttacked(t, "", "")
	a.in(t, "what reaches the upstream", a.headersThatPass)
	a.in(t, "what reaches nobody", a.headersRefused)
	a.in(t, "A093 a page of another site", a.fromAPage)
}

func (a *attacked) headersThatPass(t *testing.T) {
	tests := []struct {
		name, request string
		want          string // in the request that arrives
		wantNot       []string
	}{
		{
			"A083 Connection: Authorization",
			"GET /x HTTP/1.1\nHost: 127.0.0.1\nConnection: close, Authorization, X-Api-Key\nX-Api-Key: app\nLanyard-Key: {KEY}\nConnection-Id: {ID}\n\n",
			"GET /api/x HTTP/1.1",
			[]string{"X-Api-Key", "Connection"},
		},
		{
			"A083 in lines of its own, with odd spaces and case",
			"GET /x HTTP/1.1\nHost: 127.0.0.1\nConnection: close\nConnection: \t aUTHORIZATION ,,\nconnection: host\n" +
				"Lanyard-Key: {KEY}\nConnection-Id: {ID}\n\n",
			"GET /api/x HTTP/1.1",
			[]string{"Connection"},
		},
		{"A085 the app's own Basic", "GET /x HTTP/1.1\n" + named + "Authorization: Basic Y2FsbGVyOmNhbGxlcg==\n\n", "", []string{"Basic", "Y2FsbGVy"}},
		{"A085 the app's own in a scheme of its own", "GET /x HTTP/1.1\n" + named + "authorization: Digest CALLER\n\n", "", []string{"CALLER"}},
		{"A085 the key's own place", "GET /x HTTP/1.1\n" + unnamed + "AUTHORIZATION: bearer {KEY}.{ID}\n\n", "", nil},
		{"A085 a token in a trailer", "POST /x HTTP/1.1\n" + named + "Transfer-Encoding: chunked\nTrailer: Authorization, X-Sum\n\n3\nabc\n0\nAuthorization: Bearer CALLER\nX-Sum: 1\n\n", "X-Sum: 1", []string{"CALLER"}},
		{
			"A086 what is for Lanyard, the hop, or a browser",
			"GET /x HTTP/1.1\n" + named + "Lanyard-Debug: SECRET\nLanyard-Host-Of: SECRET\nUser-Id: SECRET\nProxy-Authorization: Basic SECRET\nProxy-Connection: SECRET\n" +
				"Cookie: SECRET\nX-Forwarded-For: SECRET\nX-Forwarded-Anything: SECRET\nForwarded: for=SECRET\nVia: 1.1 SECRET\nX-Real-Ip: SECRET\nKeep-Alive: SECRET\nTe: SECRET\n\n",
			"",
			[]string{"SECRET", "Lanyard", "Via", "Forwarded", "User-Agent", "Accept-Encoding"},
		},
		{
			// DESIGN section 5: what the app sends goes as it was sent. The
			// names that change a request's meaning at some servers are kept
			// from keys that are limited by methods or paths.
			"A095 what pretends to be another request",
			"GET /x HTTP/1.1\n" + named + "X-Forwarded-Uri: /admin\nX-Forwarded-Method: DELETE\nX-Forwarded-Host: {EVIL}\nForwarded: host={EVIL}\n\n",
			"GET /api/x HTTP/1.1\r\nHost: UPSTREAM\r\n",
			[]string{"{EVIL}", "/admin", "DELETE"},
		},
		// Caddy drops what CGI would take for the name with dashes.
		{"A075 underscores go nowhere", "GET /x HTTP/1.1\n" + named + "Connection_Id: other\nX_Connection-Id: other\nLanyard_Key: other\n\n", "", []string{"other"}},
		{"A075 names that only look alike", "GET /x HTTP/1.1\n" + named + "Connection.Id: other\nX-Connection-Id: other\n\n", "", nil},
		{"A094 line ends in escapes stay escapes", "GET /x%0d%0aX-Evil:%201?q=%0d%0aX-Evil:%201 HTTP/1.1\n" + named + "X-A: a%0d%0aX-Evil: 1\n\n", "GET /api/x%0d%0aX-Evil:%201?q=%0d%0aX-Evil:%201 HTTP/1.1\r\n", []string{"\r\nX-Evil"}},
		{"A101 Upgrade: h2c", "GET /x HTTP/1.1\nHost: 127.0.0.1\nConnection: Upgrade, HTTP2-Settings, close\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk\nLanyard-Key: {KEY}\nConnection-Id: {ID}\n\n", "", []string{"Upgrade", "h2c", "HTTP2", "Http2"}},
		{"A101 Upgrade: h2c beside websocket", "GET /x HTTP/1.1\nHost: 127.0.0.1\nConnection: Upgrade, close\nUpgrade: websocket\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk\nLanyard-Key: {KEY}\nConnection-Id: {ID}\n\n", "", []string{"Upgrade", "h2c", "HTTP2", "Http2"}},
		{"A101 H2C in a list", "GET /x HTTP/1.1\nHost: 127.0.0.1\nConnection: Upgrade, close\nUpgrade: websocket, H2C\nLanyard-Key: {KEY}\nConnection-Id: {ID}\n\n", "", []string{"h2c", "H2C"}},
		{"A105 early data is told", "GET /x HTTP/1.1\n" + named + "Early-Data: 1\n\n", "Early-Data: 1", nil},
		{"A110 a body in a coding", "POST /x HTTP/1.1\n" + named + "Content-Encoding: gzip\nContent-Length: 5\n\n\x1f\x8b\x08\x00\x00", "\r\n\r\n\x1f\x8b\x08\x00\x00", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := a.wire(t, crlf(tt.request))
			if len(got) != 1 || got[0].Status != http.StatusOK {
				t.Errorf("answers %v, want one 200", got)
			}
			r := a.wantOne(t)
			if want := strings.ReplaceAll(tt.want, "UPSTREAM", a.up.addr); !strings.Contains(r.raw, want) {
				t.Errorf("%q does not hold %q", r.raw, want)
			}
			for _, word := range tt.wantNot {
				if strings.Contains(r.raw, strings.ReplaceAll(word, "{EVIL}", a.evil.host)) {
					t.Errorf("%q holds %q", r.raw, word)
				}
			}
			if strings.Count(strings.ToLower(r.raw), "\r\nauthorization:") != 1 {
				t.Errorf("not one Authorization: %q", r.raw)
			}
		})
	}
}

func (a *attacked) headersRefused(t *testing.T) {
	const key, both = "Lanyard-Key: {KEY}\n", "Lanyard-Key: {KEY}\nConnection-Id: {ID}\n"
	unknown := "conn_" + strings.TrimPrefix(a.id, "conn_")[1:] + "a"
	tests := []struct {
		name, lines string
		status      []int
		code        string // empty: any
	}{
		// DESIGN section 5: two that disagree are an error.
		{"A085 another Bearer beside the key", both + "Authorization: Bearer CALLER\n", []int{400}, "connection_ambiguous"},
		{"A085 another in lower case", both + "authorization: bearer CALLER\n", []int{400}, "connection_ambiguous"},
		{"A085 two of them", both + "Authorization: Basic Y2FsbGVyOmNhbGxlcg==\nAuthorization: Digest x\n", []int{400}, "connection_ambiguous"},
		{"A074 Connection-Id twice", both + "Connection-Id: {ID}\n", []int{400}, "connection_ambiguous"},
		{"A074 Connection-Id twice, other", both + "Connection-Id: " + a.fakeID + "\n", []int{400}, "connection_ambiguous"},
		{"A074 an empty second one", both + "Connection-Id:\n", []int{400}, "connection_ambiguous"},
		{"A074 an empty first one", key + "Connection-Id:\nConnection-Id: {ID}\n", []int{400}, "connection_ambiguous"},
		// No ID has a comma: it is one that does not exist.
		{"A074 a list", key + "Connection-Id: {ID}," + a.fakeID + "\n", []int{404}, "connection_not_found"},
		{"A074 header and slot disagree", key + "Connection-Id: {ID}\nAuthorization: Bearer {KEY}." + a.fakeID + "\n", []int{400}, "connection_ambiguous"},
		{"A074 header and bare slot disagree", both + "Authorization: Bearer " + a.fakeID + "\n", []int{400}, "connection_ambiguous"},
		{"A074 two slots", "X-One: " + otherKey() + ".{ID}\nX-Two: " + otherKey() + ".{ID}\n", []int{400}, "connection_ambiguous"},
		{"A074 Lanyard-Key twice", key + both, []int{400}, "connection_ambiguous"},
		{"A074 two keys", both + "Lanyard-Key: " + otherKey() + "\n", []int{400}, "connection_ambiguous"},
		{"A074 an empty one", key + "Connection-Id:\n", []int{400, 404}, ""},
		{"A075 X_Connection_Id", key + "X_Connection_Id: {ID}\n", []int{400}, "connection_required"},
		{"A075 Connection_Id", key + "Connection_Id: {ID}\n", []int{400}, "connection_required"},
		{"A075 X-Connection_Id", key + "X-Connection_Id: {ID}\n", []int{400}, "connection_required"},
		{"A075 Connection.Id", key + "Connection.Id: {ID}\n", []int{400}, "connection_required"},
		{"A075 a space after the name", key + "Connection-Id : {ID}\n", []int{400}, ""},
		{"A075 a space before the name", key + " Connection-Id: {ID}\n", []int{400, 401}, ""},
		{"A075 NUL in the name", key + "Connection-Id\x00: {ID}\n", []int{400}, ""},
		{"A075 NUL in the value", key + "Connection-Id: {ID}\x00\n", []int{400}, ""},
		{"A075 a Cyrillic letter", key + "Сonnection-Id: {ID}\n", []int{400}, ""},
		{"A075 another case of the ID", key + "Connection-Id: " + strings.ToUpper(a.id) + "\n", []int{404}, "connection_not_found"},
		{"A094 CR in a value", both + "X-A: a\rX-Evil: 1\n", []int{400}, ""},
		{"A094 NUL in a value", both + "X-A: a\x00b\n", []int{400}, ""},
		{"A094 a folded line", both + "X-A: a\n X-Evil: 1\n", []int{200, 400}, ""},
		{"an unknown ID, to compare", key + "Connection-Id: " + unknown + "\n", []int{404}, "connection_not_found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := a.wire(t, crlf("GET /x HTTP/1.1\n"+unnamed+tt.lines+"\n"))
			if len(got) == 1 && got[0].Status == http.StatusOK && slices.Contains(tt.status, http.StatusOK) {
				if r := a.wantOne(t); strings.Contains(r.raw, "\r\nX-Evil") || strings.Contains(r.raw, "\n X-Evil") {
					t.Errorf("a header was made of a value: %q", r.raw)
				}
				return
			}
			a.wantRefused(t, got, tt.code, tt.status...)
		})
	}
}

// fromAPage sends what browsers send for a page; with a real one see
// TestAttackFromARealPage.
func (a *attacked) fromAPage(t *testing.T) {
	for name, lines := range map[string]string{
		"Origin":                       "Origin: https://evil.example\n",
		"Origin: null":                 "Origin: null\n",
		"the origin of Lanyard":        "Origin: http://127.0.0.1\n",
		"an empty Origin":              "Origin:\n",
		"cross-site":                   "Sec-Fetch-Site: cross-site\n",
		"same-site":                    "Sec-Fetch-Site: same-site\n",
		"same-origin, after rebinding": "Sec-Fetch-Site: same-origin\n",
		"none and cross-site":          "Sec-Fetch-Site: none\nSec-Fetch-Site: cross-site\n",
		"websocket":                    "Origin: https://evil.example\nUpgrade: websocket\nConnection: Upgrade\nSec-Websocket-Version: 13\nSec-Websocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n",
		"text/plain":                   "Origin: https://evil.example\nContent-Type: text/plain\n",
	} {
		for _, where := range []string{"GET /x HTTP/1.1\n" + named, "POST /x HTTP/1.1\n" + named + "Content-Length: 0\n", "GET /v1/connections HTTP/1.1\n" + unnamed + "Authorization: Bearer " + a.apiKey + "\n"} {
			a.wantRefused(t, a.wire(t, crlf(where+lines+"\n")), "browser_request_blocked", http.StatusForbidden)
			if t.Failed() {
				t.Fatal(name, where)
			}
		}
	}
	for _, host := range []string{"evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "2130706433", "0x7f.1", "0.0.0.0", "[::]", "169.254.169.254", "localhost:80:80", "127.0.0.1@evil.example"} {
		for _, where := range []string{"GET /x HTTP/1.1\n" + strings.Replace(named, "127.0.0.1", host, 1), "GET /v1/connections HTTP/1.1\nHost: " + host + "\nConnection: close\nAuthorization: Bearer " + a.apiKey + "\n"} {
			a.wantRefused(t, a.wire(t, crlf(where+"\n")), "", http.StatusMisdirectedRequest, http.StatusBadRequest)
			if t.Failed() {
				t.Fatal(host)
			}
		}
	}
}
