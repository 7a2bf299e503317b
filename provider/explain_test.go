package provider_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What is said of an entry, each with its words.
func TestExplain(t *testing.T) {
	oauth := provider.Entry{AuthorizeURL: "https://a.example/a", TokenURL: "https://a.example/t", APIURL: "https://api.a.example"}
	with := func(change func(*provider.Entry)) *provider.Entry {
		e := oauth
		change(&e)
		return &e
	}
	plain := with(func(*provider.Entry) {})
	for _, test := range []struct {
		change       func(*provider.Entry)
		tokens, word string
	}{
		{
			func(*provider.Entry) {},
			"access tokens live as long as the provider says; a refresh token works once, and each refresh brings a new one", "single use",
		},
		{
			func(e *provider.Entry) {
				e.Answer.Life, e.Refresh.Rotation, e.Refresh.Life, e.Refresh.Scopes = "1h30m", provider.RotationNone, "720h", []string{"offline", "keep"}
			},
			"access tokens live 90 minutes; a refresh token stays the same; refresh tokens live 30 days; there is one only with the scope offline or keep", "stay",
		},
		{
			func(e *provider.Entry) { e.Answer.Life, e.Refresh.Rotation = "never", provider.RotationGrace },
			"access tokens do not end by themselves, unless the provider says so; a refresh token, should one come, brings a new one at each refresh, and is taken for a while after",
			"if any: rotate, with grace",
		},
		{
			func(e *provider.Entry) {
				e.Answer.Life, e.Exchange, e.Refresh.With = "24h", &provider.ExchangeEntry{}, "access_token"
			},
			"access tokens live 1 day; the one that the code brings is made one that lasts at once; there are no refresh tokens: an access token is renewed with itself before its end",
			"none: renewed with itself",
		},
		{
			func(e *provider.Entry) { e.Answer.Life, e.Notes = "45s", []string{"There are no refresh tokens."} },
			"access tokens live 45 seconds; there are no refresh tokens", "none",
		},
	} {
		if e := with(test.change); e.ExplainTokens() != test.tokens || e.SummarizeRefresh() != test.word {
			t.Errorf("got  %q, %q\nwant %q, %q", e.ExplainTokens(), e.SummarizeRefresh(), test.tokens, test.word)
		}
	}
	for _, test := range []struct {
		e    *provider.Entry
		want string
	}{
		{plain, "none"},
		{with(func(e *provider.Entry) { e.Issuer = "https://a.example" }), "none"}, // nothing is discovered then
		{with(func(e *provider.Entry) { e.Issuer, e.TokenURL = "https://a.example", "" }), "if discovered"},
		{with(func(e *provider.Entry) { e.RevokeURL = "https://a.example/r" }), "the grant"},
		{with(func(e *provider.Entry) { e.RevokeURL, e.Revoke.Single = "https://a.example/r", true }), "that token"},
		{&provider.Entry{APIURL: "https://a.example", Key: provider.KeyEntry{Header: "X-Key"}}, ""},
	} {
		if got := test.e.SummarizeRevocation(); got != test.want || (test.e.ExplainRevocation() == "") != (test.want == "") {
			t.Errorf("revocation of %+v = %q, %q; want %q", test.e, got, test.e.ExplainRevocation(), test.want)
		}
	}
}

func TestExplainInjection(t *testing.T) {
	for want, test := range map[string]struct {
		scheme string
		e      provider.Entry
	}{
		"Authorization: Bearer …":        {tokenstore.AuthOAuth2, provider.Entry{}},
		"Authorization: Zoho …":          {tokenstore.AuthOAuth2, provider.Entry{Inject: provider.InjectEntry{Prefix: "Zoho "}}},
		"Authorization: …":               {tokenstore.AuthOAuth2, provider.Entry{Inject: provider.InjectEntry{Prefix: "none"}}},
		"X-Token: …":                     {tokenstore.AuthOAuth2, provider.Entry{Inject: provider.InjectEntry{Header: "x-token"}}},
		"query parameter token":          {tokenstore.AuthOAuth2, provider.Entry{Inject: provider.InjectEntry{Query: "token"}}},
		"Authorization: Basic …":         {tokenstore.AuthBasic, provider.Entry{}},
		"query parameter appid":          {tokenstore.AuthAPIKey, provider.Entry{Key: provider.KeyEntry{Query: "appid"}}},
		`Authorization: OAuth token="…"`: {tokenstore.AuthAPIKey, provider.Entry{Key: provider.KeyEntry{Header: "authorization", Prefix: `OAuth token="`, Suffix: `"`}}},
	} {
		if got := test.e.ExplainInjection(test.scheme); got != want {
			t.Errorf("%s of %+v = %q; want %q", test.scheme, test.e, got, want)
		}
	}
}

