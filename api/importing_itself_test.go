package api_test

import (
	"testing"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Instagram has no refresh tokens; what is imported
// is renewed like what came by a code.
func TestImportOfWhatRenewsItself(t *testing.T) {
	b := newBench(t, withSource(&fakeSource{account: tokenstore.Account{ID: "7"}}), func(c *api.Config) {
		in := c.Integrations["github"]
		in.RenewsItself = true
		c.Integrations["github"] = in
	})
	b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_a","access_token":"a","refresh_token":"r"}`), 400, "invalid_request")
	a := b.do("POST", importPath, `{"integration":"github","id":"conn_a","access_token":"a"}`)
	b.wants(a, 201, "")
	if c := b.stored("conn_a"); c.Token.RefreshToken.Reveal() != "a" || a.json["verified"] != true || b.refresher.by.Name != "" {
		t.Errorf("stored %q to renew it, verified %v, asked for a renewal by %q", c.Token.RefreshToken.Reveal(), a.json["verified"], b.refresher.by.Name)
	}
}
