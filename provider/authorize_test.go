package provider_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
)

func TestAuthorizeURL(t *testing.T) {
	sum := sha256.Sum256([]byte(theVerifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	base := func(more url.Values) url.Values {
		q := url.Values{
			"response_type": {"code"}, "client_id": {clientID}, "state": {"the state&"},
			"redirect_uri":   {"https://lanyard.example/callback/acme"},
			"code_challenge": {challenge}, "code_challenge_method": {"S256"},
		}
		for k, v := range more {
			if v == nil {
				delete(q, k)
				continue
			}
			q[k] = v
		}
		return q
	}
	google, _ := provider.Lookup("google")
	tests := []struct {
		name   string
		entry  provider.Entry
		change func(*provider.Entry)
		scopes []string
		at     string
		want   url.Values
	}{
		{"plain", acme(), nil, []string{"read", "write"}, "https://id.acme.example/authorize", base(url.Values{"scope": {"read write"}})},
		{"no scopes", acme(), nil, nil, "https://id.acme.example/authorize", base(nil)},
		{
			"a query of its own", acme(), func(e *provider.Entry) { e.AuthorizeURL += "?tenant=a%26b" }, nil,
			"https://id.acme.example/authorize", base(url.Values{"tenant": {"a&b"}}),
		},
		{
			"another separator", acme(), func(e *provider.Entry) { e.Authorize.ScopeSeparator = "," },
			[]string{"read", "write"},
			"https://id.acme.example/authorize", base(url.Values{"scope": {"read,write"}}),
		},
		{
			"PKCE off", acme(), func(e *provider.Entry) { e.Authorize.PKCEOff = "breaks" }, nil,
			"https://id.acme.example/authorize", base(url.Values{"code_challenge": nil, "code_challenge_method": nil}),
		},
		{
			"google", google, nil,
			[]string{"openid"},
			"https://accounts.google.com/o/oauth2/v2/auth",
			base(url.Values{"scope": {"openid"}, "access_type": {"offline"}, "prompt": {"consent"}}),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change != nil {
				tt.change(&tt.entry)
			}
			got, err := newProvider(t, tt.entry).AuthorizeURL(t.Context(), secret.New("the state&"), secret.New(theVerifier), tt.scopes)
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, u.Query()); diff != "" {
				t.Errorf("query (-want +got):\n%s", diff)
			}
			if u.RawQuery = ""; u.String() != tt.at {
				t.Errorf("AuthorizeURL() is at %s; want %s", u, tt.at)
			}
		})
	}
}

// Each provider's authorization request, as its documentation shows it.
func TestAuthorizeDialects(t *testing.T) {
	const redirect = "https%3A%2F%2Flanyard.example%2Fcallback%2Facme"
	for _, tt := range []struct{ name, words, want string }{
		{
			"WeChat: appid, and a fragment",
			`{"authorize":{"pkce_off":"x","rename":{"client_id":"appid"},"fragment":"wechat_redirect","scope_separator":","}}`,
			"BASE/authorize?appid=id&redirect_uri=" + redirect + "&response_type=code&scope=read%2Cwrite&state=s#wechat_redirect",
		},
		{
			"Apollo: a page that reads its fragment", `{"authorize_url":"BASE/#/oauth/authorize","authorize":{"pkce_off":"x"}}`,
			"BASE/#/oauth/authorize?client_id=id&redirect_uri=" + redirect + "&response_type=code&scope=read+write&state=s",
		},
		{
			"Apollo, with a query there", `{"authorize_url":"BASE/?a=b#/oauth/authorize?c=d","authorize":{"pkce_off":"x"}}`,
			"BASE/?a=b#/oauth/authorize?c=d&client_id=id&redirect_uri=" + redirect + "&response_type=code&scope=read+write&state=s",
		},
		{
			"Slack, the user", `{"authorize":{"pkce_off":"x","rename":{"scope":"user_scope"},"scope_separator":","}}`,
			"BASE/authorize?client_id=id&redirect_uri=" + redirect + "&response_type=code&state=s&user_scope=read%2Cwrite",
		},
		{
			"Basecamp: type, no response_type", `{"authorize":{"pkce_off":"x","params":{"type":"web_server"},"drop":["response_type","scope"]}}`,
			"BASE/authorize?client_id=id&redirect_uri=" + redirect + "&state=s&type=web_server",
		},
		{
			"a parameter of the connection", `{"params":{"tenant":{"default":"acme"}},"authorize":{"pkce_off":"x","params":{"audience":"of {tenant}"},"drop":["scope"]}}`,
			"BASE/authorize?audience=of+acme&client_id=id&redirect_uri=" + redirect + "&response_type=code&state=s",
		},
	} {
		got, err := wordedProvider(t, base, tt.words, nil).AuthorizeURL(t.Context(), secret.New("s"), secret.New("v"), []string{"read", "write"})
		if want := strings.ReplaceAll(tt.want, "BASE", base); err != nil || got != want {
			t.Errorf("%s: AuthorizeURL() = %s, %v\nwant %s", tt.name, got, err, want)
		}
	}
}

// Walmart's nonce: another one each time.
func TestAuthorizeNonce(t *testing.T) {
	p := wordedProvider(t, base, `{"authorize":{"params":{"nonce":"n-{uuid}"}}}`, nil)
	seen := map[string]bool{}
	for range 2 {
		got, err := p.AuthorizeURL(t.Context(), secret.New("s"), secret.New("v"), nil)
		u, perr := url.Parse(got)
		if err != nil || perr != nil || !regexp.MustCompile(`^n-[0-9a-f-]{36}$`).MatchString(u.Query().Get("nonce")) {
			t.Fatalf("AuthorizeURL() = %s, %v", got, err)
		}
		seen[u.Query().Get("nonce")] = true
	}
	if len(seen) != 2 {
		t.Error("the same nonce twice")
	}
}
