package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/internal/pgtest"
)

// F050: the database crashes after the provider has answered.
func TestSharedDatabaseRestartsInARefresh(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	for round := range 2 {
		id := c.connect(fmt.Sprintf("u%d", round))
		c.allServe(id)
		c.fake.ExpireAccessTokens()
		release := c.holding(c.all[1], id, fakeprovider.Committed)
		if err := c.db.Stop(pgtest.Immediate); err != nil {
			t.Fatal(err)
		}
		release()
		if err := c.db.Start(); err != nil {
			t.Fatal(err)
		}
		c.allServe(id)
		for _, w := range c.all {
			w.eventually("the new generation is known", func() error { return w.generation(id, 2) })
		}
		c.wantRefreshes(round + 1)
	}
	c.wantNoReuse()
}

// F050: valid tokens are served while the database stands still.
func TestSharedDatabaseStandsStill(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	ids := []string{c.connect("u1"), c.connect("u2")}
	for _, id := range ids {
		c.allKnow(id)
	}
	if err := c.db.Pause(); err != nil {
		t.Fatal(err)
	}
	calls := 0
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(50 * time.Millisecond) {
		for i, w := range c.all {
			sent := time.Now()
			if err := w.wantCall(ids[(calls+i)%2], http.StatusOK); err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
			if d := time.Since(sent); d > 2*time.Second {
				t.Errorf("a call took %v after %v", d, time.Since(began))
			}
			calls++
		}
	}
	c.db.Resume()
	for _, w := range c.all {
		w.eventually("it is ready again", func() error { return w.wantReady(http.StatusOK) })
	}
	c.fake.ExpireAccessTokens()
	c.allServe(ids[0])
	c.wantRefreshes(1)
}

// A078: what is deleted, disabled or revoked at one of them is refused by all
// within a second.
func TestSharedEndsHoldEverywhere(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	for _, test := range []struct {
		name string
		do   func(id string) answer
		want int
	}{
		{"deleted", func(id string) answer {
			return c.all[1].api(http.MethodDelete, "/v1/connections/"+id, nil, nil)
		}, http.StatusNotFound},
		{"disabled", func(id string) answer {
			return c.all[2].api(http.MethodPatch, "/v1/connections/"+id, map[string]any{"disabled": true}, nil)
		}, http.StatusConflict},
		{"revoked", func(id string) answer {
			return c.all[0].api(http.MethodPost, "/v1/connections/"+id+"/revoke", nil, nil)
		}, http.StatusFailedDependency},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := c.connect("user of " + test.name)
			c.allServe(id)
			stop := make(chan struct{})
			var all sync.WaitGroup
			var mu sync.Mutex
			var lastServed time.Time // of calls begun then
			for _, w := range c.all {
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(10 * time.Millisecond):
						}
						began := time.Now()
						if a, err := w.patientCall(id); err == nil && a.Status == http.StatusOK {
							mu.Lock()
							if began.After(lastServed) {
								lastServed = began
							}
							mu.Unlock()
						}
					}
				})
			}
			if a := test.do(id); a.Status >= 300 {
				t.Fatalf("HTTP %d: %s", a.Status, a.Body)
			}
			done := time.Now()
			for _, w := range c.all {
				within(t, learned, "it is refused", func() error {
					a, err := w.patientCall(id)
					if err == nil && a.Status != test.want {
						err = fmt.Errorf("HTTP %d, want %d: %s", a.Status, test.want, a.Body)
					}
					return err
				})
			}
			within(t, learned, "a second passes", func() error {
				if time.Since(done) < learned {
					return errors.New("not yet")
				}
				return nil
			})
			close(stop)
			all.Wait()
			if d := lastServed.Sub(done); d > learned {
				t.Errorf("a call that was begun %v after the answer was served", d)
			}
		})
	}
}
