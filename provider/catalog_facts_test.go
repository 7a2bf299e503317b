package provider_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What these token endpoints say of a dead refresh token ends the connection,
// and does not look like a refused client (which takes the whole lane down).
func TestCatalogDeadGrants(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		kind       tokenstore.RefusalKind
	}{
		{"atlassian", `{"error":"unauthorized_client","error_description":"refresh_token is invalid"}`, 403, tokenstore.RefusedGrant},
		{"atlassian", `{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}`, 403, tokenstore.RefusedGrant},
		{"atlassian", `{"error":"unauthorized_client","error_description":"Grant type 'refresh_token' not allowed for the client."}`, 403, tokenstore.RefusedClient},
		{"atlassian", `{"error":"access_denied","error_description":"Unauthorized"}`, 401, tokenstore.RefusedClient},
		{"bitbucket", `{"error":"unauthorized_client","error_description":"refresh_token is invalid"}`, 403, tokenstore.RefusedGrant},
		{"bitbucket", `{"error":"invalid_request","error_description":"Invalid refresh_token"}`, 400, tokenstore.RefusedGrant},
		{"bitbucket", `{"error":"invalid_request","error_description":"Missing parameter"}`, 400, tokenstore.RefusedForNow},
		{"exact-online", `{"error":"unauthorized_client","error_description":"Old refresh token used."}`, 401, tokenstore.RefusedGrant},
		{"exact-online", `{"error":"access_denied","error_description":"Rate limit exceeded: access_token not expired"}`, 400, tokenstore.RefusedForNow},
		{"pinterest", `{"code":283,"message":"The authorization grant is invalid"}`, 401, tokenstore.RefusedGrant},
		{"square", `{"message":"Invalid refresh token","type":"service.not_authorized"}`, 401, tokenstore.RefusedGrant},
		{"square", `{"message":"Not Authorized","type":"service.not_authorized"}`, 401, tokenstore.RefusedClient},
		{"x-twitter", `{"error":"invalid_request","error_description":"Value passed for the token was invalid."}`, 400, tokenstore.RefusedGrant},
		{"x-twitter", `{"error":"invalid_request","error_description":"Missing required parameter [client_id]."}`, 400, tokenstore.RefusedForNow},
		{"hubspot", `{"error":"invalid_grant","error_description":"refresh token is invalid, expired or revoked","status":"BAD_REFRESH_TOKEN","message":"x"}`, 400, tokenstore.RefusedGrant},
	} {
		e, _ := provider.Lookup(c.name)
		p := newFor(t, e, tokenstore.AuthOAuth2)
		_, err := p.Parse(tokenstore.Answer{Status: c.status, Body: secret.New(c.body), SentAt: time.Now()}, tokenstore.Token{AccessToken: secret.New("a"), RefreshToken: secret.New("r")}, nil)
		no, ok := errors.AsType[*tokenstore.RefusalError](err)
		if !ok || no.Kind != c.kind {
			t.Errorf("%s %s: %v (%+v), want kind %v", c.name, c.body, err, no, c.kind)
		}
	}
}

// Both list what was granted as `scopes`.
func TestCatalogGrantedScopes(t *testing.T) {
	for name, body := range map[string]string{
		"hubspot":   `{"token_type":"bearer","refresh_token":"na1-1","hub_id":62515,"scopes":["oauth","tickets"],"access_token":"A","expires_in":1800}`,
		"bitbucket": `{"access_token":"A","scopes":"oauth tickets","expires_in":7200,"refresh_token":"r","token_type":"bearer","state":"authorization_code"}`,
	} {
		e, _ := provider.Lookup(name)
		p := newFor(t, e, tokenstore.AuthOAuth2)
		got, err := p.Parse(tokenstore.Answer{Status: 200, Body: secret.New(body), SentAt: time.Now()}, tokenstore.Token{}, []string{"oauth", "never.granted"})
		if err != nil || !slices.Equal(got.Scopes, []string{"oauth", "tickets"}) {
			t.Errorf("%s: granted %v, %v", name, got.Scopes, err)
		}
	}
}

// Dropbox Sign's new apps have to name themselves and their secret in a refresh.
func TestCatalogDropboxSignRefresh(t *testing.T) {
	var form string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form = r.PostForm.Encode()
		_, _ = w.Write([]byte(`{"access_token":"B","token_type":"Bearer","refresh_token":"r2","expires_in":86400}`))
	}))
	defer srv.Close()
	e, _ := provider.Lookup("dropbox-sign")
	e.AllowPrivate = true
	e.AuthorizeURL, e.TokenURL, e.APIURL = srv.URL+"/a", srv.URL+"/t", srv.URL
	e.Refresh.URL, e.Account = srv.URL+"/t?refresh", provider.AccountEntry{}
	p, err := provider.New(provider.Config{Entry: e, ClientID: "id", ClientSecret: secret.New("s3cret"), RedirectURI: "https://l.example/cb"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Refresh(t.Context(), tokenstore.Token{AccessToken: secret.New("a"), RefreshToken: secret.New("r")}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(form, "client_id=id") || !strings.Contains(form, "client_secret=s3cret") {
		t.Errorf("the refresh had %s", form)
	}
}

// ServiceNow tells the same refresh token with each refresh, whose end stays
// where it was.
func TestSameRefreshTokenIsNoYounger(t *testing.T) {
	e, _ := provider.Lookup("servicenow")
	p := newFor(t, e, tokenstore.AuthOAuth2)
	end := time.Now().Add(time.Hour).UTC()
	prev := tokenstore.Token{AccessToken: secret.New("at"), RefreshToken: secret.New("rt"), RefreshExpiresAt: end}
	got, err := p.Parse(answer(http.StatusOK, `{"access_token":"at2","refresh_token":"rt","token_type":"Bearer","expires_in":1799}`), prev, nil)
	if err != nil || !got.RefreshExpiresAt.Equal(end) {
		t.Errorf("the refresh token ends %v, want %v (%v)", got.RefreshExpiresAt, end, err)
	}
}
