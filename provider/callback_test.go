package provider_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// regional is a provider whose response says where the code is redeemed, and
// what was granted.
func regional() provider.Entry {
	return provider.Entry{
		Params: map[string]provider.ParamEntry{
			"accounts": {Domains: []string{"accounts.zone.test", "*.zone-eu.test"}, From: "callback.accounts-server"},
			"realm_id": {Pattern: "[0-9]+", From: "callback.realmId"},
		},
		AuthorizeURL: "https://login.zone.test/authorize", TokenURL: "https://{accounts}/token", APIURL: "https://api.zone.test",
		Callback: provider.CallbackEntry{Code: "auth_code", Scope: "scope"},
	}
}

func TestCallback(t *testing.T) {
	p := newProvider(t, regional())
	if got := p.CodeParam(); got != "auth_code" {
		t.Errorf("CodeParam() = %s", got)
	}
	if got := newProvider(t, acme()).CodeParam(); got != "code" {
		t.Errorf("CodeParam() = %s", got)
	}
	const at = "accounts-server=https%3A%2F%2Faccounts.zone.test"
	for query, want := range map[string]map[string]string{ // :: query → what is kept; nil: an error
		at + "&realmId=12&scope=read,write&state=x&auth_code=y": {"accounts": "accounts.zone.test", "realm_id": "12", "scope": "read,write"},
		"accounts-server=https://a.zone-eu.test":                {"accounts": "a.zone-eu.test"},
		"realmId=12":                                            nil, // nobody knows where the code goes
		"accounts-server=https://evil.test":                     nil,
		"accounts-server=https://zone-eu.test":                  nil,
		"accounts-server=https://accounts.zone.test:8443":       nil,
		at + "&" + at:               nil,
		at + "&realmId=1x":          nil,
		at + "&realmId=":            nil,
		at + "&realmId=1&realmId=2": nil,
		"%zz":                       nil,
	} {
		got, err := p.Callback(query)
		if (err == nil) != (want != nil) || !cmp.Equal(got, want) {
			t.Errorf("Callback(%s) = %v, %v; want %v", query, got, err, want)
		}
		if err != nil && query != "%zz" && !errors.Is(err, provider.ErrParams) {
			t.Errorf("Callback(%s) = %v; want ErrParams", query, err)
		}
	}
	if got, err := newProvider(t, acme()).Callback("code=x&state=y&realmId=1"); got != nil || err != nil {
		t.Errorf("Callback() where nothing is kept = %v, %v", got, err)
	}
}

