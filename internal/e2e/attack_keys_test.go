package e2e_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// keyring is a world with keys that are limited, and with a proxy for one
// integration on a port of its own.
type keyring struct {
	*attacked
	narrow, other string // keys: for u1 and some paths of raw, and for u2
	theirs        string // user u2's connection of the integration raw
	bound         int    // port of the proxy for raw
}

// TestAttackKeys comes with wrong keys, with keys of others, and with names of
// connections that are not the caller's.
func TestAttackKeys(t *testing.T) {
	x := &keyring{narrow: "narrowkey" + rand.Text() + rand.Text(), other: "otherskey" + rand.Text() + rand.Text(), bound: freePort(t)}
	t.Setenv("NARROW_KEY", x.narrow)
	t.Setenv("OTHER_KEY", x.other)
	x.attacked = newAttacked(t, `
		client narrow {env.NARROW_KEY} {
			integrations raw
			users u1 default
			methods GET POST
			paths /v1/* /me
		}
		client other {env.OTHER_KEY} {
			users u2
		}`, fmt.Sprintf(":%d {\n bind 127.0.0.1\n lanyard_proxy raw\n}\n", x.bound))
	x.secrets = append(x.secrets, x.narrow, x.other)
	x.theirs = x.connectTo("raw", "u2")
	x.in(t, "A065 no key or a wrong one", x.wrongKeys)
	x.in(t, "A066 many wrong keys", x.bruteForce)
	x.in(t, "connections of others", x.othersConnections)
	x.in(t, "paths and methods", x.limitedCalls)
	x.in(t, "A073 no user is user default", x.noUser)
	x.in(t, "A077 connections that are not active", x.notActive)
	x.in(t, "A079 a key in the URL", x.keyInURL)
	x.in(t, "A081 no answer shows a token", x.noReveal)
}

// withKey is a GET over a connection with a key.
func withKey(path, key, id string) string {
	return crlf("GET " + path + " HTTP/1.1\n" + unnamed + "Lanyard-Key: " + key + "\nConnection-Id: " + id + "\n\n")
}

// same fails the test unless two answers are the same but for their date.
func same(t *testing.T, a, b answer) {
	t.Helper()
	a.Header.Del("Date")
	b.Header.Del("Date")
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("two answers that tell something apart:\n%v\n%v", a, b)
	}
}

func (x *keyring) wrongKeys(t *testing.T) {
	changed := []byte(x.clientKey)
	changed[len(changed)-1] ^= 1
	var first answer
	for i, line := range []string{
		"Lanyard-Key: " + otherKey(), "Lanyard-Key: " + string(changed), "Lanyard-Key: " + x.clientKey[:len(x.clientKey)-1], "Lanyard-Key: " + x.clientKey + "x",
		"Lanyard-Key:", "X-A: no key", "Authorization: Bearer " + otherKey(), "Authorization: Bearer " + otherKey() + "." + x.id,
		"Authorization: Basic " + "OmtleQ==", "Lanyard-Key: " + x.id,
	} {
		got := x.wire(t, crlf("GET /me HTTP/1.1\n"+unnamed+line+"\nConnection-Id: {ID}\n\n"))
		x.wantRefused(t, got, "key_required", http.StatusUnauthorized)
		if got[0].Header.Get("WWW-Authenticate") != `Bearer realm="lanyard"` {
			t.Errorf("WWW-Authenticate: %q", got[0].Header["Www-Authenticate"])
		}
		if i == 0 {
			first = got[0]
		}
		same(t, first, got[0])
	}
	// DESIGN section 5: an API key is told what it is.
	x.wantRefused(t, x.wire(t, withKey("/me", x.apiKey, x.id)), "not_allowed", http.StatusForbidden)
	for i, line := range []string{
		"X-A: no key", "Authorization: Bearer " + otherKey(), "Authorization: Bearer " + x.clientKey, "Authorization: " + x.apiKey,
		"Authorization: Bearer " + x.apiKey + ".x", "Lanyard-Key: " + otherKey(),
	} {
		got := x.wire(t, crlf("GET /v1/connections/{ID} HTTP/1.1\n"+unnamed+line+"\n\n"))
		x.wantRefused(t, got, "", http.StatusUnauthorized)
		if i == 0 {
			first = got[0]
		}
		same(t, first, got[0])
	}
	x.wantEvent(t, event{Type: "key.refused", Reason: "proxy"})
	x.wantEvent(t, event{Type: "key.refused", Reason: "api"})
}

