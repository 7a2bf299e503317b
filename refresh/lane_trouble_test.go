package refresh_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// over makes the fleet's Refresher anew, over another store or with other
// providers. A nil one stays as it was.
func (f *fleet) over(s tokenstore.Store, providers func(string, map[string]string) (refresh.Provider, bool)) {
	f.t.Helper()
	if err := f.Close(context.Background()); err != nil {
		f.t.Fatal(err)
	}
	if s == nil {
		s = f.store
	}
	if providers == nil {
		providers = func(string, map[string]string) (refresh.Provider, bool) { return f.end, true }
	}
	f.Refresher = refresh.New(refresh.Config{Store: s, Logger: zap.NewNop(), Provider: providers})
}

// keepDoing does something with each of the connections, one after the other,
// again and again, until stop.
func keepDoing(every time.Duration, do func(id string), ids ...string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			time.Sleep(every * time.Duration(i) / time.Duration(len(ids)))
			for ctx.Err() == nil {
				do(id)
				time.Sleep(every)
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// servedAfter returns how long it takes until a call of a connection that is
// called every second succeeds, an hour at most.
func (f *fleet) servedAfter(id string) time.Duration {
	start := time.Now()
	for f.call(id) != nil && time.Since(start) < time.Hour {
		time.Sleep(time.Second)
	}
	return time.Since(start)
}

// notSentOf fails the requests of the first n connections.
func notSentOf(n int) func(tokenstore.Token) error {
	return func(t tokenstore.Token) error {
		if conn := number(t); len(conn) == 1 && int(conn[0]-'0') < n {
			return notSent(t)
		}
		return nil
	}
}

// number returns which connection of a fleet t is of, if t was not renewed yet.
func number(t tokenstore.Token) string { return strings.TrimPrefix(t.RefreshToken.Reveal(), "rt-") }

// uneven is an endpoint that takes longer for some connections.
type uneven struct {
	*endpoint
	longer func(conn string) time.Duration
}

func (u *uneven) Refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Answer, error) {
	time.Sleep(u.longer(number(t)))
	return u.endpoint.Refresh(ctx, t)
}

// A moment's trouble that meets many requests at once is one trouble: a second
// later the next try is made.
func TestMomentaryTroubleOfManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.interval = 0
		f := newFleet(t, 17, -time.Minute, end)
		end.set(notSent)
		var wg sync.WaitGroup
		for _, id := range f.ids[:16] {
			wg.Go(func() { _ = f.call(id) })
		}
		wg.Wait()
		end.set(nil)
		if d := f.servedAfter(f.ids[16]); d > 3*time.Second {
			t.Errorf("another connection was refused for %s after a moment's trouble", d)
		}
	})
}

// A connection whose refresh token belongs to another client doesn't make the
// endpoint look down to those that it works for.
func TestClientRefusedForOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.life = 30 * time.Second
		f := newFleet(t, 7, -time.Minute, end)
		end.set(func(tok tokenstore.Token) error {
			if number(tok) == "0" {
				return &tokenstore.RefusalError{Kind: tokenstore.RefusedClient, Status: 401}
			}
			return nil
		})
		if err := f.call(f.ids[1]); err != nil { // the client is fine
			t.Fatal(err)
		}
		stop := keepDoing(100*time.Millisecond, func(id string) { _ = f.call(id) }, f.ids[0])
		defer stop()
		for range 60 {
			time.Sleep(5 * time.Second)
			for _, id := range f.ids[2:] {
				if err := f.call(id); err != nil {
					t.Fatalf("a healthy connection: %v", err)
				}
			}
		}
	})
}

// Connections that always fail, and are called all the time, keep the endpoint
// from nobody for whom it works: not those that are due, nor one that somebody
// wants renewed again and again.
func TestConnectionsThatAlwaysFail(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*fleet) func(id string)
		bad  int
	}{
		{"called", func(f *fleet) func(string) { return func(id string) { _ = f.call(id) } }, 3},
		{"refresh asked for", func(f *fleet) func(string) { return func(id string) { _ = f.Refresh(f.t.Context(), id, operator) } }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := newEndpoint()
				f := newFleet(t, 7, -time.Minute, end)
				end.set(notSent)
				for _, id := range f.ids[:5] { // it is taken to be down
					_ = f.call(id)
				}
				end.set(notSentOf(tt.bad))
				stop := keepDoing(250*time.Millisecond, tt.do(f), f.ids[:tt.bad]...)
				defer stop()
				if d := f.servedAfter(f.ids[6]); d > time.Minute {
					t.Errorf("a healthy connection got no token for %s", d)
				}
			})
		})
	}
}

// What a request of the old configuration ends with says nothing of the new
// one.
func TestReloadWhileRefreshing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, mended := newEndpoint(), newEndpoint()
		old.delay = 10 * time.Second
		old.set(func(tokenstore.Token) error {
			return &tokenstore.RefusalError{Kind: tokenstore.RefusedClient, Status: 401}
		})
		mended.concurrency, mended.interval = 1, 2*time.Second
		f := newFleet(t, 20, -time.Minute, old)
		now := f.reloadable(old)
		var wg sync.WaitGroup
		wg.Go(func() { _ = f.call(f.ids[0]) })
		time.Sleep(5 * time.Second)
		now.Store(mended)
		for _, id := range f.ids[1:] {
			wg.Go(func() {
				if err := f.call(id); err != nil {
					t.Errorf("after the reload: %v", err)
				}
			})
		}
		wg.Wait()
		if mended.most > 1 {
			t.Errorf("%d requests at a time, want 1", mended.most)
		}
	})
}

