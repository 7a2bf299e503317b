package provider_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestRevokeOnTheWire(t *testing.T) {
	github, _ := provider.Lookup("github")
	google, _ := provider.Lookup("google")
	accessOnly := tokenstore.Token{AccessToken: secret.New(oldAccess)}
	type wire struct{ Method, Path, User, Password, ContentType, Body string }
	const form = "application/x-www-form-urlencoded"
	tests := []struct {
		name  string
		how   provider.RevokeEntry
		path  string
		token tokenstore.Token
		want  wire
	}{
		{
			"RFC 7009",
			provider.RevokeEntry{},
			"/revoke", oldToken(),
			wire{"POST", "/revoke", url.QueryEscape(clientID), url.QueryEscape(clientSecret), form, "token=" + oldRefresh + "&token_type_hint=refresh_token"},
		},
		{
			"RFC 7009, access token",
			provider.RevokeEntry{},
			"/revoke", accessOnly,
			wire{"POST", "/revoke", url.QueryEscape(clientID), url.QueryEscape(clientSecret), form, "token=" + oldAccess + "&token_type_hint=access_token"},
		},
		{
			"GitHub", github.Revoke, "/applications/{client_id}/token", oldToken(),
			wire{"DELETE", "/applications/client%20id+1/token", clientID, clientSecret, "application/json", `{"access_token":"` + oldAccess + `"}`},
		},
		{"Google", google.Revoke, "/revoke", oldToken(), wire{"POST", "/revoke", "", "", form, "token=" + oldRefresh}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t, answering(200, "text/plain", ""))
			e := entryAt(l.URL)
			e.Revoke, e.RevokeURL = tt.how, l.URL+tt.path
			if err := newProvider(t, e).Revoke(t.Context(), tt.token); err != nil {
				t.Fatal(err)
			}
			r := l.all()[0]
			got := wire{r.Method, r.Path, r.User, r.Password, r.Header.Get("Content-Type"), r.Body}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

// What the client is called at the token endpoint, it is called here; the token
// has a name of its own.
func TestRevokeClientNames(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", "{}"))
	e := entryAt(l.URL)
	e.ClientAuth = provider.AuthPost
	e.Token.Rename = map[string]string{"client_id": "app_id", "client_secret": "secret", "access_token": "fb_exchange_token"}
	e.Revoke = provider.RevokeEntry{Token: "access", Param: "access_token"}
	if err := newProvider(t, e).Revoke(t.Context(), oldToken()); err != nil {
		t.Fatal(err)
	}
	got, _ := url.ParseQuery(l.all()[0].Body)
	want := url.Values{"app_id": {clientID}, "secret": {clientSecret}, "access_token": {oldAccess}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}

// A public client names itself, and proves nothing.
func TestRevokePublicClient(t *testing.T) {
	l := newLedger(t, answering(200, "text/plain", ""))
	e := entryAt(l.URL)
	e.Revoke.ClientAuth = provider.AuthBasic
	e.ClientAuth = provider.AuthNone
	if err := newProvider(t, e).Revoke(t.Context(), oldToken()); err != nil {
		t.Fatal(err)
	}
	form, _ := url.ParseQuery(l.all()[0].Body)
	if form.Get("client_id") != clientID || l.all()[0].User != "" {
		t.Errorf("request = %+v", l.all()[0])
	}
}

func TestRevokeErrors(t *testing.T) {
	for status, body := range map[int]string{
		302: "", 400: `{"error":"` + oldRefresh + `"}`, 401: `{"error":"invalid_client"}`, 404: "<html>canary</html>", 503: "canary",
	} {
		l := newLedger(t, answering(status, "text/plain", body))
		err := newProvider(t, entryAt(l.URL)).Revoke(t.Context(), oldToken())
		_, refused := errors.AsType[*tokenstore.RefusalError](err)
		if err == nil || refused != (status < 500) || errors.Is(err, tokenstore.ErrOutcomeUnknown) != (status >= 500) {
			t.Errorf("Revoke() with HTTP %d = %v", status, err)
		}
		noSecrets(t, err)
		if n := len(l.all()); n != 1 {
			t.Errorf("%d requests; want 1", n)
		}
	}
	if err := newProvider(t, acme()).Revoke(t.Context(), oldToken()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Revoke() without an endpoint = %v; want ErrUnsupported", err)
	}
	l := newLedger(t, answering(200, "text/plain", ""))
	if err := newProvider(t, entryAt(l.URL)).Revoke(t.Context(), tokenstore.Token{}); !errors.Is(err, tokenstore.ErrNotSent) {
		t.Errorf("Revoke() of nothing = %v; want ErrNotSent", err)
	}
}

func TestIntrospect(t *testing.T) {
	tests := []struct {
		status int
		body   string
		active bool
		ok     bool
	}{
		{200, `{"active":true,"scope":"read"}`, true, true},
		{200, `{"active":false}`, false, true},
		{200, `{"active":"true"}`, false, false},
		{200, `{}`, false, false},
		{200, `<html>canary</html>`, false, false},
		{401, `{"error":"invalid_client"}`, false, false},
		{500, `{"active":true}`, false, false},
	}
	for _, tt := range tests {
		l := newLedger(t, answering(tt.status, "application/json", tt.body))
		active, err := newProvider(t, entryAt(l.URL)).Introspect(t.Context(), oldToken())
		if active != tt.active || (err == nil) != tt.ok {
			t.Errorf("Introspect() with %d %s = %v, %v", tt.status, tt.body, active, err)
		}
		noSecrets(t, err)
		r := l.all()[0]
		if r.Method != http.MethodPost || r.Path != "/introspect" || r.Body != "token="+oldAccess+"&token_type_hint=access_token" ||
			r.Password != url.QueryEscape(clientSecret) {
			t.Errorf("request = %+v", r)
		}
	}
	if _, err := newProvider(t, acme()).Introspect(t.Context(), oldToken()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Introspect() without an endpoint = %v; want ErrUnsupported", err)
	}
}
