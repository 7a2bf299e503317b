package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		start := time.Now().UTC()
		a := b.do("POST", "/v1/connections", `{
			"integration": "github", "user_id": "u-7", "scopes": [ "repo" , "read:user", "repo"], "redirect_url": "`+otherAppURL+`",
			"name": "Ann's", "labels": { "team" : "a=b,c" }, "state": "s 1"}`)
		b.wants(a, 201, "")
		c := b.stored(a.json["id"].(string))
		want := tokenstore.Connection{
			ID: c.ID, Integration: "github", Provider: "github", UserID: "u-7", Name: "Ann's",
			Labels: map[string]string{"team": "a=b,c"}, Status: tokenstore.StatusInitiated, AuthScheme: tokenstore.AuthOAuth2,
			RequestedScopes: []string{"repo", "read:user"}, RedirectURL: otherAppURL,
			CreatedAt: start, UpdatedAt: start, InitiatedUntil: start.Add(25 * time.Minute), Revision: 1,
		}
		if d := cmp.Diff(want, c, cmp.Comparer(func(a, b tokenstore.Token) bool { return a.Generation == b.Generation })); d != "" {
			t.Errorf("stored (-want +got):\n%s", d)
		}
		link, _ := url.Parse(a.json["connect_url"].(string))
		q := link.Query()
		if q.Get("connection_id") != c.ID || q.Get("redirect_url") != otherAppURL || q.Get("state") != "s 1" {
			t.Errorf("connect_url = %s", link)
		}
		if strings.Contains(a.text, `\u0026`) {
			t.Errorf("connect_url can't be copied: %s", a.text)
		}
		if got, want := a.json["expires_at"], start.Add(15*time.Minute).Format(time.RFC3339); got != want {
			t.Errorf("expires_at = %v, want %v", got, want)
		}
		if a.json["status"] != "INITIATED" || len(a.json) != 4 {
			t.Errorf("answer = %s", a.text)
		}
		b.logged("connection begun", c.ID)
	})
}

// logged fails unless a change was recorded once.
func (b *bench) logged(what, id string) {
	b.t.Helper()
	n := 0
	for _, e := range b.logs.FilterMessage(what).All() {
		if f := e.ContextMap(); f["connection_id"] == id && f["integration"] == "github" {
			n++
		}
	}
	if n != 1 {
		b.t.Errorf("%q for %s is logged %d times", what, id, n)
	}
}

func TestBeginDefaults(t *testing.T) {
	b := newBench(t, func(c *api.Config) { delete(c.Integrations, "gl") })
	for _, body := range []string{"", "{}", `{"scopes":[]}`} {
		a := b.do("POST", "/v1/connections", body)
		b.wants(a, 201, "")
		c := b.stored(a.json["id"].(string))
		if c.Integration != "github" || c.UserID != "default" || c.RedirectURL != appURL || !slices.Equal(c.RequestedScopes, []string{"read:user"}) {
			t.Errorf("begin %q stored %s, %s, %s, %v", body, c.Integration, c.UserID, c.RedirectURL, c.RequestedScopes)
		}
	}
	b = newBench(t, func(c *api.Config) { c.RedirectURLs = nil })
	a := b.do("POST", "/v1/connections", `{"integration":"gl","scopes":["anything"]}`)
	b.wants(a, 201, "")
	if c := b.stored(a.json["id"].(string)); c.RedirectURL != "" {
		t.Errorf("redirect_url = %q where none is configured", c.RedirectURL)
	}
	b.wants(b.do("POST", "/v1/connections", `{"integration":"gl","redirect_url":"`+appURL+`"}`), 400, "redirect_uri_mismatch")
}