func TestExplainParam(t *testing.T) {
	for want, p := range map[string]provider.ParamEntry{
		"asked of whoever connects, or given in the integration's block":                                                           {},
		"Shop; asked of whoever connects, or given in the integration's block; of the form [a-z]+; default acme":                   {Title: "Shop", Pattern: "[a-z]+", Default: "acme"},
		"told by the token endpoint (a.b); a host: *.acme.com":                                                                     {From: "answer.a.b", Domains: []string{"*.acme.com"}},
		"told at the callback (realmId)":                                                                                           {From: "callback.realmId"},
		"told by the account request (dc)":                                                                                         {From: "account.dc"},
		"given in the integration's block; a host":                                                                                 {Host: true},
		"asked of whoever connects, or given in the integration's block; a host: acme.com; others in the integration's block only": {Host: true, Domains: []string{"acme.com"}},
		"given in the integration's block; a host, such as of *.acme.com":                                                          {Host: true, Fixed: true, Domains: []string{"*.acme.com"}},
	} {
		e := provider.Entry{Params: map[string]provider.ParamEntry{"x": p}}
		if got := e.ExplainParam("x"); got != want {
			t.Errorf("%+v:\n got %q\nwant %q", p, got, want)
		}
		if told := p.From != ""; told && p.Configured() {
			t.Errorf("%+v is told and configured", p)
		}
	}
	e := provider.Entry{Params: map[string]provider.ParamEntry{"a": {From: "answer.a"}, "b": {}, "c": {}}}
	if got := e.ParamNames(); !slices.Equal(got, []string{"b", "c", "a"}) {
		t.Errorf("ParamNames() = %v", got)
	}
}

func TestExplainClient(t *testing.T) {
	for auth, want := range map[string]string{
		provider.AuthBasic: "HTTP Basic", provider.AuthBasicRaw: "not encoded", provider.AuthBasicSecret: "client_secret alone",
		provider.AuthPost: "parameters", provider.AuthPrivateKeyJWT: "private key", provider.AuthNone: "without a secret", "": "metadata",
	} {
		e := provider.Entry{TokenURL: "https://a.example/t", ClientAuth: auth, Authorize: provider.AuthorizeEntry{PKCEOff: "it answers 400"}}
		if got := e.ExplainClient(); !strings.Contains(got, want) || !strings.HasSuffix(got, "; without PKCE: it answers 400") {
			t.Errorf("client_auth %q: %q", auth, got)
		}
	}
	if got := (&provider.Entry{}).ExplainClient(); got != "" {
		t.Errorf("without a token endpoint: %q", got)
	}
}

// Every word of Words is one that the language has, and Validate refuses others.
func TestWords(t *testing.T) {
	for word, right := range provider.Words() {
		if slices.Contains(right, "") || len(right) == 0 {
			t.Errorf("%s may say %q", word, right)
		}
	}
	provider.Words()["refresh.rotation"][0] = "twice"
	e := provider.Entry{TokenURL: "https://a.example/t", AuthorizeURL: "https://a.example/a", APIURL: "https://a.example", Refresh: provider.RefreshEntry{Rotation: "twice"}}
	if err := e.Validate(); err == nil || err.Error() != `refresh.rotation "twice" is not one of single_use, grace, none` {
		t.Errorf("Validate() = %v", err)
	}
}

// What is wrong with one option of an integration names it.
func TestOptionError(t *testing.T) {
	e := provider.Entry{
		AuthorizeURL: "https://{h}/a", TokenURL: "https://{h}/t", APIURL: "https://{h}",
		Params: map[string]provider.ParamEntry{"h": {Host: true}},
	}
	for option, change := range map[string]func(*provider.Config){
		"auth_scheme":  func(c *provider.Config) { c.Scheme = tokenstore.AuthAPIKey },
		"client_id":    func(c *provider.Config) { c.ClientID = "" },
		"redirect_uri": func(c *provider.Config) { c.RedirectURI = "" },
		"param h":      func(c *provider.Config) { c.Params = nil },
		"param x":      func(c *provider.Config) { c.Params["x"] = "y" },
		"client_secret": func(c *provider.Config) {
			c.Scheme = tokenstore.AuthClientCredentials
		},
	} {
		cfg := provider.Config{Entry: e, ClientID: "id", RedirectURI: "https://l.example/cb", Params: map[string]string{"h": "id.acme.example"}}
		change(&cfg)
		_, err := provider.New(cfg)
		wrong := optionOf(err)
		if wrong != option {
			t.Errorf("New() = %v, of %q; want %q", err, wrong, option)
		}
	}
}

func optionOf(err error) string {
	if wrong, ok := errors.AsType[*provider.OptionError](err); ok {
		return wrong.Option
	}
	return ""
}
