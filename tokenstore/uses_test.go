package tokenstore_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestUsesAreFirstOncePerKey(t *testing.T) {
	var u tokenstore.Uses
	var first [3]atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range first {
				if u.First(fmt.Sprint("key ", i)) {
					first[i].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for i := range first {
		if n := first[i].Load(); n != 1 {
			t.Errorf("key %d was first %d times, want once", i, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { u.First("key 1") }); n != 0 {
		t.Errorf("First allocates %v times for a key that was seen", n)
	}
}
