package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// isSeen tells the page that its tab is in front, or no longer. Headless Chromium
// takes every tab for seen.
func (b *tab) isSeen(seen bool) {
	b.w.t.Helper()
	eval[bool](b, fmt.Sprintf(`(() => {
		Object.defineProperty(document, "hidden", {value: %t, configurable: true});
		document.dispatchEvent(new Event("visibilitychange"));
		return true })()`, !seen))
}

// TestDashboardInManyTabs opens more tabs than a browser opens connections to one
// server: those that are not seen leave theirs to others, and catch up when they
// are.
func TestDashboardInManyTabs(t *testing.T) {
	w := newWorld(t, withDashboard)
	w.connect("user-7")
	first := w.browser()
	first.open(w.site.Public + "/admin/")
	first.waitFor(`!document.getElementById("live").hidden`)
	for range 6 {
		b := first.beside()
		b.open(w.site.Public + "/admin/")
		b.waitFor(`!document.getElementById("live").hidden`)
		b.isSeen(false)
	}
	first.isSeen(false)
	first.waitFor(`document.getElementById("live").hidden`)
	other := w.connect("user-8")
	first.isSeen(true)
	first.waitFor(`!document.getElementById("live").hidden && document.body.innerText.includes("user-8")`)
	w.fake.RevokeAll()
	w.call(other, "/me")
	first.waitFor(`document.getElementById("row-` + other + `").innerText.includes("Reconnect needed")`)
}

// TestDashboardIsOpenedFromAnotherSite follows a link to the dashboard from a chat,
// and goes on with a form that another tab had before.
func TestDashboardIsOpenedFromAnotherSite(t *testing.T) {
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
	other.wantPage(other.press("dashboard"), http.StatusOK, "user-7")
	b.wantPage(b.press("Disconnect"), http.StatusOK, "Disconnected")
}
