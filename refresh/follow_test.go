package refresh_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// elsewhere are changes that the first node makes, and what the second one has
// to see of them.
var elsewhere = []struct {
	name   string
	change func(c *cluster, id string) error
	ends   bool   // the connection is of no use any more
	token  string // else
}{
	{"deleted", func(c *cluster, id string) error {
		_, err := c.nodes[0].Store().DeleteConnection(c.t.Context(), id)
		return err
	}, true, ""},
	{"revoked", update(func(c *tokenstore.Connection) { c.Revoke() }), true, ""},
	{"disabled", update(func(c *tokenstore.Connection) { c.Disabled = true }), true, ""},
	{"reconnected", update(func(c *tokenstore.Connection) {
		c.Activate(tokenstore.Token{AccessToken: secret.New("at-anew")}, nil, time.Now())
	}), false, "at-anew"},
}

func update(change func(*tokenstore.Connection)) func(*cluster, string) error {
	return func(c *cluster, id string) error {
		_, err := c.nodes[0].Store().UpdateConnection(c.t.Context(), id, func(c *tokenstore.Connection) error {
			change(c)
			return nil
		})
		return err
	}
}

// seen checks that the second node has seen what happened to a connection.
func (c *cluster) seen(id, token string, ends bool, watch <-chan struct{}) {
	c.t.Helper()
	at, err := c.nodes[1].call(c.t.Context(), id)
	if ends && err == nil || !ends && (err != nil || at != token) {
		c.t.Errorf("call elsewhere = %q, %v", at, err)
	}
	select {
	case <-watch:
		if !ends {
			c.t.Error("who watches was told of an end")
		}
	default:
		if ends {
			c.t.Error("who watches was told nothing")
		}
	}
}

// What one process writes the others see within a second.
func TestChangesElsewhere(t *testing.T) {
	for _, test := range elsewhere {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 2, &authority{})
				id := c.add(time.Hour)
				time.Sleep(10 * time.Second)
				if at, err := c.nodes[1].call(t.Context(), id); at != "at-0" {
					t.Fatalf("call = %q, %v", at, err)
				}
				watch, stop := c.nodes[1].Watch(id)
				defer stop()
				if err := test.change(c, id); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				c.seen(id, test.token, test.ends, watch)
			})
		})
	}
}

// What was missed while the process stood still, or the store did not answer, is
// seen at once afterwards, though nobody tells it.
func TestChangesThatWereMissed(t *testing.T) {
	for _, test := range elsewhere {
		stand := func(v *view, d time.Duration) { v.stop(); time.AfterFunc(d, v.goOn) }
		for name, pause := range map[string]func(v *view, d time.Duration) time.Duration{
			"stood still":   func(v *view, d time.Duration) time.Duration { stand(v, d); return d },
			"for 3 seconds": func(v *view, _ time.Duration) time.Duration { stand(v, 3*time.Second); return 3 * time.Second },
			"store out": func(v *view, d time.Duration) time.Duration {
				v.fail(true)
				time.AfterFunc(d, func() { v.fail(false) })
				return d
			},
		} {
			t.Run(test.name+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster(t, 2, &authority{})
					id := c.add(time.Hour)
					time.Sleep(10 * time.Second)
					if at, err := c.nodes[1].call(t.Context(), id); at != "at-0" {
						t.Fatalf("call = %q, %v", at, err)
					}
					watch, stop := c.nodes[1].Watch(id)
					defer stop()
					left := pause(c.nodes[1].view, 30*time.Second) - 2*time.Second
					time.Sleep(time.Second)
					if err := test.change(c, id); err != nil {
						t.Fatal(err)
					}
					time.Sleep(left)
					if at, err := c.nodes[1].call(t.Context(), id); at != "at-0" {
						t.Errorf("call while nothing can be known = %q, %v", at, err)
					}
					time.Sleep(2 * time.Second)
					c.seen(id, test.token, test.ends, watch)
				})
			})
		}
	}
}

