package refresh_test

import (
	"crypto/rand"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// However many processes want a token at the same time, it is asked for once, and
// however slow its endpoint is.
func TestOneRefreshOverProcesses(t *testing.T) {
	for _, delay := range []time.Duration{0, 300 * time.Millisecond, 15 * time.Second, 19 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, &authority{delay: delay})
				start := time.Now()
				var wg sync.WaitGroup
				for i := range 999 {
					wg.Go(func() {
						if at, err := c.nodes[i%3].call(t.Context(), c.id); at != "at-1" {
							t.Errorf("call at %d = %q, %v", i%3, at, err)
						}
					})
				}
				wg.Wait()
				if d := time.Since(start) - delay; d > 400*time.Millisecond {
					t.Errorf("calls waited %s longer than the endpoint took", d)
				}
				c.wantRequests(1)
				c.want("at-1")
			})
		})
	}
}

// While an endpoint that never answers is waited for, nobody else asks it, and
// what comes after that takes its time.
func TestEndpointThatNeverAnswersOverProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, &authority{delay: time.Hour})
		for _, n := range c.nodes {
			go func() { _, _ = n.keepCalling(t.Context(), c.id, 100*time.Second) }()
		}
		time.Sleep(20*time.Second + time.Millisecond)
		c.wantRequests(1)
		time.Sleep(2 * time.Minute)
		if n := len(c.end.requests()); n > 6 || c.end.most != 1 {
			t.Errorf("%d requests, %d at the same time", n, c.end.most)
		}
	})
}

// A process that has ended in the middle is followed by another when its lease
// has ended: the refresh token is sent once more, and no more.
func TestHolderIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, &authority{delay: 5 * time.Second, grace: true})
		go func() { _, _ = c.nodes[0].call(t.Context(), c.id) }()
		time.Sleep(time.Second)
		c.nodes[0].view.fail(true)
		var wg sync.WaitGroup
		for _, n := range c.nodes[1:] {
			wg.Go(func() {
				if at, err := n.keepCalling(t.Context(), c.id, time.Minute); at != "at-2" {
					t.Errorf("call = %q, %v", at, err)
				}
			})
		}
		wg.Wait()
		c.wantRequests(2)
		if got := c.end.requests(); got[1].Sub(got[0]) < 22*time.Second || got[1].Sub(got[0]) > 30*time.Second {
			t.Errorf("the other one was asked for after %s", got[1].Sub(got[0]))
		}
	})
}

// What another process got while its lease was waited for may have ended by then:
// it is renewed, once.
func TestTokenOfAnotherHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, &authority{})
		if err := c.store.TakeLease(t.Context(), "refresh/"+c.id, "another", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Second)
			_, err := c.store.UpdateConnection(t.Context(), c.id, func(cur *tokenstore.Connection) error {
				cur.Token.Generation++
				cur.Token.IssuedAt = cur.Token.IssuedAt.Add(time.Second)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}()
		if at, err := c.nodes[0].keepCalling(t.Context(), c.id, time.Minute); at != "at-1" {
			t.Errorf("call = %q, %v", at, err)
		}
		c.wantRequests(1)
	})
}

// Two processes whose clocks differ do not renew each other's tokens without end.
func TestClocksDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, &authority{})
		for range 100 { // what one does whose clock is an hour behind
			_, _ = c.nodes[0].call(t.Context(), c.id)
			_, err := c.store.UpdateConnection(t.Context(), c.id, func(cur *tokenstore.Connection) error {
				cur.Token.Generation++
				cur.Token.RefreshToken = secret.New(rand.Text())
				cur.Token.IssuedAt, cur.Token.ExpiresAt = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := len(c.end.requests()); n < 2 || n > 5 {
			t.Errorf("%d token requests in 100 seconds", n)
		}
	})
}

// Nor if one of them now and then finds a token that looks good, before it is told
// of it.
func TestClocksDifferUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, &authority{})
		put := func(left time.Duration) {
			_, err := c.store.UpdateConnection(t.Context(), c.id, func(cur *tokenstore.Connection) error {
				cur.Token.Generation++
				cur.Token.RefreshToken = secret.New(rand.Text())
				cur.Token.IssuedAt, cur.Token.ExpiresAt = time.Now().Add(left-tokenLife), time.Now().Add(left)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			put(-time.Hour)
			time.Sleep(time.Second)
			_, _ = c.nodes[0].call(t.Context(), c.id) // it is told, and renews it if it may
			put(-time.Hour)
			time.Sleep(time.Second)
			_, _ = c.nodes[0].call(t.Context(), c.id)
			put(time.Hour)
			if _, err := c.nodes[0].call(t.Context(), c.id); err != nil {
				t.Errorf("call = %v", err)
			}
		}
		if n := len(c.end.requests()); n < 1 || n > 2 {
			t.Errorf("%d token requests in 20 seconds", n)
		}
	})
}

