package provider_test

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const oidcAnswer = `{"access_token":"canary-a","refresh_token":"canary-r","token_type":"Bearer","expires_in":300,"scope":"openid email"}`

// openID is a server that publishes a document of testdata/discovery, with its
// own address for all hosts in it but that of the userinfo endpoint, if that is
// another's.
type openID struct {
	*ledger
	userinfo *ledger
	issuer   string
}

var documentHost = regexp.MustCompile(`https://[a-z0-9.-]+\.example`)

func newOpenID(t *testing.T, file string) *openID {
	t.Helper()
	text, err := os.ReadFile("testdata/discovery/" + file + ".json")
	if err != nil {
		t.Fatal(err)
	}
	doc := ""
	s := &openID{}
	answer := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, openIDPath):
			answering(200, "application/json", doc)(w, r)
		case strings.Contains(r.URL.Path, "userinfo"):
			answering(200, "application/json", `{"sub":"ada","name":"Ada","email":"ada@acme.example"}`)(w, r)
		case r.Method == http.MethodPost:
			answering(200, "application/json", oidcAnswer)(w, r)
		default:
			http.NotFound(w, r)
		}
	}
	s.ledger = newLedger(t, answer)
	s.userinfo = s.ledger
	if strings.Contains(string(text), "graph.microsoft.example") {
		s.userinfo = newLedger(t, answer)
	}
	doc = documentHost.ReplaceAllStringFunc(string(text), func(host string) string {
		if host == "https://graph.microsoft.example" {
			return s.userinfo.URL
		}
		return s.URL
	})
	s.issuer = regexp.MustCompile(`"issuer": "([^"]+)"`).FindStringSubmatch(doc)[1]
	return s
}

