package provider_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// schemed returns a provider with this scheme, whose entry is JSON without its
// api_url.
func schemed(t *testing.T, base, scheme, entry string) *provider.Provider {
	t.Helper()
	p, err := newSchemed(base, scheme, entry)
	if err != nil {
		t.Fatalf("New() = %v", err)
	}
	t.Cleanup(p.Close)
	return p
}

func newSchemed(base, scheme, entry string) (*provider.Provider, error) {
	e, err := provider.ParseEntry("acme", []byte(strings.ReplaceAll(`{"allow_private":true,"api_url":"BASE/api"`+entry+`}`, "BASE", base)))
	if err != nil {
		return nil, err
	}
	cfg := provider.Config{Entry: e, Scheme: scheme}
	switch scheme {
	case tokenstore.AuthAPIKey, tokenstore.AuthBasic, tokenstore.AuthBearerToken:
	default:
		cfg.ClientID, cfg.ClientSecret, cfg.RedirectURI = clientID, secret.New(clientSecret), "https://l.example/cb"
		cfg.Scopes = []string{"read", "write"}
	}
	return provider.New(cfg)
}

const base = "http://127.0.0.1:1"

func TestSchemes(t *testing.T) {
	const endpoints = `,"authorize_url":"BASE/a","token_url":"BASE/t"`
	tests := []struct {
		name, entry, scheme string
		want, header        string
		prefix, query       string
		fields              string
	}{
		{name: "endpoints", entry: endpoints, want: tokenstore.AuthOAuth2, header: "Authorization", prefix: "Bearer "},
		{name: "OAuth 2 before a key", entry: endpoints + `,"key":{"header":"x-key"}`, want: tokenstore.AuthOAuth2, header: "Authorization", prefix: "Bearer "},
		{name: "key", entry: `,"key":{"header":"x-key","prefix":"Key "}`, scheme: tokenstore.AuthAPIKey, want: tokenstore.AuthAPIKey, header: "X-Key", prefix: "Key ", fields: "api_key"},
		{name: "key in query", entry: `,"key":{"query":"appid"}`, scheme: tokenstore.AuthAPIKey, want: tokenstore.AuthAPIKey, query: "appid", fields: "api_key"},
		{name: "basic, any provider", scheme: tokenstore.AuthBasic, want: tokenstore.AuthBasic, header: "Authorization", prefix: "Basic ", fields: "username password"},
		{name: "basic without password", entry: `,"basic":{"password":"none"}`, scheme: tokenstore.AuthBasic, want: tokenstore.AuthBasic, header: "Authorization", prefix: "Basic ", fields: "username"},
		{name: "bearer, any provider", entry: endpoints, scheme: tokenstore.AuthBearerToken, want: tokenstore.AuthBearerToken, header: "Authorization", prefix: "Bearer ", fields: "token"},
		{name: "client", entry: `,"token_url":"BASE/t"`, want: tokenstore.AuthClientCredentials, header: "Authorization", prefix: "Bearer "},
		{name: "JWT", entry: `,"token_url":"BASE/t","jwt":{}`, want: tokenstore.AuthJWTBearer, header: "Authorization", prefix: "Bearer ", fields: "key"},
		{name: "JWT of a service account", entry: `,"token_url":"BASE/t","jwt":{"issuer":"given","subject":"optional","key_id":"given"}`, want: tokenstore.AuthJWTBearer, header: "Authorization", prefix: "Bearer ", fields: "key key_id? issuer? subject?"},
		{name: "JWT of a user", entry: `,"token_url":"BASE/t","jwt":{"subject":"given"}`, want: tokenstore.AuthJWTBearer, header: "Authorization", prefix: "Bearer ", fields: "key subject"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := schemed(t, base, tt.scheme, tt.entry)
			in := p.Inject()
			header, prefix, query := in.Header, in.Prefix, in.Query
			if p.Scheme() != tt.want || header != tt.header || prefix != tt.prefix || query != tt.query {
				t.Errorf("Scheme() = %s, Inject() = %q %q %q", p.Scheme(), header, prefix, query)
			}
			var fields []string
			for _, f := range p.Fields() {
				name := f.Name
				if f.Optional {
					name += "?"
				}
				fields = append(fields, name)
			}
			if got := strings.Join(fields, " "); got != tt.fields {
				t.Errorf("Fields() = %s; want %s", got, tt.fields)
			}
		})
	}
	e := provider.Entry{APIURL: "https://a.example", TokenURL: "https://a.example/t", Key: provider.KeyEntry{Query: "k"}}
	want := []string{tokenstore.AuthClientCredentials, tokenstore.AuthAPIKey, tokenstore.AuthBasic, tokenstore.AuthBearerToken}
	if diff := cmp.Diff(want, e.Schemes()); diff != "" || e.DefaultScheme() != tokenstore.AuthAPIKey {
		t.Errorf("Schemes() (-want +got):\n%s, DefaultScheme() = %s", diff, e.DefaultScheme())
	}
}

