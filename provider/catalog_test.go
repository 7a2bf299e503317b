package provider_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestCatalog(t *testing.T) {
	want := []string{"contextfile", "github", "gitlab", "google", "openweathermap", "sendgrid", "spotify", "stripe"}
	if diff := cmp.Diff(want, provider.Names()); diff != "" {
		t.Errorf("Names() (-want +got):\n%s", diff)
	}
	for _, name := range provider.Names() {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile("catalog/" + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			e, err := provider.ParseEntry(name+".json", b)
			if err != nil {
				t.Fatal(err)
			}
			found, ok := provider.Lookup(name)
			if !ok || !cmp.Equal(e, found) {
				t.Errorf("Lookup() differs from the file: %s", cmp.Diff(e, found))
			}
			if e.Title == "" || e.DocsURL == "" {
				t.Error("title and docs_url are to be given")
			}
			if e.DefaultScheme() == tokenstore.AuthOAuth2 && (e.Refresh.Rotation == "" || e.Answer.Life == "" || e.ClientAuth == "") {
				t.Error("client_auth, refresh.rotation and answer.life are all to be given")
			}
			if e.AllowPrivate {
				t.Error("allow_private has no place in the catalogue")
			}
			if len(e.Sources) == 0 && len(e.Unchecked) == 0 {
				t.Error("neither sources nor unchecked")
			}
			if slices.ContainsFunc(e.Scopes, func(s string) bool { return slices.Index(e.Scopes, s) != lastIndex(e.Scopes, s) }) {
				t.Error("a scope is listed twice")
			}
			for scope, text := range e.ScopeTexts {
				if text == "" || strings.HasSuffix(text, ".") || text != strings.TrimSpace(text) {
					t.Errorf("scope_texts %q: %q", scope, text)
				}
			}
			again, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if e2, err := provider.ParseEntry(name, again); err != nil || !cmp.Equal(e, e2) {
				t.Errorf("encoded and read again: %v, %s", err, cmp.Diff(e, e2))
			}
			for _, scheme := range e.Schemes() {
				cfg := provider.Config{Entry: e, Scheme: scheme, RedirectURI: "https://l.example/cb"}
				if scheme == tokenstore.AuthOAuth2 || scheme == tokenstore.AuthClientCredentials {
					cfg.ClientID, cfg.ClientSecret = "id", secret.New("s")
				}
				if _, err := provider.New(cfg); err != nil {
					t.Errorf("New(%s) = %v", scheme, err)
				}
			}
		})
	}
}

func lastIndex(list []string, s string) int {
	for i, l := range slices.Backward(list) {
		if l == s {
			return i
		}
	}
	return -1
}

// The facts that the job depends on, provider by provider.
func TestCatalogFacts(t *testing.T) {
	type facts struct {
		API            string
		Hosts          []string
		Grace, Single  bool
		Header, Prefix string
		Private        bool
		Title          string
	}
	want := map[string]facts{
		"contextfile": {API: "https://contextfile.ai/api/v1", Title: "ContextFile"},
		"github":      {API: "https://api.github.com", Hosts: []string{"uploads.github.com"}, Single: true, Title: "GitHub"},
		"gitlab":      {API: "https://gitlab.com/api/v4", Single: true, Title: "GitLab"},
		"google":      {API: "https://www.googleapis.com", Grace: true, Title: "Google"},
		"spotify":     {API: "https://api.spotify.com", Grace: true, Title: "Spotify"},
	}
	for name, w := range want {
		w.Header, w.Prefix = "Authorization", "Bearer "
		e, _ := provider.Lookup(name)
		p := newProvider(t, e)
		got := facts{
			API: p.API().String(), Hosts: p.Hosts(), Grace: p.Grace(), Single: p.RevokesSingle(),
			Private: len(p.PrivateHosts()) > 0, Title: p.Title(),
		}
		got.Header, got.Prefix, _ = p.Inject()
		if name == "google" {
			if !slices.Contains(got.Hosts, "gmail.googleapis.com") {
				t.Error("google lacks gmail.googleapis.com")
			}
			got.Hosts = nil
		}
		if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if !p.Denied("access_denied") || p.Denied("server_error") {
			t.Errorf("%s: access_denied is a denial, server_error none", name)
		}
	}
	e, _ := provider.Lookup("contextfile")
	p := newProvider(t, e)
	if n := len(p.DeclaredScopes()); n != 8 {
		t.Errorf("contextfile declares %d scopes; want 8", n)
	}
	if p.ScopeText("profile:read") == "" || p.ScopeText("unheard:of") != "" {
		t.Error("ScopeText")
	}
}