// An issuer alone sets up any OpenID provider: from its published document to
// the authorization link, the code, the refresh, the account and the end.
func TestOpenIDProviders(t *testing.T) {
	tests := map[string]struct {
		authorize, token, userinfo, revoke string // paths; revoke empty: there is none
	}{
		"keycloak": {
			"/realms/acme/protocol/openid-connect/auth", "/realms/acme/protocol/openid-connect/token",
			"/realms/acme/protocol/openid-connect/userinfo", "/realms/acme/protocol/openid-connect/revoke",
		},
		"auth0": {"/authorize", "/oauth/token", "/userinfo", "/oauth/revoke"},
		"okta":  {"/oauth2/default/v1/authorize", "/oauth2/default/v1/token", "/oauth2/default/v1/userinfo", "/oauth2/default/v1/revoke"},
		"entra": {
			"/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/authorize", "/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/token",
			"/oidc/userinfo", "",
		},
		"zitadel": {"/oauth/v2/authorize", "/oauth/v2/token", "/oidc/v1/userinfo", "/oauth/v2/revoke"},
		"hydra":   {"/oauth2/auth", "/oauth2/token", "/userinfo", "/oauth2/revoke"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newOpenID(t, name)
			p := newProvider(t, provider.Entry{Issuer: s.issuer, AllowPrivate: true})
			if got := p.API().String(); got != s.URL {
				t.Errorf("API() = %s; want the issuer's origin", got)
			}
			link, err := p.AuthorizeURL(t.Context(), secret.New("s"), secret.New(theVerifier), []string{"openid", "email"})
			if err != nil || !strings.HasPrefix(link, s.URL+tt.authorize+"?") || !strings.Contains(link, "code_challenge_method=S256") {
				t.Fatalf("AuthorizeURL() = %s, %v", link, err)
			}
			a, err := exchange(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			tok, err := p.Parse(a, tokenstore.Token{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Refresh(t.Context(), tok); err != nil {
				t.Error(err)
			}
			account, err := p.Account(t.Context(), &tok)
			if diff := cmp.Diff(tokenstore.Account{ID: "ada", Name: "Ada", Email: "ada@acme.example"}, account); err != nil || diff != "" {
				t.Errorf("Account() = %v, %s", err, diff)
			}
			if err := p.Revoke(t.Context(), tok); tt.revoke == "" && !errors.Is(err, errors.ErrUnsupported) || tt.revoke != "" && err != nil {
				t.Errorf("Revoke() = %v", err)
			}
			var got []string
			for _, l := range []*ledger{s.ledger, s.userinfo} {
				for _, r := range l.all() {
					if r.Method == http.MethodGet && strings.HasSuffix(r.Path, openIDPath) {
						continue
					}
					user := r.Header.Get("Authorization")
					if r.User != "" {
						user = "as " + r.User
					}
					got = append(got, r.Method+" "+r.Path+" "+user)
				}
				if s.userinfo == s.ledger {
					break
				}
			}
			as := " as " + url.QueryEscape(clientID)
			want := []string{"POST " + tt.token + as, "POST " + tt.token + as, "GET " + tt.userinfo + " Bearer canary-a"}
			if tt.revoke != "" {
				want = append(want, "POST "+tt.revoke+as)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Without the scope that a userinfo endpoint asks for, nobody asks it.
func TestUserinfoScope(t *testing.T) {
	s := newOpenID(t, "keycloak")
	p := newProvider(t, provider.Entry{Issuer: s.issuer, AllowPrivate: true})
	tok := oldToken()
	if _, err := p.Account(t.Context(), &tok); !errors.Is(err, errors.ErrUnsupported) || len(s.all()) != 0 {
		t.Errorf("Account() = %v after %d requests", err, len(s.all()))
	}
}

// What kind of secret a client has decides how it proves itself.
func TestDiscoveredClientAuth(t *testing.T) {
	key := pemOf(t, rsaKey(t, 2048))
	tests := map[string]struct {
		methods, secret string
		wantUser        bool
		wantForm        string // a name in the request's body
		wantErr         string
	}{
		"basic":             {`["client_secret_post","client_secret_basic"]`, "s", true, "grant_type", ""},
		"post":              {`["client_secret_post","private_key_jwt"]`, "s", false, "client_secret", ""},
		"a key":             {`["client_secret_basic","private_key_jwt"]`, key, false, "client_assertion", ""},
		"public":            {`["client_secret_basic","none"]`, "", false, "client_id", ""},
		"no secret helps":   {`["private_key_jwt"]`, "s", false, "", "client_secret has to be the client's private key"},
		"a key and no sign": {`["client_secret_basic"]`, key, false, "", "does not take private_key_jwt"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t, openIDPath, "")
			i.raw = strings.Replace(`{"token_endpoint_auth_methods_supported":METHODS,`, "METHODS", tt.methods, 1) + i.members()
			p, err := provider.New(provider.Config{
				Entry: i.entry(""), ClientID: "me", ClientSecret: secret.New(tt.secret), RedirectURI: "https://l.example/cb",
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			_, err = exchange(t.Context(), p)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) || !errors.Is(err, tokenstore.ErrNotSent) {
					t.Errorf("Exchange() = %v; want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sent := i.all()[len(i.all())-1]
			form, _ := url.ParseQuery(sent.Body)
			if (sent.User != "") != tt.wantUser || !form.Has(tt.wantForm) {
				t.Errorf("the request has user %q and %v", sent.User, form)
			}
			if strings.Contains(sent.Body, "PRIVATE") || strings.Contains(sent.Password, "PRIVATE") {
				t.Error("the private key was sent")
			}
		})
	}
}

// PKCE is left out where the provider says that it has methods, and not S256.
func TestDiscoveredPKCE(t *testing.T) {
	for methods, want := range map[string]bool{`["S256"]`: true, `["plain","S256"]`: true, `[]`: true, `["plain"]`: false, `null`: true} {
		i := newIssuer(t, openIDPath, "")
		i.raw = `{"code_challenge_methods_supported":` + methods + `,` + i.members()
		p := newProvider(t, i.entry(""))
		link, err := p.AuthorizeURL(t.Context(), secret.New("s"), secret.New(theVerifier), nil)
		if err != nil || strings.Contains(link, "code_challenge=") != want {
			t.Errorf("%s: AuthorizeURL() = %s, %v", methods, link, err)
		}
		if _, err := exchange(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if sent := i.all()[len(i.all())-1]; strings.Contains(sent.Body, "code_verifier") != want {
			t.Errorf("%s: the code's request is %s", methods, sent.Body)
		}
	}
}

// A document that names another issuer says what to write instead.
func TestDiscoveredIssuer(t *testing.T) {
	s := newOpenID(t, "entra-common")
	p := newProvider(t, provider.Entry{Issuer: s.URL + "/common/v2.0", AllowPrivate: true})
	_, err := p.AuthorizeURL(t.Context(), secret.New("s"), secret.New("v"), nil)
	if err == nil || !strings.Contains(err.Error(), "put the tenant's ID into issuer") {
		t.Errorf("Entra's document for all tenants: %v", err)
	}
	s = newOpenID(t, "auth0")
	p = newProvider(t, provider.Entry{Issuer: s.URL, AllowPrivate: true})
	_, err = p.AuthorizeURL(t.Context(), secret.New("s"), secret.New("v"), nil)
	if err == nil || !strings.Contains(err.Error(), `it names the issuer "`+s.URL+`/": write it just so`) {
		t.Errorf("Auth0's issuer without its slash: %v", err)
	}
}
