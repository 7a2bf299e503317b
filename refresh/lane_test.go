package refresh_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// F033: ten thousand connections whose tokens end in the same minute, at a
// provider that takes 50 requests a second.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		end := newEndpoint()
		f := newFleet(t, n, 9*time.Minute, end)
		for second := range 10 * 60 {
			for i := second % 60; i < n; i += 60 { // each once a minute
				if err := f.call(f.ids[i]); err != nil {
					t.Fatalf("second %d: call failed: %v", second, err)
				}
			}
			if second%2 == 0 {
				f.RenewAhead()
			}
			time.Sleep(time.Second)
		}
		if end.reused > 0 || len(end.begun) != n {
			t.Errorf("%d requests for %d expiries, %d tokens sent again", len(end.begun), n, end.reused)
		}
		for i := 50; i < len(end.begun); i++ {
			if d := end.begun[i].Sub(end.begun[i-50]); d < time.Second {
				t.Fatalf("51 requests within %s", d)
			}
		}
		if end.most > end.concurrency {
			t.Errorf("%d requests at the same time, want at most %d", end.most, end.concurrency)
		}
	})
}

func TestConcurrencyCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.delay, end.concurrency, end.interval = 10*time.Second, 4, 0
		f := newFleet(t, 20, -time.Minute, end)
		var wg sync.WaitGroup
		for _, id := range f.ids {
			wg.Go(func() {
				if err := f.call(id); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if end.most != 4 || len(end.begun) != 20 {
			t.Errorf("%d requests, %d at the same time; want 20, 4", len(end.begun), end.most)
		}
	})
}

// F034: while the endpoint is out and tokens are valid no call fails, and it is
// not pestered; after it is back everything is renewed within a minute.
// F035: the same with tokens that end in the outage.
func TestOutage(t *testing.T) {
	for _, tt := range []struct {
		name string
		left time.Duration
		out  time.Duration
		fail func(tokenstore.Token) error
	}{
		{"F034 refused, tokens outlive it", 10 * time.Minute, 5 * time.Minute, notSent},
		{"F034 unanswered, tokens outlive it", 10 * time.Minute, 5 * time.Minute, func(tokenstore.Token) error { return unknown() }},
		{"F035 refused, tokens end", 10 * time.Minute, 15 * time.Minute, notSent},
		{"F035 unanswered, tokens end", 10 * time.Minute, 15 * time.Minute, func(tokenstore.Token) error { return unknown() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := newEndpoint()
				f := newFleet(t, 40, tt.left, end)
				ends := time.Now().Add(tt.left)
				end.set(tt.fail)
				for range int(tt.out.Seconds()) / 2 {
					for _, id := range f.ids {
						err := f.call(id)
						valid := time.Now().Before(ends)
						un, unavailable := errors.AsType[*tokenstore.UnavailableError](err)
						switch {
						case err == nil:
						case valid:
							t.Fatalf("call with a valid token failed: %v", err)
						case !unavailable || un.RetryAfter < time.Second || un.RetryAfter > time.Minute:
							t.Fatalf("call without a valid token: %v", err)
						}
					}
					f.tick()
					time.Sleep(2 * time.Second)
				}
				// One a connection before it is known to be down; then one at a time.
				if got, most := end.requests(), len(f.ids)+int(tt.out.Seconds())/20+20; got > most {
					t.Errorf("%d requests in an outage of %s, want at most %d", got, tt.out, most)
				}
				end.set(nil)
				for range 30 {
					f.tick()
					time.Sleep(2 * time.Second)
				}
				for _, id := range f.ids {
					c, err := f.store.Connection(t.Context(), id)
					if err != nil || c.Status != tokenstore.StatusActive {
						t.Fatalf("connection after the outage: %s, %v", c.Status, err)
					}
					if err := f.call(id); err != nil {
						t.Errorf("a minute after the outage: %v", err)
					}
				}
				if end.reused > 0 {
					t.Errorf("%d refresh tokens were redeemed again", end.reused)
				}
			})
		})
	}
}

// One connection that always fails takes nothing from the others.
func TestTroubleOfOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 10, -time.Minute, end)
		end.set(func(tok tokenstore.Token) error {
			if tok.RefreshToken.Reveal() == "rt-0" {
				return notSent(tok)
			}
			return nil
		})
		for range 60 {
			if err := f.call(f.ids[0]); err == nil {
				t.Fatal("a token from nowhere")
			}
			time.Sleep(time.Second)
		}
		before := end.requests()
		for _, id := range f.ids[1:] {
			if err := f.call(id); err != nil {
				t.Errorf("another connection: %v", err)
			}
		}
		if before > 8 { // after 1, 2, 4, 8, 16, 32 seconds
			t.Errorf("%d requests in a minute for one failing connection", before)
		}
	})
}

