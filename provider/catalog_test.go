package provider_test

import (
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// fileName is the form of an entry's name, which is its file's.
var fileName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// Every entry is whole, and all are of one kind.
func TestCatalog(t *testing.T) {
	if n := len(provider.Names()); n < 75 {
		t.Errorf("the catalogue has %d entries; want 75 at least", n)
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
			if !fileName.MatchString(name) {
				t.Error("an entry's file is named in lower case, with - between words")
			}
			found, ok := provider.Lookup(name)
			if !ok || !cmp.Equal(e, found) {
				t.Errorf("Lookup() differs from the file: %s", cmp.Diff(e, found))
			}
			for _, wrong := range inconsistent(&e) {
				t.Error(wrong)
			}
			again, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if e2, err := provider.ParseEntry(name, again); err != nil || !cmp.Equal(e, e2) {
				t.Errorf("encoded and read again: %v, %s", err, cmp.Diff(e, e2))
			}
			for _, scheme := range e.Schemes() {
				newFor(t, e, scheme)
			}
		})
	}
}

// newFor makes a provider of an entry for a scheme, with a client where one is
// needed and hosts where only the configuration says them.
func newFor(t *testing.T, e provider.Entry, scheme string) *provider.Provider {
	t.Helper()
	cfg := provider.Config{Entry: e, Scheme: scheme, RedirectURI: "https://l.example/cb", Params: map[string]string{}}
	for name, p := range e.Params {
		switch {
		case p.Default != "":
		case p.Host && len(p.Domains) == 0:
			cfg.Params[name] = "id.acme.example"
		case p.Fixed && len(p.Domains) > 0:
			cfg.Params[name] = strings.Replace(p.Domains[0], "*", "acme", 1)
		case p.Fixed && strings.HasPrefix(p.Pattern, "amzn1"):
			cfg.Params[name] = "amzn1.sp.solution.1"
		case p.Fixed:
			cfg.Params[name] = "acme"
		}
	}
	p, err := provider.New(cfg)
	if err != nil && strings.Contains(err.Error(), "client_id is missing") {
		cfg.ClientID = "id"
		p, err = provider.New(cfg)
	}
	if err != nil && strings.Contains(err.Error(), "client_secret") {
		cfg.ClientSecret = secret.New("s")
		if e.ClientAuth == provider.AuthPrivateKeyJWT {
			cfg.ClientSecret = secret.New(pemOf(t, keyOn(t, elliptic.P256())))
		}
		p, err = provider.New(cfg)
	}
	if err != nil {
		t.Fatalf("New(%s) = %v", scheme, err)
	}
	t.Cleanup(p.Close)
	return p
}

// inconsistent says what of an entry is not as it is in all of them.
func inconsistent(e *provider.Entry) (wrong []string) {
	say := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	oauth := slices.Contains(e.Schemes(), tokenstore.AuthOAuth2)
	noted := func(word string) bool {
		return slices.ContainsFunc(slices.Concat(e.Unchecked, e.Notes), func(line string) bool { return strings.Contains(strings.ToLower(line), word) })
	}
	say(e.Schema != "../entry.schema.json", "$schema is to be ../entry.schema.json")
	say(e.Title == "", "title is to be given")
	say(e.DocsURL == "", "docs_url is to be given")
	say(len(e.Sources) == 0 && len(e.Unchecked) == 0, "neither sources nor unchecked")
	say(oauth && e.ClientAuth == "" && e.Issuer == "", "client_auth is to be given")
	say(oauth && e.Refresh.Rotation == "" && !noted("no refresh tokens"), "refresh.rotation is to be given, or notes to say that there are no refresh tokens")
	say(oauth && e.Answer.Life == "" && !noted("answer.life"), "answer.life is to be given, or unchecked to say why not")
	say(e.AllowPrivate, "allow_private has no place in the catalogue")
	say(e.Account.URL == "" && !noted("account"), "account is missing, and neither notes nor unchecked say why")
	say(e.Authorize.PKCEOff != "" && len(strings.Fields(e.Authorize.PKCEOff)) < 2, "authorize.pkce_off is to say why")
	for i, s := range e.Scopes {
		say(slices.Index(e.Scopes, s) != i, "the scope %s is listed twice", s)
	}
	for scope, text := range e.ScopeTexts {
		say(text == "" || strings.HasSuffix(text, ".") || text != strings.TrimSpace(text), "scope_texts %q: %q", scope, text)
	}
	for name, p := range e.Params {
		say(p.Title == "", "params.%s.title is to be given", name)
	}
	for _, source := range e.Sources {
		u, err := url.Parse(source)
		say(err != nil || u.Scheme != "https" || u.Host == "", "sources %q is not an https URL", source)
	}
	words := wordsOf(reflect.TypeOf(*e))
	for _, line := range e.Unchecked {
		word, _, named := strings.Cut(line, ":")
		first, _, _ := strings.Cut(word, ".")
		say(!named || !slices.Contains(words, first), "unchecked %q is to begin with the word that is meant, and a colon", line)
	}
	return wrong
}

// wordsOf returns the words of a part of the language.
func wordsOf(t reflect.Type) []string {
	var words []string
	for _, f := range reflect.VisibleFields(t) {
		word, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		words = append(words, word)
	}
	return words
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
		got.Header, got.Prefix = p.Inject().Header, p.Inject().Prefix
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
		if in := p.Inject(); in.Header != want.header || in.Prefix != want.prefix || in.Query != want.query {
			t.Errorf("%s: Inject() = %+v", name, in)
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
		`,"hosts":["a.example"],"hosts":["b.example"]}`: `hosts is given twice, first on line 1`,
		`}{}`:                                                            `one JSON object`,
		`,"client_auth":"basci"}`:                                        `client_auth "basci" is not one of basic, basic_id, basic_raw, basic_secret, post, private_key_jwt, none`,
		`,"client_auth":"omit"}`:                                         `not one of basic, basic_id, basic_raw, basic_secret, post, private_key_jwt, none`,
		`,"revoke":{"body":"xml"}}`:                                      `revoke.body "xml" is not one of form, json`,
		`,"revoke":{"method":"PUT"}}`:                                    `revoke.method "PUT" is not one of POST, DELETE, GET`,
		`,"revoke":{"token":"both"}}`:                                    `revoke.token "both"`,
		`,"refresh":{"rotation":"always"}}`:                              `single_use, grace, none`,
		`,"refresh":{"life":"never"}}`:                                   `refresh.life "never"`,
		`,"refresh":{"life":"30d"}}`:                                     `refresh.life "30d"`,
		`,"answer":{"life":"2"}}`:                                        `answer.life "2" is neither a duration`,
		`,"answer":{"life":"-2h"}}`:                                      `answer.life`,
		`,"answer":{"paths":{"token":"x"}}}`:                             `answer.paths "token" is not one of access_token`,
		`,"scopes":["a b"]}`:                                             `scopes "a b"`,
		`,"scopes":["a"],"scope_texts":{"b":"B"}}`:                       `scope_texts "b" is not one of scopes`,
		`,"errors":{"dead":["Bad Token"]}}`:                              `errors.dead "Bad Token"`,
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
