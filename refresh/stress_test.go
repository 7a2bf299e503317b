package refresh_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// paced is an endpoint after a reload that has changed its pace.
type paced struct {
	*endpoint
	concurrency int
	interval    time.Duration
}

func (p *paced) Origin() any { return p }

func (p *paced) Pace() (concurrency int, interval time.Duration) { return p.concurrency, p.interval }

// Calls, refusals, revocations, reloads, outages of the endpoint and of the
// store, all at the same time: no refresh token is sent twice that was redeemed,
// and two minutes after all is well every connection is served.
func TestEverythingAtOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		const revocable = 10
		end := newEndpoint()
		end.life, end.delay = 90*time.Second, time.Second
		f := newFleet(t, 60, time.Minute, end)
		var now atomic.Pointer[paced]
		now.Store(&paced{end, 16, 0})
		f.over(nil, func(string, map[string]string) (refresh.Provider, bool) { return now.Load(), true })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for w := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, w))
			wg.Go(func() {
				for ctx.Err() == nil {
					f.doAnything(ctx, rng, revocable)
					time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
				}
			})
		}
		rng := rand.New(rand.NewPCG(seed, 1000))
		for range 90 {
			f.tick()
			switch rng.IntN(12) {
			case 0:
				end.set(notSent)
			case 1, 2:
				end.set(nil)
			case 3:
				now.Store(&paced{end, 1 + rng.IntN(16), time.Duration(rng.IntN(100)) * time.Millisecond})
			case 4:
				f.store.FailWrites(tokenstore.ErrUnavailable)
			case 5, 6:
				f.store.FailWrites(nil)
			case 7:
				end.set(func(tokenstore.Token) error {
					return &tokenstore.RefusalError{Status: 429, RetryAfter: 2 * time.Second}
				})
			}
			time.Sleep(2 * time.Second)
		}
		end.set(nil)
		f.store.FailWrites(nil)
		time.Sleep(2 * time.Minute)
		cancel()
		wg.Wait()
		for i, id := range f.ids[revocable:] {
			if err := f.call(id); err != nil {
				t.Errorf("connection %d, when all is well: %v", i+revocable, err)
			}
		}
		if end.reused > 0 || f.Unsaved() > 0 {
			t.Errorf("%d refresh tokens were redeemed again, %d answers are not stored", end.reused, f.Unsaved())
		}
	})
}

// doAnything does to some connection what an app, an API or an operator does.
// It revokes one of the first only.
func (f *fleet) doAnything(ctx context.Context, rng *rand.Rand, revocable int) {
	i := rng.IntN(len(f.ids))
	id := f.ids[i]
	switch rng.IntN(40) {
	case 0:
		patience, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Millisecond)
		defer cancel()
		_, _ = f.Renew(patience, id, uint64(rng.IntN(5)))
	case 1:
		_ = f.Refresh(ctx, id, operator)
	case 2:
		if i >= revocable {
			return
		}
		late := f.Late(id)
		_, _ = f.Store().UpdateConnection(ctx, id, func(c *tokenstore.Connection) error { c.Revoke(); return nil })
		if late != nil {
			_, _ = late(ctx)
		}
	case 3:
		_, _ = f.Store().UpdateConnection(ctx, id, func(c *tokenstore.Connection) error { c.Name += "x"; return nil })
	default:
		if g, err := f.Find(ctx, id); err == nil {
			_, _ = f.Token(ctx, g)
		}
	}
}
