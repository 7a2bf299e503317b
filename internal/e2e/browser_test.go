package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// withReview shows the review page although there is an app to return to.
func withReview(w *world, _ *fakeprovider.Config) { w.site.Client += "review on\n" }

// withoutRedirectURL configures no app to return to.
func withoutRedirectURL(w *world, _ *fakeprovider.Config) { w.site.NoApp = true }

// withDeclaredScopes tells Lanyard of two scopes. The provider has a third.
func withDeclaredScopes(w *world, c *fakeprovider.Config) {
	w.site.Provider += "scopes read write\n"
	c.Scopes = append(c.Scopes, "admin")
}

// link signs a connect link as an app does, without asking Lanyard.
func (w *world) link(params url.Values) string {
	if !params.Has("expires") {
		params.Set("expires", strconv.FormatInt(time.Now().Add(10*time.Minute).Unix(), 10))
	}
	mac := func(key []byte, message string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(message))
		return h.Sum(nil)
	}
	endpoint := w.site.Public + "/connect"
	signature := mac(mac([]byte(w.apiKey), "lanyard link v1"), "lanyard-link-v1\n"+endpoint+"\n"+params.Encode())
	return endpoint + "?" + params.Encode() + "&signature=" + base64.RawURLEncoding.EncodeToString(signature)
}

// appLink signs a link that returns to the app; more are further parameters,
// name, value, name, value …
func (w *world) appLink(more ...string) string {
	params := url.Values{"integration": {"fake"}, "user_id": {"u1"}, "redirect_url": {w.app.url + "/callback"}, "state": {"app-state"}}
	for pair := range slices.Chunk(more, 2) {
		params.Set(pair[0], pair[1])
	}
	return w.link(params)
}

// wantBack checks that a page is the app's, and returns what the app was told.
func (w *world) wantBack(p page) url.Values {
	w.t.Helper()
	if p.Status != http.StatusOK || !strings.HasPrefix(p.URL, w.app.url+"/callback?") {
		w.t.Fatalf("the browser is at HTTP %d %q %s, not back in the app: %s", p.Status, p.Title, hostOf(p.URL), p.Text)
	}
	back := w.called()
	if back.Get("state") != "app-state" {
		w.t.Errorf("the app got the state %q; want its own", back.Get("state"))
	}
	return back
}

// wantError checks that the app was told of a failure, and of nothing else.
func (w *world) wantError(back url.Values, code string) {
	w.t.Helper()
	if back.Get("error") != code || back.Get("error_description") == "" || len(back) != 3 {
		w.t.Errorf("the app got %v; want error=%s, an error_description and its state", back, code)
	}
}

// wantNotCalled checks that the app was told nothing.
func (w *world) wantNotCalled() {
	w.t.Helper()
	select {
	case back := <-w.app.callbacks:
		w.t.Errorf("the app got %v; want no call", back)
	default:
	}
}

// wantStatus checks a connection by the API.
func (w *world) wantStatus(id, status, reason string) connection {
	w.t.Helper()
	c := w.connection(id)
	if c.Status != status || c.StatusReason != reason {
		w.t.Errorf("the connection is %s (%q); want %s (%q)", c.Status, c.StatusReason, status, reason)
	}
	return c
}

// wantPosts checks how many requests the token endpoint got so far.
func (w *world) wantPosts(n int) {
	w.t.Helper()
	if posts := w.fake.Ledger().Posts; len(posts) != n {
		w.t.Errorf("the token endpoint got %d requests; want %d: %+v", len(posts), n, posts)
	}
}

// wantWorks checks that the API can be called over a connection.
func (w *world) wantWorks(id string) {
	w.t.Helper()
	if a := w.call(id, "/me"); a.Status != http.StatusOK || !strings.Contains(a.Body, "Ada Lovelace") {
		w.t.Errorf("the proxied call: HTTP %d: %s", a.Status, a.Body)
	}
}

func TestBrowserConnects(t *testing.T) {
	w := newWorld(t, withReview)
	b := w.browser()
	begun := w.begin("user-7")

	review := b.open(begun.ConnectURL)
	b.wantPage(review, http.StatusOK, "read", "user-7", strings.TrimPrefix(w.app.url, "http://"))
	b.shoot("review")
	consent := b.press("Continue")
	if !strings.HasPrefix(consent.URL, w.site.Fake+"/authorize?") {
		t.Fatalf("Continue leads to %s; want the provider's page", hostOf(consent.URL))
	}
	back := w.wantBack(b.press("Allow"))

	if len(back) != 3 || back.Get("connection_id") != begun.ID || back.Get("completion_code") == "" {
		t.Fatalf("the app got %v; want connection_id %s, completion_code and state", back, begun.ID)
	}
	w.wantStatus(begun.ID, "INITIATED", "")
	if a := w.call(begun.ID, "/me"); a.Status != http.StatusConflict || a.Header.Get("Lanyard-Error") != "connection_not_active" {
		t.Errorf("a call before completion: HTTP %d %q: %s", a.Status, a.Header.Get("Lanyard-Error"), a.Body)
	}
	w.complete(begun.ID, back.Get("completion_code"), "user-7")
	w.wantStatus(begun.ID, "ACTIVE", "")
	w.wantWorks(begun.ID)
	w.wantPosts(1)
}

