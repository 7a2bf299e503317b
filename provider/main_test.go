package provider_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The secrets of these tests: no error may hold one.
const (
	clientID     = "client id+1"
	clientSecret = "canary-secret:&=+ü"
	theCode      = "canary-code"
	theVerifier  = "canary-verifier-canary-verifier-canary-verifier"
	oldAccess    = "canary-old-access"
	oldRefresh   = "canary-old-refresh"
	newAccess    = "canary-new-access"
)

// recorded is a request as it arrived.
type recorded struct {
	Method, Path, User, Password string
	Header                       http.Header
	Body                         string
}

// ledger is a server that records every request, then answers.
type ledger struct {
	*httptest.Server
	mu       sync.Mutex
	requests []recorded
}

func (l *ledger) all() []recorded {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]recorded(nil), l.requests...)
}

func newLedger(t *testing.T, answer http.HandlerFunc) *ledger {
	t.Helper()
	l := &ledger{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rec := recorded{Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header.Clone(), Body: string(body)}
		rec.User, rec.Password, _ = r.BasicAuth()
		l.mu.Lock()
		l.requests = append(l.requests, rec)
		l.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

// answering answers with a status and a body.
func answering(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// entryAt is a provider whose endpoints are all at base.
func entryAt(base string) provider.Entry {
	return provider.Entry{
		AuthorizeURL: base + "/authorize", TokenURL: base + "/token", RevokeURL: base + "/revoke",
		IntrospectURL: base + "/introspect", APIURL: base + "/api", AllowPrivate: true,
	}
}

func newProvider(t *testing.T, e provider.Entry) *provider.Provider {
	t.Helper()
	cfg := provider.Config{
		Entry: e, ClientID: clientID, ClientSecret: secret.New(clientSecret),
		RedirectURI: "https://lanyard.example/callback/acme",
	}
	if e.ClientAuth == provider.AuthNone {
		cfg.ClientSecret = secret.String{}
	}
	p, err := provider.New(cfg)
	if err != nil {
		t.Fatalf("New() = %v", err)
	}
	t.Cleanup(p.Close)
	return p
}

func oldToken() tokenstore.Token {
	return tokenstore.Token{
		AccessToken: secret.New(oldAccess), RefreshToken: secret.New(oldRefresh),
		Scopes: []string{"read", "write"}, Generation: 4,
	}
}

func exchange(ctx context.Context, p *provider.Provider) (tokenstore.Answer, error) {
	return p.Exchange(ctx, secret.New(theCode), secret.New(theVerifier), nil)
}

// noSecrets fails if err tells a secret.
func noSecrets(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	text := err.Error()
	if strings.Contains(text, "canary") || strings.Contains(text, url.QueryEscape(clientSecret)) {
		t.Errorf("the error holds a secret: %s", text)
	}
}
