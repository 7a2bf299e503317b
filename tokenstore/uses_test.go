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

func TestForgottenUseIsFirstAgain(t *testing.T) {
	var u tokenstore.Uses
	u.Forget("a") // nothing there
	for _, key := range []string{"a", "b"} {
		if !u.First(key) {
			t.Errorf("%s was not first", key)
		}
	}
	u.Forget("a")
	if !u.First("a") || u.First("a") || u.First("b") {
		t.Error("forgotten is another use than the one")
	}
}
