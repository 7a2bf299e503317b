package api_test

import (
	"slices"
	"testing"
	"time"

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
	const ends = "2096-11-22T00:00:00Z"
	b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_b","access_token":"b","provisional":true,"expires_at":"`+ends+`"}`), 201, "")
	c := b.stored("conn_b")
	if !c.Token.Provisional || c.Token.RefreshExpiresAt.Format(time.RFC3339) != ends {
		t.Errorf("stored %+v; want one whose exchange is to come, and that ends with the access token", c.Token)
	}
	due, err := b.store.DueConnections(t.Context(), time.Now())
	if err != nil || !slices.Contains(due, "conn_b") || slices.Contains(due, "conn_a") {
		t.Errorf("due: %v, %v", due, err)
	}
}

// Where there is no second request, nothing is provisional.
func TestImportOfWhatIsNotProvisional(t *testing.T) {
	b := newBench(t)
	b.wants(b.do("POST", importPath, `{"integration":"github","access_token":"a","refresh_token":"r","provisional":true}`), 400, "invalid_request")
}
