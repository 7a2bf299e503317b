package connect_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func zapString(key, value string) zap.Field { return zap.String(key, value) }

// TestUntrustedCallbacks: what can't be tied to an open flow of this
// integration and browser changes nothing, and the flow can still end well.
func TestUntrustedCallbacks(t *testing.T) {
	esc := url.QueryEscape
	tests := map[string]func(state string) string{
		"forged state":         func(string) string { return callbackURL("state", b64(make([]byte, 32)), "code", "X") },
		"no state":             func(string) string { return callbackURL("code", "X") },
		"empty state":          func(string) string { return callbackURL("state", "", "code", "X") },
		"state twice":          func(s string) string { return callbackURL("state", s, "state", s, "code", "X") },
		"other state second":   func(s string) string { return callbackURL("state", s, "state", "S2", "code", "X") },
		"state twice, escaped": func(s string) string { return callbackURL("state", s, "code", "X") + "&%73tate=" + s },
		"code twice":           func(s string) string { return callbackURL("state", s, "code", "C1", "code", "C2") },
		"iss twice":            func(s string) string { return callbackURL("state", s, "code", "C1", "iss", "a", "iss", "b") },
		"error twice":          func(s string) string { return callbackURL("state", s, "error", "a", "error", "b") },
		"code and error":       func(s string) string { return callbackURL("state", s, "error", "access_denied", "code", "X") },
		"neither":              func(s string) string { return callbackURL("state", s) },
		"empty code":           func(s string) string { return callbackURL("state", s, "code", "") },
		"token in the query": func(s string) string {
			return callbackURL("state", s, "access_token", "token-canary-q", "token_type", "bearer")
		},
		"token beside a code":   func(s string) string { return callbackURL("state", s, "access_token", "token-canary-q", "code", "X") },
		"state in other case":   func(s string) string { return callbackURL("state", strings.ToUpper(s), "code", "X") },
		"hash as state":         func(s string) string { return callbackURL("state", secretHash(s), "code", "X") },
		"state cut":             func(s string) string { return callbackURL("state", s[:42], "code", "X") },
		"state with a NUL":      func(s string) string { return callbackURL("state", s+"\x00", "code", "X") },
		"unknown integration":   func(s string) string { return public + "/callback/gitlab?state=" + esc(s) + "&code=X" },
		"integration's case":    func(s string) string { return public + "/callback/GitHub?state=" + esc(s) + "&code=X" },
		"integration escaped":   func(s string) string { return public + "/callback/%67ithub?state=" + esc(s) + "&code=X" },
		"path after it":         func(s string) string { return public + "/callback/github/?state=" + esc(s) + "&code=X" },
		"no integration":        func(s string) string { return public + "/callback/?state=" + esc(s) + "&code=X" },
		"another integration's": func(s string) string { return public + "/callback/other?state=" + esc(s) + "&code=X" },
	}
	for name, target := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Integrations["other"] = connect.Integration{Name: "other", Title: "Other", Provider: b.p}
			b.remake()
			c := b.begun()
			br := b.browser()
			state := br.open(b.link(onConnection(c)))
			for _, who := range []*browser{br, b.browser()} {
				wantPage(t, who.get(target(state)), 400, "state_invalid")
			}
			if b.p.exchanged() != 0 || b.connection(c.ID).Revision != 1 {
				t.Errorf("%d exchanges, connection %+v", b.p.exchanged(), b.connection(c.ID))
			}
			wantApp(t, br.callback(state), "")
		})
	}
}

