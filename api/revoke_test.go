package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func (b *bench) complete(id, code, user string) answer {
	b.t.Helper()
	return b.do("POST", "/v1/connections/"+id+"/complete", completion(code, user))
}

func TestComplete(t *testing.T) {
	b := newBench(t)
	c := b.put(staged("a"))
	a := b.complete(c.ID, "code-a", "u1")
	b.wants(a, 200, "")
	if a.json["status"] != "ACTIVE" || a.json["generation"] != float64(1) || a.json["id"] != c.ID {
		t.Errorf("answer = %s", a.text)
	}
	b.logged("connection completed", c.ID)
	done := b.stored(c.ID)
	b.wants(b.complete(c.ID, "code-a", "u1"), 200, "")
	b.wants(b.complete(c.ID, "code-a", "u2"), 409, "user_mismatch")
	b.wants(b.complete(c.ID, "code-b", "u1"), 409, "completion_invalid")
	if got := b.stored(c.ID); got.Revision != done.Revision || got.Status != tokenstore.StatusActive {
		t.Errorf("repeating changed the connection: revision %d → %d, %s", done.Revision, got.Revision, got.Status)
	}
	if got := b.revoker.ledger(); got != "" {
		t.Errorf("revoked %s", got)
	}
}

func TestCompleteTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.put(staged("a"))
		time.Sleep(tokenstore.CompletionLife)
		b.wants(b.complete(c.ID, "code-a", "u1"), 409, "completion_invalid")
	})
}

func TestWrongCodesSpendTheRightOne(t *testing.T) {
	b := newBench(t)
	c := b.put(staged("a"))
	for i := range 5 {
		if got := b.stored(c.ID).Staged.WrongCodes; got != i {
			t.Fatalf("%d wrong codes are stored, want %d", got, i)
		}
		b.wants(b.complete(c.ID, "wrong", "u1"), 409, "completion_invalid")
	}
	b.wants(b.complete(c.ID, "code-a", "u1"), 409, "completion_invalid")
	got := b.stored(c.ID)
	if got.Status != tokenstore.StatusFailed || got.StatusReason != tokenstore.ReasonCompletionInvalid || got.Staged != nil {
		t.Errorf("after five wrong codes: %s %s", got.Status, got.StatusReason)
	}
	if got := b.revoker.ledger(); got != "access-a" {
		t.Errorf("revoked %q, want the refused credential, once", got)
	}
}

func TestCompletingForAnotherUser(t *testing.T) {
	tests := []struct {
		name   string
		single bool
		other  func(*tokenstore.Connection) // another connection
		self   func(*tokenstore.Connection) // on top of the staged credential
		want   string                       // revoked
	}{
		{"alone", false, nil, nil, "access-a"},
		{"beside a dead one", false, func(c *tokenstore.Connection) { c.Revoke() }, nil, "access-a"},
		{"beside another integration's", false, func(c *tokenstore.Connection) { active("b")(c); c.Integration = "gl" }, nil, "access-a"},
		{"beside the same user's", false, active("b"), nil, ""},
		// The one who followed a forwarded link may well be a user too.
		{"beside another user's", false, func(c *tokenstore.Connection) { active("b")(c); c.UserID = "u2" }, nil, ""},
		{"beside one that waits", false, func(c *tokenstore.Connection) { staged("b")(c); c.UserID = "u2" }, nil, ""},
		{"beside its own live one", false, nil, active("live"), ""},
		{"beside another, revoked singly", true, active("b"), nil, "access-a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.revoker.single = tt.single
			if tt.other != nil {
				b.put(tt.other)
			}
			c := b.put(func(c *tokenstore.Connection) {
				if tt.self != nil {
					tt.self(c)
				}
				staged("a")(c)
			})
			b.wants(b.complete(c.ID, "code-a", "mallory"), 409, "user_mismatch")
			b.logged("completion refused", c.ID)
			if got := b.revoker.ledger(); got != tt.want {
				t.Errorf("revoked %q, want %q", got, tt.want)
			}
			b.wants(b.complete(c.ID, "code-a", "u1"), 409, "completion_invalid")
			got := b.stored(c.ID)
			if got.Staged != nil {
				t.Error("the credential is still there")
			}
			if tt.self == nil && (got.Status != tokenstore.StatusFailed || got.StatusReason != tokenstore.ReasonUserMismatch) {
				t.Errorf("status %s %s", got.Status, got.StatusReason)
			}
			if tt.self != nil && (got.Status != tokenstore.StatusActive || got.Token.AccessToken.Reveal() != "access-live") {
				t.Errorf("the live credential was touched: %s", got.Status)
			}
		})
	}
}

