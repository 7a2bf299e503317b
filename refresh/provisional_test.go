package refresh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// provisional is a connection as the flow leaves it where a second request is to
// make a token that lasts: the access token is presented itself.
func provisional(c *tokenstore.Connection) {
	c.Token.Provisional = true
	c.Token.RefreshToken = c.Token.AccessToken
}

// look is what the keeper does every two seconds.
func (r *rig) look() {
	r.t.Helper()
	due, err := r.store.DueConnections(r.t.Context(), time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, id := range due {
		r.Resolve(r.t.Context(), id)
	}
	synctest.Wait()
}

// lookFor has the keeper look for so long.
func (r *rig) lookFor(d time.Duration) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Second) {
		r.look()
	}
}

// A token that is only provisional is exchanged at once, though nobody uses it;
// the next one is renewed as any.
func TestProvisional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, provisional)
		r.look()
		r.wantCalls("at-0")
		if c := r.connection(); c.Token.Provisional || c.Token.Generation != 2 || c.Intent != nil || !c.Due().IsZero() {
			t.Fatalf("connection %+v", c)
		}
		r.wantToken("at-new-1")
		r.lookFor(time.Minute)
		r.wantCalls("at-0")
		time.Sleep(tokenLife)
		r.wantToken("at-new-2")
		r.wantCalls("at-0", "rt-new-1")
	})
}

// It serves meanwhile, and the one who uses it waits for nothing.
func TestProvisionalServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, provisional)
		r.prov.delay = 10 * time.Second
		r.wantToken("at-0")
		time.Sleep(5 * time.Second)
		r.wantToken("at-0")
		time.Sleep(6 * time.Second)
		r.wantToken("at-new-1")
		r.wantCalls("at-0")
	})
}

// One that never ends is exchanged, too.
func TestProvisionalWithoutAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, provisional, func(c *tokenstore.Connection) { c.Token.ExpiresAt = time.Time{} })
		r.wantToken("at-0") // begins it
		synctest.Wait()
		r.wantToken("at-new-1")
		r.wantCalls("at-0")
	})
}

// The program ends between connecting and the exchange, or in the middle of it:
// the next run makes it.
func TestProvisionalAfterACrash(t *testing.T) {
	for name, change := range map[string]func(*tokenstore.Connection){
		"before it": func(*tokenstore.Connection) {},
		"in the middle": func(c *tokenstore.Connection) {
			at := time.Now().Add(-time.Second)
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, StartedAt: at, Deadline: at.Add(20 * time.Second),
			}
		},
		"with the answer": func(c *tokenstore.Connection) {
			at := time.Now().Add(-time.Second)
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, StartedAt: at, Deadline: at.Add(20 * time.Second),
				Answer: &tokenstore.Answer{SentAt: at, Status: 200, Body: secret.New("kept")},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, provisional, change)
				if err := r.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				want := "at-new-1"
				if name == "with the answer" {
					want = "at-new-kept"
				}
				r.wantToken(want)
				if c := r.connection(); c.Token.Provisional || c.Token.Generation != 2 {
					t.Errorf("connection %+v", c)
				}
			})
		})
	}
}

// What a renewal brings lasts, whatever is read out of its answer.
func TestProvisionalOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, provisional)
		r.prov.provisional = true
		r.lookFor(time.Minute)
		r.wantCalls("at-0")
		r.wantToken("at-new-1")
		r.wantCalls("at-0")
	})
}

// An exchange that fails backs off, and the provisional token serves until it
// does.
func TestProvisionalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, provisional)
		r.prov.grace = true
		for range 3 {
			r.prov.script = append(r.prov.script, step{parse: &tokenstore.RefusalError{Status: 429, Code: "slow_down"}})
		}
		r.prov.script = append(r.prov.script, step{sendErr: unknown()})
		r.lookFor(20 * time.Second)
		if n := len(r.prov.presented()); n == 0 || n > 3 {
			t.Errorf("%d requests in 20 s", n)
		}
		r.wantToken("at-0")
		r.lookFor(3 * time.Minute)
		r.wantToken("at-new-5")
		r.wantCalls("at-0", "at-0", "at-0", "at-0", "at-0")
	})
}

// One that is refused for good is not tried again: the provisional token serves
// to its end.
func TestProvisionalRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, provisional)
		r.prov.script = []step{{parse: invalidGrant()}}
		r.lookFor(10 * time.Minute)
		r.wantCalls("at-0")
		r.wantToken("at-0")
		r.wantStatus(tokenstore.StatusActive, tokenstore.ReasonInvalidGrant)
		time.Sleep(tokenLife)
		if _, err := r.token(t.Context()); err == nil {
			t.Error("it serves beyond its end")
		}
		r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
	})
}