func TestBrowserBinding(t *testing.T) {
	t.Run("another browser", func(t *testing.T) {
		b := newBench(t)
		c := b.begun()
		br, other := b.browser(), b.browser()
		state := br.open(b.link(onConnection(c)))
		wantPage(t, other.callback(state), 400, "browser_mismatch")
		if got := b.connection(c.ID); got.StatusReason != "browser_mismatch" || b.flow(state).Outcome != "browser_mismatch" {
			t.Errorf("connection %s %s, flow %+v", got.Status, got.StatusReason, b.flow(state))
		}
		wantPage(t, br.callback(state), 400, "state_used")
		if b.p.exchanged() != 0 {
			t.Error("the code was exchanged")
		}
	})
	t.Run("another browser, error", func(t *testing.T) {
		b := newBench(t)
		c := b.begun()
		br, other := b.browser(), b.browser()
		state := br.open(b.link(onConnection(c)))
		wantPage(t, other.callback(state, "error", "access_denied"), 400, "browser_mismatch")
		if b.connection(c.ID).Revision != 1 {
			t.Error("a stranger failed the connection")
		}
		wantApp(t, br.callback(state), "")
	})
	t.Run("cookies swapped", func(t *testing.T) {
		b := newBench(t)
		one, two := b.browser(), b.browser()
		first, second := one.open(b.link()), two.open(b.link())
		name1, value1 := one.cookie()
		name2, value2 := two.cookie()
		if name1 == name2 || value1 == value2 {
			t.Fatal("two flows share a cookie")
		}
		one.jar = map[string]string{name1: value2} // right name, the other flow's value
		wantPage(t, one.callback(first), 400, "browser_mismatch")
		one.jar = map[string]string{name1: value1}
		wantPage(t, one.callback(second, "error", "x"), 400, "browser_mismatch")
		wantApp(t, two.callback(second), "")
	})
	t.Run("cookie changed", func(t *testing.T) {
		for _, value := range []string{"", "x", "0", b64(make([]byte, 32))} {
			b := newBench(t)
			br := b.browser()
			state := br.open(b.link())
			name, _ := br.cookie()
			br.jar[name] = value
			wantPage(t, br.callback(state), 400, "browser_mismatch")
		}
	})
	t.Run("attributes", func(t *testing.T) {
		b := newBench(t)
		c := b.browser().get(b.link()).Result().Cookies()[0]
		if !strings.HasPrefix(c.Name, "__Host-lanyard-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode ||
			c.Path != "/" || c.Domain != "" || c.MaxAge != 600 {
			t.Errorf("cookie = %+v", c)
		}
		const local = "http://localhost:9080"
		b.cfg.PublicURL, b.cfg.Signer = mustURL(local), signer(local, apiKey)
		b.signer = b.cfg.Signer
		b.remake()
		c = b.browser().get(b.link()).Result().Cookies()[0]
		if !strings.HasPrefix(c.Name, "lanyard-") || c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode {
			t.Errorf("cookie on localhost = %+v", c)
		}
	})
}

func FuzzCallback(f *testing.F) {
	for _, s := range []string{
		"", "state=x&code=y", "state=STATE&code=c", "state=STATE&error=access_denied", "state=STATE&state=STATE&code=c",
		"state=STATE&code=c&iss=x", "state=STATE&access_token=t", "state=STATE&code=c;error=x", "%zz=1&state=STATE&code=c", "code=c&STATE",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, query string, bound bool) {
		if strings.ContainsAny(query, " \x00\r\n\x7f\t#") {
			t.Skip("no request line holds this")
		}
		b := newBench(t)
		br := b.browser()
		state := br.open(b.link())
		if !bound {
			br.jar = map[string]string{}
		}
		query = strings.ReplaceAll(query, "STATE", state)
		r := httptest.NewRequest(http.MethodGet, public+"/callback/github", nil)
		r.RequestURI, r.URL.RawQuery = "/callback/github?"+query, query
		w := br.do(r)
		loc := w.Header().Get("Location")
		q, _ := url.ParseQuery(query)
		once := slices.Equal(q["state"], []string{state})
		switch {
		case loc != "" && !strings.HasPrefix(loc, appURL+"?"):
			t.Fatalf("%q leads to %q", query, loc)
		case loc != "" && (!once || !bound):
			t.Fatalf("%q leads to the app", query)
		case b.p.exchanged() > 0 && (!once || !bound || q.Has("error") && q.Get("error") != "" || len(q["code"]) != 1):
			t.Fatalf("%q is exchanged", query)
		case loc == "" && w.Code < 400:
			t.Fatalf("%q = %d", query, w.Code)
		}
		stage := b.flow(state).Stage
		if !once && stage != tokenstore.FlowOpen {
			t.Fatalf("%q ends the flow", query)
		}
	})
}
