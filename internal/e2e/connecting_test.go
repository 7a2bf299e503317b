package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// typeInto replaces what is in the field with this name.
func (b *tab) typeInto(name, text string) {
	b.w.t.Helper()
	b.do(chromedp.SetValue(chromedp.CSS(fmt.Sprintf("[name=%q]", name)), text))
}

// wantCompletes completes a connection of u1's by what the app was told.
func (w *world) wantCompletes(told url.Values) string {
	w.t.Helper()
	id := told.Get("connection_id")
	if told.Get("error") != "" || told.Get("state") != "app-state" {
		w.t.Fatalf("the app got error %q", told.Get("error"))
	}
	w.complete(id, told.Get("completion_code"), "u1")
	w.wantStatus(id, "ACTIVE", "")
	return id
}

// sendForm sends a form to a page of ours.
func (w *world) sendForm(browser *http.Client, target string, form url.Values) *http.Response {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := browser.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	w.note(b)
	return res
}

// withAccounts lets the user choose at the consent, and tells Lanyard how to ask
// whose account it is.
func withAccounts(_ *world, c *fakeprovider.Config) {
	c.Users = []fakeprovider.User{
		{ID: "ada", Name: "Ada Lovelace", Email: "ada@example.com"}, {ID: "grace", Name: "Grace Hopper", Email: "grace@example.com"},
	}
	c.User = c.Users[0]
}

// knowsAccounts goes with withAccounts.
func (w *world) knowsAccounts() {
	w.t.Helper()
	w.site.Provider += fmt.Sprintf("account %s/api/me {\nid id\nname name\nemail email\n}\n", w.site.Fake)
	if err := w.reload(); err != nil {
		w.t.Fatal(err)
	}
}

// TestBrowserFormPost: with response_mode=form_post the answer stands in no URL.
func TestBrowserFormPost(t *testing.T) {
	w := newWorld(t)
	for _, scripts := range []bool{true, false} {
		for _, answer := range []string{"Allow", "Deny"} {
			b := w.browser()
			if !scripts {
				b.withoutScripts()
			}
			b.open(w.appLink("response_mode", "form_post"))
			p := b.press(answer)
			if !scripts {
				b.wantPage(p, http.StatusOK, "Continue")
				b.press("Continue")
			}
			told := w.called()
			if answer == "Deny" {
				w.wantError(told, "user_denied")
			} else {
				w.wantCompletes(told)
			}
			w.eventually("the browser is back, with nothing in its address", func() error {
				if at := eval[string](b, `location.href`); at != w.app.url+"/callback" {
					return fmt.Errorf("it is at %s", hostOf(at))
				}
				return nil
			})
		}
	}
}

// TestBrowserPostedCallback: a provider that answers by a cross-site form.
func TestBrowserPostedCallback(t *testing.T) {
	w := newWorld(t, func(_ *world, c *fakeprovider.Config) { c.FormPost = true })
	b := w.browser()
	b.open(w.appLink())
	b.press("Allow")
	w.wantWorks(w.wantCompletes(w.called()))
	b.open(w.appLink())
	b.press("Deny")
	w.wantError(w.called(), "user_denied")
}

// TestBrowserChoosesAnotherAccount: A019.
func TestBrowserChoosesAnotherAccount(t *testing.T) {
	w := newWorld(t, withAccounts)
	w.knowsAccounts()
	b := w.browser()
	b.open(w.appLink())
	id := w.wantCompletes(w.wantBack(b.press("Allow")))

	b.open(w.appLink("connection_id", id))
	b.do(chromedp.Click(chromedp.CSS(`input[value="grace"]`)))
	p := b.press("Allow")
	b.wantPage(p, http.StatusConflict, "a…@example.com", "Grace Hopper")
	b.shoot("mismatch")
	w.wantNotCalled()
	if c := w.connection(id); c.Generation != 1 {
		t.Errorf("the connection is of generation %d", c.Generation)
	}
	w.wantWorks(id)
	b.press("Choose again")
	back := w.wantBack(b.press("Allow"))
	w.wantCompletes(back)
	w.wantWorks(id)

	b.open(w.appLink("connection_id", id))
	b.do(chromedp.Click(chromedp.CSS(`input[value="grace"]`)))
	b.press("Allow")
	w.wantError(w.wantBack(b.press("Go back to")), "account_mismatch")
}

