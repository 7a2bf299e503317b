package guard_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/guard"
)

// TestBucketsMakeRoom: 10,000 keys are remembered, those that came last.
func TestBucketsMakeRoom(t *testing.T) {
	b := guard.NewBuckets(time.Hour, 1)
	for n := range 10_001 {
		if b.Take(fmt.Sprint(n)) > 0 {
			t.Fatalf("key %d has to wait at first", n)
		}
		if n == 5000 {
			b.Take("0") // lately
		}
	}
	for key, waits := range map[string]bool{"0": true, "2": true, "10000": true} {
		if (b.Take(key) > 0) != waits {
			t.Errorf("Take(%q): waits %v, want %v", key, !waits, waits)
		}
	}
	if b.Take("1") > 0 {
		t.Error("the key that was heard of least lately is still remembered")
	}
}

func TestBucketsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := guard.NewBuckets(6*time.Second, 2)
		b.Take("k")
		b.Take("k")
		for range 100 { // trying on makes nobody wait longer
			if wait := b.Take("k"); wait != 6*time.Second {
				t.Fatalf("Take() = %v, want 6s", wait)
			}
		}
		time.Sleep(4 * time.Second)
		if wait := b.Take("k"); wait.Round(time.Millisecond) != 2*time.Second {
			t.Errorf("Take() = %v, want 2s", wait)
		}
		time.Sleep(2 * time.Second)
		if wait := b.Take("k"); wait != 0 {
			t.Errorf("Take() = %v, want that it took one", wait)
		}
	})
}
