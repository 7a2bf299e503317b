package revoke_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeProvider keeps a ledger of the tokens it was asked to revoke.
type fakeProvider struct {
	scheme string
	single bool
	hangs  bool

	mu    sync.Mutex
	err   error
	asked []string
}

func (f *fakeProvider) Scheme() string {
	if f.scheme == "" {
		return tokenstore.AuthOAuth2
	}
	return f.scheme
}

func (f *fakeProvider) RevokesSingle() bool { return f.single }

func (f *fakeProvider) Revoke(ctx context.Context, t tokenstore.Token) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := t.AccessToken.Reveal()
	if !t.RefreshToken.IsZero() {
		said += "+" + t.RefreshToken.Reveal()
	}
	if realm := t.Metadata["realm_id"]; realm != "" {
		said += "@" + realm
	}
	f.asked = append(f.asked, said)
	if f.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

func (f *fakeProvider) answer(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeProvider) ledger() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, " ")
}

// bench is a Revoker with everything around it.
type bench struct {
	*revoke.Revoker
	t        *testing.T
	store    *memstore.Store
	provider *fakeProvider
	missing  bool // the integration is not configured
	late     func(context.Context) (tokenstore.Token, bool)
	logs     *observer.ObservedLogs
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, store: memstore.New(), provider: &fakeProvider{}}
	b.start(b.store)
	return b
}

