package refresh_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// wantEvents compares what the audit log tells of the rig's connection: type,
// reason and kind of actor.
func (r *rig) wantEvents(want ...string) {
	r.t.Helper()
	events, _, err := r.store.ListEvents(r.t.Context(), tokenstore.EventFilter{ConnectionID: r.id}, "", 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	got := []string{}
	for _, e := range events {
		line := string(e.Type) + " by " + e.Actor.Kind
		if e.Reason != "" {
			line = string(e.Type) + " (" + e.Reason + ") by " + e.Actor.Kind
		}
		got = append(got, line)
		if e.Integration != "acme" && e.Type != tokenstore.EventDamaged || e.Denied {
			r.t.Errorf("event %+v: wrong integration, or denied", e)
		}
	}
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		r.t.Errorf("events (-want +got)\n%s", diff)
	}
}

func TestEventsOfRenewals(t *testing.T) {
	tests := []struct {
		name string
		do   func(*rig)
		want []string
	}{
		{"it is near its end", func(r *rig) {
			time.Sleep(tokenLife)
			r.wantToken("at-new-1")
		}, []string{"connection.refreshed by lanyard"}},
		{"an operator asks", func(r *rig) {
			if err := r.Refresh(r.t.Context(), r.id, operator); err != nil {
				r.t.Fatal(err)
			}
		}, []string{"connection.refreshed by api_key"}},
		{"other scopes are granted", func(r *rig) {
			r.change(func(c *tokenstore.Connection) { c.Token.Scopes = []string{"read", "write"} })
			r.prov.grants = []string{"write"}
			time.Sleep(tokenLife)
			r.wantToken("at-new-1")
		}, []string{"connection.refreshed by lanyard", "connection.scopes_changed by lanyard"}},
		{"the same scopes in another order", func(r *rig) {
			r.change(func(c *tokenstore.Connection) { c.Token.Scopes = []string{"read", "write"} })
			r.prov.grants = []string{"write", "read"}
			time.Sleep(tokenLife)
			r.wantToken("at-new-1")
		}, []string{"connection.refreshed by lanyard"}},
		{"it is dead", func(r *rig) {
			r.prov.script = []step{{parse: invalidGrant()}}
			time.Sleep(2 * tokenLife)
			_, _ = r.token(r.t.Context())
		}, []string{"connection.expired (invalid_grant) by lanyard"}},
		{"the refresh token is dead, the access token is not", func(r *rig) {
			r.prov.script = []step{{parse: invalidGrant()}}
			_ = r.Refresh(r.t.Context(), r.id, operator)
		}, []string{"connection.refresh_failed (invalid_grant) by lanyard"}},
		{"failures in a row", func(r *rig) {
			later := &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow, Code: "slow_down", Status: 429}
			r.prov.script = []step{{parse: later}, {sendErr: tokenstore.ErrNotSent}, {parse: later}}
			time.Sleep(2 * tokenLife)
			for range 4 {
				_, _ = r.token(r.t.Context())
				time.Sleep(10 * time.Minute)
			}
			r.prov.script = []step{{sendErr: tokenstore.ErrNotSent}}
			time.Sleep(2 * tokenLife)
			_, _ = r.token(r.t.Context())
		}, []string{
			"connection.refresh_failed (slow_down) by lanyard", "connection.refreshed by lanyard",
			"connection.refresh_failed (unavailable) by lanyard",
		}},
		{"no answer", func(r *rig) {
			r.prov.script = []step{{sendErr: unknown()}}
			_ = r.Refresh(r.t.Context(), r.id, operator)
		}, []string{"connection.refresh_failed (no_answer) by api_key"}},
		{"an answer that can't be read", func(r *rig) {
			r.prov.script = []step{{parse: &tokenstore.UnreadableError{Status: 200, Why: "no JSON"}}}
			_ = r.Refresh(r.t.Context(), r.id, operator)
		}, []string{"connection.refresh_failed (unreadable) by api_key"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				tt.do(r)
				synctest.Wait()
				r.wantEvents(tt.want...)
			})
		})
	}
}

// deaf is a store that never comes back from writing an event, and one
// connection of which is damaged.
type deaf struct {
	*memstore.Store
	stuck   bool
	damaged string
}

func (d *deaf) AppendEvents(ctx context.Context, events ...tokenstore.Event) error {
	if d.stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	return d.Store.AppendEvents(ctx, events...)
}

func (d *deaf) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	if id == d.damaged {
		return tokenstore.Connection{}, fmt.Errorf("opening: %w", tokenstore.ErrCorrupt)
	}
	return d.Store.Connection(ctx, id)
}

func TestAnEventOfAFailureDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.startOver(&deaf{Store: r.store, stuck: true})
		r.prov.script = []step{{sendErr: tokenstore.ErrNotSent}}
		time.Sleep(2 * tokenLife)
		began := time.Now()
		if _, err := r.token(t.Context()); err == nil {
			t.Error("a token without an answer")
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("the call waited %v for its event", waited)
		}
		time.Sleep(time.Second * 2)
		r.wantToken("at-new-2")
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDamageIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.startOver(&deaf{Store: r.store, damaged: r.id})
		for range 3 {
			if _, err := r.Find(t.Context(), r.id); err == nil {
				t.Error("a damaged connection was found")
			}
			if _, err := r.Refresher.Store().Connection(t.Context(), r.id); err == nil {
				t.Error("a damaged connection was read")
			}
		}
		r.wantEvents("connection.damaged (store_corrupt) by lanyard")
	})
}
