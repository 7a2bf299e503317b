package refresh_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Nobody who waits for a token is turned away since many wait, nor since a
// sweep has begun the renewals first: after the machine has slept, say.
func TestManyCallersAfterASleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 800, tokenLife, end)
		f.over(&faultyStore{Store: f.store, read: 2 * time.Millisecond}, nil)
		f.use(t, f.ids...)
		time.Sleep(2 * tokenLife)
		var wg sync.WaitGroup
		wg.Go(f.RenewAhead)
		for _, id := range f.ids {
			wg.Go(func() {
				if err := f.call(id); err != nil {
					t.Errorf("call: %v", err)
				}
			})
		}
		wg.Wait()
		if n := end.requests(); n != len(f.ids) {
			t.Errorf("%d requests for %d connections", n, len(f.ids))
		}
	})
}

// use calls connections whose tokens are good.
func (f *fleet) use(t *testing.T, ids ...string) {
	t.Helper()
	time.Sleep(time.Second)
	for _, id := range ids {
		if err := f.call(id); err != nil {
			t.Fatal(err)
		}
	}
}

// Who comes first is served first, though a sweep had begun that renewal when
// nobody waited for it yet.
func TestCallersAreServedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.concurrency, end.interval = 1, time.Second
		f := newFleet(t, 200, -time.Minute, end)
		first, then := f.ids[:50], f.ids[50:]
		time.Sleep(time.Second)
		for _, id := range first {
			if _, err := f.Find(t.Context(), id); err != nil { // in use
				t.Fatal(err)
			}
		}
		f.RenewAhead()
		time.Sleep(time.Second)
		start := time.Now()
		var wg, early sync.WaitGroup
		for _, id := range first {
			early.Go(func() {
				if err := f.call(id); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(5 * time.Second)
		for _, id := range then {
			wg.Go(func() { _ = f.call(id) })
		}
		early.Wait()
		if d := time.Since(start); d > 75*time.Second { // every fourth turn is for those that nobody waits for
			t.Errorf("the last of 50 callers that came first was served after %s, at one a second", d)
		}
		wg.Wait()
	})
}

// A call inside the hard margin is served by what is left of its token, if the
// queue is longer than that.
func TestHardMarginWithALongQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.interval = time.Second
		f := newFleet(t, 61, -time.Minute, end)
		last := f.ids[60]
		_, err := f.store.UpdateConnection(t.Context(), last, func(c *tokenstore.Connection) error {
			c.Token.ExpiresAt = time.Now().Add(9 * time.Second)
			c.Token.IssuedAt = c.Token.ExpiresAt.Add(-tokenLife)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, id := range f.ids[:60] {
			wg.Go(func() { _ = f.call(id) })
		}
		time.Sleep(time.Second)
		start := time.Now()
		if err := f.call(last); err != nil || time.Since(start) > 4*time.Second {
			t.Errorf("a call with a token that is good for eight seconds took %s: %v", time.Since(start), err)
		}
		wg.Wait()
	})
}

// A renewal that is put off since the queue is full makes nobody forget how
// often that connection has failed.
func TestFullQueueForgetsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.concurrency, end.interval = 1, 200*time.Millisecond
		f := newFleet(t, 600, 4*time.Minute, end)
		end.set(notSentOf(1))
		bad := f.ids[0]
		for range 50 {
			_ = f.call(bad)
			time.Sleep(time.Second)
		}
		callOthers := func() {
			for _, id := range f.ids[1:] {
				if err := f.call(id); err != nil {
					t.Fatal(err)
				}
			}
		}
		callOthers()
		time.Sleep(55 * time.Second) // its back-off is over
		callOthers()
		for range 40 {
			_ = f.call(bad) // put off
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		before := end.count("rt-0")
		for range 30 {
			_ = f.call(bad)
			time.Sleep(time.Second)
		}
		if n := end.count("rt-0") - before; n != 1 {
			t.Errorf("%d requests in half a minute for a connection that always fails, want 1", n)
		}
	})
}

func (e *endpoint) count(refreshToken string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sent[refreshToken]
}

// Close turns those away at once who wait for their turn, and tells them that
// they may come again.
func TestCloseWithALongQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		f := newFleet(t, 2000, -time.Minute, end)
		var wg sync.WaitGroup
		for _, id := range f.ids {
			wg.Go(func() {
				if err := f.call(id); err != nil && !isUnavailable(err) {
					t.Errorf("call: %v, want an *UnavailableError", err)
				}
			})
		}
		time.Sleep(5 * time.Second)
		start := time.Now()
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if d := time.Since(start); d > time.Second {
			t.Errorf("Close, and those who waited, took %s", d)
		}
	})
}

// Close keeps to its caller's patience, though the endpoint is slow and the
// store can't write.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.delay = 10 * time.Second
		f := newFleet(t, 100, -time.Minute, end)
		var wg sync.WaitGroup
		for _, id := range f.ids {
			wg.Go(func() { _ = f.call(id) })
		}
		time.Sleep(5 * time.Second)
		f.store.FailWrites(tokenstore.ErrFull)
		time.AfterFunc(time.Minute, func() { f.store.FailWrites(nil) })
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		if err := f.Close(ctx); err == nil {
			t.Error("Close() = nil with answers that are not stored")
		}
		wg.Wait()
		if d := time.Since(start); d > 13*time.Second {
			t.Errorf("Close took %s, want 12 seconds", d)
		}
	})
}
