package badgerstore_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// TestReadsWhileClosing reads while Badger lets go of its files: a request that
// outlives Caddy's grace period does.
func TestReadsWhileClosing(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	var ids []string
	fill := func() {
		for range 20 {
			ids = append(ids, create(t, s, tokenstore.Connection{ID: tokenstore.NewID()}).ID)
		}
	}
	fill()
	shut(t, s) // what is there is in a table now
	s = open(t, dir, keys)
	fill()

	reads := []func(n int) error{
		func(n int) error { _, err := s.Connection(context.Background(), ids[n%len(ids)]); return err },
		func(int) error {
			_, _, err := s.ListConnections(context.Background(), tokenstore.Filter{}, "", 100)
			return err
		},
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				if err := reads[i%2](n); err != nil {
					if !errors.Is(err, tokenstore.ErrUnavailable) {
						t.Errorf("a read while closing = %v, want ErrUnavailable", err)
					}
					return
				}
				done.Add(1)
			}
		})
	}
	for done.Load() < 100 { // they are at it
		runtime.Gosched()
	}
	shut(t, s)
	wg.Wait()
}
