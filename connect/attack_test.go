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
// integration and browser changes nothing, and the flow can still end well. (A002's
// and A033's invalid_request is state_invalid here, A023's context_mismatch too.)
func TestUntrustedCallbacks(t *testing.T) {
	esc := url.QueryEscape
	tests := map[string]func(state string) string{
		"A001 forged state":         func(string) string { return callbackURL("state", b64(make([]byte, 32)), "code", "X") },
		"A002 no state":             func(string) string { return callbackURL("code", "X") },
		"A002 empty state":          func(string) string { return callbackURL("state", "", "code", "X") },
		"A002 state twice":          func(s string) string { return callbackURL("state", s, "state", s, "code", "X") },
		"A002 other state second":   func(s string) string { return callbackURL("state", s, "state", "S2", "code", "X") },
		"A002 state twice, escaped": func(s string) string { return callbackURL("state", s, "code", "X") + "&%73tate=" + s },
		"A002 code twice":           func(s string) string { return callbackURL("state", s, "code", "C1", "code", "C2") },
		"A002 iss twice":            func(s string) string { return callbackURL("state", s, "code", "C1", "iss", "a", "iss", "b") },
		"A002 error twice":          func(s string) string { return callbackURL("state", s, "error", "a", "error", "b") },
		"A002 code and error":       func(s string) string { return callbackURL("state", s, "error", "access_denied", "code", "X") },
		"A002 neither":              func(s string) string { return callbackURL("state", s) },
		"A002 empty code":           func(s string) string { return callbackURL("state", s, "code", "") },
		"A033 token in the query": func(s string) string {
			return callbackURL("state", s, "access_token", "token-canary-q", "token_type", "bearer")
		},
		"A033 token beside a code":   func(s string) string { return callbackURL("state", s, "access_token", "token-canary-q", "code", "X") },
		"A001 state in other case":   func(s string) string { return callbackURL("state", strings.ToUpper(s), "code", "X") },
		"A001 hash as state":         func(s string) string { return callbackURL("state", secretHash(s), "code", "X") },
		"A001 state cut":             func(s string) string { return callbackURL("state", s[:42], "code", "X") },
		"A001 state with a NUL":      func(s string) string { return callbackURL("state", s+"\x00", "code", "X") },
		"A023 unknown integration":   func(s string) string { return public + "/callback/gitlab?state=" + esc(s) + "&code=X" },
		"A023 integration's case":    func(s string) string { return public + "/callback/GitHub?state=" + esc(s) + "&code=X" },
		"A023 integration escaped":   func(s string) string { return public + "/callback/%67ithub?state=" + esc(s) + "&code=X" },
		"A023 path after it":         func(s string) string { return public + "/callback/github/?state=" + esc(s) + "&code=X" },
		"A023 no integration":        func(s string) string { return public + "/callback/?state=" + esc(s) + "&code=X" },
		"A023 another integration's": func(s string) string { return public + "/callback/other?state=" + esc(s) + "&code=X" },
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
	t.Run("A006 A010 another browser", func(t *testing.T) {
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
	t.Run("A011 A055 another browser, error", func(t *testing.T) {
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
	t.Run("A007 cookies swapped", func(t *testing.T) {
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
	t.Run("A006 cookie changed", func(t *testing.T) {
		for _, value := range []string{"", "x", "0", b64(make([]byte, 32))} {
			b := newBench(t)
			br := b.browser()
			state := br.open(b.link())
			name, _ := br.cookie()
			br.jar[name] = value
			wantPage(t, br.callback(state), 400, "browser_mismatch")
		}
	})
	t.Run("A062 attributes", func(t *testing.T) {
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

// FuzzCallback: whatever the query, the path and the cookie, a flow changes
// only for its own state, integration and browser; nobody is sent elsewhere
// than to the app.
func FuzzCallback(f *testing.F) {
	for _, query := range []string{
		"", "state=x&code=y", "state=STATE&code=c", "state=STATE&error=access_denied", "state=STATE&state=STATE&code=c",
		"state=STATE&code=c&iss=x", "state=STATE&access_token=t", "state=STATE&code=c;error=x", "%zz=1&state=STATE&code=c", "code=c&STATE",
		"state=STATE&code=c&code=d", "%73tate=STATE&code=c", "state=STATE%00&code=c", "STATE=STATE&code=c", "state=STATE&code=c&error=", "state=%2&code=c",
	} {
		f.Add(query, "github", "COOKIE")
		f.Add(query, "github", "")
		f.Add(query, "other", "COOKIE")
	}
	f.Add("state=STATE&code=c", "%67ithub", "COOKIE")
	f.Add("state=STATE&code=c", "github/", "x")
	f.Add("state=STATE&code=c", "../callback/github", "COOKIE; NAME=x")
	f.Fuzz(func(t *testing.T, query, name, cookie string) {
		if strings.ContainsAny(query+name, " \x00\r\n\x7f\t#") || strings.ContainsAny(name, "?") || strings.ContainsAny(cookie, "\x00\r\n") {
			t.Skip("no request holds this")
		}
		b := newBench(t)
		br := b.browser()
		state := br.open(b.link())
		cookieName, value := br.cookie()
		br.jar = nil
		query = strings.ReplaceAll(query, "STATE", state)
		header := cookieName + "=" + strings.NewReplacer("COOKIE", value, "NAME", cookieName).Replace(cookie)
		before := b.flow(state)
		r := httptest.NewRequest(http.MethodGet, public+"/callback/github", nil)
		r.RequestURI, r.URL.RawQuery = "/callback/"+name+"?"+query, query
		r.Header.Set("Cookie", header)
		w := httptest.NewRecorder()
		b.h.ServeHTTP(w, r)

		q, _ := url.ParseQuery(query)
		bound := slices.ContainsFunc(r.CookiesNamed(cookieName), func(c *http.Cookie) bool { return c.Value == value })
		known := slices.Equal(q["state"], []string{state}) && name == "github" && len(q["code"]) < 2 && len(q["error"]) < 2 && len(q["iss"]) < 2 &&
			(q.Get("code") == "") == (q.Get("error") != "") && !q.Has("access_token")
		after, loc := b.flow(state), w.Header().Get("Location")
		switch {
		case w.Code >= 500 || loc == "" && w.Code < 400:
			t.Fatalf("%q = %d", query, w.Code)
		case loc != "" && !strings.HasPrefix(loc, appURL+"?"):
			t.Fatalf("%q leads to %q", query, loc)
		case loc != "" && (!known || !bound):
			t.Fatalf("%q with cookie %q leads to the app", query, header)
		case (b.p.exchanged() > 0 || len(b.connections()) > 0) && (!known || !bound || q.Get("code") == ""):
			t.Fatalf("%q with cookie %q is exchanged", query, header)
		case after.Stage != before.Stage && !known, after.Stage != before.Stage && !bound && q.Get("code") == "":
			t.Fatalf("%q with cookie %q ends the flow", query, header)
		case known && bound && after.Stage != tokenstore.FlowFinished:
			t.Fatalf("%q with the right cookie leaves the flow %s", query, after.Stage)
		}
	})
}