// bruteForce tries keys at both sides, a right one in between.
func (x *keyring) bruteForce(t *testing.T) {
	for side, try := range map[string]string{
		"proxy": "GET /me HTTP/1.1\nHost: 127.0.0.1\nConnection-Id: {ID}\nLanyard-Key: ",
		"api":   "GET /v1/connections HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer ",
	} {
		from, right := "127.0.66.1", x.clientKey
		if side == "api" {
			from, right = "127.0.66.2", x.apiKey
		}
		var b strings.Builder
		for range 1000 {
			b.WriteString(try + otherKey() + "\n\n")
		}
		b.WriteString(try + right + "\n\n" + try + otherKey() + "\nConnection: close\n\n")
		got := x.wireTo(t, x.site.Proxy, from, crlf(b.String()))
		if len(got) != 1002 || got[1000].Status != http.StatusOK {
			t.Fatalf("%s: %d answers to 1002 requests; to the one with a right key: %v", side, len(got), got[min(1000, len(got)-1)])
		}
		count := map[int]int{}
		for _, a := range got {
			count[a.Status]++
			if after, err := strconv.Atoi(a.Header.Get("Retry-After")); a.Status == http.StatusTooManyRequests && (err != nil || after < 1) {
				t.Fatalf("%s: Retry-After %q", side, a.Header.Get("Retry-After"))
			}
		}
		// A burst, and one a second for as long as it takes.
		if n := count[http.StatusUnauthorized]; n < 20 || n > 80 || count[http.StatusTooManyRequests] != 1001-n {
			t.Errorf("%s: %v, want some 20 times 401 and else 429", side, count)
		}
		if last := got[1001]; last.Status != http.StatusTooManyRequests {
			t.Errorf("%s: a right key let go of the brake: HTTP %d", side, last.Status)
		}
	}
	x.up.take()
	// A neighbour is not slowed down.
	x.wantRefused(t, x.wireTo(t, x.site.Proxy, "127.0.66.3", withKey("/me", otherKey(), x.id)), "key_required", http.StatusUnauthorized)
}

// othersConnections names connections that are there, with keys for others.
func (x *keyring) othersConnections(t *testing.T) {
	gone := x.connectTo("raw", "u2")
	x.must(t, http.MethodDelete, "/v1/connections/"+gone)
	never := gone[:len("conn_")] + strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		return 'A'
	}, gone[len("conn_"):])
	unknown := x.wire(t, withKey("/me", x.narrow, never))
	x.wantRefused(t, unknown, "connection_not_found", http.StatusNotFound)
	for name, request := range map[string]struct {
		port    int
		key, id string
		reason  string
	}{
		"A067 another user's":                   {x.site.Proxy, x.narrow, x.theirs, "user_not_allowed"},
		"A067 the other way round":              {x.site.Proxy, x.other, x.id, "user_not_allowed"},
		"A067 deleted":                          {x.site.Proxy, x.narrow, gone, "connection_unknown"},
		"A067 no ID":                            {x.site.Proxy, x.narrow, "conn_x", ""},
		"A069 the same user's, at another":      {x.site.Proxy, x.narrow, x.fakeID, "integration_not_allowed"},
		"A069 with a key that opens everything": {x.site.Proxy, x.clientKey, never, "connection_unknown"},
		"A070 another integration's":            {x.bound, x.clientKey, x.fakeID, "integration_not_allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			calls := x.fake.Ledger().CallCount(-1)
			got := x.wireTo(t, request.port, "", withKey("/me", request.key, request.id))
			x.wantRefused(t, got, "connection_not_found", http.StatusNotFound)
			same(t, unknown[0], got[0])
			if n := x.fake.Ledger().CallCount(-1); n != calls {
				t.Error("the other provider was called")
			}
			if request.reason != "" {
				x.wantEvent(t, event{Type: "call.refused", ConnectionID: request.id, Reason: request.reason})
			}
		})
	}
	for name, request := range map[string]string{
		"A067 in the slot":                     "GET /me HTTP/1.1\n" + unnamed + "Authorization: Bearer " + x.narrow + "." + x.theirs + "\n\n",
		"A067 with the ID of one's own beside": "GET /me HTTP/1.1\n" + unnamed + "Lanyard-Key: " + x.narrow + "\nConnection-Id: {ID}\nAuthorization: Bearer " + x.theirs + "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			x.wantRefused(t, x.wire(t, crlf(request)), "", http.StatusNotFound, http.StatusBadRequest)
		})
	}
	x.wire(t, withKey("/me", x.narrow, x.id))
	x.wantOne(t)
	x.wire(t, withKey("/anything", x.other, x.theirs))
	x.wantOne(t)
}

