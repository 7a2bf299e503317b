package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// TestBrowserEntersAKeyTwice: somebody presses Connect again while the key is
// tried, and the app is told of a connection all the same.
func TestBrowserEntersAKeyTwice(t *testing.T) {
	asked, answers := make(chan struct{}, 2), make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/asked" { // by the page: it knows nothing of the API
			select {
			case <-asked:
			case <-r.Context().Done():
			}
			close(answers)
			return
		}
		asked <- struct{}{}
		select {
		case <-answers:
		case <-r.Context().Done():
		}
		fmt.Fprint(rw, `{"id": "1", "name": "Ada Lovelace"}`)
	}))
	t.Cleanup(api.Close)
	w := newWorld(t)
	w.addKeysOf(api.URL)
	b := w.browser()
	if _, err := chromedp.Call(b.ctx, cdppage.SetBypassCSP, cdppage.SetBypassCSPParams{Enabled: true}); err != nil {
		t.Fatal(err)
	}
	b.open(w.appLink("integration", "keys"))
	b.typeInto("field_api_key", "fakekey-0123456789")
	// Chromium takes no orders while a page loads.
	eval[bool](b, `(() => { const connect = document.querySelector("button[type=submit]"); connect.click();
		fetch("`+api.URL+`/asked", {mode: "no-cors"}).then(() => connect.click()); return true })()`)
	w.wantCompletes(w.called())
}
