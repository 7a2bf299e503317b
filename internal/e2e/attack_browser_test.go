package e2e_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAttacksWithAnotherBrowser(t *testing.T) {
	a := newArena(t)

	a.in(t, "A006 Callback arrives in another browser", func(t *testing.T) {
		f := a.sendAway()
		before := a.posts()
		a.wantPage(newBrowser(t), f.callback, http.StatusBadRequest, "browser_mismatch")
		a.wantOver(f, "browser_mismatch")
		a.wantNoPosts(before)
	})

	a.in(t, "A007 Binding cookie of a different flow", func(t *testing.T) {
		one, two := a.sendAway(), a.sendAway()
		before := a.posts()
		a.wantPage(two.browser, one.callback, http.StatusBadRequest, "browser_mismatch")
		a.wantNoPosts(before)
		a.wantOver(one, "browser_mismatch")
		a.wantEndsWell(two)

		// The right name with another flow's value is no better.
		one, two = a.sendAway(), a.sendAway()
		public, err := url.Parse(a.site.Public)
		if err != nil {
			t.Fatal(err)
		}
		mine, theirs := one.browser.Jar.Cookies(public), two.browser.Jar.Cookies(public)
		if len(mine) != 1 || len(theirs) != 1 || mine[0].Name == theirs[0].Name {
			t.Fatalf("the cookies are %v and %v, want one of each flow", mine, theirs)
		}
		one.browser.Jar.SetCookies(public, []*http.Cookie{{Name: mine[0].Name, Value: theirs[0].Value, Path: "/"}})
		a.wantPage(one.browser, one.callback, http.StatusBadRequest, "browser_mismatch")
		a.wantEndsWell(two)
	})

	// The design's completion code stands for the case's handle: the app gets it
	// with the browser that comes back, and tells whose browser that is.
	a.in(t, "A009 Forwarded link: attacker finalizes from own session", func(t *testing.T) {
		f := a.sendOff() // the attacker's: sent to a victim, who opens it
		victim := newBrowser(t)
		callback := a.consent(victim, a.open(victim, f.link))
		code := a.wantReturn(victim, callback, "")
		if code == "" {
			t.Fatal("no completion code")
		}
		for _, guess := range []string{f.state, "", "x", strings.Repeat("A", 43)} {
			if c := a.tryComplete(f.id, guess, f.user); c.Status == http.StatusOK {
				t.Fatalf("completed with %q", guess)
			}
		}
		a.wantStatus(f.id, "INITIATED", "")
		a.wantNotCallable(f.id)
		// The browser that came back is the victim's, and so the app says.
		if c := a.tryComplete(f.id, code, "the-victim"); c.Status != http.StatusConflict || !strings.Contains(c.Body, `"user_mismatch"`) {
			t.Errorf("HTTP %d: %s", c.Status, c.Body)
		}
		a.wantEvent(f.id, "completion.refused", "user_mismatch")
		// By then the code is spent, and the credential gone.
		if c := a.tryComplete(f.id, code, f.user); c.Status != http.StatusConflict {
			t.Errorf("a spent code: HTTP %d: %s", c.Status, c.Body)
		}
		a.wantNotCallable(f.id)
		if a.connection(f.id).Status == "ACTIVE" {
			t.Error("the connection is ACTIVE")
		}
	})

	a.in(t, "A010 Provider URL forwarded (browser swapping)", func(t *testing.T) {
		f := a.sendOff() // the attacker's
		victim, before := newBrowser(t), a.posts()
		f.callback = a.consent(victim, f.authorize)
		a.wantPage(victim, f.callback, http.StatusBadRequest, "browser_mismatch")
		a.wantOver(f, "browser_mismatch") // in the attacker's browser, too
		a.wantNoPosts(before)
	})

	a.in(t, "A011 Login CSRF: attacker's callback URL loaded in victim browser", func(t *testing.T) {
		f := a.sendAway() // the attacker's
		connections, before := a.count(), a.posts()
		for _, dest := range []string{"image", "iframe", "document"} {
			req := a.request(http.MethodGet, f.callback)
			req.Header.Set("Sec-Fetch-Site", "cross-site")
			req.Header.Set("Sec-Fetch-Dest", dest)
			res := a.send(newBrowser(t), req)
			code := map[bool]string{true: "browser_mismatch", false: "state_used"}[dest == "image"]
			a.isPage(res, http.StatusBadRequest, code) // sets no cookie, leads nowhere
		}
		a.wantNoPosts(before)
		if n := a.count(); n != connections {
			t.Errorf("%d connections, %d before", n, connections)
		}
	})

	a.in(t, "A013 Link preview bots and prefetch do not consume or start the flow", func(t *testing.T) {
		begun := a.begin("previewed")
		for _, tt := range []struct {
			method string
			header [2]string
		}{
			{http.MethodHead, [2]string{"User-Agent", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"}},
			{http.MethodHead, [2]string{"User-Agent", "Mozilla/5.0 (compatible; SafeLinks)"}},
			{http.MethodGet, [2]string{"Sec-Purpose", "prefetch"}},
			{http.MethodGet, [2]string{"Sec-Purpose", "prefetch;prerender"}},
		} {
			req := a.request(tt.method, begun.ConnectURL)
			req.Header.Set(tt.header[0], tt.header[1])
			if res := a.send(newBrowser(t), req); res.StatusCode != http.StatusNoContent || len(res.Cookies()) > 0 || bodyOf(t, res) != "" {
				t.Errorf("%s with %v: HTTP %d, %v", tt.method, tt.header, res.StatusCode, res.Cookies())
			}
		}
		// A GET begins a flow of its own, in a browser of its own, and uses nothing up.
		for range 3 {
			a.open(newBrowser(t), begun.ConnectURL)
		}
		a.wantStatus(begun.ID, "INITIATED", "")
		back := a.follow(newBrowser(t), begun.ConnectURL)
		a.complete(begun.ID, back.Get("completion_code"), "previewed")
	})

	a.in(t, "A014 Connect link expiry", func(t *testing.T) {
		for _, ago := range []int{0, 1, 3600} {
			expires := strconv.FormatInt(time.Now().Add(time.Duration(-ago)*time.Second).Unix(), 10)
			a.wantPage(newBrowser(t), a.appLink("expires", expires), http.StatusGone, "link_expired")
		}
		for _, never := range []string{"", "x", "1e12", "-1", "99999999999999999999", strconv.FormatInt(time.Now().Add(25*time.Hour).Unix(), 10)} {
			a.wantPage(newBrowser(t), a.appLink("expires", never), http.StatusBadRequest, "link_invalid")
		}
	})

	// Links are signed, there is no ticket to guess, and a wrong one is a 400
	// page: link_invalid.
	a.in(t, "A015 Connect ticket guessing", func(t *testing.T) {
		good := a.appLink()
		unsigned := good[:strings.LastIndex(good, "=")+1]
		attacker, limited, bodies := newBrowser(t), 0, map[string]bool{}
		for n := range 80 {
			mac := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat(string(rune('!'+n)), 32)))
			req := a.request(http.MethodGet, unsigned+mac)
			req.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", n)) // believed of nobody who is not named
			res := a.send(attacker, req)
			body := bodyOf(t, res)
			switch res.StatusCode {
			case http.StatusTooManyRequests:
				if limited++; res.Header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			case http.StatusBadRequest:
				bodies[withoutReference(body)] = true
			default:
				t.Fatalf("HTTP %d: %s", res.StatusCode, body)
			}
		}
		if limited < 40 || len(bodies) != 1 {
			t.Errorf("%d of 80 guesses from one address got 429, the others %d different pages", limited, len(bodies))
		}
		a.open(newBrowser(t), good) // from another address
		// A line each within the log's budget, and then counted.
		told := 0
		for _, e := range a.events("") {
			if e.Type == "flow.ended" && (e.Reason == "link_invalid" || e.Reason == "rate_limited") && !e.Allowed {
				told += e.Count
			}
		}
		if told < 80 {
			t.Errorf("the audit log tells of %d refusals, want at least 80", told)
		}
	})

	a.in(t, "A015 A good link opened over and over", func(t *testing.T) {
		// By one address, for many users.
		crowd, opened := newBrowser(t), 0
		for n := range 90 {
			if res := a.browse(crowd, a.appLink("user_id", fmt.Sprintf("crowd-%d", n))); res.StatusCode == http.StatusSeeOther {
				opened++
			} else {
				a.isPage(res, http.StatusTooManyRequests, "rate_limited")
			}
		}
		if opened < 60 || opened > 85 {
			t.Errorf("%d of 90 links opened from one address; want the 60 of the burst, and few more", opened)
		}
		// By many addresses, for one user.
		begun := a.begin("flooded")
		opened = 0
		for range 40 {
			if res := a.browse(newBrowser(t), begun.ConnectURL); res.StatusCode == http.StatusSeeOther {
				opened++
			} else {
				a.isPage(res, http.StatusTooManyRequests, "rate_limited")
			}
		}
		if opened < 20 || opened > 35 {
			t.Errorf("%d of 40 flows of one user; want the 20 of the burst, and few more", opened)
		}
		a.open(newBrowser(t), a.appLink("user_id", "another"))
		a.wantStatus(begun.ID, "INITIATED", "")
	})

	// The row's codes: a completion code is bound to one connection and user,
	// and the same call again is answered the same (DESIGN section 3).
	a.in(t, "A017 connectionId swapped on the way back to the app", func(t *testing.T) {
		victim := a.connect("the-victims")
		f := a.sendAway()
		code := a.wantReturn(f.browser, f.callback, "")
		// One that waits for its own code, which this is not.
		waits := a.sendAway()
		a.wantReturn(waits.browser, waits.callback, "")
		if c := a.tryComplete(waits.id, code, waits.user); c.Status != http.StatusConflict || !strings.Contains(c.Body, `"completion_invalid"`) {
			t.Errorf("a code at another connection that waits: HTTP %d: %s", c.Status, c.Body)
		}
		if c := a.tryComplete(victim, code, f.user); c.Status != http.StatusConflict || !strings.Contains(c.Body, `"completion_invalid"`) {
			t.Errorf("a code at another connection: HTTP %d: %s", c.Status, c.Body)
		}
		if c := a.tryComplete(victim, code, "the-victims"); c.Status != http.StatusConflict {
			t.Errorf("a code at another connection: HTTP %d: %s", c.Status, c.Body)
		}
		for range 2 {
			a.complete(f.id, code, f.user)
		}
		if c := a.tryComplete(f.id, code, "the-victims"); c.Status != http.StatusConflict {
			t.Errorf("a used code for another user: HTTP %d: %s", c.Status, c.Body)
		}
		if c := a.wantStatus(victim, "ACTIVE", ""); c.Generation != 1 || c.UserID != "the-victims" {
			t.Errorf("the victim's connection is %+v", c)
		}
		// The ID alone opens nothing.
		req := a.request(http.MethodGet, a.proxyURL("/me"))
		req.Header.Set("Connection-Id", victim)
		if res := a.do(req); res.Status != http.StatusUnauthorized {
			t.Errorf("a call without a key: HTTP %d", res.Status)
		}
	})

	a.in(t, "A018 existingConnectionId of another tenant or entity", func(t *testing.T) {
		victim := a.connect("u1")
		before := a.api(http.MethodGet, "/v1/connections/"+victim, nil, nil).Body
		var pages []string
		for _, link := range []string{
			a.appLink("user_id", "u2", "connection_id", victim),
			a.appLink("user_id", "", "connection_id", victim), // the user `default`
			a.appLink("user_id", "u1", "connection_id", victim, "integration", "rogue"),
			a.appLink("user_id", "u2", "connection_id", "conn_00000000000000000000000000"), // never was
		} {
			pages = append(pages, withoutReference(a.wantPage(newBrowser(t), link, http.StatusNotFound, "connection_not_found")))
		}
		for _, page := range pages[1:] {
			if page != pages[0] {
				t.Error("the page tells whether there is such a connection")
			}
		}
		if c := a.api(http.MethodPost, "/v1/connections", map[string]any{"integration": "fake", "user_id": "u2", "connection_id": victim}, nil); c.Status < 400 {
			t.Errorf("begin takes the ID of a connection: HTTP %d: %s", c.Status, c.Body)
		}
		if after := a.api(http.MethodGet, "/v1/connections/"+victim, nil, nil).Body; after != before {
			t.Errorf("the connection was\n%s\nand is\n%s", before, after)
		}
	})
}

// withoutReference returns a page without what differs from one to the next.
func withoutReference(page string) string {
	before, after, ok := strings.Cut(page, `<dt>Reference</dt>`)
	if !ok {
		return page
	}
	_, after, _ = strings.Cut(after, "</dd>")
	return before + after
}

func (a *arena) tryComplete(id, code, user string) answer {
	a.t.Helper()
	return a.api(http.MethodPost, "/v1/connections/"+id+"/complete", map[string]string{"completion_code": code, "user_id": user}, nil)
}

// wantNotCallable checks that no call goes out over a connection.
func (a *arena) wantNotCallable(id string) {
	a.t.Helper()
	calls := a.fake.Ledger().CallCount(-1)
	if res := a.call(id, "/me"); res.Status != http.StatusConflict || res.Header.Get("Lanyard-Error") != "connection_not_active" {
		a.t.Errorf("a call: HTTP %d: %s", res.Status, res.Body)
	}
	if n := a.fake.Ledger().CallCount(-1) - calls; n != 0 {
		a.t.Errorf("%d calls went out", n)
	}
}