func TestBadInputChangesNothing(t *testing.T) {
	b := newBench(t)
	c := b.put(staged("s"))
	begin, one := "/v1/connections", "/v1/connections/"+c.ID
	with := func(member string) string { return `{"integration":"github",` + member + `}` }
	labels := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"k%d":"v"`, i))
		}
		return with(`"labels":{` + strings.Join(all, ",") + `}`)
	}
	tests := []struct {
		name, method, path, body string
		status                   int
		code, names              string // names: a word of the detail
	}{
		{"unknown field", "POST", begin, with(`"nonsense":1`), 400, "invalid_request", `"nonsense"`},
		{"field in another case", "POST", begin, with(`"User_ID":"x"`), 400, "invalid_request", `"User_ID"`},
		{"duplicate field", "POST", begin, with(`"user_id":"a","user_id":"b"`), 400, "invalid_request", `"user_id"`},
		{"duplicate, escaped", "POST", begin, with(`"user_id":"a","user_\u0069d":"b"`), 400, "invalid_request", `"user_id"`},
		{"not an object", "POST", begin, `["github"]`, 400, "invalid_request", "object"},
		{"null", "POST", begin, `null`, 400, "invalid_request", "object"},
		{"cut short", "POST", begin, `{"integration":"github"`, 400, "invalid_request", "object"},
		{"trailing bytes", "POST", begin, `{"integration":"github"}x`, 400, "invalid_request", "object"},
		{"second object", "POST", begin, `{"integration":"github"}{}`, 400, "invalid_request", "object"},
		{"not UTF-8", "POST", begin, with("\"user_id\":\"\xff\""), 400, "invalid_request", "UTF-8"},
		{"lone surrogate", "POST", begin, with(`"user_id":"\ud800"`), 400, "invalid_request", "`user_id`"},
		{"control character", "POST", begin, with(`"user_id":"a\nb"`), 400, "invalid_request", "`user_id`"},
		{"no integration", "POST", begin, `{}`, 400, "invalid_request", "github, gl"},
		{"unknown integration", "POST", begin, `{"integration":"gihub"}`, 400, "invalid_request", "github, gl"},
		{"integration is a number", "POST", begin, `{"integration":1}`, 400, "invalid_request", "`integration`"},
		{"user_id is null", "POST", begin, with(`"user_id":null`), 400, "invalid_request", "`user_id`"},
		{"user_id is empty", "POST", begin, with(`"user_id":""`), 400, "invalid_request", "`user_id`"},
		{"user_id is long", "POST", begin, with(`"user_id":"` + strings.Repeat("ü", 257) + `"`), 400, "invalid_request", "`user_id`"},
		{"name is long", "POST", begin, with(`"name":"` + strings.Repeat("n", 257) + `"`), 400, "invalid_request", "`name`"},
		{"state is long", "POST", begin, with(`"state":"` + strings.Repeat("ü", 300) + `"`), 400, "invalid_request", "`state`"},
		{"scopes is a string", "POST", begin, with(`"scopes":"repo"`), 400, "invalid_request", "`scopes`"},
		{"scopes holds a number", "POST", begin, with(`"scopes":[1]`), 400, "invalid_request", "`scopes`"},
		{"scopes holds null", "POST", begin, with(`"scopes":[null]`), 400, "invalid_request", "`scopes`"},
		{"undeclared scope", "POST", begin, with(`"scopes":["repo","admin:org"]`), 400, "invalid_scope", `"admin:org"`},
		{"two scopes in one", "POST", begin, `{"integration":"gl","scopes":["a b"]}`, 400, "invalid_scope", `"a b"`},
		{"empty scope", "POST", begin, `{"integration":"gl","scopes":[""]}`, 400, "invalid_scope", `""`},
		{"too many scopes", "POST", begin, `{"integration":"gl","scopes":["` + strings.Repeat("s", 4097) + `"]}`, 400, "invalid_request", "`scopes`"},
		{"labels is a list", "POST", begin, with(`"labels":[]`), 400, "invalid_request", "`labels`"},
		{"duplicate label", "POST", begin, with(`"labels":{"a":"1","a":"2"}`), 400, "invalid_request", `"a"`},
		{"label is a number", "POST", begin, with(`"labels":{"a":1}`), 400, "invalid_request", `"a"`},
		{"label with =", "POST", begin, with(`"labels":{"a=b":"1"}`), 400, "invalid_request", `"a=b"`},
		{"label without a name", "POST", begin, with(`"labels":{"":"1"}`), 400, "invalid_request", "`labels`"},
		{"label with a long name", "POST", begin, with(`"labels":{"` + strings.Repeat("k", 65) + `":"1"}`), 400, "invalid_request", "64"},
		{"label with a long value", "POST", begin, with(`"labels":{"a":"` + strings.Repeat("v", 257) + `"}`), 400, "invalid_request", "256"},
		{"too many labels", "POST", begin, labels(33), 400, "invalid_request", "32"},
		{"query at begin", "POST", begin + "?user_id=a", with(`"name":"n"`), 400, "invalid_request", `"user_id"`},
		{"over 1 MiB", "POST", begin, with(`"name":"` + strings.Repeat("n", 1<<20) + `"`), 413, "body_too_large", "1 MiB"},

		{"unknown parameter", "GET", begin + "?lable=a", "", 400, "invalid_request", `"lable"`},
		{"label without a value", "GET", begin + "?label=a", "", 400, "invalid_request", "`label`"},
		{"label without a name", "GET", begin + "?label=%3Da", "", 400, "invalid_request", "`label`"},
		{"label is empty", "GET", begin + "?label=a%3Db&label=", "", 400, "invalid_request", "`label`"},
		{"label with two values", "GET", begin + "?label=a%3Db&label=a%3Dc", "", 400, "invalid_request", "`label`"},
		{"label elsewhere", "GET", one + "?label=a%3Db", "", 400, "invalid_request", `"label"`},
		{"repeated parameter", "GET", begin + "?status=ACTIVE&status=FAILED", "", 400, "invalid_request", `"status"`},
		{"not form-encoded", "GET", begin + "?a;b", "", 400, "invalid_request", "query"},
		{"empty filter", "GET", begin + "?user_id=", "", 400, "invalid_request", "`user_id`"},
		{"wrong status", "GET", begin + "?status=active", "", 400, "invalid_request", "`status`"},
		{"limit 0", "GET", begin + "?limit=0", "", 400, "invalid_request", "`limit`"},
		{"limit 201", "GET", begin + "?limit=201", "", 400, "invalid_request", "`limit`"},
		{"limit signed", "GET", begin + "?limit=%2B5", "", 400, "invalid_request", "`limit`"},
		{"wrong cursor", "GET", begin + "?cursor=nonsense", "", 400, "invalid_request", "`cursor`"},
		{"body on a GET", "GET", one, `{"a":1}`, 400, "invalid_request", `"a"`},
		{"body on a DELETE", "DELETE", one, `{"revoke":false}`, 400, "invalid_request", `"revoke"`},
		{"wrong revoke", "DELETE", one + "?revoke=no", "", 400, "invalid_request", "`revoke`"},
		{"revoke misspelt", "DELETE", one + "?revok=false", "", 400, "invalid_request", `"revok"`},
		{"revoke takes nothing", "POST", one + "/revoke?revoke=false", "", 400, "invalid_request", `"revoke"`},
		{"refresh takes nothing", "POST", one + "/refresh", `{"force":true}`, 400, "invalid_request", `"force"`},
		{"connect elsewhere", "POST", one + "/connect", `{"redirect_url":"https://evil.example/"}`, 400, "redirect_uri_mismatch", "`redirect_url`"},
		{"connect for more", "POST", one + "/connect", `{"scopes":["admin:org"]}`, 400, "invalid_scope", `"admin:org"`},
		{"complete nothing", "POST", one + "/complete", "", 400, "invalid_request", "`completion_code`"},
		{"complete without a user", "POST", one + "/complete", `{"completion_code":"code-s"}`, 400, "invalid_request", "`user_id`"},
		{"complete for nobody", "POST", one + "/complete", completion("code-s", ""), 400, "invalid_request", "`user_id`"},
		{"complete without a code", "POST", one + "/complete", `{"user_id":"u1"}`, 400, "invalid_request", "`completion_code`"},
		{"complete and more", "POST", one + "/complete", `{"completion_code":"code-s","user_id":"u1","x":1}`, 400, "invalid_request", `"x"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := b.do(tt.method, tt.path, tt.body)
			b.wants(a, tt.status, tt.code)
			if detail := a.json["detail"].(string); !strings.Contains(detail, tt.names) {
				t.Errorf("detail %q does not name %s", detail, tt.names)
			}
		})
	}
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"} {
		a := b.do("POST", begin, `{"integration":"github"}`, func(r *http.Request) { r.Header["Content-Type"] = []string{media} })
		b.wants(a, 415, "unsupported_media_type")
	}
	if got := b.stored(c.ID).Revision; got != c.Revision || b.count() != 1 {
		t.Errorf("bad input changed something: revision %d, %d connections", got, b.count())
	}
	b.wants(b.do("POST", begin, labels(32)), 201, "")
	b.wants(b.do("POST", begin, with(`"name":"n"`), func(r *http.Request) { r.Header.Set("Content-Type", "application/JSON; charset=UTF-8") }), 201, "")
}

