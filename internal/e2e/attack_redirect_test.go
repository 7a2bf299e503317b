package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// redirects :: case → addresses that are not registered. EVIL stands for the
// attacker's host, PORT for the app's port on localhost, NEXT for another.
var redirects = map[string][]string{
	"A037 redirect_url: userinfo": {
		"https://app.example.com@EVIL/cb", "https://app.example.com:443@EVIL/cb", "https://app.example.com%2f@EVIL/", "https://user@app.example.com/cb",
		"https://@app.example.com/cb", "http://localhost:PORT@EVIL/callback", "http://localhost:PORT%40EVIL/callback",
	},
	"A038 redirect_url: backslash and mixed slashes": {
		`https:\\EVIL`, `/\EVIL`, `\\EVIL`, `https://app.example.com\@EVIL/`, "/%5cEVIL", `https://app.example.com\cb`, `http:\\localhost:PORT/callback`, `http://EVIL\@localhost:PORT/callback`,
	},
	"A039 redirect_url: scheme relative and missing host": {
		"//EVIL", "///EVIL", "https:///EVIL", "https:EVIL", "http:/EVIL", "//app.example.com/cb", "https:/app.example.com/cb", "https:app.example.com/cb", "//localhost:PORT/callback",
	},
	"A041 redirect_url: suffix, prefix and dot tricks": {
		"https://app.example.com.EVIL/cb", "https://app.example.comevil/cb", "https://app.example.com./cb", "https://xapp.example.com/cb",
		"http://localhost.:PORT/callback", "http://localhost.EVIL/callback", "https://EVIL/app.example.com/cb", "https://*.example.com/cb",
	},
	"A042 redirect_url: case, IDN and full width": {
		"https://APP.example.com/cb", "HTTPS://app.example.com/cb", "https://app。example。com/cb", "https://аpp.example.com/cb",
		"https://xn--pp-6kc.example.com/cb", "https://app.exaｍple.com/cb", "http://LOCALHOST:PORT/callback", "http://ｌocalhost:PORT/callback", "http://localho\u017ft:PORT/callback",
	},
	"A043 redirect_url: path traversal and prefix": {
		elsewhere + "/../evil", elsewhere + "/%2e%2e/evil", elsewhere + "/..;/x", elsewhere + "evil", elsewhere + "/", elsewhere + "%2f..",
		"https://app.example.com/CB", "https://app.example.com//cb", "https://app.example.com/./cb", "https://app.example.com/x/../cb", "https://app.example.com/%63b",
		"https://app.example.com", "https://app.example.com/", "http://localhost:PORT/callback/", "http://localhost:PORT/callback%00", "http://localhost:PORT/",
	},
	"A045 redirect_url: query pollution": {
		elsewhere + "?state=x&code=y&connection_id=z&error=q", "https://EVIL?@app.example.com/cb", "https://EVIL#@app.example.com/cb", elsewhere + "?", elsewhere + "#", elsewhere + "#x",
		elsewhere + "?next=https://EVIL", elsewhere + "?connectionId=z", elsewhere + "&", elsewhere + ";", elsewhere + " ", " " + elsewhere, elsewhere + "%20",
		elsewhere + "%0d%0aLocation:https://EVIL", "http://localhost:PORT/callback?completion_code=x",
	},
	"A046 redirect_url: dangerous schemes": {
		"javascript:alert(1)//https://app.example.com/cb", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///cb", "blob:https://app.example.com/cb",
		"myapp://x", "http://app.example.com/cb", "ws://app.example.com/cb", "https://localhost:PORT/callback", "view-source:https://app.example.com/cb",
	},
	"A047 redirect_url: numeric and odd hosts": {
		"http://127.1/cb", "http://2130706433/cb", "http://0x7f.1/cb", "http://[::ffff:127.0.0.1]/cb", "http://[::1%25eth0]/cb", "http://localhost:99999/cb",
		"http://127.1:PORT/callback", "http://0:PORT/callback", "http://2130706433:PORT/callback", "https://app.example.com:443/cb", "https://app.example.com:/cb", "https://app.example.com:0443/cb",
	},
	"A049 Localhost port wildcard": {
		"http://localhost:NEXT/callback", "http://localhost/callback", "http://[::1]:PORT/callback", "http://127.0.0.1:PORT/callback", "http://localhost.EVIL:PORT/callback", "http://localhost:0PORT/callback",
	},
}