// A new pace holds from the first request on.
func TestPaceAfterReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, fast := newEndpoint(), newEndpoint()
		slow.interval = time.Minute
		f := newFleet(t, 2, -time.Minute, slow)
		now := f.reloadable(slow)
		if err := f.call(f.ids[0]); err != nil {
			t.Fatal(err)
		}
		now.Store(fast)
		start := time.Now()
		if err := f.call(f.ids[1]); err != nil || time.Since(start) > time.Second {
			t.Errorf("the first call after the reload took %s: %v", time.Since(start), err)
		}
	})
}

// reloadable returns where the fleet's endpoint can be put.
func (f *fleet) reloadable(first *endpoint) *atomic.Pointer[endpoint] {
	now := &atomic.Pointer[endpoint]{}
	now.Store(first)
	f.over(nil, func(string, map[string]string) (refresh.Provider, bool) { return now.Load(), true })
	return now
}

// A failure that asks for nothing doesn't shorten the pause that a Retry-After
// has asked for, and once others are served again, those that it was told wait
// until it is over.
func TestRetryAfterOutlastsOtherFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const asked, pause = 5 * time.Minute, time.Minute
		end := newEndpoint()
		end.interval = 0
		f := newFleet(t, 20, -time.Minute, end)
		u := &uneven{endpoint: end, longer: func(conn string) time.Duration {
			if conn == "3" || conn == "4" || conn == "5" {
				return 2 * time.Second
			}
			return 0
		}}
		f.over(nil, func(string, map[string]string) (refresh.Provider, bool) { return u, true })
		told := func(conn string) bool { return conn == "0" || conn == "1" || conn == "2" }
		end.set(func(tok tokenstore.Token) error {
			if told(number(tok)) {
				return &tokenstore.RefusalError{Status: 429, RetryAfter: asked}
			}
			return notSent(tok)
		})
		start := time.Now()
		for _, id := range f.ids[:6] {
			go func() { _ = f.call(id) }()
		}
		time.Sleep(3 * time.Second)
		end.set(nil)
		served := time.Duration(0)
		for time.Since(start) < asked-time.Second {
			for _, id := range f.ids {
				if f.call(id) == nil && served == 0 {
					served = time.Since(start)
				}
			}
			time.Sleep(time.Second)
		}
		if served < pause || served > pause+5*time.Second {
			t.Errorf("another connection was tried after %s, want a minute", served)
		}
		for _, conn := range []string{"rt-0", "rt-1", "rt-2"} {
			if n := end.sent[conn]; n != 1 {
				t.Errorf("%s was sent %d times before its Retry-After was over", conn, n)
			}
		}
		time.Sleep(5 * time.Second)
		for _, id := range f.ids {
			if err := f.call(id); err != nil {
				t.Errorf("after Retry-After: %v", err)
			}
		}
	})
}

// While the endpoint is down one request at a time finds out whether it still
// is, however long that, or the writing of its outcome, takes.
func TestOneTryAtATime(t *testing.T) {
	for _, tt := range []struct {
		name         string
		delay, write time.Duration
	}{
		{"slow endpoint", 10 * time.Second, 0},
		{"slow store", 20 * time.Millisecond, 100 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := newEndpoint()
				end.interval, end.delay = 0, tt.delay
				f := newFleet(t, 76, -time.Minute, end)
				f.over(&faultyStore{Store: f.store, write: tt.write}, nil)
				end.set(func(tokenstore.Token) error { return &tokenstore.RefusalError{Status: 429} })
				var wg sync.WaitGroup
				for _, id := range f.ids[:16] { // they end one after the other
					wg.Go(func() { _ = f.call(id) })
					time.Sleep(tt.delay / 16)
				}
				wg.Wait()
				end.mu.Lock()
				end.begun, end.most = nil, 0
				end.mu.Unlock()
				stop := keepDoing(970*time.Millisecond, func(id string) { _ = f.call(id) }, f.ids[16:]...)
				time.Sleep(5 * time.Minute)
				stop()
				if n := end.requests(); n < 5 || n > 20 || end.most > 1 {
					t.Errorf("%d requests in 5 minutes, %d at a time; want about 13, one at a time", n, end.most)
				}
			})
		})
	}
}

// Requests that have hung for long say nothing of an endpoint that has worked
// since they began.
func TestOldRequestsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 200, -time.Minute, end)
		end.set(func(tok tokenstore.Token) error {
			if len(number(tok)) == 1 {
				return unknown()
			}
			return nil
		})
		u := &uneven{endpoint: end, longer: func(conn string) time.Duration {
			if len(conn) == 1 {
				return 18 * time.Second
			}
			return 0
		}}
		f.over(nil, func(string, map[string]string) (refresh.Provider, bool) { return u, true })
		var wg sync.WaitGroup
		for _, id := range f.ids[:10] {
			wg.Go(func() { _ = f.call(id) })
		}
		for s := range 38 {
			time.Sleep(time.Second)
			for _, id := range f.ids[10+s*5 : 15+s*5] {
				if err := f.call(id); err != nil {
					t.Fatalf("second %d: a call of a connection that it works for: %v", s, err)
				}
			}
		}
		wg.Wait()
	})
}
