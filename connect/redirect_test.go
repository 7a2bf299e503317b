package connect_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/connect"
)

// redirectCorpus are addresses that look like the registered one, or that
// something careless would take.
var redirectCorpus = []string{
	// user info
	"https://app.example.com@evil.example/cb", "https://app.example.com:443@evil.example/cb", "https://app.example.com%2f@evil.example/",
	"https://user@app.example.com/cb", "https://@app.example.com/cb", "https://app.example.com%40evil.example/cb",
	// slashes
	`https:\\evil.example`, `/\evil.example`, `https://app.example.com\@evil.example/`, "/%5cevil.example", `https://app.example.com\cb`,
	"//evil.example", "///evil.example", "https:///evil.example", "https:evil.example", "http:/evil.example", "//app.example.com/cb",
	"https:/app.example.com/cb", "https:app.example.com/cb", "https:///app.example.com/cb",
	// suffixes, prefixes, dots
	"https://app.example.com.evil.example/cb", "https://app.example.comevil/cb", "https://app.example.com./cb", "https://xapp.example.com/cb",
	"https://evil.example/app.example.com/cb", "https://evil.example/?https://app.example.com/cb", "https://*.example.com/cb",
	// case, scripts
	"https://APP.example.com/cb", "HTTPS://app.example.com/cb", "https://app。example。com/cb", "https://аpp.example.com/cb",
	"https://xn--pp-6kc.example.com/cb", "https://app.exaｍple.com/cb",
	// paths
	"https://app.example.com/cb/../evil", "https://app.example.com/cb/%2e%2e/evil", "https://app.example.com/cb/..;/x", "https://app.example.com/cbevil",
	"https://app.example.com/cb/", "https://app.example.com/cb%2f..", "https://app.example.com/CB", "https://app.example.com//cb",
	"https://app.example.com/./cb", "https://app.example.com/%63b", "https://app.example.com", "https://app.example.com/", "https://app.example.com/x/../cb",
	// query, fragment, spaces
	"https://app.example.com/cb?state=x&code=y&connection_id=z&error=q", "https://app.example.com/cb?", "https://app.example.com/cb#", "https://app.example.com/cb#x",
	"https://evil.example?@app.example.com/cb", "https://evil.example#@app.example.com/cb", "https://app.example.com/cb?next=https://evil.example",
	" https://app.example.com/cb", "https://app.example.com/cb ", "https://app.example.com/cb%20", "https://app.example.com/cb%0d%0aLocation:https://evil.example",
	// schemes
	"javascript:alert(1)//https://app.example.com/cb", "data:text/html,x", "vbscript:x", "file:///cb", "blob:https://app.example.com/cb", "myapp://x",
	"http://app.example.com/cb", "ws://app.example.com/cb",
	// hosts and ports
	"http://127.1/cb", "http://2130706433/cb", "http://0x7f.1/cb", "http://[::ffff:127.0.0.1]/cb", "http://[::1%25eth0]/cb", "http://localhost:99999/cb",
	"https://app.example.com:443/cb", "https://app.example.com:8443/cb", "https://app.example.com:/cb", "https://app.example.com:0443/cb",
	"http://localhost:3000/cb", "http://[::1]:3000/cb", "http://localhost.evil.example:3000/cb",
	"cb", "/cb", ".", "*",
}

func TestUnregisteredRedirects(t *testing.T) {
	b := newBench(t)
	for _, u := range redirectCorpus {
		for _, errc := range []bool{false, true} {
			br := b.browser()
			w := br.get(b.link(func(p *connect.Params) {
				p.RedirectURL = u
				if errc { // another failure must not lead there either
					p.Scopes = []string{`"`}
				}
			}))
			wantPage(t, w, 400, "redirect_uri_mismatch")
			if strings.Contains(w.Body.String(), "evil") || len(br.jar) != 0 {
				t.Errorf("page for %q names it, or a flow began", u)
			}
		}
	}
	if len(b.p.asked) != 0 {
		t.Error("a flow began")
	}
}

