package provider_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const account = "robot@project.example"

// fake is a provider that issues tokens without users.
func fake(t *testing.T, change func(*fakeprovider.Config)) (*fakeprovider.Server, string) {
	t.Helper()
	cfg := fakeprovider.Config{ClientID: clientID, ClientSecret: clientSecret, Rotate: true, Scopes: []string{"read", "write"}}
	if change != nil {
		change(&cfg)
	}
	s := fakeprovider.New(cfg)
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, srv.URL
}

func pemOf(t *testing.T, key crypto.Signer) string {
	t.Helper()
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

func keyOn(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serviceFile is a service account's file, whose token_uri leads astray.
func serviceFile(t *testing.T, key crypto.Signer) string {
	t.Helper()
	b, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": account, "private_key": pemOf(t, key), "private_key_id": "kid-1",
		"token_uri": "http://127.0.0.1:1/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const jwtEntry = `,"token_url":"BASE/token","revoke_url":"BASE/revoke","jwt":{"issuer":"given","subject":"issuer"}`

// assertive returns a provider for JWT_BEARER. Without a client, as with Google.
func assertive(t *testing.T, url, entry string) *provider.Provider {
	t.Helper()
	e, err := provider.ParseEntry("acme", []byte(strings.ReplaceAll(`{"allow_private":true,"api_url":"BASE/api"`+entry+`}`, "BASE", url)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := provider.New(provider.Config{Entry: e, Scheme: tokenstore.AuthJWTBearer, Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestAssertionKeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shared := rsaKey(t, 2048)
	sec1, err := x509.MarshalECPrivateKey(keyOn(t, elliptic.P256()).(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.ParseECPrivateKey(sec1)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		key  crypto.Signer
		text string
	}{
		{"RSA, a service account's file", shared, serviceFile(t, shared)},
		{"RSA, PKCS #1", shared, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(shared)}))},
		{"P-256, SEC 1", ec, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))},
		{"P-384", keyOn(t, elliptic.P384()), ""},
		{"P-521", keyOn(t, elliptic.P521()), ""},
		{"Ed25519", ed, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.text == "" {
				tt.text = pemOf(t, tt.key)
			}
			s, url := fake(t, func(c *fakeprovider.Config) { c.ClientID = "" })
			s.RegisterKey(account, tt.key.Public())
			p := assertive(t, url, jwtEntry)
			what := given("key", tt.text)
			if !strings.HasPrefix(tt.text, "{") {
				what["issuer"] = secret.New(account)
			}
			tok, got, err := p.Credential(t.Context(), what)
			if err != nil || got.ID != account || tok.Generation != 0 || tok.AccessToken.IsZero() || tok.ExpiresAt.IsZero() || len(tok.Scopes) != 1 {
				t.Fatalf("Credential() = %+v, %v, %v", tok, got, err)
			}
			// What is kept renews it as often as needed, each time by another
			// assertion: the provider takes none twice.
			for range 2 {
				a, err := p.Refresh(t.Context(), tok)
				if err != nil {
					t.Fatal(err)
				}
				next, err := p.Parse(a, tok, tok.Scopes)
				if err != nil || next.AccessToken.Equal(tok.AccessToken) || !next.RefreshToken.Equal(tok.RefreshToken) {
					t.Fatalf("Parse() = %+v, %v", next, err)
				}
				tok = next
			}
			if !p.Grace() {
				t.Error("Grace() = false: a key is not spent")
			}
			// The key never leaves; the access token may.
			if err := p.Revoke(t.Context(), tok); err != nil {
				t.Errorf("Revoke() = %v", err)
			}
			revs := s.Ledger().Revocations
			if len(revs) != 1 || revs[0].Kind != "access_token" {
				t.Errorf("revocations: %+v", revs)
			}
			for _, post := range s.Ledger().Posts {
				if post.Outcome != fakeprovider.OutcomeIssued || strings.Join(post.Params, " ") != "assertion grant_type scope" {
					t.Errorf("post %+v", post)
				}
			}
			s.RevokeAll()
			a, err := p.Refresh(t.Context(), tok)
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Parse(a, tok, nil)
			if r, ok := errors.AsType[*tokenstore.RefusalError](err); !ok || r.Kind != tokenstore.RefusedGrant {
				t.Errorf("Parse() = %v; want a dead grant", err)
			}
		})
	}
}

func TestAssertionKeysInvalid(t *testing.T) {
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	good := pemOf(t, keyOn(t, elliptic.P256()))
	pub, err := x509.MarshalPKIXPublicKey(keyOn(t, elliptic.P256()).Public())
	if err != nil {
		t.Fatal(err)
	}
	p := assertive(t, base, jwtEntry)
	for name, tt := range map[string]struct{ key, want string }{
		"text":             {"canary", "key is no private key in PEM"},
		"public key":       {block("PUBLIC KEY", pub), "something else in PEM"},
		"encrypted":        {block("ENCRYPTED PRIVATE KEY", []byte("canary")), "without a passphrase"},
		"damaged":          {block("PRIVATE KEY", []byte("canary")), "can't be read"},
		"two":              {good + good, "more than one"},
		"P-224":            {pemOf(t, keyOn(t, elliptic.P224())), "P-224"},
		"short RSA":        {pemOf(t, rsaKey(t, 1024)), "1024 bits"},
		"file without":     {`{"client_email":"canary"}`, "no private key in PEM"},
		"file given twice": {`{"private_key":"canary","private_key":"canary"}`, "not one JSON object"},
		"long":             {strings.Repeat("canary", 4000), "too long"},
		"no issuer":        {good, "issuer is missing"},
	} {
		_, _, err := p.Credential(t.Context(), given("key", tt.key))
		noSecrets(t, err)
		if !errors.Is(err, tokenstore.ErrCredentialInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Credential() = %v; want %q", name, err, tt.want)
		}
	}
}

// What an assertion says, word by word.
func TestAssertionClaims(t *testing.T) {
	key := keyOn(t, elliptic.P256())
	tests := []struct {
		name, entry string
		given       []string
		kid         string
		want        map[string]string // claims
		scope       string            // parameter
		life        time.Duration
	}{
		{name: "client", entry: `,"jwt":{}`, want: map[string]string{"iss": clientID, "sub": clientID, "aud": "BASE/token"}, scope: "read write", life: 5 * time.Minute},
		{name: "user", entry: `,"jwt":{"subject":"given","audience":"acme","life":"1h","scope":"claim"}`, given: []string{"subject", "ada"}, want: map[string]string{"iss": clientID, "sub": "ada", "aud": "acme", "scope": "read write"}, life: time.Hour},
		{name: "nobody", entry: `,"jwt":{"issuer":"given","subject":"optional","key_id":"given"}`, given: []string{"issuer", "me", "key_id", "k1"}, kid: "k1", want: map[string]string{"iss": "me", "aud": "BASE/token"}, scope: "read write", life: 5 * time.Minute},
		{name: "file", entry: `,"jwt":{"issuer":"given","subject":"optional"}`, given: []string{"subject", "ada", "key", serviceFile(t, key)}, kid: "kid-1", want: map[string]string{"iss": account, "sub": "ada", "aud": "BASE/token"}, scope: "read write", life: 5 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t, answering(200, "application/json", `{"access_token":"canary-a","refresh_token":"canary-never"}`))
			p := schemed(t, l.URL, tokenstore.AuthJWTBearer, `,"token_url":"BASE/token","token":{"params":{"resource":"r"}}`+tt.entry)
			tok, _, err := p.Credential(t.Context(), given(append([]string{"key", pemOf(t, key)}, tt.given...)...))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(tok.RefreshToken.Reveal(), "canary-never") || !strings.Contains(tok.RefreshToken.Reveal(), "PRIVATE KEY") {
				t.Error("the answer's refresh token was kept in place of the key")
			}
			form, err := url.ParseQuery(l.all()[0].Body)
			if err != nil || form.Get("scope") != tt.scope || form.Get("resource") != "r" || form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
				t.Errorf("form %v, %v", form, err)
			}
			if l.all()[0].User == "" {
				t.Error("the client has a secret and did not prove itself")
			}
			parts := strings.Split(form.Get("assertion"), ".")
			var header, body map[string]any
			decode(t, parts[0], &header)
			decode(t, parts[1], &body)
			if header["alg"] != "ES256" || header["typ"] != "JWT" || tt.kid != "" && header["kid"] != tt.kid || tt.kid == "" && header["kid"] != nil {
				t.Errorf("header %v", header)
			}
			for _, name := range []string{"iss", "sub", "aud", "scope"} {
				got, _ := body[name].(string)
				if want := strings.ReplaceAll(tt.want[name], "BASE", l.URL); got != want {
					t.Errorf("%s = %q; want %q", name, got, want)
				}
			}
			iat, exp := body["iat"].(float64), body["exp"].(float64)
			if time.Duration(exp-iat)*time.Second != tt.life || iat > float64(time.Now().Unix()) || body["jti"] == "" {
				t.Errorf("iat %v, exp %v, jti %v", iat, exp, body["jti"])
			}
		})
	}
}

