package provider_test

import (
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// claimsOf returns the header and the claims of an assertion.
func claimsOf(t *testing.T, assertion string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWT", assertion)
	}
	decode(t, parts[0], &header)
	decode(t, parts[1], &claims)
	return header, claims
}

// A client that proves itself with a key does so at the token endpoint and where
// tokens are revoked, and sends the key nowhere.
func TestPrivateKeyJWT(t *testing.T) {
	key := rsaKey(t, 2048)
	for _, tt := range []struct{ name, words, secret, issuer, audience, kid string }{
		{"RFC 7523", `{"client_auth":"private_key_jwt"}`, pemOf(t, key), "id", "BASE/token", ""},
		{
			"Revolut", `{"client_auth":"private_key_jwt","client_assertion":{"issuer":"redirect_host","audience":"https://revolut.com"}}`,
			pemOf(t, key), "lanyard.example", "https://revolut.com", "",
		},
		{"with the key's ID", `{"client_auth":"private_key_jwt"}`, serviceFile(t, key), "id", "BASE/token", "kid-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t, answering(200, "application/json", okBody))
			p, err := provider.New(provider.Config{
				Entry: worded(t, l.URL, tt.words), ClientID: "id", ClientSecret: secret.New(tt.secret),
				RedirectURI: "https://lanyard.example/callback/acme",
			})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if _, err := p.Exchange(t.Context(), secret.New("c"), secret.New("v"), nil); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Refresh(t.Context(), oldToken()); err != nil {
				t.Fatal(err)
			}
			if err := p.Revoke(t.Context(), oldToken()); err != nil {
				t.Fatal(err)
			}
			seen := map[any]bool{}
			for _, r := range l.all() {
				form, err := url.ParseQuery(r.Body)
				if err != nil || form.Get("client_id") != "id" || form.Has("client_secret") || r.User != "" || strings.Contains(r.Body, "PRIVATE") {
					t.Fatalf("request = %+v, %v", r, err)
				}
				if got := form.Get("client_assertion_type"); got != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
					t.Errorf("client_assertion_type = %q", got)
				}
				header, claims := claimsOf(t, form.Get("client_assertion"))
				kid, _ := header["kid"].(string)
				if header["alg"] != "RS256" || kid != tt.kid {
					t.Errorf("header = %v", header)
				}
				audience := strings.ReplaceAll(tt.audience, "BASE", l.URL)
				if claims["iss"] != tt.issuer || claims["sub"] != "id" || claims["aud"] != audience || claims["exp"] == nil || seen[claims["jti"]] {
					t.Errorf("claims = %v; want iss %s, sub id, aud %s, a new jti", claims, tt.issuer, audience)
				}
				seen[claims["jti"]] = true
			}
		})
	}
}

func TestPrivateKeyJWTSecret(t *testing.T) {
	for _, clientSecret := range []string{"canary", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""} {
		_, err := provider.New(provider.Config{
			Entry: worded(t, base, `{"client_auth":"private_key_jwt"}`), ClientID: "id", ClientSecret: secret.New(clientSecret),
			RedirectURI: "https://lanyard.example/callback/acme",
		})
		if err == nil || !strings.Contains(err.Error(), "client_secret") {
			t.Errorf("New() with the secret %q = %v; want an error about client_secret", clientSecret, err)
		}
		noSecrets(t, err)
	}
}

// GitHub makes an installation's token of the app's assertion in the header.
func TestAssertionInTheHeader(t *testing.T) {
	l := newLedger(t, answering(201, "application/json",
		`{"token":"ghs_16C7","expires_at":"2099-07-11T22:14:10Z","permissions":{"issues":"write"},"repository_selection":"all"}`))
	words := `{"token_url":"BASE/app/installations/{installation_id}/access_tokens","params":{"installation_id":{"pattern":"^[0-9]+$"}},
		"jwt":{"life":"9m","scope":"none","carry":"bearer"},"token":{"headers":{"X-GitHub-Api-Version":"2022-11-28"},"params":{"never":"sent"}},
		"answer":{"paths":{"access_token":"token"}},"revoke_url":"BASE/installation/token","revoke":{"method":"DELETE","inject":true}}`
	p, err := provider.New(provider.Config{
		Entry: worded(t, l.URL, words), Scheme: tokenstore.AuthJWTBearer, ClientID: "Iv1", Scopes: []string{"read"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	bound, err := p.For(map[string]string{"installation_id": "42"})
	if err != nil {
		t.Fatal(err)
	}
	tok, _, err := bound.Credential(t.Context(), given("key", pemOf(t, keyOn(t, elliptic.P256()))))
	if err != nil || !tok.AccessToken.Equal(secret.New("ghs_16C7")) || tok.ExpiryUnknown || len(tok.Scopes) != 1 {
		t.Fatalf("Credential() = %+v, %v", seen(tok), err)
	}
	if err := bound.Revoke(t.Context(), tok); err != nil {
		t.Fatal(err)
	}
	all := l.all()
	r := all[0]
	assertion, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || r.Method != http.MethodPost || r.Path != "/app/installations/42/access_tokens" || r.Body != "" || r.Header.Get("Content-Type") != "" ||
		r.Header.Get("X-GitHub-Api-Version") != "2022-11-28" {
		b, _ := json.Marshal(r)
		t.Fatalf("request = %s", b)
	}
	_, claims := claimsOf(t, assertion)
	if claims["iss"] != "Iv1" || claims["scope"] != nil || claims["exp"].(float64)-claims["iat"].(float64) != 540 {
		t.Errorf("claims = %v", claims)
	}
	if r := all[1]; r.Method != http.MethodDelete || r.Header.Get("Authorization") != "Bearer ghs_16C7" || r.Body != "" {
		t.Errorf("revocation = %+v", r)
	}
}

// What the callback tells decides where the code goes; what it may tell is the
// entry's.
func TestExchangeWhereTheCallbackSays(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	words := `{"token_url":"BASE/{region}/token","params":{"region":{"from":"callback.location","default":"us","pattern":"^(us|eu)$"}}}`
	p := wordedProvider(t, l.URL, words, nil)
	for _, callback := range []map[string]string{nil, {"region": "eu", "scope": "read"}} {
		a, err := p.Exchange(t.Context(), secret.New("c"), secret.New("v"), callback)
		if err != nil || a.Callback["region"] != callback["region"] {
			t.Fatalf("Exchange() = %v, %v", a.Callback, err)
		}
		tok, err := p.Parse(a, tokenstore.Token{}, []string{"asked"})
		if err != nil || tok.Metadata["region"] != callback["region"] {
			t.Errorf("Parse() told %v, %v", tok.Metadata, err)
		}
		if _, err := p.Refresh(t.Context(), tokenstore.Token{RefreshToken: secret.New("rt"), Metadata: tok.Metadata}); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.Exchange(t.Context(), secret.New("c"), secret.New("v"), map[string]string{"region": "evil"}); err == nil {
		t.Error("Exchange() took a region that is none")
	}
	open := wordedProvider(t, l.URL, strings.ReplaceAll(words, `"default":"us",`, ""), nil)
	if _, err := open.Refresh(t.Context(), oldToken()); !errors.Is(err, tokenstore.ErrNotSent) || !errors.Is(err, provider.ErrParams) {
		t.Errorf("Refresh() without the region = %v; want ErrNotSent and ErrParams", err)
	}
	var paths []string
	for _, r := range l.all() {
		paths = append(paths, r.Path)
	}
	if got, want := strings.Join(paths, " "), "/us/token /us/token /eu/token /eu/token"; got != want {
		t.Errorf("requests to %s; want %s", got, want)
	}
}