// invalid_client is the integration's trouble: one connection finds it out, the
// others are told, and a reload with the right secret is tried at once.
func TestClientRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 20, -time.Minute, end)
		end.set(func(tokenstore.Token) error {
			return &tokenstore.RefusalError{Kind: tokenstore.RefusedClient, Status: 401}
		})
		for second := range 60 {
			for _, id := range f.ids {
				refusal, ok := errors.AsType[*tokenstore.RefusalError](f.call(id))
				if !ok || refusal.Kind != tokenstore.RefusedClient {
					t.Fatalf("call: %v, want the refusal of the client", refusal)
				}
			}
			if n := end.requests(); second == 0 && n != 1 {
				t.Errorf("%d requests until it was clear, want 1", n)
			}
			time.Sleep(time.Second)
		}
		if n := end.requests(); n > 8 {
			t.Errorf("%d requests in a minute with a client that is refused", n)
		}
		mended := newEndpoint()
		f.end = mended
		for _, id := range f.ids {
			if err := f.call(id); err != nil {
				t.Fatalf("after the reload: %v", err)
			}
		}
	})
}

// Retry-After of one connection holds for it, and for all once it is clear that
// the limit is the integration's.
func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		wait time.Duration
	}{
		{"429", &tokenstore.RefusalError{Status: 429, RetryAfter: 5 * time.Minute}, 5 * time.Minute},
		{"503", &tokenstore.UnreadableError{Status: 503, RetryAfter: 3 * time.Minute}, 3 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := newEndpoint()
				f := newFleet(t, 20, -time.Minute, end)
				end.set(func(tokenstore.Token) error { return tt.err })
				began := time.Now()
				for time.Since(began) < tt.wait-5*time.Second {
					for _, id := range f.ids {
						if err := f.call(id); err == nil {
							t.Fatal("a token from nowhere")
						}
					}
					time.Sleep(time.Second)
				}
				// It may be about a connection alone: others find out, one a minute.
				if n, most := end.requests(), 3+int(tt.wait.Minutes()); n > most {
					t.Errorf("%d requests before Retry-After was over, want at most %d", n, most)
				}
				if end.repeated() {
					t.Error("a connection was tried again before its Retry-After was over")
				}
				end.set(nil)
				time.Sleep(tt.wait)
				for _, id := range f.ids {
					if err := f.call(id); err != nil {
						t.Errorf("after Retry-After: %v", err)
					}
				}
			})
		})
	}
}

// F014, F017: the store can write no more while fifty refreshes are under way.
// The new tokens serve, nothing is sent twice, and soon after the store can
// write again all is written.
func TestStoreThatCannotWrite(t *testing.T) {
	for name, cause := range map[string]error{"full": tokenstore.ErrFull, "out": tokenstore.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := newEndpoint()
				end.concurrency, end.interval, end.delay = 50, 0, time.Second
				f := newFleet(t, 50, -time.Minute, end)
				for _, id := range f.ids {
					go func() { _ = f.call(id) }()
				}
				time.Sleep(end.delay / 2)
				f.store.FailWrites(cause)
				time.Sleep(end.delay)
				for range 300 {
					for _, id := range f.ids {
						if err := f.call(id); err != nil {
							t.Fatalf("call: %v", err)
						}
					}
					f.tick()
					time.Sleep(2 * time.Second)
				}
				if f.Unsaved() != len(f.ids) {
					t.Errorf("%d answers are in memory only, want %d", f.Unsaved(), len(f.ids))
				}
				f.store.FailWrites(nil)
				time.Sleep(10 * time.Second)
				for i, id := range f.ids {
					c, err := f.store.Connection(t.Context(), id)
					if err != nil || c.Token.RefreshToken.Reveal() != fmt.Sprintf("rt-%d+", i) || c.Intent != nil {
						t.Fatalf("connection %d ten seconds after: %s, %v", i, c.Token.RefreshToken.Reveal(), err)
					}
				}
				if f.Unsaved() != 0 || len(end.begun) != len(f.ids) || end.reused > 0 {
					t.Errorf("%d unsaved, %d requests, %d reuses", f.Unsaved(), len(end.begun), end.reused)
				}
			})
		})
	}
}
