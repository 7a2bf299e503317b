package refresh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// lasting is a provider whose credential is a key or our own client: no answer
// has a refresh token, and what renews the token is never spent.
type lasting struct{ *provider }

func (p lasting) Parse(a tokenstore.Answer, prev tokenstore.Token, asked []string) (tokenstore.Token, error) {
	t, err := p.provider.Parse(a, prev, asked)
	t.RefreshToken = prev.RefreshToken
	return t, err
}

// lastingRig is a rig with a connection that renewal renews.
func lastingRig(t *testing.T, scheme string, renewal secret.String, change ...func(*tokenstore.Connection)) *rig {
	t.Helper()
	r := newRig(t, append([]func(*tokenstore.Connection){func(c *tokenstore.Connection) {
		c.AuthScheme, c.Token.RefreshToken = scheme, renewal
	}}, change...)...)
	r.prov.grace = true
	r.startWith(r.store, func() refresh.Provider { return lasting{r.prov} })
	return r
}

var lastingSchemes = map[string]secret.String{
	tokenstore.AuthClientCredentials: tokenstore.ClientCredentials,
	tokenstore.AuthJWTBearer:         secret.New(`{"private_key":"pem"}`),
}

// Connections without a refresh token of the provider's are renewed by the same
// machinery: ahead of their end, at it, and once for a refusal.
func TestLastingCredentials(t *testing.T) {
	for scheme, renewal := range lastingSchemes {
		t.Run(scheme, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := lastingRig(t, scheme, renewal)
				g, err := r.Find(t.Context(), r.id)
				if err != nil || !g.Renewable || !g.Token.RefreshToken.IsZero() {
					t.Fatalf("Find() = %+v, %v", g, err)
				}
				r.wantToken("at-0")
				r.wantCalls()
				time.Sleep(tokenLife)
				r.wantToken("at-new-1")
				time.Sleep(tokenLife)
				r.wantToken("at-new-2")
				refused, err := r.Renew(t.Context(), r.id, 3)
				if err != nil || refused.Token.AccessToken.Reveal() != "at-new-3" {
					t.Fatalf("Renew() = %+v, %v", refused, err)
				}
				r.wantCalls(renewal.Reveal(), renewal.Reveal(), renewal.Reveal())
				if c := r.connection(); !c.Token.RefreshToken.Equal(renewal) || c.Intent != nil || !c.KeepAliveAt().IsZero() || !c.Due().IsZero() {
					t.Errorf("connection %+v", c)
				}
			})
		})
	}
}

// A renewal whose outcome nobody saw is tried again soon: a key is not spent by
// it. So does the next run.
func TestLastingCredentialsInterrupted(t *testing.T) {
	for scheme, renewal := range lastingSchemes {
		t.Run(scheme, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := lastingRig(t, scheme, renewal)
				r.prov.script = []step{{sendErr: unknown()}}
				time.Sleep(tokenLife)
				if _, err := r.token(t.Context()); err == nil {
					t.Fatal("a token came out of nothing")
				}
				time.Sleep(2 * time.Second)
				r.wantToken("at-new-2")
				r.wantStatus(tokenstore.StatusActive, "")
			})
		})
	}
}

// A key that its provider takes no more ends the connection.
func TestLastingCredentialsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := lastingRig(t, tokenstore.AuthJWTBearer, lastingSchemes[tokenstore.AuthJWTBearer])
		r.prov.script = []step{{parse: invalidGrant()}}
		time.Sleep(tokenLife)
		if _, err := r.token(t.Context()); err == nil {
			t.Fatal("a token came out of a dead key")
		}
		r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
		if c := r.connection(); !c.Token.RefreshToken.IsZero() {
			t.Error("the dead key is kept")
		}
	})
}

// Keys and tokens made by hand do not expire, and nothing renews them: after a
// refusal the call's own answer stands.
func TestKeysAreNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			c.AuthScheme = tokenstore.AuthAPIKey
			c.Token = tokenstore.Token{AccessToken: secret.New("at-0"), IssuedAt: time.Now(), Generation: 1}
		})
		time.Sleep(1000 * time.Hour)
		r.wantToken("at-0")
		if _, err := r.Renew(t.Context(), r.id, 1); err == nil {
			t.Error("Renew() = nil")
		}
		r.wantCalls()
		r.wantStatus(tokenstore.StatusActive, "")
	})
}
