package provider_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func given(pairs ...string) map[string]secret.String {
	m := map[string]secret.String{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = secret.New(pairs[i+1])
	}
	return m
}

// Nothing is asked of a provider whose entry knows no request to try a key with.
func TestCredentialForm(t *testing.T) {
	const key = `,"key":{"header":"X-Key","pattern":"canary-[a-z]+"}`
	tests := []struct {
		name, scheme, entry string
		given               map[string]secret.String
		want, wrong         string
	}{
		{name: "key", scheme: tokenstore.AuthAPIKey, entry: key, given: given("api_key", " canary-key\n"), want: "canary-key"},
		{name: "key of another form", scheme: tokenstore.AuthAPIKey, entry: key, given: given("api_key", "canary-KEY"), wrong: "api_key is not of the form canary-[a-z]+"},
		{name: "key that goes on", scheme: tokenstore.AuthAPIKey, entry: key, given: given("api_key", "canary-key\ncanary"), wrong: "api_key has a space"},
		{name: "key with a space", scheme: tokenstore.AuthAPIKey, entry: `,"key":{"query":"k"}`, given: given("api_key", "canary key"), wrong: "api_key has a space"},
		{name: "key with an ü", scheme: tokenstore.AuthAPIKey, entry: `,"key":{"query":"k"}`, given: given("api_key", "canaryü"), wrong: "api_key has"},
		{name: "key too long", scheme: tokenstore.AuthAPIKey, entry: `,"key":{"query":"k"}`, given: given("api_key", strings.Repeat("canary", 2000)), wrong: "too long"},
		{name: "no key", scheme: tokenstore.AuthAPIKey, entry: key, given: given("api_key", " "), wrong: "api_key is missing"},
		{name: "nothing", scheme: tokenstore.AuthAPIKey, entry: key, wrong: "api_key is missing"},
		{name: "more than a key", scheme: tokenstore.AuthAPIKey, entry: key, given: given("api_key", "canary-key", "canary", "x"), wrong: "it has api_key"},
		{name: "token", scheme: tokenstore.AuthBearerToken, given: given("token", "canary-tok/en+=="), want: "canary-tok/en+=="},
		{name: "token with a control character", scheme: tokenstore.AuthBearerToken, given: given("token", "canary\x00"), wrong: "token has"},
		{name: "password", scheme: tokenstore.AuthBasic, given: given("username", "ada", "password", " pä:ss "), want: base64.StdEncoding.EncodeToString([]byte("ada: pä:ss "))},
		{name: "a colon in the name", scheme: tokenstore.AuthBasic, given: given("username", "canary:x", "password", "p"), wrong: "username has a colon"},
		{name: "a line in the name", scheme: tokenstore.AuthBasic, given: given("username", "canary\nx", "password", "p"), wrong: "username has a character"},
		{name: "a control character in the password", scheme: tokenstore.AuthBasic, given: given("username", "ada", "password", "canary\x7f"), wrong: "password has a character"},
		{name: "no password", scheme: tokenstore.AuthBasic, given: given("username", "ada"), wrong: "password is missing"},
		{name: "name alone", scheme: tokenstore.AuthBasic, entry: `,"basic":{"password":"none"}`, given: given("username", "ada"), want: base64.StdEncoding.EncodeToString([]byte("ada:"))},
		{name: "OAuth 2", scheme: tokenstore.AuthOAuth2, entry: `,"issuer":"BASE"`, wrong: "connects in the browser"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := schemed(t, base, tt.scheme, tt.entry)
			tok, account, err := p.Credential(t.Context(), tt.given)
			if tt.wrong != "" {
				noSecrets(t, errors.New(strings.ReplaceAll(err.Error(), "canary-[a-z]+", "")))
				if !errors.Is(err, tokenstore.ErrCredentialInvalid) || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("Credential() = %v; want %q", err, tt.wrong)
				}
				return
			}
			if err != nil || !tok.AccessToken.Equal(secret.New(tt.want)) || account != (tokenstore.Account{}) ||
				!tok.RefreshToken.IsZero() || !tok.ExpiresAt.IsZero() || tok.Generation != 0 || tok.IssuedAt.IsZero() {
				t.Errorf("Credential() = %+v, %v, %v", tok, account, err)
			}
			if err := p.Revoke(t.Context(), tok); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("Revoke() = %v; want ErrUnsupported", err)
			}
			if _, err := p.Refresh(t.Context(), tok); !errors.Is(err, tokenstore.ErrNotSent) {
				t.Errorf("Refresh() = %v; want ErrNotSent", err)
			}
		})
	}
}

