package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// mineLink signs a link to a user's own connections, as an app does.
func (w *world) mineLink(user string) string {
	mac := func(key []byte, message string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(message))
		return h.Sum(nil)
	}
	endpoint := w.site.Public + "/connect/connections"
	params := url.Values{"user_id": {user}, "expires": {strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)}}
	if !w.site.NoApp {
		params.Set("redirect_url", w.app.url+"/callback")
	}
	query := params.Encode()
	signature := mac(mac([]byte(w.apiKey), "lanyard link v1"), "lanyard-link-v1\n"+endpoint+"\n"+query)
	return endpoint + "?" + query + "&signature=" + base64.RawURLEncoding.EncodeToString(signature)
}

// withBrand gives the pages an app's name, colour and links.
func withBrand(w *world, _ *fakeprovider.Config) {
	w.site.Extra += "brand {\nname \"Acme Planner\"\naccent \"#0a6e5c\"\nhome https://acme.example\nhelp https://acme.example/help\n" +
		"privacy https://acme.example/privacy\nterms https://acme.example/terms\n}\n"
}

// TestConnectPagesAreFitForEverybody audits the pages of a flow that an app waits
// for.
func TestConnectPagesAreFitForEverybody(t *testing.T) {
	t.Parallel()
	tenants := newTenants(t)
	w := newWorld(t, withAccounts, withBrand, func(w *world, c *fakeprovider.Config) {
		c.APIKey, c.KeyHeader = "fakekey-0123456789", "X-Api-Key"
		w.site.Extra += tenants.extra("^[a-z]+$")
	})
	tenants.mu.Lock()
	tenants.fake = w.fake
	tenants.mu.Unlock()
	w.knowsAccounts()
	w.addKeys()
	id, dead := w.connect("u1"), w.connect("u1")
	w.api(http.MethodPost, "/v1/connections/"+dead+"/revoke", nil, nil)
	elsewhere := "http://localhost:9/elsewhere"
	open := func(more ...string) func(*world, *tab) page {
		return func(w *world, b *tab) page { return b.open(w.appLink(more...)) }
	}

	w.audit([]audited{
		{name: "choose", open: func(w *world, b *tab) page {
			return b.open(w.link(url.Values{"user_id": {"u1"}, "redirect_url": {w.app.url + "/callback"}}))
		}, says: "Available", act: "FFake"},
		{name: "key", open: open("integration", "keys"), says: "Add your", act: "Connect"},
		{name: "key-error", open: func(w *world, b *tab) page {
			b.open(w.appLink("integration", "keys"))
			b.typeInto("field_api_key", "fakekey-wrong")
			return b.press("Connect")
		}, says: "There is a problem", act: "Connect"},
		{name: "params", open: open("integration", "tenants"), says: "so we need to know yours", act: "Continue"},
		{name: "params-error", open: func(w *world, b *tab) page {
			b.open(w.appLink("integration", "tenants"))
			return b.press("Continue")
		}, says: "There is a problem", act: "Continue"},
		{name: "mismatch", open: func(w *world, b *tab) page {
			b.open(w.appLink("connection_id", id))
			b.do(chromedp.Click(chromedp.CSS(`input[value="grace"]`)))
			return b.press("Allow")
		}, says: "You chose a different account", act: "Choose again"},
		{name: "form-post", open: func(w *world, b *tab) page {
			// The page sends itself where it can: held here, it is looked at as those
			// see it for whom it does not.
			b.withoutScripts()
			b.open(w.appLink("response_mode", "form_post"))
			p := b.press("Allow")
			b.withScripts()
			return p
		}, says: "You are being taken back", act: "Continue"},
		{name: "set-up-error", open: open("redirect_url", elsewhere), says: "not set up correctly"},
		{name: "expired", open: open("expires", strconv.FormatInt(time.Now().Add(-time.Second).Unix(), 10)), says: "has expired"},
		{name: "mine", open: func(w *world, b *tab) page { return b.open(w.mineLink("u1")) }, says: "Your connections", act: "Disconnect"},
		{name: "mine-none", open: func(w *world, b *tab) page { return b.open(w.mineLink("u2")) }, says: "No account is connected yet"},
		{name: "disconnect", open: func(w *world, b *tab) page {
			b.open(w.mineLink("u1"))
			return b.press("Disconnect")
		}, says: "What happens", act: "Keep it connected"},
		{name: "disconnected", open: func(w *world, b *tab) page {
			w.connect("u3")
			b.open(w.mineLink("u3"))
			b.press("Disconnect")
			return b.press("Disconnect")
		}, says: "is disconnected", act: "Your connections"},
		{name: "another-browser", open: func(w *world, b *tab) page {
			other := newBrowser(w.t)
			return b.open(w.consent(other, w.open(other, w.appLink())))
		}, says: "started in another browser"},
	})
}