func TestRegistration(t *testing.T) {
	for _, u := range []string{
		appURL, "https://app.example.com/cb?a=b&c=d%20e", "https://app.example.com:8443/", "https://app.example.com",
		"http://localhost:3000/cb", "http://127.0.0.1/cb", "http://[::1]:3000/cb",
	} {
		if err := connect.ValidRedirectURL(u); err != nil {
			t.Errorf("ValidRedirectURL(%q) = %v", u, err)
		}
	}
	for _, u := range []string{
		"", "cb", "/cb", "//app.example.com/cb", "https:", "https://", "https:cb", "http://app.example.com/cb", "http://127.0.0.2/cb", "http://127.1/cb",
		"http://[::ffff:127.0.0.1]/cb", "http://localhost.evil.example/", "https://*.example.com/cb", "https://u@app.example.com/cb", "https://@app.example.com/cb",
		"https://app.example.com/cb#", "https://app.example.com/cb#x", "https://app.example.com/cb?state=1", "https://app.example.com/cb?code=1",
		"https://app.example.com/cb?%65rror=1", "https://app.example.com/cb?connection_id", "https://app.example.com/cb?a=%zz", "https://app.example.com/a b",
		"https://app.example.com/é", `https://app.example.com\cb`, "javascript:alert(1)", "data:text/html,x", "myapp://x", "HTTPS://app.example.com/cb",
		"https://app.example.com/cb\n", "https://app。example.com/cb", "http://localhost:99999/cb", "https://app.example.com:70000/cb",
	} {
		if err := connect.ValidRedirectURL(u); err == nil {
			t.Errorf("ValidRedirectURL(%q) = nil, want an error", u)
		}
	}
	b := newBench(t)
	b.cfg.RedirectURLs = []string{"http://app.example.com/cb"}
	if connectNew(b.cfg) == nil {
		t.Error("New() takes a redirect URL that can't be registered")
	}
}

// TestStateComesBack: once, byte for byte, and without splitting anything.
func TestStateComesBack(t *testing.T) {
	states := []string{
		"plain", "a&connection_id=evil#x\r\nSet-Cookie:z=1", `"quotes" 'and' <b>`, "Zoë 李 🔑", "a+b c%20d", strings.Repeat("é", 256), "=&=", "\x00",
	}
	for _, registered := range []string{appURL, appURL + "?", appURL + "?a=b", appURL + "?a=%2F&b=", appURL + "?a&"} {
		b := newBench(t)
		b.cfg.RedirectURLs = []string{registered}
		b.remake()
		br := b.browser()
		for _, state := range states {
			link := b.link(func(p *connect.Params) { p.State, p.RedirectURL = state, registered })
			for _, more := range [][]string{nil, {"error", "access_denied"}} {
				loc := br.callback(br.open(link), more...).Header().Get("Location")
				added, ok := strings.CutPrefix(loc, registered)
				q, err := url.ParseQuery(strings.TrimLeft(added, "?&"))
				if !ok || err != nil || !slices.Equal(q["state"], []string{state}) || strings.ContainsAny(loc, "\r\n #+") {
					t.Errorf("state %q came back in %q: %v", state, loc, err)
				}
				if want := 3; len(q) != want {
					t.Errorf("%q adds %d parameters, want %d", loc, len(q), want)
				}
				if n := len(mustURL(loc).Query()) - len(q); registered == appURL+"?a=%2F&b=" && n != 2 {
					t.Errorf("%q disturbs the app's own query", loc)
				}
			}
		}
		loc := br.callback(br.open(b.link(func(p *connect.Params) { p.State, p.RedirectURL = "", registered }))).Header().Get("Location")
		if mustURL(loc).Query().Has("state") {
			t.Errorf("%q has a state that the app did not send", loc)
		}
	}
}

func TestPublicURLs(t *testing.T) {
	for raw, ok := range map[string]bool{
		"https://connect.example.com": true, "https://connect.example.com/": true, "https://app.example.com/a/b": true,
		"https://app.example.com:8443/a/": true, "http://localhost:9081": true, "http://[::1]:9081/a": true, "https://app.example.com/a%20b": true,
		"http://connect.example.com": false, "https://u@connect.example.com": false, "https://connect.example.com/?a": false,
		"https://connect.example.com:70000": false, "https://connéct.example.com": false, "https://app.example.com/a/../b": false,
		"https://app.example.com/%2e%2e/b": false, "https://app.example.com/./b": false, "https://app.example.com//b": false,
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := connect.ValidPublicURL(u); (err == nil) != ok {
			t.Errorf("ValidPublicURL(%q) = %v, want an error: %v", raw, err, !ok)
		}
	}
}
