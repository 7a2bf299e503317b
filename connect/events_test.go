package connect_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// told returns what the store's audit log says, each event as
// `type reason actor from`, with `denied` in front where it was.
func (b *bench) told() []string {
	b.t.Helper()
	all, _, err := b.mem.ListEvents(context.Background(), tokenstore.EventFilter{}, "", 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	var lines []string
	for _, e := range all {
		lines = append(lines, line(e))
		if !tokenstore.IsID(e.ConnectionID) || e.Integration != "github" || e.UserID != "u1" || e.Actor.Name != "" {
			b.t.Errorf("event %+v does not say of what it is", e)
		}
	}
	return lines
}

func line(e tokenstore.Event) string {
	s := strings.Join(strings.Fields(fmt.Sprint(e.Type, " ", e.Reason, " ", e.Actor.Kind, " ", e.Actor.From)), " ")
	if e.Denied {
		return "denied " + s
	}
	return s
}

func (b *bench) refusals() []string {
	b.audit.mu.Lock()
	defer b.audit.mu.Unlock()
	var lines []string
	for _, e := range b.audit.events {
		lines = append(lines, line(e))
	}
	return lines
}

const by = " browser 192.0.2.1"

func TestEvents(t *testing.T) {
	flow := func(more ...string) func(*testing.T, *bench) {
		return func(_ *testing.T, b *bench) {
			br := b.browser()
			br.callback(br.open(b.link()), more...)
		}
	}
	begun := func(more ...string) func(*testing.T, *bench) {
		return func(_ *testing.T, b *bench) {
			br := b.browser()
			br.callback(br.open(b.link(onConnection(b.begun()))), more...)
		}
	}
	tests := []struct {
		name    string
		change  func(*bench)
		do      func(*testing.T, *bench)
		told    []string
		refused []string
	}{
		{name: "connected, to be completed", do: flow(), told: []string{"connection.authorized" + by}},
		{name: "connected", change: noCompletion, do: flow(), told: []string{"connection.active" + by}},
		{name: "connected without an app", change: noRedirects, do: flow(), told: []string{"connection.active" + by}},
		{name: "denied", do: flow("error", "access_denied"), told: []string{"flow.ended user_denied" + by}},
		{name: "denied, begun", do: begun("error", "access_denied"), told: []string{"flow.ended user_denied" + by, "connection.failed user_denied" + by}},
		{name: "code refused", change: refuses(tokenstore.RefusedGrant), do: begun(), told: []string{"flow.ended source_error" + by, "connection.failed source_error" + by}},
		{name: "connection not stored", change: failStore("CreateConnection"), do: flow(), told: []string{"flow.ended provisioning_failed" + by}},
		{name: "flow not taken", change: failStore("take"), do: flow()},
		{name: "another browser", do: func(_ *testing.T, b *bench) {
			b.browser().callback(b.browser().open(b.link()))
		}, told: []string{"denied flow.ended browser_mismatch" + by}},
		{name: "another browser, error", do: func(_ *testing.T, b *bench) {
			b.browser().callback(b.browser().open(b.link()), "error", "access_denied")
		}, refused: []string{"denied flow.ended browser_mismatch" + by}},
		{
			name: "another issuer", change: func(b *bench) { b.p.issuer = "https://idp.example" }, do: flow("code", "x", "iss", "https://evil.example"),
			told: []string{"denied flow.ended issuer_mismatch" + by},
		},
		{
			name: "another issuer, error", change: func(b *bench) { b.p.issuer = "https://idp.example" }, do: flow("error", "x", "iss", "https://evil.example"),
			refused: []string{"denied flow.ended issuer_mismatch" + by},
		},
		{name: "connected again before it was completed", do: func(_ *testing.T, b *bench) {
			c := b.begun()
			for range 2 {
				br := b.browser()
				br.callback(br.open(b.link(onConnection(c))))
			}
		}, told: []string{"connection.authorized" + by, "connection.dropped replaced" + by, "connection.authorized" + by}},
		{name: "expired link", do: func(_ *testing.T, b *bench) {
			b.browser().get(b.signer.Sign(connect.Params{RedirectURL: appURL}, time.Now().Add(-time.Second)))
		}, refused: []string{"denied flow.ended link_expired" + by}},
		{name: "unknown state, changed link, other user's connection", do: func(_ *testing.T, b *bench) {
			c := b.begun()
			b.browser().callback("x")
			b.browser().get(b.link() + "x")
			b.browser().get(b.link(onConnection(c), user(2)))
		}, refused: []string{"denied flow.ended state_invalid" + by, "denied flow.ended link_invalid" + by, "denied flow.ended connection_not_found" + by}},
		{name: "late", do: func(_ *testing.T, b *bench) {
			br := b.browser()
			state := br.open(b.link())
			time.Sleep(tokenstore.FlowLife)
			br.callback(state)
		}, told: []string{"flow.ended timeout" + by}},
		{name: "nobody completes", do: func(t *testing.T, b *bench) {
			t.Helper()
			br := b.browser()
			id := wantApp(t, br.callback(br.open(b.link())), "").Get("connection_id")
			time.Sleep(tokenstore.CompletionLife)
			for range 2 {
				if err := b.h.Lapse(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		}, told: []string{"connection.authorized" + by, "connection.dropped timeout lanyard", "connection.failed timeout lanyard"}},
		{name: "nobody connects", do: func(t *testing.T, b *bench) {
			t.Helper()
			c := b.begun()
			time.Sleep(time.Hour)
			if err := b.h.Lapse(t.Context(), c.ID); err != nil {
				t.Error(err)
			}
		}, told: []string{"connection.failed timeout lanyard"}},
		{name: "interrupted, and answered", do: func(t *testing.T, b *bench) {
			t.Helper()
			for _, answer := range []*tokenstore.Answer{nil, {Status: 200, Body: secret.New("t")}} {
				_, err := b.mem.UpdateFlow(t.Context(), secretHash(b.browser().open(b.link())), func(f *tokenstore.Flow) error {
					f.Answer = answer
					return f.Take()
				})
				for range 2 {
					if err := b.h.Recover(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		}, told: []string{"flow.ended source_error lanyard", "connection.authorized lanyard"}},
		{name: "loaded again", do: func(_ *testing.T, b *bench) {
			br := b.browser()
			state := br.open(b.link())
			for range 3 {
				br.callback(state)
				b.browser().callback(state, "error", "access_denied")
			}
		}, told: []string{"connection.authorized" + by}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.addr = "192.0.2.1"
				if tt.change != nil {
					tt.change(b)
					b.remake()
				}
				tt.do(t, b)
				if d := cmp.Diff(tt.told, b.told()); d != "" {
					t.Errorf("events (-want +got):\n%s", d)
				}
				if d := cmp.Diff(tt.refused, b.refusals()); d != "" {
					t.Errorf("refused (-want +got):\n%s", d)
				}
			})
		})
	}
}

// TestRefusalsSayNoMoreThanIsKnown: a link's words go into an event only where
// they name something.
func TestRefusalsSayNoMoreThanIsKnown(t *testing.T) {
	b := newBench(t)
	b.browser().get(b.link(func(p *connect.Params) {
		p.Integration, p.ConnectionID = strings.Repeat("x", 5000), "conn_"+strings.Repeat("y", 5000)
	}))
	c := b.begun()
	b.browser().get(b.link(onConnection(c), user(2)))
	e := b.audit.events
	if len(e) != 2 || e[0].ConnectionID+e[0].Integration != "" || e[1].ConnectionID != c.ID || e[1].UserID != "user-2" {
		t.Errorf("events = %+v", e)
	}
}
