package e2e_test

import (
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// eachServed calls all connections, 16 at a time, and passes on what went wrong:
// each has to be served with its own account's token.
func (w *world) eachServed(all []*member, failed func(*member, error)) {
	todo := make(chan *member)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for m := range todo {
				if err := w.served(m); err != nil {
					failed(m, err)
				}
			}
		})
	}
	for _, m := range all {
		todo <- m
	}
	close(todo)
	wg.Wait()
}

func (w *world) mustServeEach(all []*member) {
	w.t.Helper()
	w.eachServed(all, func(_ *member, err error) { w.t.Error(err) })
}

// settleRefreshes waits until no refresh has come for longer than Lanyard takes
// between two looks at what is due, and returns how many each grant had.
func (w *world) settleRefreshes() map[string]int {
	w.t.Helper()
	for {
		l := w.fake.Ledger().Refreshes()
		time.Sleep(2300 * time.Millisecond) // what is looked for is that nothing happens
		if now := w.fake.Ledger().Refreshes(); len(now) == len(l) {
			n := map[string]int{}
			for _, p := range now {
				n[p.Grant]++
			}
			return n
		}
	}
}

// F045: the wall clock jumps while connections live. Nobody is logged out,
// nothing is deleted, and each jump costs a connection one refresh at most.
// With it F033: after some jumps all tokens are at their end in one moment, at
// a provider that limits its requests. Lanyard's pace is 50 a second; on the way
// some catch up with those before them.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	w, all := newCrowd(t, 100)
	w.mustServeEach(all)
	w.fake.LimitTokenRequests(50)
	before := map[string]int{}
	for _, jump := range []string{
		"clock=1h",
		"clock=-1h",
		"clock=-490000h", // about 1970
		"clock=640000h",  // about 2100
		"clock=0",
		"restart", // with tokens that were issued in another time
	} {
		began := time.Now()
		if jump == "restart" {
			w.kill()
			w.start()
		} else {
			w.fail(jump)
		}
		w.mustServeEach(all)
		served := time.Since(began)
		after := w.settleRefreshes()
		most, sum := 0, 0
		for grant, n := range after {
			most, sum = max(most, n-before[grant]), sum+n-before[grant]
		}
		if most > 1 {
			t.Errorf("%s: a connection was refreshed %d times", jump, most)
		}
		before = after
		for _, m := range all {
			if c := w.connection(m.id); c.Status != "ACTIVE" || c.StatusReason != "" {
				t.Errorf("%s: %s is %+v", jump, m.account, c)
			}
		}
		t.Logf("%s: all served after %v, %d refreshes", jump, served.Round(time.Millisecond), sum)
	}
	l := w.fake.Ledger()
	if n := l.CallCount(401); n > 0 {
		t.Errorf("%d calls went out with a token that the API refused", n)
	}
	for _, p := range l.Refreshes() {
		if p.Outcome == fakeprovider.OutcomeLimited {
			t.Error("a request was over the provider's limit")
		}
	}
	w.nothingLost(all)
}

// F045: a clock that is put back makes no token look valid that is at its end.
func TestClockBackRevivesNothing(t *testing.T) {
	const life = 3 * time.Second // not beside others: a call may take no more than the last second of it
	w, all := newCrowd(t, 5, withLife(life))
	w.mustServeEach(all)
	// The first is too little to be told from two clocks that differ.
	for _, jump := range []string{"clock=-50s", "clock=-1h"} {
		w.fail(jump)
		for began := time.Now(); time.Since(began) < 2*life; {
			w.mustServeEach(all)
			time.Sleep(100 * time.Millisecond) // the calls are to be spread over the tokens' lives
		}
	}
	if n := w.fake.Ledger().CallCount(401); n > 0 {
		t.Errorf("%d calls went out with a token that had ended", n)
	}
	w.nothingLost(all)
}
