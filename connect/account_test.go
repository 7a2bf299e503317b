package connect_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var (
	ada   = tokenstore.Account{ID: "p1", Name: "Ada Lovelace", Email: "ada@example.com"}
	grace = tokenstore.Account{ID: "p2", Name: "Grace Hopper"}
)

// as makes the provider say whose account it is.
func (p *fakeProvider) as(a tokenstore.Account) {
	p.account = func() (tokenstore.Account, error) { return a, nil }
}

func (b *bench) complete(id, code string) tokenstore.Connection {
	b.t.Helper()
	c, err := b.store.UpdateConnection(b.t.Context(), id, func(c *tokenstore.Connection) error {
		return c.Complete(secret.New(code), c.UserID, time.Now())
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// connect goes through a flow and completes it.
func (br *browser) connect(change ...func(*connect.Params)) tokenstore.Connection {
	br.b.t.Helper()
	q := wantApp(br.b.t, br.callback(br.open(br.b.link(change...))), "")
	return br.b.complete(q.Get("connection_id"), q.Get("completion_code"))
}

// wantMismatch checks the page that says that it is another account, and which
// offers to choose again.
func wantMismatch(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	_, _, targets := read(t, w.Body.String())
	again := slices.ContainsFunc(targets, func(target string) bool { return strings.HasPrefix(target, public+"/connect?") })
	if w.Code != http.StatusConflict || w.Header().Get("Location") != "" || !again {
		t.Errorf("got %d %v\n%s\nwant the page about two accounts", w.Code, w.Header(), w.Body)
	}
}

func TestAccount(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	b.p.as(ada)
	c := br.connect()
	if c.Account != ada {
		t.Errorf("account %+v", c.Account)
	}
	// The same account again, by another name.
	renamed := tokenstore.Account{ID: ada.ID, Name: "Ada King"}
	b.p.as(renamed)
	if c = br.connect(onConnection(c)); c.Account != renamed || c.Token.Generation != 2 {
		t.Errorf("connection %+v", c)
	}
	// Where it can't be asked for any more, what is known stays known.
	b.p.account = nil
	if c = br.connect(onConnection(c)); c.Account != renamed || c.Token.Generation != 3 {
		t.Errorf("connection %+v", c)
	}
	// A first connect goes on without.
	b.p.account = func() (tokenstore.Account, error) { return tokenstore.Account{}, errors.New("500") }
	c = br.connect()
	if c.Account != (tokenstore.Account{}) || c.Status != tokenstore.StatusActive {
		t.Errorf("connection %+v", c)
	}
	b.p.as(grace) // and a reconnect then says whose it is
	if c = br.connect(onConnection(c)); c.Account != grace {
		t.Errorf("account %+v", c.Account)
	}
}

// TestAccountMismatch: A019. A reconnect as another account changes nothing.
func TestAccountMismatch(t *testing.T) {
	t.Run("A019", testAccountMismatch)
}

func testAccountMismatch(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	b.p.as(ada)
	c := br.connect()
	b.p.as(grace)
	scopes := func(p *connect.Params) { p.Scopes = []string{"more"} }
	state := br.open(b.link(onConnection(c), scopes))
	w := br.callback(state)
	wantMismatch(t, w)
	body := w.Body.String()
	// Whoever has a link that was forwarded learns nobody's address by it.
	if strings.Contains(body, "Ada Lovelace") || !strings.Contains(body, "A…") && !strings.Contains(body, "a…@") || !strings.Contains(body, "Grace Hopper") {
		t.Errorf("the page names not the one account and hints at the other:\n%s", body)
	}
	if got := b.connection(c.ID); got.Revision != c.Revision {
		t.Errorf("connection changed: %+v", got)
	}
	if !slices.Equal(b.p.revoked, []string{"token-canary-2"}) || b.flow(state).Outcome != "account_mismatch" {
		t.Errorf("revoked %v, flow %+v", b.p.revoked, b.flow(state))
	}
	wantPage(t, br.callback(state), 400, "state_used")
	_, _, targets := read(t, body)
	var again, back string
	for _, target := range targets {
		switch {
		case strings.HasPrefix(target, public+"/connect?"):
			again = target
		case strings.HasPrefix(target, appURL+"?"):
			back = target
		}
	}
	q := mustURL(back).Query()
	if q.Get("error") != "account_mismatch" || q.Get("state") != "app-state" || q.Get("error_description") == "" {
		t.Errorf("the way back is %q", back)
	}
	// Choosing again is the same flow anew.
	b.p.as(ada)
	got := b.complete(c.ID, wantApp(t, br.callback(br.open(again)), "").Get("completion_code"))
	if got.Token.Generation != 2 || !slices.Equal(b.p.asked[1], b.p.asked[2]) {
		t.Errorf("connection %+v, asked %v", got, b.p.asked)
	}
	// What can't be found out is refused too.
	b.p.account = func() (tokenstore.Account, error) { return tokenstore.Account{}, errors.New("500") }
	wantApp(t, br.callback(br.open(b.link(onConnection(c)))), "source_error")
	if now := b.connection(c.ID); now.Revision != got.Revision || len(b.p.revoked) != 2 {
		t.Errorf("connection changed: %+v, revoked %v", now, b.p.revoked)
	}
	// A revoked connection still is that account's.
	if _, err := b.store.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error { c.Revoke(); return nil }); err != nil {
		t.Fatal(err)
	}
	b.p.as(grace)
	wantMismatch(t, br.callback(br.open(b.link(onConnection(c)))))
}

// TestAccountMismatchByForm: the way back keeps to the mode of the link.
func TestAccountMismatchByForm(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	b.p.as(ada)
	c := br.connect()
	b.p.as(grace)
	w := br.callback(br.open(b.link(onConnection(c), formPost)))
	if strings.Contains(w.Body.String(), "app.example.com/cb?") {
		t.Errorf("the page has a link with the error:\n%s", w.Body)
	}
	if q := hidden(t, w.Body.String()); q.Get("error") != "account_mismatch" {
		t.Errorf("the page's form has %v", q)
	}
}

// TestRecoverAccount: a crash does not get around the check.
func TestRecoverAccount(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	b.p.as(ada)
	c := br.connect()
	b.p.as(grace)
	state := br.open(b.link(onConnection(c)))
	_, err := b.store.UpdateFlow(t.Context(), secretHash(state), func(f *tokenstore.Flow) error {
		f.Answer = &tokenstore.Answer{Status: 200, Body: secret.New("recovered")}
		return f.Take()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.h.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.connection(c.ID); got.Revision != c.Revision || b.flow(state).Outcome != "account_mismatch" || !slices.Equal(b.p.revoked, []string{"recovered"}) {
		t.Errorf("connection %+v, flow %+v, revoked %v", got, b.flow(state), b.p.revoked)
	}
}

// TestUpgrade: a link with more scopes asks for the union, and what is granted
// is told as it is.
func TestUpgrade(t *testing.T) {
	tests := map[string]struct {
		granted         []string // by the second consent; nil: as asked
		scopes, missing []string
		changed         bool
	}{
		"all":                   {nil, []string{"read", "write"}, nil, true},
		"the new one declined":  {[]string{"read"}, []string{"read"}, []string{"write"}, false},
		"the old one taken off": {[]string{"write"}, []string{"write"}, []string{"read"}, true},
		"nothing":               {[]string{}, []string{}, []string{"read", "write"}, true},
		"more than asked":       {[]string{"write", "read", "extra"}, []string{"write", "read", "extra"}, nil, true},
		"in another order":      {[]string{"write", "read"}, []string{"write", "read"}, nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, noCompletion)
			br := b.browser()
			scopes := func(all ...string) func(*connect.Params) {
				return func(p *connect.Params) { p.Scopes = all }
			}
			flow := func(change ...func(*connect.Params)) tokenstore.Connection {
				q := wantApp(t, br.callback(br.open(b.link(change...))), "")
				return b.connection(q.Get("connection_id"))
			}
			c := flow(scopes("read"))
			b.p.scopes = tt.granted
			c = flow(onConnection(c), scopes("write"))
			if asked := b.p.asked[1]; !slices.Equal(asked, []string{"read", "write"}) {
				t.Errorf("asked for %v", asked)
			}
			if !slices.Equal(c.RequestedScopes, []string{"read", "write"}) || !slices.Equal(c.Token.Scopes, tt.scopes) || !slices.Equal(c.MissingScopes(), tt.missing) {
				t.Errorf("requested %v, granted %v, missing %v", c.RequestedScopes, c.Token.Scopes, c.MissingScopes())
			}
			events, _, err := b.store.ListEvents(t.Context(), tokenstore.EventFilter{ConnectionID: c.ID}, "", 100)
			if err != nil {
				t.Fatal(err)
			}
			if told := slices.ContainsFunc(events, func(e tokenstore.Event) bool { return e.Type == tokenstore.EventScopes }); told != tt.changed {
				t.Errorf("scopes_changed told: %v, want %v", told, tt.changed)
			}
		})
	}
}

// TestReconnectAfterTheSchemeChanged: the operator has given the integration
// another auth scheme; who connects again has it.
func TestReconnectAfterTheSchemeChanged(t *testing.T) {
	b := newBench(t)
	b.p.as(ada)
	br := b.browser()
	c := b.create(tokenstore.Connection{Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthAPIKey, Token: live("old-key"), Account: ada})
	c = br.connect(onConnection(c))
	if c.Token.AccessToken.Reveal() == "old-key" || c.AuthScheme != tokenstore.AuthOAuth2 {
		t.Errorf("connected anew, token %q, and the scheme is still %s: calls go on being refused as scheme_changed", c.Token.AccessToken.Reveal(), c.AuthScheme)
	}
}
