package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// What only a real browser can tell.
func TestAttacksInChromium(t *testing.T) {
	w := newWorld(t, withoutRedirectURL)
	b := w.browser()
	link := w.link(url.Values{"integration": {"fake"}, "user_id": {"u1"}})

	w.in(t, "A053 XSS in error_description and error_uri", func(t *testing.T) {
		for _, code := range []string{"access_denied", script} {
			b.open(link)
			state := query(t, eval[string](b, `document.querySelector("a.btn-p").href`)).Get("state")
			p := b.open(w.callback("fake", "error", code, "error_description", script, "error_uri", "javascript:alert(1)", "state", state, "iss", w.site.Fake))
			if !w.ours(p.URL) || strings.Contains(p.Text, "canary") {
				t.Errorf("HTTP %d at %s: %s", p.Status, hostOf(p.URL), p.Text)
			}
			// A script that ran, or that the policy kept from running, fails the test.
			if html := eval[string](b, "Array.from(document.querySelectorAll(`script, img, a:not(.skip):not([href^='${location.origin}/connect?']), [onload]`), e => e.outerHTML).join(' ')"); html != "" {
				t.Errorf("the page has what is not its own: %s", html)
			}
		}
	})

	w.in(t, "A059 Clickjacking of the interstitial", func(t *testing.T) {
		// On another site: 127.0.0.1 is none of localhost's.
		bait := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = fmt.Fprintf(rw, `<!doctype html><title>Win</title><link rel="icon" href="data:,"><iframe src="%s" width="600" height="600"></iframe>`, strings.ReplaceAll(link, "&", "&amp;"))
		}))
		t.Cleanup(bait.Close)
		b.open(bait.URL)
		refused := func(c string) bool {
			return strings.Contains(c, "ERR_BLOCKED_BY_RESPONSE") || strings.Contains(c, "frame-ancestors")
		}
		w.eventually("Chromium refuses the frame", func() error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if !slices.ContainsFunc(b.complaints, refused) {
				return errors.New("it has not complained")
			}
			b.complaints = slices.DeleteFunc(b.complaints, refused)
			return nil
		})
		b.wantPage(b.open(link), http.StatusOK, "Connect") // on its own it opens
		b.mu.Lock()
		defer b.mu.Unlock()
		b.complaints = slices.DeleteFunc(b.complaints, refused)
	})
}