func TestParallelCompletes(t *testing.T) {
	b := newBench(t)
	c := b.put(staged("a"))
	var ok atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if b.complete(c.ID, "code-a", "u1").status == 200 {
				ok.Add(1)
			}
		})
	}
	wg.Wait()
	if got := b.stored(c.ID); ok.Load() != 100 || got.Token.Generation != 1 || got.Revision != c.Revision+1 {
		t.Errorf("%d succeeded, generation %d, %d writes", ok.Load(), got.Token.Generation, got.Revision-c.Revision)
	}
	b.logged("connection completed", c.ID)

	c = b.put(staged("b"))
	var mismatched atomic.Int32
	for range 50 {
		wg.Go(func() { b.complete(c.ID, "code-b", "u1") })
		wg.Go(func() {
			if b.complete(c.ID, "code-b", "u2").code() == "user_mismatch" {
				mismatched.Add(1)
			}
		})
	}
	wg.Wait()
	switch got := b.stored(c.ID); {
	case got.Status == tokenstore.StatusActive && got.Token.Generation == 1:
	case got.Status == tokenstore.StatusFailed && mismatched.Load() == 1:
	default:
		t.Errorf("status %s, generation %d, %d mismatches", got.Status, got.Token.Generation, mismatched.Load())
	}
}

func TestRevokeAndDelete(t *testing.T) {
	both := func(c *tokenstore.Connection) { active("a")(c); staged("s")(c) }
	tests := []struct {
		name     string
		change   func(*tokenstore.Connection)
		sibling  func(*tokenstore.Connection)
		single   bool
		err      error
		revoked  any
		reason   any
		provider string // what it was asked to revoke
	}{
		{"live", active("a"), nil, false, nil, true, nil, "access-a"},
		{"waiting", staged("a"), nil, false, nil, true, nil, "access-a"},
		{"live and waiting", both, nil, false, nil, true, nil, "access-a access-s"},
		{"begun", func(*tokenstore.Connection) {}, nil, false, nil, false, "nothing_to_revoke", ""},
		{"expired", func(c *tokenstore.Connection) { active("a")(c); c.Expire("invalid_grant") }, nil, false, nil, false, "nothing_to_revoke", ""},
		{"no endpoint", active("a"), nil, false, fmt.Errorf("provider: revoking: %w", errors.ErrUnsupported), false, "no_endpoint", "access-a"},
		{"integration missing", func(c *tokenstore.Connection) { active("a")(c); c.Integration = "gone" }, nil, false, nil, false, "integration_missing", ""},
		{"sibling", active("a"), active("b"), false, nil, false, "shared_grant", ""},
		{"sibling that waits", active("a"), staged("b"), false, nil, false, "shared_grant", ""},
		{"dead sibling", active("a"), func(c *tokenstore.Connection) { active("b")(c); c.Revoke() }, false, nil, true, nil, "access-a"},
		{"another user's", active("a"), func(c *tokenstore.Connection) { active("b")(c); c.UserID = "u2" }, false, nil, true, nil, "access-a"},
		{"sibling, revoked singly", active("a"), active("b"), true, nil, true, nil, "access-a"},
		{"provider fails", active("a"), nil, false, errors.New("HTTP 500"), "pending", nil, "access-a"},
	}
	for _, tt := range tests {
		for _, op := range []string{"revoke", "delete"} {
			t.Run(tt.name+", "+op, func(t *testing.T) {
				b := newBench(t)
				b.revoker.single, b.revoker.err = tt.single, tt.err
				if tt.sibling != nil {
					b.put(tt.sibling)
				}
				c := b.put(tt.change)
				var a answer
				if op == "revoke" {
					a = b.do("POST", "/v1/connections/"+c.ID+"/revoke", "")
				} else {
					a = b.do("DELETE", "/v1/connections/"+c.ID, "")
				}
				b.wants(a, 200, "")
				if a.json["provider_revoked"] != tt.revoked || a.json["provider_revoked_reason"] != tt.reason {
					t.Errorf("provider_revoked %v %v; want %v %v", a.json["provider_revoked"], a.json["provider_revoked_reason"], tt.revoked, tt.reason)
				}
				if got := b.revoker.ledger(); got != tt.provider {
					t.Errorf("the provider was asked to revoke %q, want %q", got, tt.provider)
				}
				if a.json["id"] != c.ID || a.json["status"] != "REVOKED" {
					t.Errorf("answer = %s", a.text)
				}
				b.isGone(c.ID, op)
			})
		}
	}
}