// corpus holds more of them, in package connect's folder, one a line.
const corpus = "../../connect/testdata/redirects.txt"

func TestAttacksOnTheRedirect(t *testing.T) {
	a := newArena(t)
	fill := strings.NewReplacer("EVIL", a.evil.host, "PORT", query(t, "?"+strings.ReplaceAll(a.app.url, "http://localhost:", "p=")).Get("p"), "NEXT", fmt.Sprint(a.site.Proxy))

	connections := a.count()
	for name, addresses := range redirects {
		a.in(t, name, func(*testing.T) {
			for _, address := range addresses {
				// Another failure must not lead there either.
				for _, more := range [][]string{nil, {"scopes", `"`}, {"connection_id", "conn_none"}} {
					a.wantRedirectRefused(newBrowser(a.t), fill.Replace(address), more...)
				}
			}
		})
	}
	a.in(t, "A037 to A049, the corpus", func(t *testing.T) {
		f, err := os.Open(corpus)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n := 0
		var browser *http.Client
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if lines.Text() == "" || lines.Text()[0] == '#' {
				continue
			}
			var address string // the file has them as JSON strings
			if err := json.Unmarshal(lines.Bytes(), &address); err != nil {
				t.Fatal(err)
			}
			if n%20 == 0 { // one address may not guess for long
				browser = newBrowser(t)
			}
			a.wantRedirectRefused(browser, address)
			n++
		}
		if n < 500 {
			t.Errorf("%d addresses, want at least 500", n)
		}
	})
	if n := a.count(); n != connections {
		t.Errorf("%d connections, %d before", n, connections)
	}
	if n := len(a.fake.Ledger().Grants); n > 0 {
		t.Errorf("%d flows came to the provider", n)
	}
	a.wantNotCalled()

	a.in(t, "A021 App state echoed exactly and once", func(t *testing.T) { a.statesComeBack(t) })

	a.in(t, "A050 Wildcards and weak registrations refused", func(t *testing.T) {
		registered := a.site.Extra
		defer func() { a.site.Extra = registered }()
		for _, address := range []string{
			"https://*.example.com/cb", "http://app.example.com/cb", elsewhere + "#x", "https://user@app.example.com/cb",
			elsewhere + "?state=1", elsewhere + "?code=1", elsewhere + "?completion_code=1", "/cb", "//app.example.com/cb", "http://127.0.0.2/cb", "javascript:alert(1)",
		} {
			a.site.Extra = registered + "\nredirect_url " + `"` + address + `"`
			if err := a.reload(); err == nil || !strings.Contains(err.Error(), "redirect_url") || !strings.Contains(err.Error(), address) {
				t.Errorf("%q is taken, or the error doesn't name it: %v", address, err)
			}
		}
	})

	a.in(t, "A051 Redirect target removed between start and callback", func(t *testing.T) {
		f := a.sendAway()
		registered, before := a.site.App, a.posts()
		a.site.App = "http://localhost:1"
		if err := a.reload(); err != nil {
			t.Fatal(err)
		}
		a.wantPage(f.browser, f.callback, http.StatusBadRequest, "redirect_uri_mismatch")
		a.wantNoPosts(before)
		a.wantOver(f, "redirect_uri_mismatch")
		a.site.App = registered
		if err := a.reload(); err != nil {
			t.Fatal(err)
		}
		a.wantPage(f.browser, f.callback, http.StatusBadRequest, "state_used")
	})
}

