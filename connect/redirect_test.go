package connect_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/connect"
)

// way is one of writing an address that is not appURL, but looks like it, or
// that something careless would take.
type way struct{ kind, url string }

func redirectCorpus(tb testing.TB) []way {
	tb.Helper()
	file, err := os.ReadFile("testdata/redirects.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var all []way
	var kind string
	for line := range strings.Lines(string(file)) {
		if heading, ok := strings.CutPrefix(line, "# "); ok {
			kind = strings.TrimSpace(heading)
			continue
		}
		w := way{kind: kind}
		if err := json.Unmarshal([]byte(line), &w.url); err != nil {
			tb.Fatalf("%s: %v", line, err)
		}
		all = append(all, w)
	}
	return all
}

var reference = regexp.MustCompile(`<dt>Reference</dt><dd class="mono">[a-z2-7]{10}</dd>`)

// TestUnregisteredRedirects: A037 to A049. Whatever is registered, the corpus
// leads nowhere: each is a page of 400, and no flow begins.
func TestUnregisteredRedirects(t *testing.T) {
	corpus := redirectCorpus(t)
	if len(corpus) < 500 {
		t.Fatalf("%d addresses in the corpus", len(corpus))
	}
	tests := map[string][]string{
		"one registered":  {appURL},
		"none registered": nil,
		"others too": {
			"https://app.example.com/other", "https://app.example.com/cb?x=1", "https://app.example.com:8444/cb", appURL, "http://localhost:3002/cb",
		},
		"loopback registered": {"http://localhost:3000/cb2", "http://127.0.0.1:3000/cb2", "http://[::1]:3000/cb2"},
	}
	for name, registered := range tests {
		b := newBench(t, func(b *bench) { b.cfg.RedirectURLs = registered })
		for n := 0; n < len(corpus); {
			kind := corpus[n].kind
			t.Run(kind+", "+name, func(t *testing.T) {
				for ; n < len(corpus) && corpus[n].kind == kind; n++ {
					u := corpus[n].url
					w := b.browser().get(b.link(func(p *connect.Params) {
						p.RedirectURL, p.UserID = u, fmt.Sprint("u", n)
						if n%2 == 0 { // another failure must not lead there either
							p.Scopes = []string{`"`}
						}
					}))
					// Those with control characters, or too long for a link, are no link.
					if w.Code != 400 || w.Header().Get("Location") != "" || w.Header().Get("Set-Cookie") != "" {
						t.Errorf("%q = %d %v", u, w.Code, w.Header())
					}
					// The reference is made of random letters, which may be any word's.
					body := reference.ReplaceAllString(w.Body.String(), "")
					if strings.Contains(body, "evil") || !strings.Contains(body, "redirect_uri_mismatch") && !strings.Contains(body, "link_invalid") {
						t.Errorf("page for %q names it, or gives no reason:\n%s", u, body)
					}
				}
				if len(b.p.asked) != 0 {
					t.Error("a flow began")
				}
			})
		}
	}
}

// FuzzRedirect: nothing but a registered address, byte for byte, is where a
// browser is sent, and what is registered says the same host to everybody.
func FuzzRedirect(f *testing.F) {
	for n, w := range redirectCorpus(f) {
		if n%8 == 0 {
			f.Add(appURL, w.url, "s")
		}
	}
	for _, u := range []string{appURL, appURL + "?", appURL + "?a=b", appURL + "?a&", "http://localhost:3000", "http://[::1]:3000/x", "https://h_-.9/"} {
		f.Add(u, u, "a&connection_id=evil#x\r\nSet-Cookie:z=1")
	}
	f.Fuzz(func(t *testing.T, registered, asked, state string) {
		if connect.ValidRedirectURL(registered) != nil {
			t.Skip("no address that can be registered")
		}
		b := newBench(t, func(b *bench) { b.cfg.RedirectURLs = []string{registered} })
		br := b.browser()
		// All that is added is a query; nobody reads another host out of it.
		leads := func(loc string) {
			t.Helper()
			added, ok := strings.CutPrefix(loc, registered)
			u, err := url.Parse(loc)
			if !ok || err != nil || u.Host != mustURL(registered).Host || u.User != nil || u.Fragment != "" || strings.ContainsAny(loc, "\\ \r\n\t#") {
				t.Fatalf("%q registered: the browser is sent to %q", registered, loc)
			}
			if q, err := url.ParseQuery(strings.TrimLeft(added, "?&")); err != nil || q.Get("state") != state {
				t.Fatalf("state %q comes back in %q: %v", state, loc, err)
			}
		}
		for _, more := range [][]string{nil, {"error", "access_denied"}} {
			w := br.get(b.link(func(p *connect.Params) { p.RedirectURL, p.State = asked, state }))
			to := w.Header().Get("Location")
			if asked != registered || w.Code == 400 {
				if w.Code != 400 || to != "" || len(b.p.asked) != 0 {
					t.Fatalf("%q registered, %q asked: %d %q", registered, asked, w.Code, to)
				}
				return
			}
			if !strings.HasPrefix(to, "https://idp.example/authorize?") {
				t.Fatalf("%q leads to %q", asked, to)
			}
			leads(br.callback(mustURL(to).Query().Get("state"), more...).Header().Get("Location"))
		}
	})
}

func TestRegistration(t *testing.T) {
	for _, u := range []string{
		appURL, "https://app.example.com/cb?a=b&c=d%20e", "https://app.example.com:8443/", "https://app.example.com",
		"http://localhost:3000/cb", "http://127.0.0.1/cb", "http://[::1]:3000/cb", "https://a_b-c.example.com./x//y/..z/%2A", "https://[2001:db8::1]/cb",
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
		"https://app.example.com/*", "https://app.example.com/cb?*", "https://app.example.com/a/../cb", "https://app.example.com/./cb", "https://app.example.com/%2e%2E/cb",
		"https://app.example.com/..%2fcb", "https://app.example.com;evil.example/cb", "https://app.example.com,evil.example/cb", "https://<b>/cb", "https://a&b/cb",
		`https://"/cb`, "https://[fe80::1%25eth0]/cb", "https://app.example.com/cb?a=b&completion_code=1", "https://app.example.com/cb?error_description=1",
		"https://app.example.com/cb?a=1;state=2", "https://%65vil.example/cb", "https://[::1]evil.example/cb",
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
		t.Run("A021 "+registered, func(t *testing.T) {
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
		})
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
