package provider_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Each provider's revocation, as its documentation shows it.
func TestRevocationDialectsOnTheWire(t *testing.T) {
	const (
		form   = "application/x-www-form-urlencoded"
		asJSON = "application/json"
	)
	tests := []struct {
		name, words, header string
		want                onTheWire
	}{
		{
			"Slack", `{"client_auth":"post","revoke":{"inject":true}}`, "Authorization",
			onTheWire{"POST /revoke", "", "", "", "Bearer a/t"},
		},
		{
			"Square: its own word in Authorization", `{"client_auth":"post","revoke":{"body":"json","client_auth":"omit","token":"access","param":"access_token",
				"params":{"revoke_only_access_token":"false"},"headers":{"Authorization":"Client {client_secret}"}}}`, "Authorization",
			onTheWire{"POST /revoke", "", asJSON, `{"access_token":"a/t","revoke_only_access_token":"false"}`, "Client pw"},
		},
		{
			"Zoom: in the query", `{"revoke":{"body":"query","token":"access","param":"token"}}`, "",
			onTheWire{"POST /revoke?token=a%2Ft", "id:pw", "", "", ""},
		},
		{
			"ServiceNow: a GET", `{"revoke":{"method":"GET","client_auth":"omit","param":"token"}}`, "",
			onTheWire{"GET /revoke?token=rt", "", "", "", ""},
		},
		{
			"HubSpot: in the path", `{"revoke_url":"BASE/refresh-tokens/{token}","revoke":{"method":"DELETE","client_auth":"omit"}}`, "",
			onTheWire{"DELETE /refresh-tokens/rt", "", "", "", ""},
		},
		{
			"Stack Exchange: a GET, in the path", `{"revoke_url":"BASE/apps/{token}/de-authenticate","revoke":{"method":"GET","token":"access","client_auth":"omit"}}`, "",
			onTheWire{"GET /apps/a%2Ft/de-authenticate", "", "", "", ""},
		},
		{
			"Shopify: a request to the API with its header", `{"revoke":{"method":"DELETE","inject":true,"body":"none"},"inject":{"header":"X-Shopify-Access-Token","headers":{"X-App":"{client_id}"}}}`, "X-Shopify-Access-Token",
			onTheWire{"DELETE /revoke", "", "", "", "a/t"},
		},
		{
			"QuickBooks: Basic and JSON", `{"revoke":{"body":"json","param":"token"}}`, "",
			onTheWire{"POST /revoke", "id:pw", asJSON, `{"token":"rt"}`, ""},
		},
		{
			"TikTok: client_key here, too", `{"client_auth":"post","token":{"rename":{"client_id":"client_key"}},"revoke":{"token":"access","param":"token"}}`, "",
			onTheWire{"POST /revoke", "", form, "client_key=id&client_secret=pw&token=a%2Ft", ""},
		},
		{
			"Stripe Connect: the account, no token", `{"client_auth":"basic_secret","params":{"stripe_user_id":{"from":"answer.stripe_user_id"}},
				"revoke":{"client_auth":"none","token":"none","params":{"stripe_user_id":"{stripe_user_id}"},"headers":{"Authorization":"Bearer {client_secret}"}}}`, "Authorization",
			onTheWire{"POST /revoke", "", form, "client_id=id&stripe_user_id=acct_1", "Bearer pw"},
		},
		{
			"what is renewed with itself", `{"refresh":{"with":"access_token"}}`, "",
			onTheWire{"POST /revoke", "id:pw", form, "token=a%2Ft&token_type_hint=access_token", ""},
		},
		{
			"RFC 7009", `{"client_auth":"post"}`, "",
			onTheWire{"POST /revoke", "", form, "client_id=id&client_secret=pw&token=rt&token_type_hint=refresh_token", ""},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t, answering(200, asJSON, `{}`))
			p := wordedProvider(t, l.URL, tt.words, nil)
			tok := tokenstore.Token{AccessToken: secret.New("a/t"), RefreshToken: secret.New("rt"), Metadata: map[string]string{"stripe_user_id": "acct_1"}}
			if err := p.Revoke(t.Context(), tok); err != nil {
				t.Fatal(err)
			}
			got := l.all()
			if len(got) != 1 {
				t.Fatalf("%d requests; want 1", len(got))
			}
			if diff := cmp.Diff(tt.want, wire(&got[0], tt.header)); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

// A token that the provider says is dead was revoked (RFC 7009 section 2.2);
// everything else that is no success was not.
func TestRevocationAnswers(t *testing.T) {
	slack := `{"answer":{"success":{"ok":"true"}},"revoke":{"inject":true},"errors":{"dead":["token_revoked","invalid_auth"]}}`
	for _, tt := range []struct {
		words  string
		status int
		body   string
		done   bool
	}{
		{slack, 200, `{"ok":true,"revoked":true}`, true},
		{slack, 200, `{"ok":false,"error":"token_revoked"}`, true},
		{slack, 200, `{"ok":false,"error":"invalid_auth"}`, true},
		{slack, 200, `{"ok":false,"error":"ratelimited"}`, false},
		{slack, 200, `{"ok":false}`, false},
		{slack, 200, ``, true},
		{slack, 429, `{"ok":false,"error":"ratelimited"}`, false},
		{`{}`, 200, `{"error":"invalid_request"}`, true}, // it has no word for it
		{`{}`, 400, `{"error":"invalid_grant"}`, true},
		{`{}`, 400, `{"error":"invalid_request"}`, false},
		{`{}`, 401, `{"error":"invalid_client"}`, false},
		{`{}`, 404, ``, false},
	} {
		l := newLedger(t, answering(tt.status, "application/json", tt.body))
		err := wordedProvider(t, l.URL, tt.words, nil).Revoke(t.Context(), oldToken())
		if (err == nil) != tt.done {
			t.Errorf("Revoke() with %d %s = %v; want done: %t", tt.status, tt.body, err, tt.done)
		}
		noSecrets(t, err)
	}
}

// A token in a URL is in no error.
func TestRevocationErrorsHaveNoToken(t *testing.T) {
	closed := newLedger(t, answering(200, "", ""))
	closed.Close()
	for _, words := range []string{
		`{"revoke_url":"BASE/refresh-tokens/{token}","revoke":{"method":"DELETE"}}`,
		`{"revoke":{"method":"GET"}}`, `{"revoke":{"body":"query"}}`,
		`{"revoke":{"inject":true},"inject":{"query":"access_token"}}`,
	} {
		l := newLedger(t, answering(302, "text/html", "canary"))
		for _, base := range []string{l.URL, closed.URL} {
			err := wordedProvider(t, base, words, nil).Revoke(t.Context(), oldToken())
			if err == nil {
				t.Error("Revoke() = nil; want an error")
			}
			noSecrets(t, err)
			if base == closed.URL && !errors.Is(err, tokenstore.ErrNotSent) {
				t.Errorf("Revoke() = %v; want ErrNotSent", err)
			}
		}
		if r := l.all()[0]; !strings.Contains(r.Path, "canary") {
			t.Errorf("the token is not in the URL %s", r.Path)
		}
	}
}
