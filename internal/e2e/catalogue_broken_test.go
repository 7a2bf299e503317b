package e2e_test

import (
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
)

// A contributor whose entry is wrong is told at which step, what the provider
// missed, and which words are about it.
func TestCatalogueSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		of   string
		spin func(*provider.Entry)
		want string
	}{
		"a name":         {"tiktok", func(e *provider.Entry) { e.Token.Rename = nil }, "code: the parameter client_key is missing"},
		"a body":         {"notion", func(e *provider.Entry) { e.Token.Body = "" }, `want "application/json": see token.body`},
		"two proofs":     {"okta", func(e *provider.Entry) { e.ClientAuth = "post" }, "the parameter client_secret must not be there: see token.params, token.rename, token.drop or client_auth"},
		"a header":       {"shopify", func(e *provider.Entry) { e.Inject.Header = "" }, "the header X-Shopify-Access-Token is there 0 times: see inject.header"},
		"an agent":       {"reddit", func(e *provider.Entry) { e.Token.Headers = nil }, "code: the header User-Agent is not $any:$client:$any: see token.headers"},
		"an answer":      {"slack-user", func(e *provider.Entry) { e.Answer.Paths = nil }, `the provider gave a token with the answer {"ok":true`},
		"an endpoint":    {"airtable", func(e *provider.Entry) { e.TokenURL = "https://airtable.com/oauth2/token" }, "POST https://airtable.com/oauth2/token is none of its endpoints: see token_url"},
		"a page":         {"wechat", func(e *provider.Entry) { e.Authorize.Fragment = "" }, `the fragment is "", want "wechat_redirect": see authorize_url or authorize.fragment`},
		"proof and code": {"airtable", func(e *provider.Entry) { e.Authorize.PKCEOff = "a mistake" }, "authorize: the parameter code_challenge is missing"},
	}
	var all []*speaker
	wants := map[*speaker]string{}
	for name, tt := range tests {
		e, ok := provider.Lookup(tt.of)
		if !ok {
			t.Fatalf("no entry %s", tt.of)
		}
		tt.spin(&e)
		s := speakersOf(t, tt.of, e)[0]
		s.own, s.name = true, "broken-"+strings.ReplaceAll(name, " ", "-")
		s.dialect.Name = s.name
		all = append(all, s)
		wants[s] = tt.want
	}
	c := newCatalogue(t, all)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			ids := map[string]string{}
			err := c.withWhy(s, "connect", c.connects(t, s, ids))
			if err == nil {
				err = c.withWhy(s, "call", c.serves(t, s, ids))
			}
			if err == nil || !strings.Contains(err.Error(), wants[s]) {
				t.Errorf("a broken entry is told %q\nwant in it %q", err, wants[s])
			}
		})
	}
}