func TestBrowserConnectsWithoutAnApp(t *testing.T) {
	w := newWorld(t, withoutRedirectURL)
	b := w.browser()

	review := b.open(w.link(url.Values{"integration": {"fake"}, "user_id": {"user-7"}, "state": {"unused"}}))
	b.wantPage(review, http.StatusOK, "read", "user-7")
	b.shoot("review-without-app")
	b.press("Continue")
	success := b.press("Allow")

	b.wantPage(success, http.StatusOK, "is connected", "user-7")
	b.shoot("success")
	id := w.only()
	w.wantStatus(id, "ACTIVE", "")
	w.wantWorks(id)
	w.wantPosts(1)

	// Reload sends the code again.
	again := b.reload()
	b.wantPage(again, http.StatusBadRequest, "already done", "was connected", "changed nothing")
	b.shoot("used")
	// Back is the provider's page, where a user may say yes again.
	b.back()
	b.wantPage(b.press("Allow"), http.StatusBadRequest, "already done", "was connected", "changed nothing")

	if c := w.wantStatus(w.only(), "ACTIVE", ""); c.ID != id || c.Generation != 1 {
		t.Errorf("after Back and Reload there is %s in generation %d; want %s in 1", c.ID, c.Generation, id)
	}
	w.wantPosts(1)
	w.wantWorks(id)
}

// only returns the ID of the one connection that there is.
func (w *world) only() string {
	w.t.Helper()
	var list struct{ Connections []connection }
	w.api(http.MethodGet, "/v1/connections", nil, &list)
	if len(list.Connections) != 1 {
		w.t.Fatalf("there are %d connections; want 1", len(list.Connections))
	}
	return list.Connections[0].ID
}

func TestBrowserBackFromTheApp(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	begun := w.begin("u1")
	b.open(begun.ConnectURL)
	back := w.wantBack(b.press("Allow"))
	w.complete(begun.ID, back.Get("completion_code"), "u1")

	b.back()
	b.wantPage(b.press("Allow"), http.StatusBadRequest, "already done", "took over from there")
	b.wantPage(b.reload(), http.StatusBadRequest, "already done", "took over from there")

	w.wantNotCalled()
	if c := w.wantStatus(begun.ID, "ACTIVE", ""); c.Generation != 1 {
		t.Errorf("generation %d after Back and Reload; want 1", c.Generation)
	}
	w.wantPosts(1)
	w.wantWorks(begun.ID)
}

func TestBrowserDenies(t *testing.T) {
	w := newWorld(t, withReview)
	b := w.browser()
	begun := w.begin("u1")
	b.open(begun.ConnectURL)
	b.press("Continue")
	w.wantError(w.wantBack(b.press("Deny")), "user_denied")
	w.wantStatus(begun.ID, "FAILED", "user_denied")

	b.back()
	b.wantPage(b.press("Allow"), http.StatusBadRequest, "already done", "nothing was shared")
	w.wantNotCalled()
	w.wantStatus(begun.ID, "FAILED", "user_denied")

	// The review page is left without a visit to the provider.
	b.open(w.begin("u2").ConnectURL)
	w.wantError(w.wantBack(b.press("Cancel")), "user_denied")
	w.wantPosts(0)
}

func TestBrowserDeniesWithoutAnApp(t *testing.T) {
	w := newWorld(t, withoutRedirectURL)
	b := w.browser()
	b.open(w.link(url.Values{"integration": {"fake"}}))
	b.press("Continue")
	b.wantPage(b.press("Deny"), http.StatusOK, "You did not connect", "nothing was shared")
	b.shoot("denied")
	w.wantPosts(0)
}

func TestBrowserAsksForAWrongScope(t *testing.T) {
	t.Run("that the provider does not declare", func(t *testing.T) {
		w := newWorld(t, withDeclaredScopes)
		w.wantError(w.wantBack(w.browser().open(w.appLink("scopes", "read admin"))), "invalid_scope")
	})
	t.Run("that the provider refuses", func(t *testing.T) {
		w := newWorld(t)
		w.wantError(w.wantBack(w.browser().open(w.appLink("scopes", "read admin"))), "invalid_scope")
	})
	t.Run("without an app", func(t *testing.T) {
		w := newWorld(t, withoutRedirectURL, withDeclaredScopes)
		b := w.browser()
		b.wantPage(b.open(w.link(url.Values{"integration": {"fake"}, "scopes": {"admin"}})), http.StatusBadRequest, "does not offer one of these permissions")
		b.shoot("invalid-scope")
	})
}

