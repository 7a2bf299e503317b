package provider_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A told value with braces of its own stands as it is: it does not become the
// client's secret, nor a reason to lose a code.
func TestToldValueIsNoTemplate(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", `{"access_token":"canary-new-access","id":"1"}`))
	e := entryAt(l.URL)
	e.Params = map[string]provider.ParamEntry{"org": {From: "callback.org"}}
	e.Inject.Headers = map[string]string{"X-Org": "{org}"}
	e.Inject.Params = map[string]string{"org": "{org}"}
	e.Token.Headers = map[string]string{"X-Org": "{org}"}
	e.Token.Params = map[string]string{"org": "{org}"}
	p, err := provider.New(provider.Config{
		Entry: e, ClientID: "id", ClientSecret: secret.New("canary-secret"), RedirectURI: "https://lanyard.example/callback/acme",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	told, err := p.Callback("code=1&org=" + url.QueryEscape("{client_secret}"))
	if err != nil {
		t.Fatal(err)
	}
	byApp, err := p.For(map[string]string{"org": "{client_secret}"})
	if err != nil {
		t.Fatal(err)
	}
	byUser, err := p.With(&tokenstore.Token{Metadata: told})
	if err != nil {
		t.Fatal(err)
	}
	for who, p := range map[string]*provider.Provider{"a callback": byUser, "an app": byApp} {
		in := p.Inject()
		if got := in.Headers[0].Value.Reveal(); got != "{client_secret}" {
			t.Errorf("%s has the header say %q", who, got)
		}
		if got := in.Params[0].Value; got != "{client_secret}" {
			t.Errorf("%s has the parameter say %q", who, got)
		}
	}
	// A value that has braces of its own is no reason to lose the code.
	if _, err := p.Exchange(t.Context(), secret.New(theCode), secret.New(theVerifier), told); err != nil {
		t.Errorf("Exchange() = %v", err)
	}
	old := oldToken()
	old.Metadata = map[string]string{"org": "{x}"}
	if _, err := p.Refresh(t.Context(), old); err != nil {
		t.Errorf("Refresh() = %v", err)
	}
	for _, r := range l.all() {
		if got := r.Header.Get("X-Org"); got != "{client_secret}" && got != "{x}" {
			t.Errorf("token.headers say %q", got)
		}
	}
}

// A client's private key signs, and is never sent.
func TestPrivateKeyIsNeverSent(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func(e *provider.Entry){
		"revoke.client_auth":       func(e *provider.Entry) { e.ClientAuth, e.Revoke.ClientAuth = "private_key_jwt", "post" },
		"client_auth basic_secret": func(e *provider.Entry) { e.ClientAuth = "basic_secret" },
		"client_auth post":         func(e *provider.Entry) { e.ClientAuth = "post" },
		"default":                  func(*provider.Entry) {},
		"inject.headers": func(e *provider.Entry) {
			e.ClientAuth, e.Inject.Headers = "private_key_jwt", map[string]string{"X-Key": "{client_secret}"}
		},
		"revoke.headers": func(e *provider.Entry) {
			e.ClientAuth, e.Revoke.Headers = "private_key_jwt", map[string]string{"X-Key": "{client_secret}"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t, answering(200, "application/json", `{"access_token":"a"}`))
			e := entryAt(l.URL)
			set(&e)
			p, err := provider.New(provider.Config{
				Entry: e, ClientID: "id", ClientSecret: secret.New(pemOf(t, key)), RedirectURI: "https://lanyard.example/callback/acme",
			})
			if err != nil {
				noSecrets(t, err)
				return // refused: good
			}
			t.Cleanup(p.Close)
			_, _ = p.Refresh(t.Context(), oldToken())
			_ = p.Revoke(t.Context(), oldToken())
			for _, r := range l.all() {
				for _, s := range []string{r.Body, r.User, r.Password, strings.Join(r.Header["X-Key"], "")} {
					if u, _ := url.QueryUnescape(s); strings.Contains(u, "PRIVATE KEY") {
						t.Errorf("%s carries the client's private key", r.Path)
					}
				}
			}
		})
	}
}

// Two parameters under one name, or none where one has to be, are refused.
func TestOneNameOneParameter(t *testing.T) {
	base := `{"api_url":"https://api.acme.test","authorize_url":"https://acme.test/a","token_url":"https://acme.test/t","revoke_url":"https://acme.test/r","client_auth":"post",`
	for name, words := range map[string]string{
		"redirect_uri as state":       `"authorize":{"rename":{"redirect_uri":"state"}}}`,
		"client_id as further":        `"authorize":{"params":{"app":"1"},"rename":{"client_id":"app"}}}`,
		"client_id as code":           `"token":{"rename":{"client_id":"code"}}}`,
		"secret as refresh_token":     `"token":{"rename":{"client_secret":"refresh_token"}}}`,
		"client_id as grant_type":     `"token":{"rename":{"client_id":"grant_type"}}}`,
		"further as client_secret":    `"token":{"params":{"x":"1"},"rename":{"x":"client_secret"}}}`,
		"across token and refresh":    `"token":{"rename":{"client_id":"key"}},"refresh":{"rename":{"refresh_token":"key"}}}`,
		"revoke.params token":         `"revoke":{"params":{"token":"x"}}}`,
		"revoke.params its param":     `"revoke":{"param":"tok","params":{"tok":"x"}}}`,
		"revoke.params client_secret": `"revoke":{"params":{"client_secret":"x"}}}`,
		"revoke.param client_id":      `"revoke":{"param":"client_id"}}`,
		"revoke.param client_key":     `"token":{"rename":{"client_id":"client_key"}},"revoke":{"param":"client_key"}}`,
		"drop the refresh token":      `"refresh":{"drop":["refresh_token"]}}`,
		"drop the code":               `"token":{"drop":["code"]}}`,
		"drop the verifier":           `"token":{"drop":["code_verifier"]}}`,
		"drop the challenge":          `"authorize":{"drop":["code_challenge"]}}`,
		"drop the method":             `"authorize":{"drop":["code_challenge_method"]}}`,
	} {
		if _, err := provider.ParseEntry("e.json", []byte(base+words)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// The HMAC is of names and values that can be told apart.
func TestHMACOfWhatWasSigned(t *testing.T) {
	e := entryAt("http://127.0.0.1:1")
	e.Callback.HMAC = "hmac"
	p := newProvider(t, e)
	mac := hmac.New(sha256.New, []byte(clientSecret))
	mac.Write([]byte("code=1&host=h&shop=mine&state=s"))
	sum := hex.EncodeToString(mac.Sum(nil))
	if _, err := p.Callback("code=1&host=h&shop=mine&state=s&hmac=" + sum); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		"code=1&host=h%26shop%3Dmine&state=s&hmac=", "code=1%26host%3Dh%26shop%3Dmine&state=s&hmac=", "code=1&host=h&shop%3Dmine%26state=s&hmac=",
	} {
		if _, err := p.Callback(q + sum); err == nil {
			t.Errorf("%s was not signed, and is taken", q)
		}
	}
	mac.Reset()
	mac.Write([]byte("a=x%26y%25z=&code=1"))
	if _, err := p.Callback("code=1&a=x%26y%25z%3D&hmac=" + hex.EncodeToString(mac.Sum(nil))); err != nil {
		t.Error(err)
	}
}

// What is kept is shown to the app: no code, no state, no token.
func TestNoCredentialIsTold(t *testing.T) {
	base := `{"api_url":"https://api.acme.test","authorize_url":"https://acme.test/a","token_url":"https://acme.test/t","account":{"url":"https://api.acme.test/me"},"callback":{"code":"auth_code","hmac":"sig"},`
	for _, from := range []string{"callback.auth_code", "callback.state", "callback.sig", "callback.id_token", "callback.a b", "account.pages.0.access_token", "account.refresh_token"} {
		if _, err := provider.ParseEntry("e.json", []byte(base+`"params":{"x":{"from":"`+from+`"}}}`)); err == nil {
			t.Errorf("from %s: taken", from)
		}
	}
}

// The account request goes without what its answer is to tell.
func TestUnknownIsLeftOut(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", `{"id":"1","org":"o"}`))
	e := entryAt(l.URL)
	e.Params = map[string]provider.ParamEntry{"org": {From: "account.org"}}
	e.Inject.Headers = map[string]string{"X-Org": "{org}"}
	e.Inject.Params = map[string]string{"org": "{org}"}
	e.Account = provider.AccountEntry{URL: l.URL + "/api/me", ID: "id"}
	p := newProvider(t, e)
	tok := oldToken()
	if _, err := p.Account(t.Context(), &tok); err != nil {
		t.Fatal(err)
	}
	r := l.all()[0]
	if _, ok := r.Header["X-Org"]; ok || r.Path != "/api/me" {
		t.Errorf("sent %s with X-Org %q; want neither before it is known", r.Path, r.Header["X-Org"])
	}
}

// A code that means a dead grant at the token endpoint alone says nothing at
// another.
func TestRevocationRefused(t *testing.T) {
	for name, c := range map[string]struct{ entry, body string }{
		"reddit":    {"reddit", `{"message":"Bad Request","error":400}`},
		"x-twitter": {"x-twitter", `{"error":"invalid_request","error_description":"Missing required parameter [client_id]."}`},
	} {
		l := newLedger(t, answering(400, "application/json", c.body))
		e, _ := provider.Lookup(c.entry)
		e.AuthorizeURL, e.TokenURL, e.RevokeURL, e.APIURL, e.Hosts, e.AllowPrivate, e.Account = l.URL+"/a", l.URL+"/t", l.URL+"/r", l.URL, nil, true, provider.AccountEntry{}
		p := newProvider(t, e)
		if err := p.Revoke(t.Context(), oldToken()); err == nil {
			t.Errorf("%s: a revocation that was refused with 400 counts as done", name)
		}
	}
}

// The password of scheme BASIC stands in Authorization: an entry's own header
// there would go out in its place.
func TestBasicKeepsItsHeader(t *testing.T) {
	e := entryAt("https://acme.test")
	e.AllowPrivate = false
	e.Inject.Header, e.Inject.Headers = "X-User", map[string]string{"Authorization": "Basic fixed"}
	if _, err := provider.New(provider.Config{Entry: e, Scheme: "BASIC"}); err == nil {
		t.Error("taken")
	}
	if _, err := provider.New(provider.Config{Entry: e, Scheme: "BEARER_TOKEN"}); err != nil {
		t.Error(err)
	}
}

// An import may bring a refresh token alone: what comes of it is no code's answer.
func TestRefreshTokenAlone(t *testing.T) {
	prev := tokenstore.Token{RefreshToken: secret.New("imported")}
	for name, body := range map[string]string{
		"slack-user": `{"ok":true,"access_token":"xoxe.xoxp-1","token_type":"user","expires_in":43200,"refresh_token":"xoxe-2","team":{"id":"T1"}}`,
		"instagram":  `{"access_token":"long","token_type":"bearer","expires_in":5184000}`,
	} {
		e, _ := provider.Lookup(name)
		p := newProvider(t, e)
		a := tokenstore.Answer{Status: http.StatusOK, Body: secret.New(body), SentAt: time.Now()}
		got, err := p.Parse(a, prev, nil)
		if err != nil || got.Provisional {
			t.Errorf("%s: Parse() = provisional %v, %v", name, got.Provisional, err)
		}
	}
}
