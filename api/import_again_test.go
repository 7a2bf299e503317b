package api_test

import (
	"context"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// rSource does something while the provider is asked whose a token is.
type rSource struct {
	fakeSource
	during func(tokenstore.Token)
}

func (s *rSource) Account(ctx context.Context, t tokenstore.Token) (tokenstore.Account, error) {
	s.during(t)
	return s.fakeSource.Account(ctx, t)
}

// An import is verified: meanwhile the connection is revoked, or connected again.
func TestImportVerifiedWhileItChanges(t *testing.T) {
	for _, whose := range []error{nil, tokenstore.ErrCredentialRefused} {
		for _, what := range []string{"revoked", "reconnected"} {
			f := &rSource{fakeSource: fakeSource{whose: whose, account: tokenstore.Account{ID: "old"}}}
			b := newBench(t, func(c *api.Config) {
				in := c.Integrations["github"]
				in.Credentials = func(map[string]string) (api.Credentials, error) { return f, nil }
				c.Integrations["github"] = in
			})
			f.during = func(tokenstore.Token) {
				_, err := b.store.UpdateConnection(context.Background(), "conn_r", func(c *tokenstore.Connection) error {
					if what == "revoked" {
						c.Revoke()
						return nil
					}
					c.Activate(tokenstore.Token{AccessToken: secret.New("fresh")}, nil, time.Now().UTC())
					c.Account = tokenstore.Account{ID: "new"}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_r","access_token":"a"}`), 201, "")
			c := b.stored("conn_r")
			switch {
			case what == "revoked" && c.Status != tokenstore.StatusRevoked:
				t.Errorf("%v: revoked meanwhile, and now %s %s", whose, c.Status, c.StatusReason)
			case what == "reconnected" && (c.Token.AccessToken.Reveal() != "fresh" || c.Account.ID != "new"):
				t.Errorf("%v: reconnected meanwhile, and now %s, %q of account %s", whose, c.Status, c.Token.AccessToken.Reveal(), c.Account.ID)
			}
		}
	}
}

// After a crash between the act and its note the user approves; the same request
// comes again while the provider is down.
func TestDeviceAgainAfterItConnected(t *testing.T) {
	d := &fakeDevices{}
	s := &notesFail{fail: func(n int32) bool { return n == 2 }}
	b := newBench(t, func(c *api.Config) { s.Store, c.Store, c.Devices = c.Store.(*memstore.Store), s, d })
	body := `{"integration":"github","device":true}`
	id := b.begun(b.do("POST", "/v1/connections", body, once("k")))
	_, err := b.store.UpdateConnection(context.Background(), id, func(c *tokenstore.Connection) error {
		c.Activate(tokenstore.Token{AccessToken: secret.New("live"), RefreshToken: secret.New("r")}, nil, c.CreatedAt)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.err = tokenstore.ErrNotSent
	a := b.do("POST", "/v1/connections", body, once("k"))
	if c, err := b.store.Connection(context.Background(), id); err != nil || c.Status != tokenstore.StatusActive {
		t.Errorf("answered %d %s, and the live connection is gone: %v", a.status, a.text, err)
	}
}

// Times that JSON can't say, once they are in UTC.
func TestImportBeyondTheYears(t *testing.T) {
	b := newBench(t)
	for _, ends := range []string{"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"} {
		b.wants(b.do("POST", importPath+"?verify=false", `{"integration":"github","access_token":"a","expires_at":"`+ends+`"}`), 400, "invalid_request")
	}
	b.wants(b.do("GET", "/v1/connections", ""), 200, "")
}

// As TestIdempotencyAfterACrash, of an import that gives its ID.
func TestImportOfAnIDAgainAfterACrash(t *testing.T) {
	s := &notesFail{fail: func(n int32) bool { return n == 2 }}
	b := newBench(t, func(c *api.Config) { s.Store, c.Store = c.Store.(*memstore.Store), s })
	body := `{"integration":"github","id":"conn_own","user_id":"u1","access_token":"a"}`
	b.wants(b.do("POST", importPath, body, once("k")), 201, "")
	b.wants(b.do("POST", importPath, body, once("k")), 201, "")
	// And of one that another request has made, nothing is told.
	s.fail = func(int32) bool { return false }
	b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_own","user_id":"u2","access_token":"a"}`, once("k2")), 409, "connection_exists")
	b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_own","user_id":"u1","access_token":"a"}`, once("k3")), 409, "connection_exists")
}
