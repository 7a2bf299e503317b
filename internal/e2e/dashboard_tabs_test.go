package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// Seven tabs of the dashboard: the seventh has to load.
func TestDashboardTabs(t *testing.T) {
	w := newWorld(t, withDashboard)
	w.connect("user-7")
	root := w.browser()
	root.open(w.site.Public + "/admin/")
	root.waitFor(`!document.getElementById("live").hidden`)
	for i := 2; i <= 7; i++ {
		b := root.beside()
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		began := time.Now()
		_, err := chromedp.RunResponse(ctx, chromedp.Navigate(w.site.Public+"/admin/"))
		cancel()
		if err != nil {
			t.Fatalf("tab %d does not load in %s: %v", i, time.Since(began), err)
		}
		time.Sleep(500 * time.Millisecond)
		t.Log("the first tab is hidden:", eval[bool](root, `document.hidden`))
		// Headless Chromium takes every tab for seen: say to this one that it no longer is.
		eval[bool](b, `(() => { Object.defineProperty(document, "hidden", {get: () => window.__hidden}); window.__hidden = true;
			document.dispatchEvent(new Event("visibilitychange")); return true })()`)
	}
	eval[bool](root, `(() => { window.__hidden = true; Object.defineProperty(document, "hidden", {get: () => window.__hidden});
		document.dispatchEvent(new Event("visibilitychange")); return true })()`)
	root.waitFor(`document.getElementById("live").hidden`)
	other := w.connect("user-8")
	eval[bool](root, `(() => { window.__hidden = false; document.dispatchEvent(new Event("visibilitychange")); return true })()`)
	root.waitFor(`!document.getElementById("live").hidden && document.body.innerText.includes("user-8")`)
	w.fake.RevokeAll()
	w.call(other, "/me")
	root.waitFor(`document.getElementById("row-` + other + `").innerText.includes("Reconnect needed")`)
}

// An operator follows a link from a chat (another site) to the dashboard, and goes on in the tab that was open.
func TestDashboardCookieOfLink(t *testing.T) {
	w := newWorld(t, withDashboard)
	id := w.connect("user-7")
	chat := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(rw, `<!doctype html><title>chat</title><link rel=icon href="data:,"><a href="%s/admin/">dashboard</a>`, w.site.Public)
	}))
	t.Cleanup(chat.Close)
	b := w.browser()
	b.wantPage(b.open(w.site.Public+"/admin/connections/"+id+"/disconnect"), http.StatusOK, "Disconnect this account?")
	other := b.beside()
	other.open(strings.Replace(chat.URL, "127.0.0.1", "chat.example", 1))
	other.press("dashboard")
	b.wantPage(b.press("Disconnect"), http.StatusOK, "Disconnected")
}

// Somebody presses Connect twice.
func TestKeyDoubleClick(t *testing.T) {
	w := newWorld(t, func(_ *world, c *fakeprovider.Config) { c.APIKey, c.KeyHeader = "fakekey-0123456789", "X-Api-Key" })
	w.addKeys()
	w.fake.Faults.API(fakeprovider.Delay(700*time.Millisecond), fakeprovider.Delay(700*time.Millisecond))
	b := w.browser()
	b.open(w.appLink("integration", "keys"))
	b.typeInto("field_api_key", "fakekey-0123456789")
	eval[bool](b, `(() => { const c = document.querySelector("button[type=submit]"); c.click(); setTimeout(() => c.click(), 200); return true })()`)
	time.Sleep(3 * time.Second)
	t.Log(eval[string](b, `location.href + " " + document.title + " " + document.body.innerText`))
	select {
	case told := <-w.app.callbacks:
		_ = told
	case <-time.After(3 * time.Second):
		t.Error("the app was told nothing")
	}
}

func (b *tab) german() {
	_, err := chromedp.Call(b.ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": "de"}})
	if err != nil {
		b.w.t.Fatal(err)
	}
	_ = emulation.SetUserAgentOverride
}

// Long words nobody can break.
func TestLong(t *testing.T) {
	w := newWorld(t, withDashboard, withBrand, withAccounts)
	w.knowsAccounts()
	long := strings.Repeat("W", 256)
	if os.Getenv("R2LEN") != "" {
		long = "auth0|" + strings.Repeat("0a1f", 16)
	}
	w.addKeys()
	id := w.connect(long)
	w.api(http.MethodPatch, "/v1/connections/"+id, map[string]any{"name": long, "labels": map[string]string{strings.Repeat("k", 64): long}, "metadata": map[string]any{"a": long}}, nil)
	b := w.browser()
	b.german()
	for name, u := range map[string]string{
		"mine": w.mineLink(long), "choose": w.link(url.Values{"user_id": {long}, "redirect_url": {w.app.url + "/callback"}}),
		"dash": w.site.Public + "/admin/", "detail": w.site.Public + "/admin/connections/" + id, "events": w.site.Public + "/admin/events",
		"del": w.site.Public + "/admin/connections/" + id + "/delete",
	} {
		p := b.open(u)
		t.Log(name, p.Status, p.Title[:min(40, len(p.Title))])
		b.shoot("long-" + name)
		b.do(chromedp.EmulateViewport(320, 640))
		t.Log(eval[string](b, `[...document.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > 321 && !e.closest(".tbl table")).slice(0,8).map(e => e.tagName+"."+e.className+" "+Math.round(e.getBoundingClientRect().right)).join("; ")`))
		b.do(chromedp.EmulateViewport(1200, 900))
	}
	b.open(w.mineLink(long))
	b.press("Trennen")
	b.shoot("long-disconnect")
}

// Who stops the page that is opening can press the button again.
func TestButtonStopped(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	host := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/go" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return
		}
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(rw, `<!doctype html><html lang="en"><title>App</title><link rel="icon" href="data:,"><script type="module" src="%s/connect/button.js"></script>
<connect-button id="b" name="Fake"><a href="/go">Connect Fake</a></connect-button>`, w.site.Public)
	}))
	t.Cleanup(host.Close)
	t.Cleanup(func() { close(release) })
	b := w.browser()
	b.open(host.URL)
	eval[bool](b, `(() => { document.getElementById("b").shadowRoot.querySelector("a").click(); setTimeout(() => window.stop(), 300); return true })()`)
	time.Sleep(12 * time.Second)
	if eval[string](b, `document.getElementById("b").getAttribute("aria-busy") ?? ""`) != "" {
		t.Error("the button waits for ever, and takes no click")
	}
}