// A response that the provider did not sign is refused.
func TestCallbackHMAC(t *testing.T) {
	e := shops()
	e.Callback.HMAC = "hmac"
	cfg := provider.Config{Entry: e, ClientID: clientID, RedirectURI: "https://l.example/cb"}
	if _, err := provider.New(cfg); err == nil || !strings.Contains(err.Error(), "client_secret is missing") {
		t.Errorf("New() without the key = %v", err)
	}
	p := newProvider(t, e)
	sign := func(text string) string {
		mac := hmac.New(sha256.New, []byte(clientSecret))
		mac.Write([]byte(text))
		return hex.EncodeToString(mac.Sum(nil))
	}
	const plain = "code=0907a61c0c8d55e99db179b68161bc00&host=YWRtaW4&shop=some-shop.myshop.test&state=a b&timestamp=1337178173"
	good := url.Values{
		"code": {"0907a61c0c8d55e99db179b68161bc00"}, "host": {"YWRtaW4"}, "shop": {"some-shop.myshop.test"},
		"state": {"a b"}, "timestamp": {"1337178173"}, "hmac": {sign(plain)},
	}
	if _, err := p.Callback(good.Encode()); err != nil {
		t.Errorf("Callback() = %v", err)
	}
	for name, change := range map[string]func(url.Values){
		"no signature":        func(q url.Values) { q.Del("hmac") },
		"an empty one":        func(q url.Values) { q.Set("hmac", "") },
		"half of one":         func(q url.Values) { q.Set("hmac", sign(plain)[:32]) },
		"another's":           func(q url.Values) { q.Set("hmac", strings.Repeat("00", 32)) },
		"no hex":              func(q url.Values) { q.Set("hmac", "zz") },
		"two":                 func(q url.Values) { q.Add("hmac", sign(plain)) },
		"another shop":        func(q url.Values) { q.Set("shop", "evil.myshop.test") },
		"another code":        func(q url.Values) { q.Set("code", "x") },
		"one more":            func(q url.Values) { q.Set("x", "y") },
		"one less":            func(q url.Values) { q.Del("timestamp") },
		"a value given twice": func(q url.Values) { q.Add("shop", "evil.myshop.test") },
	} {
		q := url.Values{}
		for k, v := range good {
			q[k] = append([]string(nil), v...)
		}
		change(q)
		_, err := p.Callback(q.Encode())
		if err == nil || errors.Is(err, provider.ErrParams) {
			t.Errorf("%s: Callback() = %v", name, err)
		}
		noSecrets(t, err)
	}
	// A key that is not the client's secret signs nothing.
	other, err := provider.New(provider.Config{Entry: e, ClientID: clientID, ClientSecret: secret.New("x"), RedirectURI: "https://l.example/cb"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	if _, err := other.Callback(good.Encode()); err == nil {
		t.Error("Callback() took a signature of another key")
	}
}

// What the callback tells is where the code is redeemed, and what its token
// brought keeps it for refresh, account and revocation.
func TestToldOnTheWire(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", `{"access_token":"canary-a","refresh_token":"canary-r","expires_in":60,"user":{"team":{"id":"T 7"}},"cell":"c2"}`))
	e := entryAt(l.URL)
	e.Params = map[string]provider.ParamEntry{
		"dc": {From: "callback.location"}, "cell": {From: "answer.cell"}, "team": {From: "answer.user.team.id"}, "realm": {From: "callback.realmId"},
	}
	e.TokenURL, e.RevokeURL = l.URL+"/{dc}/token", l.URL+"/{dc}/{cell}/revoke"
	e.APIURL = l.URL + "/{cell}/api"
	e.Account = provider.AccountEntry{URL: l.URL + "/{cell}/me/{realm}", ID: "{realm}", Name: "user.team.id"}
	e.Token.Params = map[string]string{"location": "{dc}"}
	p := newProvider(t, e)
	kept, err := p.Callback("code=x&location=eu&realmId=42")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Exchange(t.Context(), secret.New(theCode), secret.New(theVerifier), nil); !errors.Is(err, tokenstore.ErrNotSent) {
		t.Errorf("Exchange() without what the callback tells = %v; want ErrNotSent", err)
	}
	a, err := p.Exchange(t.Context(), secret.New(theCode), secret.New(theVerifier), kept)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, a.Callback); diff != "" {
		t.Error(diff)
	}
	tok, err := p.Parse(a, tokenstore.Token{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"dc": "eu", "cell": "c2", "team": "T 7", "realm": "42"}, tok.Metadata); diff != "" {
		t.Error(diff)
	}
	if _, err := p.Refresh(t.Context(), tok); err != nil {
		t.Error(err)
	}
	account, err := p.Account(t.Context(), &tok)
	if diff := cmp.Diff(tokenstore.Account{ID: "42", Name: "T 7"}, account); err != nil || diff != "" {
		t.Errorf("Account() = %v, %s", err, diff)
	}
	if err := p.Revoke(t.Context(), tok); err != nil {
		t.Error(err)
	}
	var got []string
	for _, r := range l.all() {
		got = append(got, r.Method+" "+r.Path)
	}
	if diff := cmp.Diff([]string{"POST /eu/token", "POST /eu/token", "GET /c2/me/42", "POST /eu/c2/revoke"}, got); diff != "" {
		t.Error(diff)
	}
	if body := l.all()[0].Body; !strings.Contains(body, "location=eu") {
		t.Errorf("the code's request is %s", body)
	}
}

// Where the API is depends on the account's answer, or what goes there with every
// request: without it nothing works.
func TestAccountNeeded(t *testing.T) {
	t.Run("by api_url", func(t *testing.T) { accountNeeded(t, func(e *provider.Entry) { e.APIURL += "/{cell}" }) })
	t.Run("by a header", func(t *testing.T) {
		accountNeeded(t, func(e *provider.Entry) { e.Inject.Headers = map[string]string{"X-Tenant": "cell {cell}"} })
	})
	t.Run("by a parameter", func(t *testing.T) {
		accountNeeded(t, func(e *provider.Entry) { e.Inject.Params = map[string]string{"tenant": "{cell}"} })
	})
}

func accountNeeded(t *testing.T, needs func(*provider.Entry)) {
	t.Helper()
	for body, want := range map[string]bool{`{"id":"ada","cell":"c2"}`: true, `{"id":"ada"}`: false, `{"id":"ada","cell":"a\u0007b"}`: false, `no`: false} {
		l := newLedger(t, answering(200, "application/json", body))
		e := entryAt(l.URL)
		e.Params = map[string]provider.ParamEntry{"cell": {From: "account.cell"}}
		e.APIURL, e.Account = l.URL, provider.AccountEntry{URL: l.URL + "/me", ID: "id", Scopes: []string{"who"}}
		needs(&e)
		p := newProvider(t, e)
		_, err := p.Account(t.Context(), &tokenstore.Token{AccessToken: secret.New("canary"), Scopes: []string{"who"}})
		if want && err != nil || !want && !errors.Is(err, tokenstore.ErrAccountNeeded) {
			t.Errorf("%s: Account() = %v", body, err)
		}
		noSecrets(t, err)
		if _, err := p.Account(t.Context(), &tokenstore.Token{AccessToken: secret.New("canary")}); !errors.Is(err, tokenstore.ErrAccountNeeded) || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("without the scope: Account() = %v", err)
		}
	}
}
