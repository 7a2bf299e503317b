package provider_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// GitHub's answer to too many requests is a 403 (and so is a firewall's): the
// token is as good as before.
func TestForbiddenIsNoDeadToken(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"message":"You have exceeded a secondary rate limit."}`))
	}))
	defer s.Close()
	entry := strings.ReplaceAll(`,"account":{"url":"BASE/user","id":"id"}`, "BASE", s.URL)
	for scheme, more := range map[string]string{
		tokenstore.AuthOAuth2: `,"authorize_url":"` + s.URL + `/a","token_url":"` + s.URL + `/t"`,
	} {
		p := schemed(t, s.URL, scheme, more+entry)
		_, err := p.Account(t.Context(), tokenstore.Token{AccessToken: secret.New("canary-t")})
		if errors.Is(err, tokenstore.ErrCredentialRefused) {
			t.Errorf("%s: %v: import takes that for a dead token and erases it", scheme, err)
		}
	}
}