func TestRedirectURLIsComparedExactly(t *testing.T) {
	b := newBench(t)
	for _, given := range []string{
		"https://app.example.com@evil.example/cb", "https://app.example.com:443@evil.example/cb", "https://app.example.com%2f@evil.example/",
		`https:\\evil.example`, `/\evil.example`, `https://app.example.com\@evil.example/`, "/%5cevil.example",
		"//evil.example", "///evil.example", "https:///evil.example", "https:evil.example", "http:/evil.example",
		"https://app.example.com.evil.example/cb", "https://app.example.comevil/cb", "https://app.example.com./cb", "https://xapp.example.com/cb",
		"https://APP.example.com/cb", "https://app。example。com/cb", "https://xn--app-6ka.example.com/cb",
		appURL + "/../evil", appURL + "/%2e%2e/evil", appURL + "/..;/x", appURL + "evil", appURL + "/", appURL + "%2f..", "https://app.example.com/CB",
		appURL + "?state=x&code=y&connectionId=z&error=q", "https://evil.example?@app.example.com/cb", appURL + "#x", appURL + " ", "",
		"javascript:alert(1)//https://app.example.com/cb", "data:text/html,x", "vbscript:", "file:///", "blob:", "myapp://x",
		"http://127.1/cb", "http://2130706433/cb", "http://0x7f.1/cb", "http://[::ffff:127.0.0.1]/cb", "http://[::1%25eth0]/cb", "http://localhost:99999/cb",
	} {
		a := b.do("POST", "/v1/connections", fmt.Sprintf(`{"integration":"github","redirect_url":%q}`, given))
		if a.status != 400 || a.code() != "redirect_uri_mismatch" || strings.Contains(a.text, "evil") {
			t.Errorf("%s: %d %s", given, a.status, a.text)
		}
	}
	if b.count() != 0 {
		t.Errorf("%d connections were begun", b.count())
	}
}
