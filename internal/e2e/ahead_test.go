package e2e_test

import (
	"testing"
	"time"
)

// A connection in use is refreshed before its token ends, though nobody calls
// just then: the next call finds a valid one. One that is not in use is not.
func TestRenewedAhead(t *testing.T) {
	t.Parallel()
	const life = 20 * time.Second // the sweep comes every two seconds, in the last six
	w := newWorld(t, withLife(life))
	used, idle := w.connect("used"), w.connect("idle")
	connected := time.Now()
	if a := w.call(used, "/me"); a.Status != 200 {
		t.Fatalf("call: HTTP %d: %s", a.Status, a.Body)
	}
	w.eventually("the connection in use is refreshed", func() error {
		return w.generation(used, 2)
	})
	if early := time.Since(connected); early > life-time.Second || early < life/2 {
		t.Errorf("a token that lives %v was refreshed after %v", life, early)
	}
	time.Sleep(time.Until(connected.Add(life))) // until the other's has ended
	if err := w.generation(idle, 1); err != nil {
		t.Errorf("nobody used it: %v", err)
	}
	if n := len(w.fake.Ledger().Refreshes()); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}