// isGone fails unless the credential has left the store, and with delete the
// record too.
func (b *bench) isGone(id, op string) {
	b.t.Helper()
	if op == "delete" {
		b.wants(b.do("GET", "/v1/connections/"+id, ""), 404, "connection_not_found")
		b.wants(b.do("DELETE", "/v1/connections/"+id, ""), 404, "connection_not_found")
		return
	}
	c := b.stored(id)
	if c.Status != tokenstore.StatusRevoked || !c.Token.AccessToken.IsZero() || !c.Token.RefreshToken.IsZero() || c.Staged != nil {
		b.t.Errorf("stored after revoke: %s", c.Status)
	}
	a := b.do("POST", "/v1/connections/"+id+"/revoke", "")
	b.wants(a, 200, "")
	if a.json["provider_revoked"] != false || b.stored(id).Revision != c.Revision {
		b.t.Errorf("revoking again: %s", a.text)
	}
}

func TestDeleteCanLeaveTheProviderAlone(t *testing.T) {
	b := newBench(t)
	c := b.put(active("a"))
	a := b.do("DELETE", "/v1/connections/"+c.ID+"?revoke=false", "")
	b.wants(a, 200, "")
	if a.json["provider_revoked"] != false || a.json["provider_revoked_reason"] != "not_requested" || b.revoker.ledger() != "" {
		t.Errorf("answer = %s, revoked %q", a.text, b.revoker.ledger())
	}
	c = b.put(active("b"))
	a = b.do("DELETE", "/v1/connections/"+c.ID+"?revoke=true", "")
	if a.json["provider_revoked"] != true {
		t.Errorf("answer = %s", a.text)
	}
}

// damagedStore shows one connection as a store does that can't open its record.
type damagedStore struct {
	tokenstore.Store
	id string
}

func (s *damagedStore) ListConnections(ctx context.Context, f tokenstore.Filter, cursor string, limit int) ([]tokenstore.Connection, string, error) {
	page, next, err := s.Store.ListConnections(ctx, f, cursor, limit)
	for i := range page {
		if page[i].ID == s.id {
			page[i] = tokenstore.Connection{ID: s.id, CreatedAt: page[i].CreatedAt, Damaged: true}
		}
	}
	return page, next, err
}

func (s *damagedStore) DeleteConnection(ctx context.Context, id string, news ...tokenstore.Event) (tokenstore.Connection, error) {
	c, err := s.Store.DeleteConnection(ctx, id, news...)
	if id == s.id {
		c = tokenstore.Connection{ID: id, Damaged: true}
	}
	return c, err
}

