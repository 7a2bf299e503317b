package api_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

func TestIdempotency(t *testing.T) {
	b := newBench(t)
	body := `{"integration":"github","state":"<&>"}`
	first := b.do("POST", "/v1/connections", body, once("k-1"))
	b.begun(first)
	if first.header.Get("Idempotency-Replayed") != "" {
		t.Error("the first answer says that it is a repeated one")
	}
	again := b.do("POST", "/v1/connections", body, once("k-1"))
	if again.text != first.text || again.status != 201 || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %d %s\nfirst: %s", again.status, again.text, first.text)
	}
	if n := b.count(); n != 1 {
		t.Errorf("%d connections", n)
	}
	b.wants(b.do("POST", "/v1/connections", `{"integration":"gl"}`, once("k-1")), 422, "idempotency_key_reused")
	b.wants(b.do("POST", "/v1/connections", body+" ", once("k-1")), 422, "idempotency_key_reused")
	for name, a := range map[string]answer{
		"another key":     b.do("POST", "/v1/connections", body, once("k-2")),
		"another API key": b.do("POST", "/v1/connections", body, once("k-1"), replace("Authorization", "Bearer another-api-key")),
		"none":            b.do("POST", "/v1/connections", body),
	} {
		if a.status != 201 || a.json["id"] == first.json["id"] || a.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %s", name, a.status, a.text)
		}
	}
	id := first.json["id"].(string)
	b.wants(b.do("POST", "/v1/connections/"+id+"/connect", `{}`, once("k-1")), 200, "") // another route

	// A refusal is kept too, with its code.
	refused := b.do("POST", "/v1/connections/"+id+"/complete", completion("wrong", "u1"), once("c"))
	b.wants(refused, 409, "completion_invalid")
	if a := b.do("POST", "/v1/connections/"+id+"/complete", completion("wrong", "u1"), once("c")); a.text != refused.text ||
		a.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %s", a.text)
	}
}

func TestBadIdempotencyKeys(t *testing.T) {
	b := newBench(t)
	for _, key := range []string{"", "a b", "ü", "a\tb", strings.Repeat("k", 256)} {
		b.wants(b.do("POST", "/v1/connections", `{"integration":"github"}`, once(key)), 400, "invalid_request")
	}
	b.wants(b.do("POST", "/v1/connections", `{"integration":"github"}`, once("a"), once("a")), 400, "invalid_request")
	if n := b.count(); n != 0 {
		t.Errorf("%d connections", n)
	}
	b.wants(b.do("POST", "/v1/connections", `{"integration":"github"}`, once(strings.Repeat("k", 255))), 201, "")
}

func TestIdempotencyEndsAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		body := `{"integration":"github"}`
		id := b.begun(b.do("POST", "/v1/connections", body, once("k")))
		time.Sleep(24*time.Hour - time.Second)
		if a := b.do("POST", "/v1/connections", body, once("k")); a.json["id"] != id {
			t.Errorf("within a day: %s", a.text)
		}
		time.Sleep(2 * time.Second)
		if a := b.do("POST", "/v1/connections", body, once("k")); a.status != 201 || a.json["id"] == id {
			t.Errorf("after a day: %s", a.text)
		}
	})
}

// notesFail is a store in which writing notes fails, where fail says so.
type notesFail struct {
	*memstore.Store
	writes atomic.Int32
	fail   func(n int32) bool // of the nth write
	create error
}

func (s *notesFail) UpdateNote(ctx context.Context, id string, change func(*tokenstore.Note) error) (tokenstore.Note, error) {
	if s.fail(s.writes.Add(1)) {
		return tokenstore.Note{}, tokenstore.ErrUnavailable
	}
	return s.Store.UpdateNote(ctx, id, change)
}

func (s *notesFail) CreateConnection(ctx context.Context, c tokenstore.Connection) (tokenstore.Connection, error) {
	got, err := s.Store.CreateConnection(ctx, c)
	return got, errors.Join(err, s.create)
}

// What happens after the act and before its answer is kept makes no second
// connection.
func TestIdempotencyAfterACrash(t *testing.T) {
	for name, body := range map[string]string{
		"begin":       `{"integration":"github"}`,
		"credentials": `{"integration":"mail","credentials":{"api_key":"k"}}`,
		"import":      `{"integration":"github","access_token":"a"}`,
		"import ID":   `{"integration":"github","id":"conn_own","access_token":"a"}`,
		"device":      `{"integration":"github","device":true}`,
	} {
		path := "/v1/connections"
		if strings.HasPrefix(name, "import") {
			path = importPath
		}
		t.Run(name, func(t *testing.T) {
			f := &fakeSource{}
			s := &notesFail{fail: func(n int32) bool { return n == 2 }}
			b := newBench(t, withSource(f), func(c *api.Config) {
				s.Store, c.Store, c.Devices = c.Store.(*memstore.Store), s, &fakeDevices{}
			})
			id := b.begun(b.do("POST", path, body, once("k")))
			if n := len(b.logs.FilterMessage("answer to an idempotent request not kept").All()); n != 1 {
				t.Errorf("logged %d times", n)
			}
			b.wants(b.do("POST", path, body+" ", once("k")), 422, "idempotency_key_reused")
			again := b.do("POST", path, body, once("k"))
			if got := b.begun(again); got != id || b.count() != 1 || again.header.Get("Idempotency-Replayed") != "" {
				t.Errorf("again: %s, %d connections", again.text, b.count())
			}
			if third := b.do("POST", path, body, once("k")); third.text != again.text || third.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("third: %s", third.text)
			}
			if asked := f.ledger(); name == "credentials" && asked != "k" {
				t.Errorf("the provider was asked with %q", asked)
			}
		})
	}
}

