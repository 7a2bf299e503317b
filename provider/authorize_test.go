package provider_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
)

func TestAuthorizeURL(t *testing.T) {
	sum := sha256.Sum256([]byte(theVerifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	base := func(more url.Values) url.Values {
		q := url.Values{
			"response_type": {"code"}, "client_id": {clientID}, "state": {"the state&"},
			"redirect_uri":   {"https://lanyard.example/callback/acme"},
			"code_challenge": {challenge}, "code_challenge_method": {"S256"},
		}
		for k, v := range more {
			if v == nil {
				delete(q, k)
				continue
			}
			q[k] = v
		}
		return q
	}
	google, _ := provider.Lookup("google")
	tests := []struct {
		name   string
		entry  provider.Entry
		change func(*provider.Entry)
		scopes []string
		at     string
		want   url.Values
	}{
		{"plain", acme(), nil, []string{"read", "write"}, "https://id.acme.example/authorize", base(url.Values{"scope": {"read write"}})},
		{"no scopes", acme(), nil, nil, "https://id.acme.example/authorize", base(nil)},
		{
			"a query of its own", acme(), func(e *provider.Entry) { e.AuthorizeURL += "?tenant=a%26b" }, nil,
			"https://id.acme.example/authorize", base(url.Values{"tenant": {"a&b"}}),
		},
		{
			"another separator", acme(), func(e *provider.Entry) { e.Authorize.ScopeSeparator = "," },
			[]string{"read", "write"},
			"https://id.acme.example/authorize", base(url.Values{"scope": {"read,write"}}),
		},
		{
			"PKCE off", acme(), func(e *provider.Entry) { e.Authorize.PKCEOff = "breaks" }, nil,
			"https://id.acme.example/authorize", base(url.Values{"code_challenge": nil, "code_challenge_method": nil}),
		},
		{
			"google", google, nil,
			[]string{"openid"},
			"https://accounts.google.com/o/oauth2/v2/auth",
			base(url.Values{"scope": {"openid"}, "access_type": {"offline"}, "prompt": {"consent"}}),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change != nil {
				tt.change(&tt.entry)
			}
			got, err := newProvider(t, tt.entry).AuthorizeURL(t.Context(), secret.New("the state&"), secret.New(theVerifier), tt.scopes)
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, u.Query()); diff != "" {
				t.Errorf("query (-want +got):\n%s", diff)
			}
			if u.RawQuery = ""; u.String() != tt.at {
				t.Errorf("AuthorizeURL() is at %s; want %s", u, tt.at)
			}
		})
	}
}
