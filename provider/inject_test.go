package provider_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func headersOf(p *provider.Provider) []string {
	var all []string
	for _, h := range p.Inject().Headers {
		text := fmt.Sprintf("%s: %s %t", h.Name, h.Value.Reveal(), h.Always)
		if h.UUID {
			text += " uuid"
		}
		all = append(all, text)
	}
	return all
}

func TestInject(t *testing.T) {
	tests := map[string]struct {
		inject provider.InjectEntry
		key    provider.KeyEntry
		scheme string
		want   string
		more   []string
	}{
		"nothing said":   {want: `"Authorization" "Bearer " "" ""`},
		"prefix":         {inject: provider.InjectEntry{Prefix: "OAuth "}, want: `"Authorization" "OAuth " "" ""`},
		"no prefix":      {inject: provider.InjectEntry{Prefix: "none"}, want: `"Authorization" "" "" ""`},
		"another header": {inject: provider.InjectEntry{Header: "x-shop-token"}, want: `"X-Shop-Token" "" "" ""`},
		"query":          {inject: provider.InjectEntry{Query: "access_token"}, want: `"" "" "" "access_token"`},
		"by hand":        {scheme: tokenstore.AuthBearerToken, inject: provider.InjectEntry{Header: "Token"}, want: `"Token" "" "" ""`},
		"a password":     {scheme: tokenstore.AuthBasic, inject: provider.InjectEntry{Header: "Token"}, want: `"Authorization" "Basic " "" ""`},
		"a key, and more": {
			scheme: tokenstore.AuthAPIKey, want: `"Authorization" "OAuth key=\"me\", token=\"" "\"" ""`,
			key:    provider.KeyEntry{Header: "Authorization", Prefix: `OAuth key="{client_id}", token="`, Suffix: `"`},
			inject: provider.InjectEntry{Header: "Token", Headers: map[string]string{"User-Agent": "a/1 ({client_id})", "x-version": "2", "X-Id": "{uuid}"}},
			more:   []string{"User-Agent: a/1 (me) true", "X-Id: {uuid} false uuid", "X-Version: 2 false"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := acme()
			e.Inject, e.Key = tt.inject, tt.key
			cfg := provider.Config{Entry: e, Scheme: tt.scheme, ClientID: "me", RedirectURI: "https://l.example/cb"}
			if tt.scheme != "" && tt.key.Prefix == "" {
				cfg.ClientID = ""
			}
			p, err := provider.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			in := p.Inject()
			if got := fmt.Sprintf("%q %q %q %q", in.Header, in.Prefix, in.Suffix, in.Query); got != tt.want {
				t.Errorf("Inject() = %s; want %s", got, tt.want)
			}
			if diff := cmp.Diff(tt.more, headersOf(p)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A client is named exactly where requests name it.
func TestInjectClient(t *testing.T) {
	e := acme()
	e.Key = provider.KeyEntry{Header: "X-Key"}
	cfg := provider.Config{Entry: e, Scheme: tokenstore.AuthAPIKey, ClientID: "me"}
	if _, err := provider.New(cfg); err == nil || !strings.Contains(err.Error(), "do not go with auth_scheme API_KEY") {
		t.Errorf("New() = %v", err)
	}
	cfg.Entry.Inject.Headers = map[string]string{"Client-Id": "{client_id}"}
	p, err := provider.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	cfg.ClientID = ""
	if _, err := provider.New(cfg); err == nil || !strings.Contains(err.Error(), "client_id is missing") {
		t.Errorf("New() = %v", err)
	}
	cfg.ClientID, cfg.Entry.Inject.Headers = "me", map[string]string{"X-App": "{client_id}:{client_secret}"}
	if _, err := provider.New(cfg); err == nil || !strings.Contains(err.Error(), "client_secret is missing") {
		t.Errorf("New() = %v", err)
	}
	cfg.ClientSecret = secret.New("canary\r\nX-Evil: 1")
	if _, err := provider.New(cfg); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("New() with a secret that no header can carry = %v", err)
	}
}

// The request for the account is like any other to the API.
func TestAccountCarriesAll(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", `[{"id":7,"kind":"a"},{"id":"tenant-1","kind":"b","user":{"id":"ada","mail":"a@b.test"}}]`))
	e := entryAt(l.URL)
	e.Params = map[string]provider.ParamEntry{
		"tenant": {From: "account.[kind=b].id"}, "first": {From: "account.0.id"}, "region": {Default: "eu"},
	}
	e.APIURL = l.URL + "/api/{tenant}"
	e.Account = provider.AccountEntry{
		URL: l.URL + "/who?v=1", Method: "POST", Body: `{"query":"{ me { id } }"}`, ID: "[kind=b].user.id", Name: "1.user.id", Email: "1.user.mail",
	}
	e.Inject = provider.InjectEntry{
		Headers: map[string]string{"Client-Id": "{client_id}", "X-App": "{client_secret}", "User-Agent": "acme", "X-Region": "{region}", "X-Id": "r-{uuid}"},
		Params:  map[string]string{"region": "{region}"},
	}
	p, err := provider.New(provider.Config{Entry: e, ClientID: "me", ClientSecret: secret.New("canary-s"), RedirectURI: "https://l.example/cb"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	before := map[string]string{"kept": "x"}
	tok := &tokenstore.Token{AccessToken: secret.New("canary-t"), Metadata: before}
	account, err := p.Account(t.Context(), tok)
	if diff := cmp.Diff(tokenstore.Account{ID: "ada", Name: "ada", Email: "a@b.test"}, account); err != nil || diff != "" {
		t.Fatalf("Account() = %v, %s", err, diff)
	}
	if diff := cmp.Diff(map[string]string{"kept": "x", "tenant": "tenant-1", "first": "7"}, tok.Metadata); diff != "" || len(before) != 1 {
		t.Errorf("told: %s; the caller's map has %v", diff, before)
	}
	if q, err := p.With(tok); err != nil || q.API().Path != "/api/tenant-1" {
		t.Errorf("With() = %v", err)
	}
	r := l.all()[0]
	got := []string{r.Method, r.Path, r.Body}
	for _, name := range []string{"Authorization", "Client-Id", "X-App", "User-Agent", "X-Region", "Content-Type"} {
		got = append(got, r.Header.Get(name))
	}
	want := []string{
		"POST", "/who?v=1&region=eu", `{"query":"{ me { id } }"}`, "Bearer canary-t", "me", "canary-s", "acme", "eu", "application/json",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !regexp.MustCompile(`^r-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(r.Header.Get("X-Id")) {
		t.Errorf("X-Id = %s", r.Header.Get("X-Id"))
	}
}
