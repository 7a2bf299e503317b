package refresh_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// made is a provider of connections with parameters: another one each time it
// is asked for, of one origin.
type made struct {
	refresh.Provider
	origin any
}

func (m *made) Origin() any { return m.origin }

// makes returns a Config's Provider that makes them.
func makes(p refresh.Provider) func(string, map[string]string) (refresh.Provider, bool) {
	return func(string, map[string]string) (refresh.Provider, bool) { return &made{p, p}, true }
}

// A connection's back-off, and a Retry-After, hold with parameters, too.
func TestBackOffWithParams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.Refresher = refresh.New(refresh.Config{Store: r.store, Logger: zap.NewNop(), Provider: makes(r.prov)})
		defer r.Close(t.Context())
		r.prov.script = []step{{parse: &tokenstore.RefusalError{Status: 429, Code: "slow_down", RetryAfter: time.Minute}}}
		time.Sleep(tokenLife)
		for range 20 {
			if _, err := r.token(t.Context()); err == nil {
				t.Fatal("a token came")
			}
		}
		r.wantCalls("rt-0")
		time.Sleep(time.Minute)
		r.wantToken("at-new-2")
	})
}

// An integration has one pace and one circuit breaker, whatever the parameters
// of its connections.
func TestPaceWithParams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint() // 50 a second
		f := newFleet(t, 200, -time.Minute, end)
		f.over(nil, makes(end))
		var wg sync.WaitGroup
		for _, id := range f.ids {
			wg.Go(func() { _ = f.call(id) })
		}
		wg.Wait()
		if n := end.requests(); n != len(f.ids) {
			t.Errorf("%d requests, want one for each of %d connections", n, len(f.ids))
		}
		for i := 50; i < len(end.begun); i++ {
			if d := end.begun[i].Sub(end.begun[i-50]); d < time.Second {
				t.Fatalf("51 requests within %v", d)
			}
		}
		end.set(notSent)
		time.Sleep(2 * tokenLife)
		before := end.requests()
		for range 10 {
			for _, id := range f.ids {
				_ = f.call(id)
			}
			time.Sleep(2 * time.Second)
		}
		if n := end.requests() - before; n > 40 {
			t.Errorf("%d requests in 20 s to an endpoint that is out", n)
		}
	})
}
