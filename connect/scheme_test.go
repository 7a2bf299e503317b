package connect_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// The operator has changed the integration's auth scheme. The API says
// `scheme_changed` and offers a link; the user connects again.
func TestReconnectAfterTheSchemeChanged(t *testing.T) {
	b := newBench(t)
	b.p.as(ada)
	br := b.browser()
	c := b.create(tokenstore.Connection{Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthAPIKey, Token: live("old-key"), Account: ada})
	c = br.connect(onConnection(c))
	if c.Token.AccessToken.Reveal() == "old-key" || c.AuthScheme != tokenstore.AuthOAuth2 {
		t.Errorf("connected anew, token %q, and the scheme is still %s: calls go on being refused as scheme_changed", c.Token.AccessToken.Reveal(), c.AuthScheme)
	}
}

// The app revokes a connection while its device code is still to be approved.
func TestRevokedWhileADeviceIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(t)
		b.p.answers("authorization_pending", "authorization_pending")
		c := b.begun()
		if _, err := b.h.Device(t.Context(), c, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if _, err := b.store.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error { c.Revoke(); return nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if c = b.connection(c.ID); c.Status != tokenstore.StatusRevoked {
			t.Errorf("revoked after the flow began, and now %s, with nobody to complete it", c.Status)
		}
		if err := b.h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

var _ = secret.New

// A link asks an integration with keys for scopes: no key has any to grant.
func TestScopesOfAKey(t *testing.T) {
	b := newBench(t, withKeys)
	br := b.browser()
	w := br.get(b.link(func(p *connect.Params) { p.Scopes = []string{"repo"} }))
	if w.Code != 200 {
		return // refused: as the API does
	}
	q := wantOnward(t, br.form(w, 200).send("api_key", goodKey), "")
	if c := b.complete(q.Get("connection_id"), q.Get("completion_code")); len(c.MissingScopes()) > 0 {
		t.Errorf("scopes asked for %v, and missing for ever %v", c.RequestedScopes, c.MissingScopes())
	}
}
