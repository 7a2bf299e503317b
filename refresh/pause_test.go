package refresh_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// quietRig is a rig whose provider wants a minute between two token requests,
// and deletes the tokens of who makes more.
func quietRig(t *testing.T, change ...func(*tokenstore.Connection)) *rig {
	t.Helper()
	r := newRig(t, change...)
	r.prov.pause = time.Minute
	return r
}

// A token that was just issued is left alone, whatever the API says of it.
func TestPauseAfterIssue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quietRig(t)
		time.Sleep(30 * time.Second)
		for range 3 {
			if _, err := r.Renew(t.Context(), r.id, 1); !errors.Is(err, tokenstore.ErrNotRenewed) {
				t.Fatalf("Renew() 30 s after it was issued: %v, want ErrNotRenewed", err)
			}
		}
		r.wantCalls()
		time.Sleep(30 * time.Second)
		if g, err := r.Renew(t.Context(), r.id, 1); err != nil || g.Token.AccessToken.Reveal() != "at-new-1" {
			t.Fatalf("Renew() a minute after: %+v, %v", g, err)
		}
		time.Sleep(59 * time.Second)
		if _, err := r.Renew(t.Context(), r.id, 2); !errors.Is(err, tokenstore.ErrNotRenewed) {
			t.Fatalf("Renew() 59 s after the next one: %v, want ErrNotRenewed", err)
		}
		r.wantCalls("rt-0")
	})
}

// Of short-lived tokens none is renewed ahead within the pause, and what has
// ended is.
func TestPauseAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quietRig(t, func(c *tokenstore.Connection) { c.Token.ExpiresAt = time.Now().Add(59 * time.Second) })
		time.Sleep(51 * time.Second)
		r.wantToken("at-0") // within the soft margin
		r.RenewAhead()
		synctest.Wait()
		r.wantCalls()
		time.Sleep(8 * time.Second)
		r.wantToken("at-new-1")
		r.wantCalls("rt-0")
	})
}

// Requests for a token count, whatever comes of them: an operator, an API that
// refuses everything and calls that need a token make no more than one a minute
// of them together.
func TestPauseOfFailures(t *testing.T) {
	for name, fail := range map[string]step{
		"refused":   {parse: &tokenstore.RefusalError{Status: 429, Code: "slow_down"}},
		"no answer": {sendErr: unknown()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := quietRig(t)
				r.prov.grace = true
				for range 100 {
					r.prov.script = append(r.prov.script, fail)
				}
				time.Sleep(tokenLife)
				for range 300 { // 10 minutes
					if _, err := r.token(t.Context()); err == nil {
						t.Fatal("a token came")
					}
					_, _ = r.Renew(t.Context(), r.id, 1)
					_ = r.Refresh(t.Context(), r.id, operator)
					r.look()
					time.Sleep(2 * time.Second)
				}
				if n := len(r.prov.presented()); n < 5 || n > 10 {
					t.Errorf("%d requests in 10 minutes, want one a minute at most, and not none", n)
				}
			})
		})
	}
}

// A renewal that succeeds counts as one that fails does.
func TestPauseOfRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quietRig(t)
		if err := r.Refresh(t.Context(), r.id, operator); err != nil {
			t.Fatal(err) // whoever asks knows better, once
		}
		err := r.Refresh(t.Context(), r.id, operator)
		if un, ok := errors.AsType[*tokenstore.UnavailableError](err); !ok || un.RetryAfter != time.Minute {
			t.Fatalf("the second: %v, want unavailable for a minute", err)
		}
		r.wantToken("at-new-1")
		time.Sleep(time.Minute)
		if err := r.Refresh(t.Context(), r.id, operator); err != nil {
			t.Error(err)
		}
		r.wantCalls("rt-0", "rt-new-1")
	})
}

// What never left counts for nothing.
func TestPauseNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quietRig(t)
		r.prov.script = []step{{sendErr: tokenstore.ErrNotSent}}
		time.Sleep(tokenLife)
		if _, err := r.token(t.Context()); err == nil {
			t.Fatal("a token came")
		}
		time.Sleep(3 * time.Second)
		r.wantToken("at-new-2")
	})
}

// A program that starts again and again in the middle of a refresh keeps to the
// pause, too.
func TestPauseAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quietRig(t, func(c *tokenstore.Connection) {
			at := time.Now()
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, StartedAt: at, Deadline: at.Add(20 * time.Second),
			}
		})
		time.Sleep(10 * time.Second)
		for range 3 {
			r.start()
			if err := r.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		r.wantCalls()
		r.lookFor(80 * time.Second)
		r.wantCalls("rt-0")
		r.wantToken("at-new-1")
	})
}

// A provisional token is exchanged at once all the same: that is another request.
func TestPauseOfAProvisional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quietRig(t, provisional)
		r.look()
		r.wantCalls("at-0")
	})
}

// Where tokens are left alone for long, a failure is not: a provisional token
// would end before that.
func TestLongPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := quietRig(t, provisional)
		r.prov.pause, r.prov.grace = 24*time.Hour, true
		r.prov.script = []step{{sendErr: unknown()}, {parse: &tokenstore.RefusalError{Status: 503}}}
		r.lookFor(5 * time.Minute)
		r.wantToken("at-new-3")
		time.Sleep(tokenLife / 2)
		if _, err := r.Renew(t.Context(), r.id, 2); !errors.Is(err, tokenstore.ErrNotRenewed) {
			t.Errorf("Renew() = %v, want ErrNotRenewed", err)
		}
	})
}

// A provider with a margin of its own is not asked before that.
func TestMarginOfTheProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *tokenstore.Connection) { c.Token.Margin = 30 * time.Second })
		time.Sleep(tokenLife - 31*time.Second)
		r.wantToken("at-0")
		r.RenewAhead()
		synctest.Wait()
		r.wantCalls()
		time.Sleep(2 * time.Second)
		r.RenewAhead()
		synctest.Wait()
		r.wantCalls("rt-0")
	})
}
