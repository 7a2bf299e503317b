package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/chromedp/chromedp"
)

// allThatPagesCan tries to reach a URL in every way that a page has, and returns
// those in which something came back.
const allThatPagesCan = `async url => {
	const tried = []
	const attempt = async (name, f) => {
		try { const r = await f(); if (r) tried.push(name + ": " + r) } catch (e) {}
	}
	const status = r => r.type === "opaque" ? "" : "HTTP " + r.status
	await attempt("no-cors", async () => status(await fetch(url, {mode: "no-cors"})))
	await attempt("no-cors POST", async () => status(await fetch(url, {mode: "no-cors", method: "POST", body: "x"})))
	await attempt("no-cors with cookies", async () => status(await fetch(url, {mode: "no-cors", credentials: "include"})))
	await attempt("cors", async () => status(await fetch(url)))
	await attempt("cors with a header", async () => status(await fetch(url, {headers: {"Connection-Id": "x"}})))
	await attempt("beacon", async () => { navigator.sendBeacon(url, "x") })
	await attempt("image", () => new Promise(done => { const i = new Image(); i.onload = () => done("loaded"); i.onerror = () => done(""); i.src = url }))
	await attempt("script", () => new Promise(done => { const s = document.createElement("script"); s.onload = () => done("loaded"); s.onerror = () => done(""); s.src = url; document.head.append(s) }))
	await attempt("form", () => new Promise(done => {
		const f = document.createElement("form"); f.method = "POST"; f.action = url; f.target = "f"; f.enctype = "text/plain"; document.body.append(f)
		frames.f.frameElement.onload = () => done(""); f.submit()
	}))
	await attempt("event source", () => new Promise(done => { const s = new EventSource(url); s.onopen = () => done("open"); s.onerror = () => { s.close(); done("") } }))
	await attempt("websocket", () => new Promise(done => { const s = new WebSocket(url.replace("http", "ws")); s.onopen = () => done("open"); s.onerror = () => done("") }))
	return tried.join(", ")
}`

// TestAttackFromARealPage opens a page of another origin in Chromium, on the
// machine of somebody whose Lanyard asks for no key, and has it try all that
// pages can do.
func TestAttackFromARealPage(t *testing.T) {
	open := freePort(t)
	a := newAttacked(t, "", fmt.Sprintf(":%d {\n bind 127.0.0.1\n lanyard_api /v1/*\n lanyard_proxy {\n open\n path\n }\n}\n", open))
	// What a program may.
	if got := a.wireTo(t, open, "", crlf("GET /c/{ID}/me HTTP/1.1\n"+unnamed+"\n")); len(got) != 1 || got[0].Status != http.StatusOK {
		t.Fatalf("the proxy is not open: %v", got)
	}
	a.wantOne(t)

	page := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprint(rw, `<!doctype html><title>Evil</title><link rel="icon" href="data:,"><iframe name="f"></iframe>`)
	}))
	t.Cleanup(page.Close)
	b := a.browser()
	b.open(page.URL)
	for _, base := range []string{fmt.Sprintf("http://127.0.0.1:%d", open), fmt.Sprintf("http://localhost:%d", open)} {
		target := base + "/c/" + a.id + "/me"
		for _, api := range []string{target, base + "/v1/connections"} {
			failed, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf("(%s)(%q)", allThatPagesCan, api), chromedp.EvalAwaitPromise))
			if err != nil {
				t.Fatal(err)
			}
			if failed != "" {
				t.Errorf("A093 a page came through to %s: %s", hostOf(api), failed)
			}
		}
	}
	a.wantNothingSent(t)
	b.mu.Lock()
	b.complaints = nil // Chromium tells of all that was refused
	b.mu.Unlock()
	a.wantEvent(t, event{Type: "call.refused", Reason: "browser_request_blocked"})
}