// addKeys gives the provider's API a key, and Lanyard an integration of it.
func (w *world) addKeys() {
	w.t.Helper()
	w.addKeysOf(w.site.Fake + "/api")
}

// addKeysOf is addKeys with the API at this URL.
func (w *world) addKeysOf(api string) {
	w.t.Helper()
	w.site.Extra += fmt.Sprintf(`
		provider keys {
			api_url %[1]s
			allow_private
			key header X-Api-Key {
				title "API key"
			}
			account %[1]s/me {
				id id
				name name
			}
		}
		integration keys {
			auth_scheme API_KEY
		}
	`, api)
	if err := w.reload(); err != nil {
		w.t.Fatal(err)
	}
}

// TestBrowserEntersAKey: a wrong one, then the right one, with scripts and
// without.
func TestBrowserEntersAKey(t *testing.T) {
	const key = "fakekey-0123456789-canary"
	w := newWorld(t, func(_ *world, c *fakeprovider.Config) { c.APIKey, c.KeyHeader = key, "X-Api-Key" })
	w.secrets = append(w.secrets, key)
	w.addKeys()
	for _, scripts := range []bool{true, false} {
		b := w.browser()
		if !scripts {
			b.withoutScripts()
		}
		b.wantPage(b.open(w.appLink("integration", "keys")), http.StatusOK, "API key")
		b.shoot("key")
		b.wantPage(b.press("Connect"), http.StatusUnprocessableEntity)
		b.typeInto("field_api_key", "fakekey-wrong-0123456789")
		b.wantPage(b.press("Connect"), http.StatusUnprocessableEntity)
		b.shoot("key-error")
		b.typeInto("field_api_key", key)
		p := b.press("Connect")
		if !scripts {
			b.wantPage(p, http.StatusOK, "Continue")
			b.press("Continue")
		}
		id := w.wantCompletes(w.called())
		w.wantWorks(id)
	}
	// The answer by a form follows our own form.
	b := w.browser()
	b.open(w.appLink("integration", "keys", "response_mode", "form_post"))
	b.typeInto("field_api_key", key)
	b.press("Connect")
	w.wantCompletes(w.called())
}

// TestBrowserIsAskedForParams: what the link does not say the user does, and the
// provider's page comes next.
func TestBrowserIsAskedForParams(t *testing.T) {
	w, _ := newTenantWorld(t)
	b := w.browser()
	b.wantPage(b.open(w.appLink("integration", "tenants")), http.StatusOK)
	b.shoot("params")
	b.typeInto("field_tenant", "Not/one")
	b.wantPage(b.press("Continue"), http.StatusUnprocessableEntity)
	b.typeInto("field_tenant", "acme")
	b.wantPage(b.press("Continue"), http.StatusOK)
	b.press("Continue")
	w.wantCompletes(w.wantBack(b.press("Allow")))
}

// TestDeviceConnects: RFC 8628, over a reload and a restart.
func TestDeviceConnects(t *testing.T) {
	w := newWorld(t, func(_ *world, c *fakeprovider.Config) { c.DeviceInterval = time.Second })
	begin := func() (id, code string) {
		t.Helper()
		var out struct {
			ID     string `json:"id"`
			Device struct {
				UserCode string `json:"user_code"`
			} `json:"device"`
		}
		a := w.api(http.MethodPost, "/v1/connections", map[string]any{"integration": "fake", "user_id": "u1", "device": true}, &out)
		if a.Status != http.StatusCreated || out.Device.UserCode == "" {
			t.Fatalf("begin: HTTP %d: %s", a.Status, a.Body)
		}
		return out.ID, out.Device.UserCode
	}
	ends := func(id, status, reason string) {
		t.Helper()
		w.eventually("the device's connection is "+status, func() error {
			if c := w.connection(id); c.Status != status || c.StatusReason != reason {
				return fmt.Errorf("it is %s %s", c.Status, c.StatusReason)
			}
			return nil
		})
	}
	id, code := begin()
	if !w.fake.ApproveDevice(code) {
		t.Fatal("no device waits")
	}
	ends(id, "ACTIVE", "")
	w.wantWorks(id)

	id, code = begin()
	if err := w.reload(); err != nil {
		t.Fatal(err)
	}
	w.fake.ApproveDevice(code)
	ends(id, "ACTIVE", "")

	id, code = begin()
	w.kill()
	w.fake.DenyDevice(code)
	w.start()
	ends(id, "FAILED", "user_denied")
}
