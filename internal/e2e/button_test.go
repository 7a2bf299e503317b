package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestConnectButtonActs: the button, on a page of the app's under a strict policy,
// leads on, waits, can be held, follows web addresses alone, and is a link where
// there are no scripts.
func TestConnectButtonActs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	host := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.Header().Set("Content-Security-Policy", "default-src 'none'; script-src "+w.site.Public+"; style-src 'none'; img-src 'self'")
		switch r.URL.Path {
		case "/":
			fmt.Fprintf(rw, `<!doctype html><html lang="de"><title>App</title><link rel="icon" href="/i">
<script type="module" src="%s/connect/button.js"></script>
<connect-button id="b" name="Fake"><a href="/go">Connect Fake</a></connect-button>
<connect-button id="bad" label="Bad" href="javascript:document.title='run'"></connect-button>`, w.site.Public)
		case "/go":
			fmt.Fprint(rw, `<!doctype html><html lang="en"><title>There</title><link rel="icon" href="/i">`)
		}
	}))
	t.Cleanup(host.Close)
	b := w.browser()
	b.open(host.URL)
	const link = `document.getElementById("b").shadowRoot.querySelector("a")`
	if got := eval[string](b, link+`.textContent`); got != "Fake verbinden" {
		t.Errorf("the button says %q", got)
	}
	if bad := eval[bool](b, `document.getElementById("bad").shadowRoot.querySelector("a").hasAttribute("href")`); bad {
		t.Error("the button leads to a javascript: address")
	}
	held := `(() => { let href = ""; const hold = e => { href = e.detail.href; e.preventDefault() };
		addEventListener("connect", hold, {once: true}); ` + link + `.click();
		return href + " " + document.getElementById("b").getAttribute("aria-busy") })()`
	if got, want := eval[string](b, held), host.URL+"/go null"; got != want {
		t.Errorf("held, the button says %q, want %q", got, want)
	}
	waits := `(() => { addEventListener("click", e => e.preventDefault(), {once: true}); ` + link + `.click(); const b = document.getElementById("b");
		const busy = b.getAttribute("aria-busy") + " " + ` + link + `.textContent;
		dispatchEvent(new PageTransitionEvent("pageshow", {persisted: true})); return busy + " " + b.getAttribute("aria-busy") })()`
	if got, want := eval[string](b, waits), "true Fake wird geöffnet … null"; got != want {
		t.Errorf("pressed, the button says %q, want %q", got, want)
	}
	if p := b.load("pressing the button", pressShadow(link)); p.Title != "There" {
		t.Errorf("the button leads to %q", p.Title)
	}
	plain := w.browser()
	plain.withoutScripts()
	plain.open(host.URL)
	if p := plain.press("Connect Fake"); p.Title != "There" {
		t.Errorf("without scripts, the link leads to %q", p.Title)
	}
}

// TestConnectButtonIsPressedAgain: who stops the page that is opening can press
// the button again after a while. The page's clock is one that the test winds on.
func TestConnectButtonIsPressedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	going := make(chan struct{})
	host := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/going": // by the page: it does not know how far the next one is
			select {
			case <-going:
			case <-r.Context().Done():
			}
		case "/go":
			close(going)
			<-r.Context().Done() // until it is stopped
		default:
			rw.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(rw, `<!doctype html><html lang="en"><title>App</title><link rel="icon" href="data:,"><script type="module" src="%s/connect/button.js"></script>
<connect-button id="b" name="Fake"><a href="/go">Connect Fake</a></connect-button>`, w.site.Public)
		}
	}))
	t.Cleanup(host.Close)
	b := w.browser()
	b.open(host.URL)
	const busy = `document.getElementById("b").getAttribute("aria-busy") === "true"`
	eval[bool](b, `(() => { window.setTimeout = (then) => { window.__later = then };
		document.getElementById("b").shadowRoot.querySelector("a").click();
		fetch("/going").then(() => { window.stop(); window.__waits = `+busy+` }); return true })()`)
	b.waitFor(`window.__waits !== undefined`)
	if !eval[bool](b, `window.__waits`) {
		t.Error("the button does not wait for the page")
	}
	if eval[bool](b, `(window.__later(), `+busy+`)`) {
		t.Error("the button waits for ever, and takes no click")
	}
}

// pressShadow clicks what Chromium's selectors do not reach.
func pressShadow(element string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Evaluate[bool](element+".click(), true")(ctx, t)
		return chromedp.Void{}, err
	}
}