// limitedCalls sends what a key may not: see also targets.
func (x *keyring) limitedCalls(t *testing.T) {
	for _, target := range []string{"GET /v1/a", "POST /v1/a/b?x=/../admin", "GET /me?x=1", "GET /v1//a"} {
		got := x.wire(t, crlf(target+" HTTP/1.1\n"+unnamed+"Lanyard-Key: "+x.narrow+"\nConnection-Id: {ID}\nContent-Length: 0\n\n"))
		method, path, _ := strings.Cut(target, " ")
		if r := x.wantOne(t); len(got) != 1 || got[0].Status != http.StatusOK || !strings.HasPrefix(r.raw, method+" /api"+path+" HTTP/1.1\r\n") {
			t.Errorf("%s: %v, %q", target, statusesOf(got), r.raw)
		}
	}
	tests := []struct{ name, target, lines string }{
		{"A089 another path", "GET /admin", ""},
		{"A089 the parent", "GET /v1", ""},
		{"A089 another that begins alike", "GET /v10", ""},
		{"A089 below a whole one", "GET /me/x", ""},
		{"A089 another case", "GET /V1/a", ""},
		{"A089 escaped", "GET /%761/a", ""},
		{"A089 an escaped slash", "GET /v1%2fa", ""},
		{"A089 dots", "GET /v1/../admin", ""},
		{"A089 dots in escapes", "GET /v1/%2e%2e/admin", ""},
		{"A089 dots in escapes of escapes", "GET /v1/%252e%252e/admin", ""},
		{"A089 dots and parameters", "GET /v1/..;/admin", ""},
		{"A089 dots and a backslash", "GET /v1/..%5cadmin", ""},
		{"A089 an empty segment before", "GET //v1/a", ""},
		{"A089 a declared host's name in the path", "GET /_host/UPSTREAM/v1/a", ""},
		{"A090 in the query", "GET /admin?x=/v1/", ""},
		{"A090 behind a number sign", "GET /admin%23/v1/", ""},
		{"A090 behind a question mark", "GET /v1%3f/../admin", ""},
		{"A090 a fragment", "GET /admin#/v1/", ""},
		{"A095 another method", "DELETE /v1/a", ""},
		{"A095 in lower case", "get /v1/a", ""},
		{"A095 X-HTTP-Method-Override", "POST /v1/a", "X-HTTP-Method-Override: DELETE\n"},
		{"A095 X-HTTP-Method", "POST /v1/a", "X-HTTP-Method: DELETE\n"},
		{"A095 X-Method-Override", "POST /v1/a", "x-method-override: DELETE\n"},
		{"A095 X-Original-URL", "GET /v1/a", "X-Original-URL: /admin\n"},
		{"A095 X-Rewrite-URL", "GET /v1/a", "X-Rewrite-URL: /admin\n"},
		{"A095 another host's name", "GET /v1/a", "Lanyard-Host: UPSTREAM\n"},
	}
	fill := strings.NewReplacer("UPSTREAM", x.up.addr)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := x.wire(t, crlf(fill.Replace(tt.target+" HTTP/1.1\n"+unnamed+"Lanyard-Key: "+x.narrow+"\nConnection-Id: {ID}\nContent-Length: 0\n"+tt.lines+"\n")))
			x.wantRefused(t, got, "", http.StatusForbidden, http.StatusBadRequest)
			if code := got[0].Header.Get("Lanyard-Error"); !slices.Contains([]string{"not_allowed", "path_invalid", "host_not_allowed"}, code) {
				t.Errorf("Lanyard-Error: %q", code)
			}
		})
	}
	x.wantEvent(t, event{Type: "call.refused", ConnectionID: x.id, Reason: "path_not_allowed"})
	x.wantEvent(t, event{Type: "call.refused", ConnectionID: x.id, Reason: "method_not_allowed"})
}