// While the leases of others are waited for, connections that nobody holds are
// renewed: the waiting takes no place of the provider's pace.
func TestWaitingForLeasesTakesNoTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, &authority{})
		for range 8 { // more than the pace allows at the same time
			id := c.add(-time.Minute)
			if err := c.store.TakeLease(t.Context(), "refresh/"+id, "gone", 20*time.Second); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = c.nodes[0].call(t.Context(), id) }()
		}
		time.Sleep(time.Second)
		start := time.Now()
		if _, err := c.nodes[0].call(t.Context(), c.id); err != nil || time.Since(start) > time.Second {
			t.Errorf("call = %v after %s", err, time.Since(start))
		}
		time.Sleep(time.Minute)
	})
}

// The sweep and the keeper wait for nobody's lease, and don't ask again and again.
func TestSweepLeavesWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, &authority{delay: 15 * time.Second})
		id := c.add(2 * time.Minute)
		for _, n := range c.nodes {
			if _, err := n.Find(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
		for i := range 7 {
			for _, n := range c.nodes {
				if _, err := n.Find(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				n.RenewAhead()
				synctest.Wait()
			}
			if i == 0 { // a call joins one that would not wait, and is served
				g, err := c.nodes[1].Find(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					if g, err := c.nodes[1].Renew(t.Context(), g.ConnectionID, 1); err != nil || g.Token.Generation != 2 {
						t.Errorf("Renew() = %v, %v", g, err)
					}
				}()
				synctest.Wait()
			}
			c.nodes[1].Resolve(t.Context(), id)
			time.Sleep(2 * time.Second)
		}
		time.Sleep(10 * time.Second)
		c.wantRequests(1)
	})
}

// Nor do they look at what is held more than once in a while.
func TestSweepRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, &authority{})
		id := c.add(2 * time.Minute)
		if err := c.store.TakeLease(t.Context(), "refresh/"+id, "another", time.Minute); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := c.nodes[0].Find(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			c.nodes[0].RenewAhead()
			synctest.Wait()
		}
		if n := c.nodes[0].view.leases; n < 2 || n > 5 {
			t.Errorf("the lease was asked for %d times in 20 seconds", n)
		}
	})
}

// One that stood still between its intent and its request does not make it.
func TestStoppedBeforeTheRequest(t *testing.T) {
	for _, test := range []struct {
		name string
		stop time.Duration
	}{{"longer than its lease", 90 * time.Second}, {"longer than it may", 12 * time.Second}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 2, &authority{})
				first := c.nodes[0].view
				first.after = func(nth int) {
					if nth == 1 {
						first.stop()
						time.AfterFunc(test.stop, first.goOn)
					}
				}
				var wg sync.WaitGroup
				wg.Go(func() { _, _ = c.nodes[0].call(t.Context(), c.id) })
				time.Sleep(time.Second)
				wg.Go(func() {
					if at, err := c.nodes[1].keepCalling(t.Context(), c.id, time.Minute); at != "at-1" {
						t.Errorf("call at the other = %q, %v", at, err)
					}
				})
				wg.Wait()
				time.Sleep(time.Minute)
				c.wantRequests(1)
				c.want("at-1")
				if c.end.least < 10*time.Second {
					t.Errorf("a request had %s left", c.end.least)
				}
			})
		})
	}
}

// Where leases are good for nothing, the intent still lets one of many ask.
func TestIntentIsTheFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, &authority{delay: 2 * time.Second})
		var wg sync.WaitGroup
		for _, n := range c.nodes {
			n.view.lawless, n.view.slow = true, 100*time.Millisecond
			wg.Go(func() {
				if at, err := n.call(t.Context(), c.id); at != "at-1" {
					t.Errorf("call = %q, %v", at, err)
				}
			})
		}
		wg.Wait()
		c.wantRequests(1)
	})
}

// One that stood still with an answer in hand, while another took over.
func TestStoppedWithTheAnswerInHand(t *testing.T) {
	for _, test := range []struct {
		name  string
		end   *authority
		until func(c *cluster) // the first goes on
		token string
	}{
		{"the newer is kept, the older refused", &authority{delay: time.Second, grace: true}, late, "at-2"},
		{"a late success passes over a failure", &authority{delay: time.Second, answer: second(503)}, afterSecond(3500 * time.Millisecond), "at-1"},
		{"a late success passes over a refusal", &authority{delay: time.Second}, late, "at-1"},
		{"a late success passes over a refusal of just now", &authority{delay: time.Second}, afterSecond(1300 * time.Millisecond), "at-1"},
		{"a success while the other one asks, who is refused", &authority{delay: 3 * time.Second}, afterSecond(time.Second), "at-1"},
		{"a success while the other one asks, whose is newer", &authority{delay: 3 * time.Second, grace: true}, afterSecond(time.Second), "at-2"},
		{"an older success overwrites no newer of just now", &authority{delay: time.Second, grace: true}, afterSecond(1500 * time.Millisecond), "at-2"},
		{"a late failure overwrites no success", &authority{delay: time.Second, answer: first(503)}, late, "at-2"},
		{"a late silence overwrites no success of just now", &authority{delay: time.Second, answer: first(silent)}, afterSecond(1500 * time.Millisecond), "at-2"},
		{"a late refusal overwrites no success", &authority{delay: time.Second, answer: first(400)}, late, "at-2"},
		{"a late refusal overwrites no success under way", &authority{delay: 3 * time.Second, answer: first(400)}, afterSecond(time.Second), "at-2"},
		{"a late refusal overwrites no success of just now", &authority{delay: time.Second, answer: first(400)}, afterSecond(1500 * time.Millisecond), "at-2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 2, test.end)
				// Each write of the second takes its time, so that the first may come in between.
				c.nodes[1].view.after = func(int) { time.Sleep(time.Second) }
				go func() { _, _ = c.nodes[0].keepCalling(t.Context(), c.id, 3*time.Minute) }()
				time.Sleep(test.end.delay / 2)
				c.nodes[0].view.stop()
				go func() { _, _ = c.nodes[1].keepCalling(t.Context(), c.id, time.Minute) }()
				test.until(c)
				c.nodes[0].view.goOn()
				time.Sleep(time.Minute)
				c.want(test.token)
				c.wantRequests(2)
				for i, n := range c.nodes {
					if at, err := n.call(t.Context(), c.id); at != test.token {
						t.Errorf("call at %d = %q, %v; want %s", i, at, err, test.token)
					}
				}
			})
		})
	}
}