// A credential is tried with one request, which tells its account.
func TestCredentialTried(t *testing.T) {
	const body = `{"user":{"id":4711,"name":" Ada "},"mail":"ada@a.example","x":"\u0007"}`
	const account = `,"account":{"url":"BASE/me?v=1","id":"user.id","name":"user.name","email":"mail"}`
	ada := tokenstore.Account{ID: "4711", Name: "Ada", Email: "ada@a.example"}
	tests := []struct {
		name, scheme, entry string
		given               map[string]secret.String
		status              int
		body                string
		want                tokenstore.Account
		err                 error
		header, uri         string
	}{
		{name: "key in a header", scheme: tokenstore.AuthAPIKey, entry: `,"key":{"header":"X-Key","prefix":"K "}` + account, given: given("api_key", "canary-k"), want: ada, header: "X-Key: K canary-k", uri: "/me?v=1"},
		{name: "key in the query", scheme: tokenstore.AuthAPIKey, entry: `,"key":{"query":"k"}` + account, given: given("api_key", "canary&k"), want: ada, uri: "/me?v=1&k=canary%26k"},
		{name: "password", scheme: tokenstore.AuthBasic, entry: account, given: given("username", "u", "password", "p"), want: ada, header: "Authorization: Basic dTpw", uri: "/me?v=1"},
		{name: "token", scheme: tokenstore.AuthBearerToken, entry: account, given: given("token", "canary-t"), want: ada, header: "Authorization: Bearer canary-t", uri: "/me?v=1"},
		{name: "only tried", scheme: tokenstore.AuthBearerToken, entry: `,"account":{"url":"BASE/me"}`, given: given("token", "canary-t"), body: "pong", header: "Authorization: Bearer canary-t", uri: "/me"},
		{name: "refused", scheme: tokenstore.AuthBearerToken, entry: account, given: given("token", "canary-t"), status: 401, err: tokenstore.ErrCredentialRefused},
		{name: "forbidden", scheme: tokenstore.AuthBearerToken, entry: account, given: given("token", "canary-t"), status: 403, err: tokenstore.ErrCredentialRefused},
		{name: "bad request", scheme: tokenstore.AuthBearerToken, entry: account, given: given("token", "canary-t"), status: 400, err: tokenstore.ErrCredentialRefused},
		{name: "down", scheme: tokenstore.AuthBearerToken, entry: account, given: given("token", "canary-t"), status: 503, err: tokenstore.ErrOutcomeUnknown},
		{name: "no account in it", scheme: tokenstore.AuthBearerToken, entry: account, given: given("token", "canary-t"), body: `{"user":{}}`, err: tokenstore.ErrOutcomeUnknown},
		{name: "unprintable", scheme: tokenstore.AuthBearerToken, entry: `,"account":{"url":"BASE/me","id":"x"}`, given: given("token", "canary-t"), err: tokenstore.ErrOutcomeUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, text := tt.status, tt.body
			if status == 0 {
				status = http.StatusOK
			}
			if text == "" {
				text = body
			}
			l := newLedger(t, answering(status, "application/json", text))
			p := schemed(t, l.URL, tt.scheme, tt.entry)
			_, got, err := p.Credential(t.Context(), tt.given)
			noSecrets(t, err)
			if !errors.Is(err, tt.err) || got != tt.want {
				t.Fatalf("Credential() = %+v, %v", got, err)
			}
			if n := len(l.all()); n != 1 {
				t.Fatalf("%d requests", n)
			}
			req := l.all()[0]
			name, value, _ := strings.Cut(tt.header, ": ")
			if tt.err == nil && (req.Path != tt.uri || req.Method != http.MethodGet || req.Body != "" || req.Header.Get(name) != value) {
				t.Errorf("asked %s %s %v", req.Method, req.Path, req.Header)
			}
			if tt.header == "" && tt.err == nil && req.Header.Get("Authorization") != "" {
				t.Error("a second credential was sent")
			}
		})
	}
	l := newLedger(t, answering(http.StatusTooManyRequests, "", ""))
	p := schemed(t, l.URL, tokenstore.AuthBearerToken, account)
	if _, _, err := p.Credential(t.Context(), given("token", "canary-t")); err != nil {
		if r, ok := errors.AsType[*tokenstore.RefusalError](err); !ok || r.Kind != tokenstore.RefusedForNow {
			t.Errorf("429: %v", err)
		}
	} else {
		t.Error("429 made a credential")
	}
}

