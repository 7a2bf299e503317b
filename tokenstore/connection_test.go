package tokenstore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

var (
	now   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	right = secret.New("the right code")
	wrong = secret.New("a wrong code")
)

// staged returns a connection of user-1 that waits for completion with right.
func staged(status tokenstore.Status) tokenstore.Connection {
	c := tokenstore.Connection{
		ID: "conn_1", UserID: "user-1", Status: status,
		InitiatedUntil: now.Add(time.Hour),
	}
	if status != tokenstore.StatusInitiated {
		c.InitiatedUntil = time.Time{}
		c.Token = tokenstore.Token{AccessToken: secret.New("old"), Generation: 4}
	}
	c.Stage(tokenstore.Staged{
		Token:           tokenstore.Token{AccessToken: secret.New("new")},
		RequestedScopes: []string{"read"},
		FlowID:          "flow",
		CodeHash:        right.Hash(),
		Until:           now.Add(tokenstore.CompletionLife),
	})
	return c
}

func TestComplete(t *testing.T) {
	type call struct {
		code secret.String
		user string
		at   time.Duration // after now
		want error
	}
	type result struct {
		Status     tokenstore.Status
		Reason     string
		Token      string
		Generation uint64
		Staged     bool
	}
	ok := call{code: right, user: "user-1"}
	bad := call{code: wrong, user: "user-1", want: tokenstore.ErrCompletionInvalid}
	late := call{code: right, user: "user-1", at: tokenstore.CompletionLife, want: tokenstore.ErrCompletionInvalid}
	spent := call{code: right, user: "user-1", want: tokenstore.ErrCompletionInvalid}
	stranger := call{code: right, user: "user-2", want: tokenstore.ErrUserMismatch}
	active := result{Status: tokenstore.StatusActive, Token: "new", Generation: 1}
	for _, tc := range []struct {
		name  string
		from  tokenstore.Status
		calls []call
		want  result
	}{
		{"right", tokenstore.StatusInitiated, []call{ok}, active},
		{"right after four wrong", tokenstore.StatusInitiated, []call{bad, bad, bad, bad, ok}, active},
		{
			"the fifth wrong spends the code", tokenstore.StatusInitiated,
			[]call{bad, bad, bad, bad, bad, spent},
			result{Status: tokenstore.StatusFailed, Reason: tokenstore.ReasonCompletionInvalid},
		},
		{
			"another user spends the code", tokenstore.StatusInitiated,
			[]call{stranger, spent},
			result{Status: tokenstore.StatusFailed, Reason: tokenstore.ReasonUserMismatch},
		},
		{
			"a wrong code of another user is wrong", tokenstore.StatusInitiated,
			[]call{{code: wrong, user: "user-2", want: tokenstore.ErrCompletionInvalid}},
			result{Status: tokenstore.StatusInitiated, Staged: true},
		},
		{"at the last moment", tokenstore.StatusInitiated, []call{{code: right, user: "user-1", at: tokenstore.CompletionLife - 1}}, active},
		{"too late", tokenstore.StatusInitiated, []call{late}, result{Status: tokenstore.StatusInitiated, Staged: true}},
		{"again", tokenstore.StatusInitiated, []call{ok, ok, {code: right, user: "user-1", at: tokenstore.CompletionLife - 1}}, active},
		{"again too late", tokenstore.StatusInitiated, []call{ok, late}, active},
		{"again by another user", tokenstore.StatusInitiated, []call{ok, stranger, ok}, active},
		{"another code afterwards", tokenstore.StatusInitiated, []call{ok, bad}, active},
		{"reconnecting", tokenstore.StatusActive, []call{ok}, result{Status: tokenstore.StatusActive, Token: "new", Generation: 5}},
		{"reconnecting EXPIRED", tokenstore.StatusExpired, []call{ok}, result{Status: tokenstore.StatusActive, Token: "new", Generation: 5}},
		{
			"refused reconnecting leaves the live credential", tokenstore.StatusActive,
			[]call{stranger, spent},
			result{Status: tokenstore.StatusActive, Token: "old", Generation: 4},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := staged(tc.from)
			for i, call := range tc.calls {
				if err := c.Complete(call.code, call.user, now.Add(call.at)); !errors.Is(err, call.want) {
					t.Errorf("call %d: Complete = %v, want %v", i+1, err, call.want)
				}
			}
			got := result{c.Status, c.StatusReason, c.Token.AccessToken.Reveal(), c.Token.Generation, c.Staged != nil}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("connection afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAccount: the account is the staged credential's once that is live, and no
// ending takes it away.
func TestAccount(t *testing.T) {
	ada, eve := tokenstore.Account{ID: "1", Name: "Ada"}, tokenstore.Account{ID: "2", Email: "eve@example.com"}
	c := staged(tokenstore.StatusActive)
	c.Account, c.Staged.Account = ada, eve
	if err := c.Complete(wrong, "user-1", now); err == nil || c.Account != ada {
		t.Errorf("after a wrong code: %v, account %+v; want %+v", err, c.Account, ada)
	}
	if err := c.Complete(right, "user-1", now); err != nil || c.Account != eve {
		t.Errorf("Complete = %v, account %+v; want %+v", err, c.Account, eve)
	}
	if err := c.Complete(right, "user-1", now); err != nil || c.Account != eve {
		t.Errorf("Complete again = %v, account %+v; want %+v", err, c.Account, eve)
	}
	for name, end := range map[string]func(*tokenstore.Connection){
		"activate": func(c *tokenstore.Connection) { c.Activate(tokenstore.Token{}, nil, now) },
		"unstage":  func(c *tokenstore.Connection) { c.Unstage("x") },
		"fail":     func(c *tokenstore.Connection) { c.Fail("x") },
		"expire":   func(c *tokenstore.Connection) { c.Expire("x") },
		"revoke":   (*tokenstore.Connection).Revoke,
	} {
		c := staged(tokenstore.StatusActive)
		c.Account = ada
		end(&c)
		if c.Account != ada {
			t.Errorf("%s: account %+v, want %+v", name, c.Account, ada)
		}
	}
}

func TestSameAs(t *testing.T) {
	unknown, ada := tokenstore.Account{Name: "Ada"}, tokenstore.Account{ID: "1", Name: "Ada"}
	for _, tc := range []struct {
		a, b tokenstore.Account
		want bool
	}{
		{ada, ada, true},
		{ada, tokenstore.Account{ID: "1", Name: "renamed", Email: "x@example.com"}, true},
		{ada, tokenstore.Account{ID: "2", Name: "Ada"}, false},
		{ada, unknown, true},
		{unknown, tokenstore.Account{}, true},
	} {
		if got, back := tc.a.SameAs(tc.b), tc.b.SameAs(tc.a); got != tc.want || back != tc.want {
			t.Errorf("SameAs of %+v and %+v = %v, %v; want %v", tc.a, tc.b, got, back, tc.want)
		}
	}
}

func TestFilter(t *testing.T) {
	c := tokenstore.Connection{UserID: "u", Integration: "github", Status: tokenstore.StatusActive, Labels: map[string]string{"a": "1", "b": ""}}
	for _, tc := range []struct {
		f    tokenstore.Filter
		want bool
	}{
		{tokenstore.Filter{}, true},
		{tokenstore.Filter{UserID: "u", Status: tokenstore.StatusActive, Labels: map[string]string{"a": "1", "b": ""}}, true},
		{tokenstore.Filter{Labels: map[string]string{"b": ""}}, true},
		{tokenstore.Filter{Labels: map[string]string{"c": ""}}, false},
		{tokenstore.Filter{Labels: map[string]string{"a": "1", "b": "1"}}, false},
		{tokenstore.Filter{UserID: "v", Labels: map[string]string{"a": "1"}}, false},
	} {
		if got := tc.f.Matches(&c); got != tc.want {
			t.Errorf("Matches of %+v = %v, want %v", tc.f, got, tc.want)
		}
	}
}

func TestForgotten(t *testing.T) {
	n := tokenstore.Note{}
	if n.Forgotten(now) {
		t.Error("a note without an end is forgotten")
	}
	n.KeepUntil = now
	if n.Forgotten(now.Add(-1)) || !n.Forgotten(now) {
		t.Error("a note is not forgotten just when its time has come")
	}
}

func TestCompleteWithNothingStaged(t *testing.T) {
	c := tokenstore.Connection{UserID: "user-1", Status: tokenstore.StatusInitiated}
	for _, code := range []secret.String{right, {}} {
		if err := c.Complete(code, "user-1", now); !errors.Is(err, tokenstore.ErrCompletionInvalid) {
			t.Errorf("Complete = %v, want ErrCompletionInvalid", err)
		}
	}
}

func TestActivate(t *testing.T) {
	c := staged(tokenstore.StatusInitiated)
	c.Intent, c.StatusReason = &tokenstore.Intent{}, "x"
	c.Activate(tokenstore.Token{AccessToken: secret.New("t"), Generation: 77}, []string{"read"}, now)
	if c.Token.Generation != 1 || c.Intent != nil || c.Staged != nil || !c.ConnectedAt.Equal(now) ||
		!c.InitiatedUntil.IsZero() || c.StatusReason != "" || c.Status != tokenstore.StatusActive {
		t.Errorf("Activate left %+v", c)
	}
}

// What the provider tells takes the place of what an import gave; what users
// gave stays.
func TestActivateTold(t *testing.T) {
	given := map[string]string{"shop": "acme", "realm_id": "1"}
	c := tokenstore.Connection{Params: given}
	c.Activate(tokenstore.Token{AccessToken: secret.New("t"), Metadata: map[string]string{"realm_id": "2"}}, nil, now)
	if diff := cmp.Diff(map[string]string{"shop": "acme"}, c.Params); diff != "" || len(given) != 2 {
		t.Errorf("params (-want +got):\n%s", diff)
	}
}

func TestEndings(t *testing.T) {
	for _, tc := range []struct {
		name   string
		from   tokenstore.Status
		end    func(*tokenstore.Connection)
		status tokenstore.Status
		reason string
		token  bool
		staged bool
	}{
		{"fail INITIATED", tokenstore.StatusInitiated, func(c *tokenstore.Connection) { c.Fail("x") }, tokenstore.StatusFailed, "x", false, true},
		{"fail ACTIVE", tokenstore.StatusActive, func(c *tokenstore.Connection) { c.Fail("x") }, tokenstore.StatusActive, "", true, true},
		{"fail EXPIRED", tokenstore.StatusExpired, func(c *tokenstore.Connection) { c.Fail("x") }, tokenstore.StatusExpired, "", true, true},
		{"unstage INITIATED", tokenstore.StatusInitiated, func(c *tokenstore.Connection) { c.Unstage("x") }, tokenstore.StatusFailed, "x", false, false},
		{"unstage ACTIVE", tokenstore.StatusActive, func(c *tokenstore.Connection) { c.Unstage("x") }, tokenstore.StatusActive, "", true, false},
		{"expire", tokenstore.StatusActive, func(c *tokenstore.Connection) { c.Expire("x") }, tokenstore.StatusExpired, "x", false, true},
		{"revoke", tokenstore.StatusActive, (*tokenstore.Connection).Revoke, tokenstore.StatusRevoked, tokenstore.ReasonRevoked, false, false},
		{"revoke INITIATED", tokenstore.StatusInitiated, (*tokenstore.Connection).Revoke, tokenstore.StatusRevoked, tokenstore.ReasonRevoked, false, false},
		{"lose the refresh token", tokenstore.StatusActive, func(c *tokenstore.Connection) { c.LoseRefreshToken("x") }, tokenstore.StatusActive, "x", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := staged(tc.from)
			c.Token.RefreshToken = secret.New("refresh")
			c.Token.Scopes, c.Token.Metadata = []string{"read"}, map[string]string{"realm_id": "1"}
			generation := c.Token.Generation
			c.Intent, c.Token.Provisional = &tokenstore.Intent{}, true
			tc.end(&c)
			if c.Status != tc.status || c.StatusReason != tc.reason {
				t.Errorf("status = %s (%s), want %s (%s)", c.Status, c.StatusReason, tc.status, tc.reason)
			}
			if got := !c.Token.AccessToken.IsZero(); got != tc.token {
				t.Errorf("access token there = %v, want %v", got, tc.token)
			}
			if got := c.Staged != nil; got != tc.staged {
				t.Errorf("staged credential there = %v, want %v", got, tc.staged)
			}
			if c.Token.Generation != generation || !slices.Equal(c.Token.Scopes, []string{"read"}) || c.Token.Metadata["realm_id"] != "1" {
				t.Errorf("generation, scopes, told = %d, %v, %v; want them kept", c.Token.Generation, c.Token.Scopes, c.Token.Metadata)
			}
			ended := !tc.token && tc.from != tokenstore.StatusInitiated
			if (ended || tc.reason == "x" && tc.token) && (!c.Token.RefreshToken.IsZero() || c.Intent != nil || c.Token.Provisional) {
				t.Error("a refresh token or an intent is left, or it waits for one")
			}
		})
	}
}

func TestDue(t *testing.T) {
	intent := func(c *tokenstore.Connection, at time.Time) { c.Intent = &tokenstore.Intent{Deadline: at} }
	plain := tokenstore.Connection{Status: tokenstore.StatusActive}
	provisional := func(c *tokenstore.Connection) {
		c.Token = tokenstore.Token{AccessToken: secret.New("a"), RefreshToken: secret.New("a"), IssuedAt: now, Provisional: true}
	}
	for _, tc := range []struct {
		name string
		edit func(*tokenstore.Connection)
		want time.Time
	}{
		{"provisional", provisional, now},
		{"provisional and disabled", func(c *tokenstore.Connection) { provisional(c); c.Disabled = true }, time.Time{}},
		{"provisional, being renewed", func(c *tokenstore.Connection) { provisional(c); intent(c, now.Add(1)) }, now.Add(1)},
		{"provisional, refused for good", func(c *tokenstore.Connection) { provisional(c); c.LoseRefreshToken("x") }, time.Time{}},
		{"provisional, expired", func(c *tokenstore.Connection) { provisional(c); c.Expire("x") }, time.Time{}},
		{"provisional, waiting for completion", func(c *tokenstore.Connection) {
			provisional(c)
			c.Stage(tokenstore.Staged{Token: c.Token, Until: now.Add(time.Minute)})
			c.Status, c.Token = tokenstore.StatusInitiated, tokenstore.Token{}
		}, now.Add(time.Minute)},
		{"nothing", func(*tokenstore.Connection) {}, time.Time{}},
		{"initiated", func(c *tokenstore.Connection) {
			c.Status, c.InitiatedUntil = tokenstore.StatusInitiated, now
		}, now},
		{"initiated for ever", func(c *tokenstore.Connection) { c.Status = tokenstore.StatusInitiated }, time.Time{}},
		{"not initiated any more", func(c *tokenstore.Connection) { c.InitiatedUntil = now }, time.Time{}},
		{"staged stands for initiated", func(c *tokenstore.Connection) {
			c.Status, c.InitiatedUntil = tokenstore.StatusInitiated, now
			c.Stage(tokenstore.Staged{Until: now.Add(time.Minute)})
		}, now.Add(time.Minute)},
		{"staged while active", func(c *tokenstore.Connection) { c.Stage(tokenstore.Staged{Until: now}) }, now},
		{"intent", func(c *tokenstore.Connection) { intent(c, now) }, now},
		{"intent without a deadline", func(c *tokenstore.Connection) { intent(c, time.Time{}) }, time.Time{}},
		{"the earlier: intent", func(c *tokenstore.Connection) {
			c.Stage(tokenstore.Staged{Until: now.Add(1)})
			intent(c, now)
		}, now},
		{"the earlier: staged", func(c *tokenstore.Connection) {
			c.Stage(tokenstore.Staged{Until: now})
			intent(c, now.Add(1))
		}, now},
	} {
		c := plain.Clone()
		tc.edit(&c)
		if got := c.Due(); !got.Equal(tc.want) {
			t.Errorf("%s: Due = %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestIsID(t *testing.T) {
	for range 100 {
		if id := tokenstore.NewID(); !tokenstore.IsID(id) {
			t.Fatalf("IsID(%q), which NewID made, = false", id)
		}
	}
	for id, want := range map[string]bool{
		"conn_a":                            true,
		"conn_AZaz09":                       true,
		"conn_" + strings.Repeat("a", 64):   true,
		"conn_" + strings.Repeat("a", 65):   false,
		"":                                  false,
		"conn_":                             false,
		"conn":                              false,
		"CONN_a":                            false,
		" conn_a":                           false,
		"conn_a ":                           false,
		"conn_a/b":                          false,
		"conn_a.b":                          false,
		"conn_a_b":                          false,
		"conn_a-b":                          false,
		"conn_ä":                            false,
		"conn_\x00":                         false,
		"conn_" + strings.Repeat("\xff", 3): false,
	} {
		if got := tokenstore.IsID(id); got != want {
			t.Errorf("IsID(%q) = %v, want %v", id, got, want)
		}
	}
}

func TestScopesAndLinks(t *testing.T) {
	c := tokenstore.Connection{RequestedScopes: []string{"a", "b", "c"}, Token: tokenstore.Token{Scopes: []string{"b", "z"}}}
	if got := c.MissingScopes(); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("MissingScopes = %v, want [a c]", got)
	}
	for status, want := range map[tokenstore.Status]bool{
		tokenstore.StatusInitiated: true, tokenstore.StatusFailed: true, tokenstore.StatusExpired: true,
		tokenstore.StatusRevoked: true, tokenstore.StatusActive: false,
	} {
		c.Status, c.Disabled = status, false
		if got := c.Connectable(); got != want {
			t.Errorf("%s: Connectable = %v, want %v", status, got, want)
		}
		c.Disabled = true
		if c.Connectable() {
			t.Errorf("%s and disabled: Connectable = true", status)
		}
	}
}

// TestClone changes everything that a copy could share.
func TestClone(t *testing.T) {
	// Not made by Clone: the same again.
	c, before := storetest.FullConnection(), storetest.FullConnection()
	before.ID = c.ID
	clone := c.Clone()
	if diff := cmp.Diff(c, clone); diff != "" {
		t.Fatalf("the clone differs (-want +got):\n%s", diff)
	}
	scribble(t, &clone)
	if diff := cmp.Diff(before, c); diff != "" {
		t.Errorf("changing the clone changed the connection (-want +got):\n%s", diff)
	}
	f, beforeFlow := storetest.FullFlow(), storetest.FullFlow()
	beforeFlow.ExpiresAt = f.ExpiresAt
	cloneFlow := f.Clone()
	if diff := cmp.Diff(f, cloneFlow); diff != "" {
		t.Fatalf("the clone differs (-want +got):\n%s", diff)
	}
	scribble(t, &cloneFlow)
	if diff := cmp.Diff(beforeFlow, f); diff != "" {
		t.Errorf("changing the clone changed the flow (-want +got):\n%s", diff)
	}
}