func late(*cluster) { time.Sleep(90 * time.Second) }

// afterSecond waits until d after the second request.
func afterSecond(d time.Duration) func(*cluster) {
	return func(c *cluster) {
		for len(c.end.requests()) < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(d)
	}
}

func first(status int) func(int) int { return nth(1, status) }

func second(status int) func(int) int { return nth(2, status) }

func nth(n, status int) func(int) int {
	return func(got int) int {
		if got == n {
			return status
		}
		return 0
	}
}

// F039: a connection is not declared dead while the one that redeemed its refresh token
// is about to store what it got.
func TestRefusedSinceAnotherWasFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, &authority{delay: time.Second})
		go func() { _, _ = c.nodes[0].call(t.Context(), c.id) }()
		time.Sleep(500 * time.Millisecond)
		c.nodes[0].view.stop()
		done := make(chan error, 1)
		go func() {
			_, err := c.nodes[1].call(t.Context(), c.id)
			done <- err
		}()
		afterSecond(1300 * time.Millisecond)(c)
		c.nodes[0].view.goOn()
		if err := <-done; err != nil {
			t.Errorf("call at the one that was refused: %v", err)
		}
		page, _, err := c.store.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 100)
		for _, e := range page {
			if e.Type == tokenstore.EventExpired {
				t.Errorf("it was declared dead: %+v", e)
			}
		}
		if err != nil {
			t.Error(err)
		}
		c.want("at-1")
	})
}

// A minute without the store stops no valid token, and the answer that came in
// that time is written afterwards, whoever wants a token first.
func TestStoreOutForAMinuteOverProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, &authority{delay: time.Second})
		valid := c.add(50 * time.Minute)
		for _, n := range c.nodes {
			if _, err := n.call(t.Context(), valid); err != nil {
				t.Fatal(err)
			}
		}
		go func() { _, _ = c.nodes[0].call(t.Context(), c.id) }()
		time.Sleep(500 * time.Millisecond)
		for _, n := range c.nodes {
			n.view.fail(true)
		}
		var wg sync.WaitGroup
		for _, n := range c.nodes {
			wg.Go(func() {
				if at, err := n.keepCalling(t.Context(), c.id, 2*time.Minute); at != "at-1" {
					t.Errorf("call in the end = %q, %v", at, err)
				}
			})
		}
		for range 60 {
			for _, n := range c.nodes {
				if at, err := n.call(t.Context(), valid); at != "at-0" {
					t.Fatalf("call with a valid token = %q, %v", at, err)
				}
			}
			time.Sleep(time.Second)
		}
		for _, n := range c.nodes[1:] {
			n.view.fail(false)
		}
		time.Sleep(700 * time.Millisecond) // the one with the answer comes last
		c.nodes[0].view.fail(false)
		wg.Wait()
		c.wantRequests(1)
		c.want("at-1")
	})
}

// An outcome that nobody saw is kept in mind by all, also where it could not be
// noted at first: the refresh token is not sent again while the access token serves.
func TestUnknownOutcomeOverProcesses(t *testing.T) {
	for name, status := range map[string]int{"unreadable": 503, "no answer": silent} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 2, &authority{delay: 20*time.Second - time.Millisecond, answer: first(status)})
				id := c.add(4 * time.Minute)
				renew := func() {
					for _, n := range c.nodes {
						if at, err := n.call(t.Context(), id); at != "at-0" {
							t.Errorf("call = %q, %v", at, err)
						}
					}
				}
				if _, err := c.nodes[0].call(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				time.Sleep(19 * time.Second)
				c.nodes[0].view.fail(true)
				time.Sleep(2 * time.Second)
				c.nodes[0].view.fail(false)
				for range 200 {
					time.Sleep(time.Second)
					renew()
				}
				c.wantRequests(1)
			})
		})
	}
}