// A 5xx is not kept, and may have done what it was asked.
func TestIdempotencyKeepsNoErrorOfOurs(t *testing.T) {
	s := &notesFail{fail: func(int32) bool { return false }, create: tokenstore.ErrUnavailable}
	b := newBench(t, func(c *api.Config) { s.Store, c.Store = c.Store.(*memstore.Store), s })
	body := `{"integration":"github"}`
	b.wants(b.do("POST", "/v1/connections", body, once("k")), 503, "store_unavailable")
	s.create = nil
	b.begun(b.do("POST", "/v1/connections", body, once("k")))
	if n := b.count(); n != 1 {
		t.Errorf("%d connections", n)
	}
	s.fail = func(int32) bool { return true }
	b.wants(b.do("POST", "/v1/connections", body, once("k2")), 503, "store_unavailable")
	if n := b.count(); n != 1 {
		t.Errorf("%d connections; want nothing done without a note", n)
	}
}

func TestIdempotencyConflict(t *testing.T) {
	slow := &slowRefresher{let: make(chan struct{})}
	b := newBench(t, func(c *api.Config) { c.Refresher = slow })
	c := b.put(active("a"))
	path := "/v1/connections/" + c.ID + "/refresh"
	first := make(chan answer)
	go func() { first <- b.do("POST", path, "", once("k")) }()
	for slow.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	b.wants(b.do("POST", path, "", once("k")), 409, "idempotency_conflict")
	close(slow.let)
	a := <-first
	b.wants(a, 200, "")
	if again := b.do("POST", path, "", once("k")); again.text != a.text {
		t.Errorf("again: %s", again.text)
	}
}

// No credential is in a note's ID, and none of the answer in the log.
func TestNotesOfIdempotency(t *testing.T) {
	b := newBench(t, withSource(&fakeSource{}))
	b.begun(b.do("POST", "/v1/connections", `{"integration":"mail","credentials":{"api_key":"canary"}}`, once("my-key")))
	notes, err := b.store.ListNotes(t.Context(), "idempotency/")
	if err != nil || len(notes) != 1 {
		t.Fatalf("%d notes, %v", len(notes), err)
	}
	n := notes[0]
	if strings.Contains(n.ID, "my-key") || strings.Contains(n.ID, apiKey) || len(n.ID) > 512 {
		t.Errorf("ID = %q", n.ID)
	}
	if text := n.Text.Reveal(); strings.Contains(text, "canary") || !strings.Contains(text, `"Status":201`) {
		t.Errorf("text = %s", text)
	}
	if left := time.Until(n.KeepUntil); left > 24*time.Hour || left < 23*time.Hour {
		t.Errorf("kept for %v", left)
	}
}

// TestIdempotentDeviceThatIsConnected: after a crash the user approves, and the
// same request comes again while the provider is down.
func TestIdempotentDeviceThatIsConnected(t *testing.T) {
	d := &fakeDevices{}
	s := &notesFail{fail: func(n int32) bool { return n == 2 }}
	b := newBench(t, func(c *api.Config) { s.Store, c.Store, c.Devices = c.Store.(*memstore.Store), s, d })
	body := `{"integration":"github","device":true}`
	id := b.begun(b.do("POST", "/v1/connections", body, once("k")))
	_, err := b.store.UpdateConnection(context.Background(), id, func(c *tokenstore.Connection) error {
		c.Activate(tokenstore.Token{AccessToken: secret.New("live"), RefreshToken: secret.New("r")}, nil, c.CreatedAt)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.err = tokenstore.ErrNotSent
	a := b.do("POST", "/v1/connections", body, once("k"))
	if c, err := b.store.Connection(context.Background(), id); err != nil || c.Status != tokenstore.StatusActive {
		t.Errorf("answered %d %s, and the live connection is gone: %v", a.status, a.text, err)
	}
}

// TestIdempotencyClaimsNothing: an `id` that was there before is nobody's who
// asks for it twice.
func TestIdempotencyClaimsNothing(t *testing.T) {
	s := &notesFail{fail: func(n int32) bool { return n == 2 }} // the first answer is not kept
	b := newBench(t, func(c *api.Config) { s.Store, c.Store = c.Store.(*memstore.Store), s })
	if _, err := s.Store.CreateConnection(t.Context(), tokenstore.Connection{ID: "conn_other"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.wants(b.do("POST", importPath, `{"integration":"github","id":"conn_other","access_token":"a"}`, once("k")), 409, "connection_exists")
	}
}