// How the catalogue's keys travel.
func TestCatalogKeys(t *testing.T) {
	for name, want := range map[string]struct{ header, prefix, query, good, bad string }{
		"contextfile":    {"Authorization", "Bearer ", "", "cf_abc", "cf"},
		"openweathermap": {"", "", "appid", "0123456789abcdef", ""},
		"sendgrid":       {"Authorization", "Bearer ", "", "SG.a-b_c.d", "SGxa"},
		"stripe":         {"Authorization", "Bearer ", "", "rk_live_abcDEF123", "pk_live_abc"},
	} {
		e, _ := provider.Lookup(name)
		if want.bad != "" {
			e.Account = provider.AccountEntry{} // nobody is asked
		}
		p, err := provider.New(provider.Config{Entry: e, Scheme: tokenstore.AuthAPIKey})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		header, prefix, query := p.Inject()
		if header != want.header || prefix != want.prefix || query != want.query {
			t.Errorf("%s: Inject() = %q %q %q", name, header, prefix, query)
		}
		if want.bad == "" {
			continue
		}
		if _, _, err := p.Credential(t.Context(), given("api_key", want.good)); err != nil {
			t.Errorf("%s: Credential() = %v", name, err)
		}
		if _, _, err := p.Credential(t.Context(), given("api_key", want.bad)); err == nil {
			t.Errorf("%s: took %s", name, want.bad)
		}
	}
}

func TestLookupUnknown(t *testing.T) {
	for _, name := range []string{"", "nobody", "../catalog/github", "github.json", "GITHUB", "/github", "."} {
		if _, ok := provider.Lookup(name); ok {
			t.Errorf("Lookup(%q) found something", name)
		}
	}
}