// A key is presented neither as a refresh token nor where tokens are revoked,
// though its integration has another scheme by now.
func TestKeysStayAtHome(t *testing.T) {
	key := pemOf(t, keyOn(t, elliptic.P256()))
	l := newLedger(t, answering(200, "application/json", `{"access_token":"canary-a"}`))
	p := newProvider(t, entryAt(l.URL))
	for name, refresh := range map[string]secret.String{
		"PEM": secret.New(key), "file": secret.New(serviceFile(t, keyOn(t, elliptic.P256()))), "client": tokenstore.ClientCredentials,
	} {
		tok := tokenstore.Token{AccessToken: secret.New(oldAccess), RefreshToken: refresh}
		_, err := p.Refresh(t.Context(), tok)
		noSecrets(t, err)
		if !errors.Is(err, tokenstore.ErrNotSent) {
			t.Errorf("%s: Refresh() = %v; want ErrNotSent", name, err)
		}
		if err := p.Revoke(t.Context(), tok); err != nil {
			t.Errorf("%s: Revoke() = %v", name, err)
		}
	}
	for _, r := range l.all() {
		if r.Path != "/revoke" || !strings.Contains(r.Body, "token="+oldAccess) {
			t.Errorf("sent %s: %s", r.Path, r.Body)
		}
	}
	// Nor a refresh token by a scheme that has none.
	cc := schemed(t, l.URL, tokenstore.AuthClientCredentials, `,"token_url":"BASE/token"`)
	if _, err := cc.Refresh(t.Context(), oldToken()); !errors.Is(err, tokenstore.ErrNotSent) {
		t.Errorf("Refresh() = %v; want ErrNotSent", err)
	}
}