// A connection whose record can't be opened takes nothing from the list that it
// is on, spares others' grants, since it may rest on the same, and can be deleted.
func TestDamagedConnection(t *testing.T) {
	store := &damagedStore{}
	b := newBench(t, func(cfg *api.Config) { store.Store, cfg.Store = cfg.Store, store })
	whole, broken := b.put(active("a")), b.put(active("b"))
	store.id = broken.ID
	list := b.do("GET", "/v1/connections", "")
	b.wants(list, 200, "")
	shown, _ := list.json["connections"].([]any)
	if len(shown) != 2 {
		t.Fatalf("list = %s", list.text)
	}
	for _, c := range shown {
		c, _ := c.(map[string]any)
		switch c["id"] {
		case whole.ID:
			if c["status"] != "ACTIVE" || c["error"] != nil {
				t.Errorf("whole one: %v", c)
			}
		case broken.ID:
			if c["error"] != "store_corrupt" || c["status"] != nil || c["created_at"] == nil {
				t.Errorf("damaged one: %v", c)
			}
		}
	}
	a := b.do("DELETE", "/v1/connections/"+whole.ID, "")
	if a.json["provider_revoked_reason"] != "shared_grant" {
		t.Errorf("deleting beside a damaged one: %s", a.text)
	}
	a = b.do("DELETE", "/v1/connections/"+broken.ID, "")
	b.wants(a, 200, "")
	if a.json["error"] != "store_corrupt" || a.json["provider_revoked"] != false || b.revoker.ledger() != "" {
		t.Errorf("deleting a damaged one: %s, revoked %q", a.text, b.revoker.ledger())
	}
}

// What was begun is brought to its end: a credential erased here and forgotten
// at the provider would live on.
func TestACallerThatHangsUpStopsNothing(t *testing.T) {
	b := newBench(t)
	gone := func(r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		*r = *r.WithContext(ctx)
	}
	c := b.put(staged("a"))
	b.wants(b.do("POST", "/v1/connections/"+c.ID+"/complete", completion("code-a", "u1"), gone), 200, "")
	b.wants(b.do("POST", "/v1/connections/"+c.ID+"/revoke", "", gone), 200, "")
	c = b.put(active("b"))
	b.wants(b.do("DELETE", "/v1/connections/"+c.ID, "", gone), 200, "")
	if got := b.revoker.ledger(); got != "access-a access-b" {
		t.Errorf("revoked %q", got)
	}
}

func TestNoSecretLeaves(t *testing.T) {
	b := newBench(t)
	var out strings.Builder
	note := func(a answer) {
		out.WriteString(a.text)
		for name, values := range a.header {
			fmt.Fprintln(&out, name, values)
		}
	}
	c := b.put(func(c *tokenstore.Connection) { active("canary")(c); staged("canary")(c) })
	one := "/v1/connections/" + c.ID
	note(b.do("GET", "/v1/connections", ""))
	note(b.do("GET", one, ""))
	note(b.complete(c.ID, "wrong-canary", "u1"))
	note(b.complete(c.ID, "code-canary", "u2"))
	note(b.do("POST", one+"/refresh", ""))
	note(b.do("POST", one+"/connect", `{"state":"x"}`))
	b.revoker.answerFrom(errors.New("HTTP 500"))
	note(b.do("POST", one+"/revoke", ""))
	note(b.do("GET", one, "", header("Authorization", "Bearer wrong-canary")))
	note(b.do("DELETE", one, ""))
	note(b.do("POST", "/v1/connections", `{"completion_code":"code-canary"}`))
	for _, e := range b.logs.All() {
		fmt.Fprintln(&out, e.Message, e.ContextMap())
	}
	if strings.Contains(out.String(), "canary") {
		t.Errorf("a secret left:\n%s", out.String())
	}
}