// Errors name the file, the wrong word and the right ones.
func TestParseEntryErrors(t *testing.T) {
	const start = `{"authorize_url":"https://a.example/a","token_url":"https://a.example/t","api_url":"https://api.a.example"`
	tests := map[string]string{ // :: what follows start → what the error says
		`,"revok_url":"x"}`:                             `revok_url`,
		`,"revoke":{"metod":"DELETE"}}`:                 `metod`,
		`,"scopes":"read"}`:                             `scopes`,
		`,"hosts":["a.example"],"hosts":["b.example"]}`: `unique`,
		`}{}`:                                                            `one JSON object`,
		`,"client_auth":"basci"}`:                                        `client_auth "basci" is not one of basic, basic_raw, post, none`,
		`,"client_auth":"omit"}`:                                         `not one of basic, basic_raw, post, none`,
		`,"revoke":{"body":"xml"}}`:                                      `revoke.body "xml" is not one of form, json`,
		`,"revoke":{"method":"GET"}}`:                                    `revoke.method "GET" is not one of POST, DELETE`,
		`,"revoke":{"token":"both"}}`:                                    `revoke.token "both"`,
		`,"refresh":{"rotation":"always"}}`:                              `single_use, grace, none`,
		`,"refresh":{"life":"never"}}`:                                   `refresh.life "never"`,
		`,"refresh":{"life":"30d"}}`:                                     `refresh.life "30d"`,
		`,"answer":{"life":"2"}}`:                                        `answer.life "2" is neither a duration`,
		`,"answer":{"life":"-2h"}}`:                                      `answer.life`,
		`,"answer":{"paths":{"token":"x"}}}`:                             `answer.paths "token" is not one of access_token`,
		`,"scopes":["a b"]}`:                                             `scopes "a b"`,
		`,"scopes":["a"],"scope_texts":{"b":"B"}}`:                       `scope_texts "b" is not one of scopes`,
		`,"errors":{"dead":["Bad Token"]}}`:                              `errors "Bad Token"`,
		`,"authorize":{"params":{"state":"x"}}}`:                         `authorize.params "state" is set by Lanyard`,
		`,"revoke_url":"http://a.example/r"}`:                            `revoke_url "http://a.example/r" must be https`,
		`,"revoke_url":"/r"}`:                                            `must be an absolute https URL`,
		`,"revoke_url":"ftp://a.example/r"}`:                             `must be an absolute https URL`,
		`,"revoke_url":"https://u:pw@a.example/r"}`:                      `revoke_url must not hold a user or password`,
		`,"revoke_url":"https://a.example/r#"}`:                          `fragment`,
		`,"revoke_url":"https://169.254.169.254/"}`:                      `revoke_url "169.254.169.254" is not allowed`,
		`,"revoke_url":"https://[::ffff:10.0.0.1]/"}`:                    `is not allowed`,
		`,"revoke_url":"https://localhost/"}`:                            `allow_private`,
		`,"revoke_url":"https://a.example:0/"}`:                          `port`,
		`,"revoke_url":"https://A.example/"}`:                            `lower case`,
		`,"introspect_url":"http://127.0.0.1/"}`:                         `introspect_url "http://127.0.0.1/" must be https; allow_private`,
		`,"allow_private":true,"revoke_url":"http://a.example/r"}`:       `only a loopback address`,
		`,"allow_private":true,"revoke_url":"https://169.254.169.254/"}`: `is not allowed`,
		`,"hosts":["https://b.example"]}`:                                `hosts "https://b.example" must be a host name`,
		`,"hosts":["*.b.example"]}`:                                      `hosts "*.b.example"`,
		`,"hosts":["b.example/x"]}`:                                      `hosts "b.example/x"`,
		`,"hosts":[""]}`:                                                 `hosts ""`,
		`,"hosts":["b.example:99999"]}`:                                  `port`,
		`,"hosts":["::1"],"allow_private":true}`:                         `brackets`,
		`,"hosts":["10.0.0.1"]}`:                                         `hosts "10.0.0.1" is not allowed`,
		`,"issuer":"https://a.example?x=1"}`:                             `issuer must not have a query`,
	}
	for rest, want := range tests {
		_, err := provider.ParseEntry("acme.json", []byte(start+rest))
		if err == nil || !strings.HasPrefix(err.Error(), "acme.json: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseEntry(…%s) = %v; want acme.json and %q", rest, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("the error holds a password: %v", err)
		}
	}
	for whole, want := range map[string]string{
		`{}`: `api_url is missing`,
		`{"api_url":"https://a.example","authorize_url":"https://a.example/t"}`:                                              `give authorize_url and token_url, or issuer`,
		`{"api_url":"https://a.example?x","issuer":"https://a.example"}`:                                                     `api_url must not have a query`,
		`{"api_url":"https://a.example","token_url":"https://a.example/t","authorize_url":"https://a.example/?client_id=x"}`: `authorize_url must not set "client_id"`,
		`[]`: `acme.json`,
	} {
		if _, err := provider.ParseEntry("acme.json", []byte(whole)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseEntry(%s) = %v; want %q", whole, err, want)
		}
	}
	for _, rest := range []string{
		`}`, `,"hosts":["up.a.example:8443"],"issuer":"https://a.example/tenant"}`,
		`,"allow_private":true,"hosts":["10.0.0.1:8080","[::1]:80"],"revoke_url":"http://localhost:9/r","introspect_url":"http://[::1]:9/"}`,
		`,"revoke_url":"https://a.example/{client_id}/r?x=1"}`,
	} {
		if _, err := provider.ParseEntry("acme.json", []byte(start+rest)); err != nil {
			t.Errorf("ParseEntry(…%s) = %v", rest, err)
		}
	}
}

func TestNewErrors(t *testing.T) {
	good := provider.Config{Entry: acme(), ClientID: "id", ClientSecret: secret.New(clientSecret), RedirectURI: "https://l.example/cb"}
	tests := map[string]func(*provider.Config){
		"api_url is missing":         func(c *provider.Config) { c.Entry.APIURL = "" },
		"client_id is missing":       func(c *provider.Config) { c.ClientID = "" },
		"redirect URI is missing":    func(c *provider.Config) { c.RedirectURI = "" },
		"does not go with":           func(c *provider.Config) { c.Entry.ClientAuth = provider.AuthNone },
		`client_auth "x" is not one`: func(c *provider.Config) { c.Entry.ClientAuth = "x" },
	}
	for want, change := range tests {
		cfg := good
		change(&cfg)
		if _, err := provider.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New() = %v; want %q", err, want)
		}
	}
	if p, err := provider.New(good); err != nil || p.Title() != "api.acme.example" {
		t.Errorf("New() = %v", err)
	}
}
