package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// F049: a herd at one expired connection, spread over three.
func TestSharedHerdRefreshesOnce(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	id := c.connect("u1")
	c.allServe(id)
	c.fake.ExpireAccessTokens()
	const calls = 1000
	answers, errs := crowd(id, calls, c.all[:]...)
	wantAll(t, calls, answers, errs)
	c.wantRefreshes(1)
	c.wantNoReuse()
	for _, w := range c.all {
		within(t, learned, "generation 2 is known", func() error { return w.generation(id, 2) })
	}
	c.wantSealed("u1", `"u1"`)
}

// F037 and F054: a token endpoint that is slower than a lease would be that is not
// renewed, while the database ends transactions that wait for five seconds.
func TestSharedSlowTokenEndpoint(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	if err := c.db.Set("idle_in_transaction_session_timeout", "5000"); err != nil { // milliseconds
		t.Fatal(err)
	}
	id := c.connect("u1")
	c.allServe(id)
	c.fake.ExpireAccessTokens()
	c.fake.Faults.Token(fakeprovider.Delay(17 * time.Second).OnRefresh())
	const calls = 60
	answers, errs := crowd(id, calls, c.all[:]...)
	wantAll(t, calls, answers, errs)
	c.wantRefreshes(1)
	c.wantNoReuse()
}

// holding has a refresh asked for by one of them, and returns once the provider
// has got as far as stage with it, which then waits for release.
func (c *trio) holding(w *world, id string, stage fakeprovider.Stage) (release func()) {
	c.t.Helper()
	there, gone := make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	c.fake.OnTokenRequest(func(at fakeprovider.Stage, _ string) {
		if at == stage {
			once.Do(func() {
				close(there)
				<-gone
			})
		}
	})
	release = func() { end.Do(func() { close(gone) }) }
	c.t.Cleanup(release)
	go func() { _, _ = w.patientCall(id) }() // its end is the fault's
	select {
	case <-there:
	case <-time.After(patience):
		c.t.Fatalf("no token request came as far as %q", stage)
	}
	return release
}

// F002, F003 on several: the holder of the lease dies in the middle of its
// request, and another takes over, once.
func TestSharedHolderIsKilled(t *testing.T) {
	for _, test := range []struct {
		name  string
		stage fakeprovider.Stage
		fault []fakeprovider.Fault
		grace time.Duration
		want  int // of the calls after it
		again int // how many refresh tokens are presented again
	}{
		{"before the provider took the token", fakeprovider.Received, []fakeprovider.Fault{fakeprovider.Dropped()}, 0, http.StatusOK, 0},
		{"after it took the token", fakeprovider.Committed, nil, 0, http.StatusFailedDependency, 1},
		{"after it took the token, with grace", fakeprovider.Committed, nil, time.Hour, http.StatusOK, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newTrio(t, withGrace(test.grace))
			id := c.connect("u1")
			c.allServe(id)
			c.fake.ExpireAccessTokens()
			c.fake.Faults.Token(test.fault...)
			release := c.holding(c.all[1], id, test.stage)
			c.all[1].kill()
			release()
			answers, errs := crowd(id, 20, c.all[0], c.all[2])
			if len(errs) > 0 {
				t.Errorf("%d calls were not answered: %v", len(errs), errs[0])
			}
			for _, a := range answers {
				if a.Status != test.want || a.Status != http.StatusOK && !strings.Contains(a.Body, "refresh_interrupted") {
					t.Errorf("HTTP %d, want %d, and why: %s", a.Status, test.want, a.Body)
				}
			}
			c.wantRefreshes(2)
			if again := c.fake.Ledger().Reused(); len(again) != test.again {
				t.Errorf("refresh tokens presented again: %v; want %d", again, test.again)
			}
			c.all[1].start()
			c.all[1].eventually("the one that is back sees the same", func() error { return c.all[1].wantCall(id, test.want) })
		})
	}
}

// F047: the holder stands still for longer than its lease, another takes over,
// and the first goes on.
func TestSharedHolderStandsStill(t *testing.T) {
	t.Parallel()
	c := newTrio(t, withGrace(time.Hour))
	id := c.connect("u1")
	c.allServe(id)
	c.fake.ExpireAccessTokens()
	release := c.holding(c.all[1], id, fakeprovider.Committed)
	thaw := c.all[1].freeze()
	release() // its answer waits for it in its socket
	answers, errs := crowd(id, 20, c.all[0], c.all[2])
	wantAll(t, 20, answers, errs)
	generation := c.connection(id).Generation
	thaw()
	for _, w := range c.all {
		w.eventually("all serve, with one token", func() error {
			if err := w.wantCall(id, http.StatusOK); err != nil {
				return err
			}
			if got := w.connection(id).Generation; got < generation {
				return fmt.Errorf("generation %d after %d", got, generation)
			}
			return nil
		})
	}
	if n := len(c.fake.Ledger().Reused()); n > 1 {
		t.Errorf("refresh tokens presented again: %v", c.fake.Ledger().Reused())
	}
	// What is stored is what the provider has: the next refresh works.
	if a := c.all[2].api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil); a.Status != http.StatusOK {
		t.Errorf("refresh: HTTP %d: %s", a.Status, a.Body)
	}
	c.allServe(id)
	if n := len(c.fake.Ledger().Reused()); n > 1 {
		t.Errorf("refresh tokens presented again: %v", c.fake.Ledger().Reused())
	}
}