// wantRedirectRefused has an app ask for an unregistered address, by the API and
// by a link that it signs itself.
func (a *arena) wantRedirectRefused(browser *http.Client, address string, more ...string) {
	a.t.Helper()
	codes := []string{"redirect_uri_mismatch"}
	if strings.ContainsFunc(address, func(r rune) bool { return unicode.IsControl(r) || r == '\ufffd' }) {
		codes = append(codes, "invalid_request", "link_invalid") // it is no text
	}
	says := func(body string) bool {
		return slices.ContainsFunc(codes, func(code string) bool { return strings.Contains(body, code) })
	}
	res := a.api(http.MethodPost, "/v1/connections", map[string]any{"integration": "fake", "user_id": "u1", "redirect_url": address}, nil)
	if res.Status != http.StatusBadRequest || !says(res.Body) {
		a.t.Errorf("begin with %q: HTTP %d: %s", address, res.Status, res.Body)
	}
	page := a.browse(browser, a.appLink(append([]string{"redirect_url", address}, more...)...))
	body := bodyOf(a.t, page)
	if page.StatusCode != http.StatusBadRequest || !says(body) || len(page.Header.Values("Location")) > 0 || len(page.Cookies()) > 0 {
		a.t.Errorf("link with %q: HTTP %d, %v: %s", address, page.StatusCode, page.Header, body)
	}
	if strings.Contains(body, a.evil.host) || strings.Count(body, "<a ") != strings.Count(body, `<a class="skip" href="#main">`) {
		a.t.Errorf("the page for %q names it, or leads somewhere", address)
	}
}

// statesComeBack sends states through the flow, to a good end and to a bad one.
func (a *arena) statesComeBack(t *testing.T) {
	t.Helper()
	for i, state := range []string{
		"plain", "a&connectionId=evil#x%0d%0aSet-Cookie:z=1", "a&connection_id=evil#x\r\nSet-Cookie: z=1", `"quotes" 'and' <b>`, "Zoë 李 🔑",
		"a+b c%20d", "=&=", "?completion_code=x&error=y", strings.Repeat("é", 256), strings.Repeat("&", 512),
	} {
		link := a.appLink("state", state, "user_id", fmt.Sprintf("state-%d", i))
		for _, denied := range []bool{false, true} {
			browser := newBrowser(t)
			at := a.open(browser, link)
			if s := query(t, at).Get("state"); strings.Contains(at, escape(state)) || s == state {
				t.Errorf("the provider was sent the app's state %q", state)
			}
			callback := a.callback("fake", "error", "access_denied", "state", query(t, at).Get("state"), "iss", a.site.Fake)
			if !denied {
				callback = a.consent(browser, at)
			}
			res := a.browse(browser, callback)
			to := res.Header.Get("Location")
			q := query(t, to)
			if res.StatusCode != http.StatusSeeOther || !slices.Equal(q["state"], []string{state}) || len(q) != 3 || q.Has("connectionId") || strings.ContainsAny(to, "\r\n #") {
				t.Errorf("state %q came back by HTTP %d in %q", state, res.StatusCode, to)
			}
			for _, c := range res.Cookies() {
				if c.Name == "z" {
					t.Errorf("state %q sets a cookie", state)
				}
			}
		}
	}
	long := strings.Repeat("x", 513)
	res := a.api(http.MethodPost, "/v1/connections", map[string]any{"integration": "fake", "user_id": "u1", "redirect_url": a.app.url + "/callback", "state": long}, nil)
	if res.Status != http.StatusBadRequest || !strings.Contains(res.Body, `"invalid_request"`) {
		t.Errorf("begin with a long state: HTTP %d: %s", res.Status, res.Body)
	}
	a.wantPage(newBrowser(t), a.appLink("state", long), http.StatusBadRequest, "link_invalid")
}