// Which connection a user's calls mean is seen as well: a newer one, one that is
// in use again, the older one when the newer has gone.
func TestUserElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, &authority{})
		if _, err := c.nodes[0].Store().DeleteConnection(t.Context(), c.id); err != nil {
			t.Fatal(err)
		}
		old := c.add(time.Hour)
		want := func(id string) {
			t.Helper()
			time.Sleep(time.Second)
			g, err := c.nodes[1].FindUser(t.Context(), "acme", "u1")
			if err != nil || g.ConnectionID != id {
				t.Errorf("FindUser() = %v, %v; want %s", g, err, id)
			}
		}
		want(old)
		newer := c.add(time.Hour)
		want(newer)
		disabled := func(to bool) {
			if err := update(func(c *tokenstore.Connection) { c.Disabled = to })(c, newer); err != nil {
				t.Fatal(err)
			}
		}
		disabled(true)
		want(old)
		disabled(false)
		want(newer)

		c.nodes[1].view.fail(true)
		time.Sleep(10 * time.Second)
		newest := c.add(time.Hour)
		time.Sleep(10 * time.Second)
		c.nodes[1].view.fail(false)
		want(newest)
		if _, err := c.nodes[0].Store().DeleteConnection(t.Context(), newest); err != nil {
			t.Fatal(err)
		}
		want(newer)
		for range 300 { // more than are looked at one by one
			newest = c.add(time.Hour)
			time.Sleep(time.Millisecond)
		}
		want(newest)
	})
}

// Who watches is told also if what is in memory was read anew since.
func TestWatchThatWasMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, &authority{})
		id := c.add(time.Hour)
		time.Sleep(10 * time.Second)
		watch, stop := c.nodes[1].Watch(id)
		defer stop()
		c.nodes[1].view.deafen(false, true)
		if err := elsewhere[1].change(c, id); err != nil {
			t.Fatal(err)
		}
		refused := errors.New("refused")
		_, err := c.nodes[1].Store().UpdateConnection(t.Context(), id, func(*tokenstore.Connection) error { return refused })
		if !errors.Is(err, refused) {
			t.Fatal(err)
		}
		if at, err := c.nodes[1].call(t.Context(), id); err == nil {
			t.Errorf("call = %q", at)
		}
		time.Sleep(10 * time.Second)
		c.nodes[1].view.deafen(false, false)
		time.Sleep(time.Second)
		c.seen(id, "", true, watch)
	})
}

// What nobody told at all is seen within a minute.
func TestChangeThatNobodyTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, &authority{})
		id := c.add(time.Hour)
		time.Sleep(10 * time.Second)
		if _, err := c.nodes[1].call(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		watch, stop := c.nodes[1].Watch(id)
		defer stop()
		c.nodes[1].view.deafen(true, false)
		if err := elsewhere[1].change(c, id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(62 * time.Second)
		c.seen(id, "", true, watch)
	})
}

// The store that others write through is Shared where that below is, so that they
// can take leases on it, and is not where that is not.
func TestStoreIsSharedAsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, &authority{})
		h, err := tokenstore.TakeHold(t.Context(), c.nodes[0].Store(), "x", time.Minute)
		if err != nil || h == nil {
			t.Fatalf("TakeHold() = %v, %v", h, err)
		}
		if _, err := tokenstore.TakeHold(t.Context(), c.nodes[1].Store(), "x", time.Minute); !errors.Is(err, tokenstore.ErrLeased) {
			t.Errorf("TakeHold() by another = %v", err)
		}
		h.Release()
		if h, err := tokenstore.TakeHold(t.Context(), newRig(t).Store(), "x", time.Minute); h != nil || err != nil {
			t.Errorf("TakeHold() of a store that nobody shares = %v, %v", h, err)
		}
	})
}

// A call that finds out by itself that another process has ended a connection
// can tell why, before the change is told.
func TestEndFoundBeforeItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, &authority{})
		id := c.add(-time.Minute)
		if _, err := c.nodes[1].Find(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if err := update(func(c *tokenstore.Connection) { c.Expire(tokenstore.ReasonRefreshInterrupted) })(c, id); err != nil {
			t.Fatal(err)
		}
		if _, err := c.nodes[1].call(t.Context(), id); !errors.Is(err, tokenstore.ErrReconnect) {
			t.Errorf("call = %v, want ErrReconnect", err)
		}
		g, err := c.nodes[1].Find(t.Context(), id)
		if err != nil || g.StatusReason != tokenstore.ReasonRefreshInterrupted {
			t.Errorf("Find = %+v, %v; want the reason", g, err)
		}
	})
}