// TestConnectPagesWithoutAnAppAreFitForEverybody audits the pages of a flow that
// ends with us.
func TestConnectPagesWithoutAnAppAreFitForEverybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withFailpoints, withoutRedirectURL, withDeclaredScopes, withBrand)
	review := func(w *world, b *tab) page {
		return b.open(w.link(url.Values{"integration": {"fake"}, "user_id": {"u1"}}))
	}
	open := func(w *world, b *tab) {
		review(w, b)
		b.press("Continue to")
	}
	w.audit([]audited{
		{name: "review", open: review, says: "read", act: "Continue to"},
		{name: "success", open: func(w *world, b *tab) page { open(w, b); return b.press("Allow") }, says: "is connected"},
		{name: "denied", open: func(w *world, b *tab) page { open(w, b); return b.press("Deny") }, says: "You did not connect", act: "Look at the request again"},
		{name: "timed-out", open: func(w *world, b *tab) page {
			open(w, b)
			w.fail("clock=11m")
			defer w.fail()
			return b.press("Allow")
		}, says: "took longer than 10 minutes"},
		{name: "used", open: func(w *world, b *tab) page { open(w, b); b.press("Allow"); return b.reload() }, says: "already done"},
		{name: "wrong-scope", open: func(w *world, b *tab) page {
			return b.open(w.link(url.Values{"integration": {"fake"}, "scopes": {"admin"}}))
		}, says: "does not offer one of these permissions"},
		{name: "broken-link", open: func(w *world, b *tab) page { return b.open(w.site.Public + "/connect?signature=x") }, says: "does not work"},
	})
}

// TestConnectButtonIsFitForEverybody audits the button where it stands: in an
// app's page, of another origin, under a strict policy.
func TestConnectButtonIsFitForEverybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	host := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/app.css" {
			rw.Header().Set("Content-Type", "text/css")
			fmt.Fprint(rw, "body{color:#111;background:#fff} @media (prefers-color-scheme:dark){body{color:#eee;background:#111}}")
			return
		}
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.Header().Set("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'self'; script-src "+w.site.Public)
		fmt.Fprintf(rw, `<!doctype html><html lang="en"><title>An app</title><link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/app.css">
<script type="module" src="%s/connect/button.js"></script><main><h1>Settings</h1>`, w.site.Public)
		for _, variant := range []string{"default", "outline", "text"} {
			for _, status := range []string{"", "active", "reconnect"} {
				fmt.Fprintf(rw, `<p><connect-button variant="%s" status="%s" name="Fake" href="/go"><a href="/go">Connect Fake</a></connect-button></p>`, variant, status)
			}
		}
		fmt.Fprint(rw, `</main></html>`)
	}))
	t.Cleanup(host.Close)
	w.audit([]audited{{
		name: "button", open: func(_ *world, b *tab) page { return b.open(host.URL) }, says: "Settings",
	}})
}

// withScripts turns the tab's JavaScript on again.
func (b *tab) withScripts() {
	b.w.t.Helper()
	b.scripts(true)
}
