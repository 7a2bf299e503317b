package e2e_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// TestPagesInGermanAreFitForEverybody looks at pages whose words are longer than
// the English ones.
func TestPagesInGermanAreFitForEverybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withoutRedirectURL, withBrand, withDashboard, withAccounts, func(_ *world, c *fakeprovider.Config) {
		c.APIKey, c.KeyHeader = "fakekey-0123456789", "X-Api-Key"
	})
	w.addKeys()
	w.knowsAccounts()
	review := func(w *world, b *tab) page {
		return b.open(w.link(url.Values{"integration": {"fake"}, "user_id": {"u1"}}))
	}
	setUp := w.browser()
	review(w, setUp)
	setUp.press("Continue to")
	setUp.wantPage(setUp.press("Allow"), http.StatusOK, "is connected")
	id := w.only()
	admin := w.site.Public + "/admin/"
	at := func(path string) func(*world, *tab) page {
		return func(_ *world, b *tab) page { return b.open(admin + path) }
	}
	w.auditNarrow("de", []audited{
		{name: "de-choose", open: func(w *world, b *tab) page { return b.open(w.link(url.Values{"user_id": {"u1"}})) }, says: "Verfügbar"},
		{name: "de-review", open: review, says: "bittet um die Erlaubnis"},
		{name: "de-denied", open: func(w *world, b *tab) page {
			review(w, b)
			b.press("Weiter zu")
			return b.press("Deny")
		}, says: "Sie haben den Zugang nicht erlaubt"},
		{name: "de-key-error", open: func(w *world, b *tab) page {
			b.open(w.link(url.Values{"integration": {"keys"}, "user_id": {"u1"}}))
			b.typeInto("field_api_key", "fakekey-wrong")
			return b.press("Verbinden")
		}, says: "Es gibt ein Problem"},
		{name: "de-mine", open: func(w *world, b *tab) page { return b.open(w.mineLink("u1")) }, says: "Ihre Verbindungen"},
		{name: "de-disconnect", open: func(w *world, b *tab) page {
			b.open(w.mineLink("u1"))
			return b.press("Trennen")
		}, says: "Was dann geschieht"},
		{name: "de-dashboard-list", open: at(""), says: "Neu zu verbinden"},
		{name: "de-dashboard-detail", open: at("connections/" + id), says: "Berechtigungen"},
		{name: "de-dashboard-link", open: func(_ *world, b *tab) page {
			b.open(admin + "connections/" + id)
			return b.press("Link zum Neuverbinden")
		}, says: "niemandem sonst"},
		{name: "de-dashboard-delete", open: at("connections/" + id + "/delete"), says: "Diese Verbindung löschen?"},
		{name: "de-dashboard-closed", open: func(w *world, b *tab) page { return b.open(w.site.Public + "/closed/") }, says: "muss wissen, wer Sie sind"},
	})
}

// TestPagesWithLongValuesAreFitForEverybody looks at pages that show what nobody
// can break: a user's ID, a name, a label and metadata of 256 characters.
func TestPagesWithLongValuesAreFitForEverybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withBrand, withDashboard, withAccounts)
	w.addKeys() // something to choose from
	w.knowsAccounts()
	long := strings.Repeat("W", 256)
	id := w.connect(long)
	w.api(http.MethodPatch, "/v1/connections/"+id, map[string]any{
		"name": long, "labels": map[string]string{strings.Repeat("k", 64): long}, "metadata": map[string]any{"kept": long},
	}, nil)
	admin := w.site.Public + "/admin/"
	at := func(path string) func(*world, *tab) page {
		return func(_ *world, b *tab) page { return b.open(admin + path) }
	}
	w.auditNarrow("en", []audited{
		{name: "long-choose", open: func(w *world, b *tab) page {
			return b.open(w.link(url.Values{"user_id": {long}, "redirect_url": {w.app.url + "/callback"}}))
		}, says: "Your connections"},
		{name: "long-mine", open: func(w *world, b *tab) page { return b.open(w.mineLink(long)) }, says: "Your connections"},
		{name: "long-disconnect", open: func(w *world, b *tab) page {
			b.open(w.mineLink(long))
			return b.press("Disconnect")
		}, says: "What happens"},
		{name: "long-dashboard-list", open: at(""), says: long},
		{name: "long-dashboard-detail", open: at("connections/" + id), says: long},
		{name: "long-dashboard-events", open: at("events"), says: long},
		{name: "long-dashboard-link", open: func(_ *world, b *tab) page {
			b.open(admin + "connections/" + id)
			return b.press("Make a reconnect link")
		}, says: "It ends in"},
		{name: "long-dashboard-delete", open: at("connections/" + id + "/delete"), says: "Delete this connection?"},
	})
}