// noUser begins without a user. DESIGN section 3: that is user default, and
// nobody else's.
func (x *keyring) noUser(t *testing.T) {
	var c connection
	x.api(http.MethodPost, "/v1/connections", map[string]any{"integration": "raw", "redirect_url": x.app.url + "/callback", "state": "app-state"}, &c)
	back := x.follow(newBrowser(t), x.connection(c.ID).ConnectURL)
	for _, body := range []map[string]string{{"completion_code": back.Get("completion_code")}, {"completion_code": back.Get("completion_code"), "user_id": ""}} {
		if a := x.api(http.MethodPost, "/v1/connections/"+c.ID+"/complete", body, nil); a.Status != http.StatusBadRequest {
			t.Errorf("completed for nobody: HTTP %d: %s", a.Status, a.Body)
		}
	}
	x.complete(c.ID, back.Get("completion_code"), "default")
	if got := x.connection(c.ID).UserID; got != "default" {
		t.Errorf("it is user %q's", got)
	}
	x.wantRefused(t, x.wire(t, withKey("/me", x.other, c.ID)), "connection_not_found", http.StatusNotFound)
}

func (x *keyring) notActive(t *testing.T) {
	firstLife(x.world, 1)
	dead := x.connectTo("raw", "u4")
	begun := x.begin("u3")
	denied := x.begin("u3")
	browser := newBrowser(t)
	back, err := fakeprovider.Deny(t.Context(), browser, x.open(browser, denied.ConnectURL))
	if err != nil {
		t.Fatal(err)
	}
	x.finish(browser, back)
	revoked, gone := x.connectTo("raw", "u3"), x.connectTo("raw", "u3")
	x.must(t, http.MethodPost, "/v1/connections/"+revoked+"/revoke")
	x.must(t, http.MethodDelete, "/v1/connections/"+gone)
	// A token that is still good serves on.
	x.eventually("the token has expired", x.expired(dead))
	x.fake.Faults.Token(fakeprovider.InvalidGrant().OnRefresh())
	if got := x.api(http.MethodPost, "/v1/connections/"+dead+"/refresh", nil, nil); got.Status != http.StatusFailedDependency {
		t.Errorf("a refresh that is refused: HTTP %d: %s", got.Status, got.Body)
	}
	for name, tt := range map[string]struct {
		id     string
		status int
		code   string
		link   bool
	}{
		"INITIATED": {begun.ID, 409, "connection_not_active", true},
		"FAILED":    {denied.ID, 409, "connection_not_active", true},
		"REVOKED":   {revoked, 424, "reconnect_required", true},
		"EXPIRED":   {dead, 424, "reconnect_required", true},
		"deleted":   {gone, 404, "connection_not_found", false},
	} {
		got := x.wire(t, withKey("/me", x.clientKey, tt.id))
		x.wantRefused(t, got, tt.code, tt.status)
		var body struct {
			ConnectURL string `json:"connect_url"`
		}
		if err := json.Unmarshal([]byte(got[0].Body), &body); err != nil || (body.ConnectURL != "") != tt.link {
			t.Errorf("%s: connect_url %q, %v", name, body.ConnectURL, err)
		}
	}
}

// keyInURL sends keys where none is looked for. Those are no real ones: what
// stands in a URL stands in the access log.
func (x *keyring) keyInURL(t *testing.T) {
	key := otherKey()
	for _, target := range []string{"/me?api_key=" + key, "/me?lanyard_key=" + key + "&connection_id={ID}", "http://u:" + key + "@127.0.0.1/me", "/c/{ID}/me?key=" + key} {
		x.wantRefused(t, x.wire(t, crlf("GET "+target+" HTTP/1.1\n"+unnamed+"Connection-Id: {ID}\n\n")), "key_required", http.StatusUnauthorized)
	}
	// A query names no connection, and goes out as it came.
	x.wantRefused(t, x.wire(t, crlf("GET /me?connection_id={ID} HTTP/1.1\n"+unnamed+"Lanyard-Key: {KEY}\n\n")), "connection_required", http.StatusBadRequest)
	x.wire(t, crlf("GET /me?connection_id="+url.QueryEscape(x.theirs)+" HTTP/1.1\n"+named+"\n"))
	if r := x.up.take(); len(r) != 1 || !strings.HasPrefix(r[0].raw, "GET /api/me?connection_id="+x.theirs+" ") {
		t.Errorf("%v", r)
	}
}

// noReveal asks for tokens. That none stands in an answer is the sweep's to say.
func (x *keyring) noReveal(t *testing.T) {
	for _, path := range []string{"", "/token", "/credential", "/export", "/secrets"} {
		if a := x.api(http.MethodGet, "/v1/connections/"+x.id+path+"?reveal=true", nil, nil); path != "" && a.Status != http.StatusNotFound {
			t.Errorf("%s: HTTP %d: %s", path, a.Status, a.Body)
		}
	}
	for _, path := range []string{"/v1/connections", "/v1/events", "/v1/integrations"} {
		x.api(http.MethodGet, path, nil, nil)
	}
}
