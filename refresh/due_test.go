package refresh_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What is in use is renewed before its end though nobody asks then; what is
// not in use is left alone.
func TestRenewAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 30, tokenLife, end)
		time.Sleep(time.Minute)
		for _, id := range f.ids[:20] {
			if err := f.call(id); err != nil {
				t.Fatal(err)
			}
		}
		for range 28 * 60 { // past the soft margin, not to the hard one
			f.tick()
			time.Sleep(2 * time.Second)
		}
		var at []time.Time
		for i, id := range f.ids {
			c, err := f.store.Connection(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if renewed := c.Token.Generation == 2; renewed != (i < 20) {
				t.Errorf("connection %d has generation %d", i, c.Token.Generation)
			}
			if i < 20 {
				at = append(at, c.Token.IssuedAt)
			}
		}
		slices.SortFunc(at, time.Time.Compare)
		if spread := at[19].Sub(at[0]); spread < time.Minute {
			t.Errorf("20 tokens that end together were renewed within %s", spread)
		}
	})
}

// A refresh token that nobody uses is renewed before it dies, each at its own
// time, and not when its connection is disabled.
func TestKeepAlive(t *testing.T) {
	const life = 30 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 30, tokenLife, end)
		for i, id := range f.ids {
			_, err := f.store.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error {
				c.Token.RefreshExpiresAt = c.Token.IssuedAt.Add(life)
				c.Disabled = i == 0
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		for time.Since(start) < life*95/100 {
			f.tick()
			time.Sleep(time.Hour)
		}
		days := map[int]bool{}
		for i, id := range f.ids {
			c, err := f.store.Connection(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if renewed := c.Token.Generation == 2; renewed != (i > 0) {
				t.Errorf("connection %d has generation %d", i, c.Token.Generation)
			}
			if i > 0 {
				if age := c.Token.IssuedAt.Sub(start); age < life*7/10 || age > life*9/10+time.Hour {
					t.Errorf("connection %d was kept alive after %s", i, age)
				}
				days[int(c.Token.IssuedAt.Sub(start).Hours())/24] = true
			}
		}
		if len(days) < 4 {
			t.Errorf("29 connections were kept alive on %d days, want them spread", len(days))
		}
	})
}

// A refresh token whose end does not move is not renewed without end.
func TestKeepAliveOfAFixedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, tokenLife, newEndpoint())
		end := time.Now().Add(90 * 24 * time.Hour)
		c, err := f.store.Connection(t.Context(), f.ids[0])
		if err != nil {
			t.Fatal(err)
		}
		c.Token.RefreshExpiresAt = end
		n := 0
		for at := c.KeepAliveAt(); !at.IsZero(); at = c.KeepAliveAt() {
			if !at.Before(end) || n > 30 {
				t.Fatalf("renewal %d of a refresh token that ends at %s is at %s", n, end, at)
			}
			c.Token.IssuedAt = at
			n++
		}
		if n == 0 {
			t.Error("it was not kept alive at all")
		}
	})
}

// F045: the wall clock was put back since the token was taken. It does not come
// back to life.
func TestClockPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		g, err := r.Find(t.Context(), r.id)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(tokenLife / 2)
		then := *g
		then.SeenWall = then.SeenWall.Add(tokenLife) // it was an hour later when g was taken
		next, err := r.Token(t.Context(), &then)
		if err != nil || next.Token.AccessToken.Reveal() != "at-new-1" {
			t.Fatalf("Token() = %+v, %v; want a renewed one", next, err)
		}
	})
}

// F045: the clock was put back while nobody looked, to 1970 say. A token of the
// future serves, and is renewed once; nothing expires.
func TestTokenOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			c.Token.IssuedAt = time.Now().AddDate(50, 0, 0)
			c.Token.ExpiresAt = c.Token.IssuedAt.Add(tokenLife)
		})
		r.wantToken("at-0")
		synctest.Wait()
		for range 100 {
			r.wantToken("at-new-1")
			r.RenewAhead()
			synctest.Wait()
			time.Sleep(10 * time.Second)
		}
		r.wantCalls("rt-0")
		r.wantStatus(tokenstore.StatusActive, "")
	})
}

// F045: the clock is put forward by a century while the program is down. Every
// token is renewed once, nothing expires, nothing is deleted.
func TestClockPutForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 50, -100*365*24*time.Hour, end)
		for range 3 {
			for _, id := range f.ids {
				if err := f.call(id); err != nil {
					t.Fatal(err)
				}
			}
			f.tick()
			time.Sleep(time.Second)
		}
		if len(end.begun) != len(f.ids) {
			t.Errorf("%d requests for %d connections", len(end.begun), len(f.ids))
		}
	})
}

// F066: a refresh token from a backup that was rotated since: its connection
// says so, and only when its access token is at its end.
func TestRestoredStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) { c.Token.Unproven = true })
		r.prov.script = []step{{parse: invalidGrant()}, {parse: invalidGrant()}}
		r.wantToken("at-0")
		r.wantCalls()
		time.Sleep(tokenLife)
		if _, err := r.token(t.Context()); err == nil {
			t.Fatal("a token from nowhere")
		}
		r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonRestoredStale)
		r.wantCalls("rt-0")
	})
}

// A restored refresh token that works proves itself.
func TestRestoredFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) { c.Token.Unproven = true })
		time.Sleep(tokenLife)
		r.wantToken("at-new-1")
		if r.connection().Token.Unproven {
			t.Error("a token that was just issued is unproven")
		}
	})
}

// A refresh in doubt of a disabled connection is not looked after until it is
// enabled.
func TestDisabledInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			c.Disabled = true
			c.Intent = &tokenstore.Intent{RefreshTokenHash: secret.New("rt-0").Hash(), Generation: 1, Deadline: time.Now()}
		})
		due := func() int {
			ids, err := r.store.DueConnections(context.Background(), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return len(ids)
		}
		if due() != 0 {
			t.Error("a disabled connection is due")
		}
		_, err := r.Store().UpdateConnection(t.Context(), r.id, func(c *tokenstore.Connection) error { c.Disabled = false; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if due() != 1 {
			t.Error("it is not due once it is enabled")
		}
		r.resolve()
		r.wantToken("at-new-1")
	})
}
