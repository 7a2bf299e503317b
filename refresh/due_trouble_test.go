package refresh_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A sweep reads of the store what it renews, and nothing of what has to wait.
func TestSweepReadsWhatItRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 2000, tokenLife, end)
		s := &faultyStore{Store: f.store, read: 2 * time.Millisecond}
		f.over(s, nil)
		f.use(t, f.ids...)
		time.Sleep(2 * tokenLife)
		s.reads.Store(0)
		f.RenewAhead()
		time.Sleep(time.Second)
		if reads, n := int(s.reads.Load()), end.requests(); n < 40 || reads > n+end.concurrency {
			t.Errorf("%d reads for %d requests", reads, n)
		}
	})
}

// An integration that is gone from the configuration costs the sweeps nothing.
func TestSweepOfAGoneIntegration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 1000, tokenLife, end)
		s := &faultyStore{Store: f.store}
		gone, asked := false, 0
		f.over(s, func(string, map[string]string) (refresh.Provider, bool) {
			asked++
			return end, !gone
		})
		f.use(t, f.ids...)
		time.Sleep(2 * tokenLife)
		gone = true
		s.reads.Store(0)
		asked = 0
		for range 30 {
			f.tick()
			time.Sleep(2 * time.Second)
		}
		if n := s.reads.Load(); n > 0 || asked > 30 {
			t.Errorf("30 sweeps read the store %d times and asked for the provider %d times", n, asked)
		}
	})
}

// The keep-alives of thousands of connections that an outage keeps back cost
// each a read of the store every twenty seconds.
func TestKeepAlivesKeptBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		end := newEndpoint()
		f := newFleet(t, n, tokenLife, end)
		s := &faultyStore{Store: f.store}
		f.over(s, nil)
		for _, id := range f.ids {
			f.idle(t, id, 95*time.Hour, 5*time.Hour)
		}
		end.set(notSent)
		for range 10 {
			f.tick()
			time.Sleep(2 * time.Second)
		}
		s.reads.Store(0)
		for range 30 {
			f.tick()
			time.Sleep(2 * time.Second)
		}
		if reads := s.reads.Load(); reads > 3*n+100 {
			t.Errorf("%d reads of the store in a minute for %d keep-alives, want one each 20 seconds", reads, n)
		}
	})
}

// idle makes a refresh token that is that old and has that much left.
func (f *fleet) idle(t *testing.T, id string, age, left time.Duration) {
	t.Helper()
	_, err := f.store.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error {
		c.Token.IssuedAt = time.Now().Add(-age)
		c.Token.RefreshExpiresAt = time.Now().Add(left)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An idle refresh token is kept alive, however many renewals the sweeps have
// for the same endpoint.
func TestKeepAliveBesideABusySweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.interval = time.Second
		f := newFleet(t, 601, tokenLife, end)
		f.use(t, f.ids[:600]...)
		idle := f.ids[600]
		time.Sleep(2 * tokenLife) // all are due, and there are ten minutes of work
		f.idle(t, idle, 100*time.Hour, 6*time.Minute)
		for range 6 * 30 {
			f.tick()
			time.Sleep(2 * time.Second)
		}
		if end.count("rt-600") == 0 {
			t.Error("the refresh token died, and nobody had tried to renew it")
		}
	})
}

// The pace of one integration holds up no other one's interrupted refreshes.
func TestRecoverOfASlowIntegration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, fast := newEndpoint(), newEndpoint()
		slow.concurrency, slow.interval = 1, 10*time.Second
		f := newFleet(t, 100, -time.Minute, slow)
		f.over(nil, func(integration string, _ map[string]string) (refresh.Provider, bool) {
			if integration == "fast" {
				return fast, true
			}
			return slow, true
		})
		start := time.Now()
		interrupted := func(c *tokenstore.Connection, ago time.Duration) {
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1,
				StartedAt: start.Add(-ago), Deadline: start.Add(20*time.Second - ago),
			}
		}
		for _, id := range f.ids {
			_, err := f.store.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error {
				interrupted(c, time.Minute)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		c := tokenstore.Connection{
			ID: tokenstore.NewID(), Integration: "fast", Status: tokenstore.StatusActive,
			Token: tokenstore.Token{
				AccessToken: secret.New("at"), RefreshToken: secret.New("rt-fast"), Generation: 1,
				IssuedAt: start.Add(-tokenLife), ExpiresAt: start,
			},
		}
		interrupted(&c, 30*time.Second)
		if _, err := f.store.CreateConnection(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := f.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n, d := fast.requests(), time.Since(start); n != 1 || d > time.Second {
			t.Errorf("%d requests after %s, want one at once", n, d)
		}
	})
}

// The clock was put back by years since a refresh of unknown outcome. Its times
// say nothing: once the API refuses the access token, it is tried again.
func TestIntentOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			c.Token.IssuedAt = time.Now().AddDate(10, 0, 0)
			c.Token.ExpiresAt = c.Token.IssuedAt.Add(tokenLife)
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, Unknown: 1,
				StartedAt: c.Token.IssuedAt.Add(time.Minute), Deadline: c.Token.HardAt(),
			}
		})
		r.wantToken("at-0")
		synctest.Wait()
		r.wantCalls()
		g, err := r.Renew(t.Context(), r.id, 1)
		if err != nil || g.Token.AccessToken.Reveal() != "at-new-1" {
			t.Errorf("Renew() = %+v, %v; want a new token", g, err)
		}
	})
}

// The clock was forward when a refresh was sent whose outcome nobody saw, and is
// right now: while nobody waits for it, the refresh token is not sent again.
func TestIntentOfTheFutureWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) {
			then := time.Now().Add(2 * tokenLife)
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, Unknown: 1,
				StartedAt: then, Deadline: then.Add(time.Minute),
			}
		})
		time.Sleep(tokenLife - 4*time.Minute) // in the soft margin
		r.wantToken("at-0")
		synctest.Wait()
		time.Sleep(20 * time.Minute) // longer than what was begun for it holds anything back
		r.RenewAhead()
		synctest.Wait()
		r.wantCalls()
	})
}

// A token that nothing can renew is over at its end, though the clock is put
// back then: its connection is to be connected again.
func TestClockPutBackWithoutRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) { c.Token.RefreshToken = secret.String{} })
		g, err := r.Find(t.Context(), r.id)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(tokenLife / 2)
		then := *g
		then.SeenWall = then.SeenWall.Add(tokenLife) // it was an hour later when g was taken
		if _, err = r.Token(t.Context(), &then); !errors.Is(err, tokenstore.ErrReconnect) {
			t.Errorf("Token() error = %v, want ErrReconnect", err)
		}
		r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonNoRefreshToken)
	})
}

// No call gets a token that is over, nor fails, however short its life.
func TestTokensOfShortLife(t *testing.T) {
	for _, life := range []time.Duration{500 * time.Millisecond, time.Second, 4 * time.Second} {
		t.Run(fmt.Sprint(life), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := newEndpoint()
				end.life = life
				f := newFleet(t, 5, life, end)
				for i := range 200 {
					for _, id := range f.ids {
						if err := f.call(id); err != nil {
							t.Fatalf("call: %v", err)
						}
					}
					if i%20 == 0 {
						f.tick()
					}
					time.Sleep(100 * time.Millisecond)
				}
				if end.reused > 0 {
					t.Errorf("%d refresh tokens were sent again", end.reused)
				}
			})
		})
	}
}