func TestClientCredentials(t *testing.T) {
	s, url := fake(t, nil)
	p := schemed(t, url, tokenstore.AuthClientCredentials, `,"token_url":"BASE/token","revoke_url":"BASE/revoke"`)
	tok, who, err := p.Credential(t.Context(), nil)
	if err != nil || who.ID != clientID || tok.AccessToken.IsZero() || !tok.RefreshToken.Equal(tokenstore.ClientCredentials) || strings.Join(tok.Scopes, " ") != "read write" {
		t.Fatalf("Credential() = %+v, %v, %v", tok, who, err)
	}
	a, err := p.Refresh(t.Context(), tok)
	if err != nil {
		t.Fatal(err)
	}
	next, err := p.Parse(a, tok, tok.Scopes)
	if err != nil || next.AccessToken.Equal(tok.AccessToken) || !next.RefreshToken.Equal(tokenstore.ClientCredentials) || !next.RefreshExpiresAt.IsZero() || !p.Grace() {
		t.Fatalf("Parse() = %+v, %v", next, err)
	}
	if err := p.Revoke(t.Context(), next); err != nil || s.Ledger().Revocations[0].Kind != "access_token" {
		t.Errorf("Revoke() = %v, %+v", err, s.Ledger().Revocations)
	}
	if _, _, err := p.Credential(t.Context(), given("client_secret", "x")); !errors.Is(err, tokenstore.ErrCredentialInvalid) {
		t.Errorf("Credential() = %v; want ErrCredentialInvalid", err)
	}
	for name, fault := range map[string]fakeprovider.Fault{"client": fakeprovider.InvalidClient(), "scope": fakeprovider.OAuthError(400, "invalid_scope")} {
		s.Faults.Token(fault)
		_, _, err := p.Credential(t.Context(), nil)
		if _, ok := errors.AsType[*tokenstore.RefusalError](err); !ok || errors.Is(err, tokenstore.ErrCredentialRefused) {
			t.Errorf("%s: Credential() = %v; want a refusal", name, err)
		}
	}
	s.Faults.Token(fakeprovider.Status(503))
	if _, _, err := p.Credential(t.Context(), nil); !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
		t.Errorf("Credential() = %v; want ErrOutcomeUnknown", err)
	}
}

// The token endpoint alone is discovered, where nobody goes to another.
func TestClientCredentialsDiscovery(t *testing.T) {
	s, url := fake(t, nil)
	p := schemed(t, url, tokenstore.AuthClientCredentials, `,"issuer":"BASE"`)
	if _, _, err := p.Credential(t.Context(), nil); err != nil || len(s.Ledger().Posts) != 1 {
		t.Errorf("Credential() = %v", err)
	}
}

// decode reads one part of a JWT.
func decode(t *testing.T, part string, into any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}