func TestSchemeErrors(t *testing.T) {
	tests := []struct{ scheme, entry, want string }{
		{"", ``, "give authorize_url and token_url, or issuer; or say which auth_scheme"},
		{tokenstore.AuthOAuth2, `,"token_url":"BASE/t"`, "endpoints are missing"},
		{tokenstore.AuthAPIKey, ``, "needs key in its provider"},
		{tokenstore.AuthJWTBearer, `,"token_url":"BASE/t"`, "needs jwt"},
		{tokenstore.AuthClientCredentials, ``, "token_url, or issuer"},
		{"BEARER", ``, `auth_scheme "BEARER" is not one of OAUTH2`},
		{"", `,"key":{"header":"a","query":"b"}`, "either header or query"},
		{"", `,"key":{"header":"a b"}`, `key.header "a b"`},
		{"", `,"key":{"header":"host"}`, `key.header "host"`},
		{"", `,"key":{"header":"Lanyard-Key"}`, `is no header for a key`},
		{"", `,"key":{"header":"Proxy-Authorization"}`, `is no header for a key`},
		{"", `,"key":{"header":"a","prefix":"Bearer"}`, `such as "Bearer "`},
		{"", `,"key":{"header":"a","prefix":"x\n"}`, `can't stand in a header`},
		{"", `,"key":{"query":"a","prefix":"x "}`, `key.header only`},
		{"", `,"key":{"query":"a&b"}`, `key.query "a&b"`},
		{"", `,"key":{"query":"a","pattern":"("}`, `key.pattern is not a regular expression`},
		{"", `,"key":{"query":"a","help_url":"javascript:x"}`, `key.help_url must be`},
		{tokenstore.AuthBasic, `,"basic":{"help_url":"http://a.example"}`, `basic.help_url must be`},
		{"", `,"jwt":{}`, "endpoints are missing"},
		{"", `,"token_url":"BASE/t","jwt":{"issuer":"me"}`, `jwt.issuer "me" is not one of client_id, given`},
		{"", `,"token_url":"BASE/t","jwt":{"life":"2h"}`, `jwt.life "2h"`},
		{"", `,"token_url":"BASE/t","token":{"params":{"scope":"x"}}`, `token.params "scope" is set by Lanyard`},
		{"", `,"account":{"id":"id"}`, "account.url is missing"},
		{"", `,"account":{"url":"BASE/me","name":"n"}`, "account.id is missing"},
		{"", `,"account":{"url":"https://elsewhere.example/me","id":"id"}`, `account.url is on "elsewhere.example"`},
		{"", `,"scopes":["a"],"account":{"url":"BASE/me","id":"id","scopes":["b"]}`, `account.scopes "b"`},
		{"", `,"device_url":"BASE/d"`, "endpoints are missing"},
	}
	for _, tt := range tests {
		_, err := newSchemed(base, tt.scheme, tt.entry)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%s, %s) = %v; want %q", tt.scheme, tt.entry, err, tt.want)
		}
	}
	for want, cfg := range map[string]provider.Config{
		"client_id is missing":                 {Scheme: tokenstore.AuthClientCredentials},
		"client_secret is missing":             {Scheme: tokenstore.AuthClientCredentials, ClientID: "id"},
		"do not go with auth_scheme BASIC":     {Scheme: tokenstore.AuthBasic, ClientID: "id"},
		"scopes do not go with auth_scheme":    {Scheme: tokenstore.AuthBearerToken, Scopes: []string{"a"}},
		"redirect URI is missing":              {Scheme: tokenstore.AuthOAuth2, ClientID: "id"},
		"not go with auth_scheme BEARER_TOKEN": {Scheme: tokenstore.AuthBearerToken, ClientSecret: secret.New("s")},
	} {
		cfg.Entry = acme()
		if _, err := provider.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New() = %v; want %q", err, want)
		}
	}
	// The same place in two hosts is not the same host.
	e := provider.Entry{
		APIURL: "https://{shop}.a.example", AuthorizeURL: "https://a.example/a", TokenURL: "https://a.example/t",
		Params:  map[string]provider.ParamEntry{"shop": {}, "other": {}},
		Account: provider.AccountEntry{URL: "https://{other}.a.example/me"},
	}
	if err := e.Validate(); err == nil || !strings.Contains(err.Error(), "account.url is on") {
		t.Errorf("Validate() = %v", err)
	}
	if e.Account.URL = "https://{shop}.a.example/{other}/me"; e.Validate() != nil {
		t.Errorf("Validate() = %v", e.Validate())
	}
}
