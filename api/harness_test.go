package api_test

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// fakeSource makes credentials of what is given, and keeps a ledger of it.
type fakeSource struct {
	mu      sync.Mutex
	err     error
	account tokenstore.Account
	whose   error             // what Account returns
	tells   map[string]string // what it adds to a token
	made    []string
}

func (f *fakeSource) Credential(_ context.Context, given map[string]secret.String) (tokenstore.Token, tokenstore.Account, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := given["api_key"].Reveal() + given["username"].Reveal() + given["password"].Reveal() + given["key"].Reveal()
	f.made = append(f.made, text)
	if f.err != nil {
		return tokenstore.Token{}, tokenstore.Account{}, f.err
	}
	return tokenstore.Token{AccessToken: secret.New(text + "!")}, f.account, nil
}

func (f *fakeSource) Account(_ context.Context, t *tokenstore.Token) (tokenstore.Account, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tells != nil {
		t.Metadata = f.tells
	}
	return f.account, f.whose
}

func (f *fakeSource) ledger() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.made, " ")
}

// withSource adds integrations of three other schemes, and lets all of them know
// accounts.
func withSource(f *fakeSource) func(*api.Config) {
	source := func(map[string]string) (api.Credentials, error) { return f, nil } //nolint:unparam // as api.Integration has it
	return func(c *api.Config) {
		for name, in := range c.Integrations {
			in.Credentials = source
			c.Integrations[name] = in
		}
		c.Integrations["mail"] = api.Integration{
			Name: "mail", Provider: "mailer", Title: "Mailer", Scheme: tokenstore.AuthAPIKey, Credentials: source,
			Fields: []tokenstore.Field{{Name: "api_key", Title: "API key", Pattern: "^key-.*$", Secret: true}},
		}
		c.Integrations["shop"] = api.Integration{
			Name: "shop", Provider: "shop", Title: "Shop", Scheme: tokenstore.AuthBasic, Credentials: source,
			Fields: []tokenstore.Field{{Name: "username"}, {Name: "password", Secret: true, Optional: true}},
		}
		c.Integrations["machine"] = api.Integration{
			Name: "machine", Provider: "machine", Title: "Machine", Scheme: tokenstore.AuthClientCredentials,
			Scopes: []string{"all"}, Credentials: source,
		}
	}
}

// fakeDevices answers with a code, or err.
type fakeDevices struct {
	err    error
	scopes []string
}

func (f *fakeDevices) BeginDevice(_ context.Context, _ tokenstore.Connection, scopes []string) (tokenstore.Device, error) {
	f.scopes = scopes
	return tokenstore.Device{
		Code: secret.New("device-canary"), UserCode: "WDJB-MJHT", VerificationURI: "https://id.example/device",
		VerificationURIComplete: "https://id.example/device?user_code=WDJB-MJHT", Life: 600, Interval: 5,
	}, f.err
}

// happened fails unless the events of the connection id are these: type, or
// type and reason.
func (b *bench) happened(id string, want ...string) {
	b.t.Helper()
	page, _, err := b.store.ListEvents(context.Background(), tokenstore.EventFilter{ConnectionID: id}, "", 100)
	if err != nil {
		b.t.Fatal(err)
	}
	var got []string
	for _, e := range page {
		got = append(got, strings.TrimSpace(string(e.Type)+" "+e.Reason))
		if e.Actor.Name != "api" && e.Type != tokenstore.EventExpired {
			b.t.Errorf("%s: by %+v", e.Type, e.Actor)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		b.t.Errorf("events (-want +got):\n%s", d)
	}
}

// replace sends another value of a header.
func replace(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// once sends with an Idempotency-Key.
func once(key string) func(*http.Request) { return header("Idempotency-Key", key) }

func (b *bench) begun(a answer) string {
	b.t.Helper()
	b.wants(a, 201, "")
	id, ok := a.json["id"].(string)
	if !ok {
		b.t.Fatalf("no id in %s", a.text)
	}
	return id
}