// A redirect takes no key along.
func TestAccountRedirect(t *testing.T) {
	other := newLedger(t, answering(http.StatusOK, "application/json", `{"id":"evil"}`))
	l := newLedger(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	p := schemed(t, l.URL, tokenstore.AuthBearerToken, `,"account":{"url":"BASE/me","id":"id"}`)
	_, err := p.Account(t.Context(), &tokenstore.Token{AccessToken: secret.New("canary-t")})
	noSecrets(t, err)
	if err == nil || len(other.all()) != 0 {
		t.Errorf("Account() = %v after %d requests elsewhere", err, len(other.all()))
	}
}

func TestAccountScopes(t *testing.T) {
	l := newLedger(t, answering(http.StatusOK, "application/json", `{"id":"ada"}`))
	p := schemed(t, l.URL, tokenstore.AuthOAuth2, `,"authorize_url":"BASE/a","token_url":"BASE/t","account":{"url":"BASE/me","id":"id","scopes":["read","profile"]}`)
	tok := tokenstore.Token{AccessToken: secret.New("canary-t"), Scopes: []string{"write"}}
	if _, err := p.Account(t.Context(), &tok); !errors.Is(err, errors.ErrUnsupported) || len(l.all()) != 0 {
		t.Errorf("Account() = %v", err)
	}
	tok.Scopes = append(tok.Scopes, "profile")
	if a, err := p.Account(t.Context(), &tok); err != nil || a.ID != "ada" {
		t.Errorf("Account() = %v, %v", a, err)
	}
}

// What is not the provider's to give is not its to take: no endpoint gets it.
func TestKeysAreNotRevoked(t *testing.T) {
	l := newLedger(t, answering(http.StatusOK, "", ""))
	for _, scheme := range []string{tokenstore.AuthAPIKey, tokenstore.AuthBasic, tokenstore.AuthBearerToken} {
		p := schemed(t, l.URL, scheme, `,"key":{"query":"k"},"authorize_url":"BASE/a","token_url":"BASE/t","revoke_url":"BASE/r"`)
		tok := tokenstore.Token{AccessToken: secret.New("canary-key")}
		if err := p.Revoke(t.Context(), tok); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: Revoke() = %v; want ErrUnsupported", scheme, err)
		}
	}
	if n := len(l.all()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// With connection parameters the account is asked for where their API is.
func TestCredentialWithParams(t *testing.T) {
	l := newLedger(t, answering(http.StatusOK, "application/json", `{"id":"ada"}`))
	p := schemed(t, l.URL, tokenstore.AuthAPIKey,
		`,"key":{"header":"X-Key"},"params":{"shop":{"title":"Shop"}},"account":{"url":"BASE/{shop}/me","id":"id"}`)
	if _, _, err := p.Credential(t.Context(), given("api_key", "canary-k")); !errors.Is(err, provider.ErrParams) {
		t.Errorf("Credential() = %v; want ErrParams", err)
	}
	if _, err := p.Account(t.Context(), &tokenstore.Token{}); !errors.Is(err, provider.ErrParams) {
		t.Errorf("Account() = %v; want ErrParams", err)
	}
	want := tokenstore.Field{Name: "shop", Title: "Shop", Pattern: `^[a-z0-9][a-z0-9-]{0,62}$`}
	if got := p.ParamFields(); len(got) != 1 || got[0] != want {
		t.Errorf("ParamFields() = %+v", got)
	}
	bound, err := p.For(map[string]string{"shop": "acme"})
	if err != nil {
		t.Fatal(err)
	}
	_, account, err := bound.Credential(t.Context(), given("api_key", "canary-k"))
	if err != nil || account.ID != "ada" || l.all()[0].Path != "/acme/me" || bound.Scheme() != tokenstore.AuthAPIKey {
		t.Errorf("Credential() = %v, %v", account, err)
	}
}

// TestForbiddenIsNoDeadToken: GitHub's answer to too many requests is a 403, and
// so is a firewall's. The token is as good as before.
func TestForbiddenIsNoDeadToken(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"message":"You have exceeded a secondary rate limit."}`))
	}))
	defer s.Close()
	p := schemed(t, s.URL, tokenstore.AuthOAuth2,
		`,"authorize_url":"BASE/a","token_url":"BASE/t","account":{"url":"BASE/user","id":"id"}`)
	_, err := p.Account(t.Context(), &tokenstore.Token{AccessToken: secret.New("canary-t")})
	if err == nil || errors.Is(err, tokenstore.ErrCredentialRefused) {
		t.Errorf("Account() = %v; an import would take that for a dead token and erase it", err)
	}
}
