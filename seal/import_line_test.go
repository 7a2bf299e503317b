package seal_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestImportLine(t *testing.T) {
	ends := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	connection := func(scheme string, token tokenstore.Token) *tokenstore.Connection {
		return &tokenstore.Connection{ID: "conn_1", Integration: "i", UserID: "u", AuthScheme: scheme, Token: token}
	}
	access := tokenstore.Token{AccessToken: secret.New("a:b"), RefreshToken: secret.New("r"), ExpiresAt: ends, Scopes: []string{"read"}}
	guessed := access
	guessed.ExpiryUnknown = true
	whole := connection("", access)
	whole.Name, whole.Labels, whole.Params = "n", map[string]string{"l": "1"}, map[string]string{"p": "2"}
	whole.Metadata, whole.Disabled = `{"m":3}`, true
	told := connection(tokenstore.AuthOAuth2, tokenstore.Token{AccessToken: secret.New("a"), Metadata: map[string]string{"realm_id": "7", "p": "1"}})
	told.Params = map[string]string{"p": "2", "given": "3"}
	itself := connection(tokenstore.AuthOAuth2, tokenstore.Token{
		AccessToken: secret.New("a"), RefreshToken: secret.New("a"), ExpiresAt: ends, RefreshExpiresAt: ends, Provisional: true,
	})
	const head = `{"id":"conn_1","integration":"i","user_id":"u",`
	for name, tt := range map[string]struct {
		c    *tokenstore.Connection
		want string
	}{
		"whole": {whole, head + `"name":"n","labels":{"l":"1"},"params":{"p":"2"},"metadata":{"m":3},"disabled":true,"auth_scheme":"OAUTH2",` +
			`"scopes":["read"],"access_token":"a:b","refresh_token":"r","expires_at":"2026-11-22T10:00:00Z"}`},
		"told": {told, head + `"params":{"given":"3","p":"1","realm_id":"7"},"auth_scheme":"OAUTH2","access_token":"a"}`},
		"renews itself, and its exchange is still to come": {
			itself, head + `"auth_scheme":"OAUTH2","access_token":"a","expires_at":"2026-11-22T10:00:00Z","provisional":true}`,
		},
		"no end":     {connection(tokenstore.AuthOAuth2, guessed), head + `"auth_scheme":"OAUTH2","scopes":["read"],"access_token":"a:b","refresh_token":"r"}`},
		"key":        {connection(tokenstore.AuthAPIKey, tokenstore.Token{AccessToken: secret.New("k")}), head + `"auth_scheme":"API_KEY","credentials":{"api_key":"k"}}`},
		"token":      {connection(tokenstore.AuthBearerToken, tokenstore.Token{AccessToken: secret.New("k")}), head + `"auth_scheme":"BEARER_TOKEN","credentials":{"token":"k"}}`},
		"basic":      {connection(tokenstore.AuthBasic, tokenstore.Token{AccessToken: secret.New("YTpiOmM=")}), head + `"auth_scheme":"BASIC","credentials":{"password":"b:c","username":"a"}}`},
		"assertions": {connection(tokenstore.AuthJWTBearer, tokenstore.Token{AccessToken: secret.New("a"), RefreshToken: secret.New("pem"), Scopes: []string{"read"}}), head + `"auth_scheme":"JWT_BEARER","credentials":{"key":"pem"}}`},
		"own client": {connection(tokenstore.AuthClientCredentials, tokenstore.Token{AccessToken: secret.New("a"), RefreshToken: tokenstore.ClientCredentials}), head + `"auth_scheme":"OAUTH2_CLIENT_CREDENTIALS"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := seal.ImportLine(tt.c)
			if diff := cmp.Diff(tt.want, string(got)); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
	if _, err := seal.ImportLine(connection(tokenstore.AuthBasic, tokenstore.Token{AccessToken: secret.New("%")})); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("a pair that is none: %v", err)
	}
}