// TestBrowserOpensABadLink holds what never leads anywhere: each is a page.
// The time-out of a flow, which takes ten minutes, is tested in package connect,
// on a clock that can be wound on.
func TestBrowserOpensABadLink(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	elsewhere := "http://localhost:9/elsewhere"
	good := w.appLink()
	flip := func(i int) string { // another digit or letter, whatever stood there
		c := byte('1')
		if good[i] == c {
			c = '2'
		}
		return good[:i] + string(c) + good[i+1:]
	}
	tests := []struct {
		name   string
		link   string
		status int
		text   string
	}{
		{"expired", w.appLink("expires", strconv.FormatInt(time.Now().Add(-time.Second).Unix(), 10)), http.StatusGone, "has expired"},
		{"unregistered-redirect", w.appLink("redirect_url", elsewhere), http.StatusBadRequest, "not set up correctly"},
		{"redirect-with-a-query", w.appLink("redirect_url", w.app.url+"/callback?next=1"), http.StatusBadRequest, "not set up correctly"},
		{"changed-signature", flip(len(good) - 1), http.StatusBadRequest, "does not work"},
		{"changed-user", flip(strings.Index(good, "user_id=") + len("user_id=")), http.StatusBadRequest, "does not work"},
		{"changed-end", flip(strings.Index(good, "expires=") + len("expires=")), http.StatusBadRequest, "does not work"},
		{"more-after-the-signature", good + "&scopes=admin", http.StatusBadRequest, "does not work"},
	}
	for _, tt := range tests {
		t.Log(tt.name)
		b.wantPage(b.open(tt.link), tt.status, tt.text)
		if n := eval[int](b, `document.querySelectorAll("a:not([href='#main'])").length`); n != 0 {
			t.Errorf("the page has %d links that lead off it; want none", n)
		}
		b.shoot(tt.name)
	}
	if p := b.open(good); !strings.HasPrefix(p.URL, w.site.Fake+"/authorize?") {
		t.Errorf("the good link leads to %s", hostOf(p.URL))
	}
	w.wantNotCalled()
}

func TestBrowserWithoutTheFlowsCookie(t *testing.T) {
	t.Run("brings a code", func(t *testing.T) {
		w := newWorld(t)
		ours, theirs := w.browser(), w.browser()
		begun := w.begin("u1")
		consent := ours.open(begun.ConnectURL)
		callback := w.consent(newBrowser(t), consent.URL)

		p := theirs.open(callback)
		theirs.wantPage(p, http.StatusBadRequest, "started in another browser", "nothing was connected")
		theirs.shoot("browser-mismatch")
		// The code is spent, so that the flow's own browser can't bring it either.
		ours.wantPage(ours.open(callback), http.StatusBadRequest, "already done", "was not connected")
		w.wantNotCalled()
		w.wantStatus(begun.ID, "FAILED", "browser_mismatch")
		w.wantPosts(0)
	})
	t.Run("brings an error", func(t *testing.T) {
		w := newWorld(t)
		ours, theirs := w.browser(), w.browser()
		begun := w.begin("u1")
		consent := ours.open(begun.ConnectURL)
		callback, err := fakeprovider.Deny(t.Context(), newBrowser(t), consent.URL)
		if err != nil {
			t.Fatal(err)
		}

		theirs.wantPage(theirs.open(callback), http.StatusBadRequest, "started in another browser")
		back := w.wantBack(ours.press("Allow"))
		w.complete(begun.ID, back.Get("completion_code"), "u1")
		w.wantWorks(begun.ID)
		w.wantPosts(1)
	})
}

func TestBrowserWithTwoTabs(t *testing.T) {
	w := newWorld(t)
	first := w.browser()
	second := first.beside()
	one, two := w.begin("u1"), w.begin("u2")
	first.open(one.ConnectURL)
	second.open(two.ConnectURL)

	for _, flow := range []struct {
		tab      *tab
		id, user string
	}{{second, two.ID, "u2"}, {first, one.ID, "u1"}} {
		back := w.wantBack(flow.tab.press("Allow"))
		if back.Get("connection_id") != flow.id {
			t.Fatalf("the app got connection %q; want %q", back.Get("connection_id"), flow.id)
		}
		w.complete(flow.id, back.Get("completion_code"), flow.user)
		if c := w.wantStatus(flow.id, "ACTIVE", ""); c.UserID != flow.user {
			t.Errorf("%s is user %q's; want %q", flow.id, c.UserID, flow.user)
		}
		w.wantWorks(flow.id)
	}
	w.wantPosts(2)
}