// start makes a Revoker, as a new run of the program does.
func (b *bench) start(store tokenstore.Store) {
	b.t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	b.logs = logs
	r, err := revoke.New(revoke.Config{
		Store: store, Logger: zap.New(core),
		Provider: func(integration string, params map[string]string) (revoke.Provider, error) {
			switch {
			case b.missing || integration != "acme":
				return nil, revoke.ErrIntegrationMissing
			case params["wrong"] != "":
				return nil, errors.New("parameter wrong is not known")
			}
			return b.provider, nil
		},
		Late: func(string) func(context.Context) (tokenstore.Token, bool) { return b.late },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Revoker = r
	b.t.Cleanup(r.Close)
}

// restart ends the Revoker and begins the next run.
func (b *bench) restart() {
	b.t.Helper()
	b.Close()
	b.start(b.store)
	if err := b.Recover(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) put(change ...func(*tokenstore.Connection)) tokenstore.Connection {
	b.t.Helper()
	c := tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "acme", UserID: "u1", Status: tokenstore.StatusInitiated, AuthScheme: tokenstore.AuthOAuth2,
	}
	for _, f := range change {
		f(&c)
	}
	c, err := b.store.CreateConnection(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func active(name string) func(*tokenstore.Connection) {
	return func(c *tokenstore.Connection) {
		c.Activate(tokenstore.Token{AccessToken: secret.New("at-" + name)}, nil, time.Now().UTC())
	}
}

func staged(name string) func(*tokenstore.Connection) {
	return func(c *tokenstore.Connection) {
		c.Stage(tokenstore.Staged{Token: tokenstore.Token{AccessToken: secret.New("at-" + name)}, Until: time.Now().Add(time.Hour)})
	}
}

func account(id string) func(*tokenstore.Connection) {
	return func(c *tokenstore.Connection) { c.Account = tokenstore.Account{ID: id} }
}

func user(id string) func(*tokenstore.Connection) {
	return func(c *tokenstore.Connection) { c.UserID = id }
}

func (b *bench) stored(id string) tokenstore.Connection {
	b.t.Helper()
	c, err := b.store.Connection(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) notes() int {
	b.t.Helper()
	notes, err := b.store.ListNotes(b.t.Context(), "revocation/")
	if err != nil {
		b.t.Fatal(err)
	}
	return len(notes)
}

func (b *bench) revoke(id string) revoke.Outcome {
	b.t.Helper()
	c, out, err := b.Revoke(b.t.Context(), id, tokenstore.Actor{Kind: tokenstore.ActorAPIKey, Name: "k"})
	if err != nil || c.ID != id || c.Status != tokenstore.StatusRevoked {
		b.t.Fatalf("Revoke() = %s %s, %v", c.ID, c.Status, err)
	}
	return out
}

func (b *bench) wantLedger(want string) {
	b.t.Helper()
	if got := b.provider.ledger(); got != want {
		b.t.Errorf("the provider was asked to revoke %q, want %q", got, want)
	}
}

func (b *bench) logged(message string) {
	b.t.Helper()
	if b.logs.FilterMessage(message).Len() == 0 {
		b.t.Errorf("%q was not logged: %v", message, b.logs.All())
	}
}

var errDown = errors.New("HTTP 500")

func done() revoke.Outcome             { return revoke.Outcome{Done: true} }
func not(reason string) revoke.Outcome { return revoke.Outcome{Reason: reason} }
func scheme(s string) func(*tokenstore.Connection) {
	return func(c *tokenstore.Connection) { c.AuthScheme = s }
}

func TestRevokeAndDelete(t *testing.T) {
	type put = func(*tokenstore.Connection)
	tests := []struct {
		name    string
		change  []put
		sibling []put
		single  bool
		err     error
		want    revoke.Outcome
		asked   string // what the provider was asked to revoke
	}{
		{"live", []put{active("a")}, nil, false, nil, done(), "at-a"},
		{"waiting", []put{staged("a")}, nil, false, nil, done(), "at-a"},
		{"live and waiting", []put{active("a"), staged("s")}, nil, false, nil, done(), "at-a at-s"},
		{"begun", nil, nil, false, nil, not("nothing_to_revoke"), ""},
		{"expired", []put{active("a"), func(c *tokenstore.Connection) { c.Expire("x") }}, nil, false, nil, not("nothing_to_revoke"), ""},
		{"no endpoint", []put{active("a")}, nil, false, fmt.Errorf("x: %w", errors.ErrUnsupported), not("no_endpoint"), "at-a"},
		{"dead already", []put{active("a")}, nil, false, &tokenstore.RefusalError{Kind: tokenstore.RefusedGrant}, done(), "at-a"},
		{"integration missing", []put{active("a"), func(c *tokenstore.Connection) { c.Integration = "gone" }}, nil, false, nil, not("integration_missing"), ""},
		{"parameters", []put{active("a"), func(c *tokenstore.Connection) { c.Params = map[string]string{"wrong": "x"} }}, nil, false, nil, not("invalid_parameter"), ""},
		{"sibling", []put{active("a")}, []put{active("b")}, false, nil, not("shared_grant"), ""},
		{"sibling that waits", []put{active("a")}, []put{staged("b")}, false, nil, not("shared_grant"), ""},
		{"dead sibling", []put{active("a")}, []put{active("b"), func(c *tokenstore.Connection) { c.Revoke() }}, false, nil, done(), "at-a"},
		{"another user's", []put{active("a")}, []put{active("b"), user("u2")}, false, nil, done(), "at-a"},
		{"sibling, revoked singly", []put{active("a")}, []put{active("b")}, true, nil, done(), "at-a"},
		{"same account", []put{active("a"), account("1")}, []put{active("b"), account("1")}, false, nil, not("shared_grant"), ""},
		{"another account", []put{active("a"), account("1")}, []put{active("b"), account("2")}, false, nil, done(), "at-a"},
		{"account of one unknown", []put{active("a"), account("1")}, []put{active("b")}, false, nil, not("shared_grant"), ""},
		{"key", []put{active("a"), scheme(tokenstore.AuthAPIKey)}, nil, false, nil, not("no_endpoint"), ""},
		{"password", []put{active("a"), scheme(tokenstore.AuthBasic)}, nil, false, nil, not("no_endpoint"), ""},
		{"token by hand", []put{active("a"), scheme(tokenstore.AuthBearerToken)}, nil, false, nil, not("no_endpoint"), ""},
		{"private key", []put{active("a"), renewed("PRIVATE"), scheme(tokenstore.AuthJWTBearer)}, nil, false, nil, done(), "at-a"},
		{"our own client", []put{active("a"), renewed("client_credentials")}, nil, false, nil, done(), "at-a"},
		{"refresh token", []put{active("a"), renewed("rt")}, nil, false, nil, done(), "at-a+rt"},
		{"provider fails", []put{active("a")}, nil, false, errDown, revoke.Outcome{Pending: true}, "at-a"},
	}
	for _, tt := range tests {
		for _, op := range []string{"revoke", "delete"} {
			t.Run(tt.name+", "+op, func(t *testing.T) {
				b := newBench(t)
				b.provider.single, b.provider.err = tt.single, tt.err
				if tt.sibling != nil {
					b.put(tt.sibling...)
				}
				c := b.put(tt.change...)
				var got revoke.Outcome
				if op == "revoke" {
					got = b.revoke(c.ID)
					left := b.stored(c.ID)
					if !left.Token.AccessToken.IsZero() || !left.Token.RefreshToken.IsZero() || left.Staged != nil {
						t.Error("the credential is still there")
					}
					if again := b.revoke(c.ID); again.Done || b.stored(c.ID).Revision != left.Revision {
						t.Errorf("revoking again = %+v, revision %d → %d", again, left.Revision, b.stored(c.ID).Revision)
					}
				} else {
					was, out, err := b.Delete(t.Context(), c.ID, tokenstore.Actor{}, true)
					if err != nil || was.ID != c.ID || was.Status != tokenstore.StatusRevoked {
						t.Errorf("Delete() = %s %s, %v", was.ID, was.Status, err)
					}
					got = out
					if _, _, err := b.Delete(t.Context(), c.ID, tokenstore.Actor{}, true); !errors.Is(err, tokenstore.ErrNotFound) {
						t.Errorf("deleting again: %v", err)
					}
				}
				if got != tt.want {
					t.Errorf("outcome = %+v, want %+v", got, tt.want)
				}
				b.wantLedger(tt.asked)
				if want := map[bool]int{true: 1}[tt.want.Pending]; b.notes() != want {
					t.Errorf("%d notes are left, want %d", b.notes(), want)
				}
			})
		}
	}
}

func renewed(by string) func(*tokenstore.Connection) {
	return func(c *tokenstore.Connection) { c.Token.RefreshToken = secret.New(by) }
}

func TestDeleteCanLeaveTheProviderAlone(t *testing.T) {
	b := newBench(t)
	c := b.put(active("a"))
	_, out, err := b.Delete(t.Context(), c.ID, tokenstore.Actor{}, false)
	if err != nil || out != not("not_requested") {
		t.Errorf("Delete() = %+v, %v", out, err)
	}
	b.wantLedger("")
}

// What nobody completed may be of anybody's account.
func TestDiscard(t *testing.T) {
	tests := []struct {
		name   string
		other  []func(*tokenstore.Connection)
		single bool
		of     string
		want   string
	}{
		{"alone", nil, false, "", "at-x"},
		{"beside another user's", []func(*tokenstore.Connection){active("b"), user("u2")}, false, "", ""},
		{"beside one that waits", []func(*tokenstore.Connection){staged("b"), user("u2")}, false, "", ""},
		{"beside another account's", []func(*tokenstore.Connection){active("b"), user("u2"), account("2")}, false, "1", "at-x"},
		{"beside the same account's", []func(*tokenstore.Connection){active("b"), user("u2"), account("1")}, false, "1", ""},
		{"revoked singly", []func(*tokenstore.Connection){active("b")}, true, "", "at-x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.provider.single = tt.single
			if tt.other != nil {
				b.put(tt.other...)
			}
			b.Discard(t.Context(), "acme", "u1", nil, tokenstore.Account{ID: tt.of}, tokenstore.Token{AccessToken: secret.New("at-x")})
			b.wantLedger(tt.want)
			if n := b.notes(); n != 0 {
				t.Errorf("%d notes are left", n)
			}
		})
	}
	t.Run("private key", func(t *testing.T) {
		b := newBench(t)
		b.provider.scheme = tokenstore.AuthJWTBearer
		b.Discard(t.Context(), "acme", "u1", nil, tokenstore.Account{},
			tokenstore.Token{AccessToken: secret.New("at-x"), RefreshToken: secret.New("PRIVATE")})
		b.wantLedger("at-x")
	})
}

// TestAnotherUserWithTheSameAccount: two users of the app have connected one
// shared account, whose grant is both's.
func TestAnotherUserWithTheSameAccount(t *testing.T) {
	for _, tt := range []struct {
		name, mine, theirs, want string
	}{
		{"the same account", "1", "1", ""},
		{"another", "1", "2", "at-a"},
		{"mine unknown", "", "1", "at-a"},
		{"theirs unknown", "1", "", "at-a"},
	} {
		b := newBench(t)
		c := b.put(active("a"), account(tt.mine))
		b.put(active("b"), account(tt.theirs), user("u2"))
		if _, _, err := b.Revoke(t.Context(), c.ID, tokenstore.Actor{}); err != nil {
			t.Fatal(err)
		}
		if got := b.provider.ledger(); got != tt.want {
			t.Errorf("%s: asked to revoke %q; want %q", tt.name, got, tt.want)
		}
	}
}

// TestCredentialsOfTwoSchemes: an integration was given another auth scheme, and
// a connection holds a credential of each.
func TestCredentialsOfTwoSchemes(t *testing.T) {
	stagedBy := func(scheme, refresh string) func(*tokenstore.Connection) {
		return func(c *tokenstore.Connection) {
			c.Stage(tokenstore.Staged{
				Token:      tokenstore.Token{AccessToken: secret.New("at-s"), RefreshToken: secret.New(refresh)},
				AuthScheme: scheme, Until: time.Now().Add(time.Hour),
			})
		}
	}
	for _, tt := range []struct {
		name               string
		live, staged, want string
	}{
		{"a key, then by consent", tokenstore.AuthAPIKey, tokenstore.AuthOAuth2, "at-s+renews"},
		{"a private key, then by consent", tokenstore.AuthJWTBearer, tokenstore.AuthOAuth2, "at-a at-s+renews"},
		{"by consent, then a private key", tokenstore.AuthOAuth2, tokenstore.AuthJWTBearer, "at-a at-s"},
		{"by consent, then a key", tokenstore.AuthOAuth2, tokenstore.AuthAPIKey, "at-a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.provider.single = true
			c := b.put(active("a"), scheme(tt.live), stagedBy(tt.staged, "renews"))
			if out := b.revoke(c.ID); out != done() {
				t.Errorf("Revoke() = %+v", out)
			}
			b.wantLedger(tt.want)
		})
	}
}
