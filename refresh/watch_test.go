package refresh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestWatchEndsWhenTheConnectionIsNoLongerUsable(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"revoked":  func(r *rig) { r.change(revoke) },
		"disabled": func(r *rig) { r.change(disable) },
		"expired":  func(r *rig) { r.change(func(c *tokenstore.Connection) { c.Expire(tokenstore.ReasonInvalidGrant) }) },
		"deleted":  func(r *rig) { r.change(nil) },
		"refused by the provider": func(r *rig) {
			r.prov.script = []step{{parse: invalidGrant()}}
			time.Sleep(2 * tokenLife)
			_, _ = r.token(r.t.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.wantToken("at-0")
				ended, stop := r.Watch(r.id)
				defer stop()
				other, stopOther := r.Watch(r.id)
				stopOther()
				stopOther()
				if err := r.Refresh(t.Context(), r.id, operator); err != nil {
					t.Fatal(err)
				}
				r.change(func(c *tokenstore.Connection) { c.Name = "renamed" })
				if isClosed(ended) {
					t.Fatal("a refresh or a new name has ended the watch")
				}
				end(r)
				synctest.Wait()
				if !isClosed(ended) {
					t.Error("the watch has not ended")
				}
				if isClosed(other) {
					t.Error("a watch that was stopped has ended")
				}
				late, stopLate := r.Watch(r.id)
				defer stopLate()
				if !isClosed(late) {
					t.Error("a watch that begins afterwards has not ended")
				}
			})
		})
	}
}

func TestWatchLeavesOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		other := r.connection()
		other.ID = tokenstore.NewID()
		if _, err := r.store.CreateConnection(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		ended, stop := r.Watch(other.ID)
		defer stop()
		r.change(revoke)
		if isClosed(ended) {
			t.Error("another connection's end has ended the watch")
		}
		unknown, stopUnknown := r.Watch(tokenstore.NewID())
		defer stopUnknown()
		if !isClosed(unknown) {
			t.Error("a watch of no connection goes on")
		}
	})
}

func TestUsesAreOfOneGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := func() bool {
			t.Helper()
			g, err := r.token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return g.Uses.First("client app")
		}
		if !first() || first() {
			t.Error("the first use is not first, or the second is")
		}
		r.change(func(c *tokenstore.Connection) { c.Name = "renamed" })
		if first() {
			t.Error("a new name makes the generation unused")
		}
		if err := r.Refresh(t.Context(), r.id, operator); err != nil {
			t.Fatal(err)
		}
		if !first() || first() {
			t.Error("a new generation counts as used, or is not remembered")
		}
	})
}
