package badgerstore_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// BenchmarkDurableWrites measures acknowledged writes of 3 KB records with the
// mark and without syncing that: the ratio is what the mark costs.
func BenchmarkDurableWrites(b *testing.B) {
	for _, writers := range []int{1, 256} {
		for _, mark := range []bool{true, false} {
			b.Run(fmt.Sprintf("writers=%d/mark=%t", writers, mark), func(b *testing.B) {
				s, err := badgerstore.Open(b.TempDir(), badgerstore.Config{Codec: newKeys(b)})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				if !mark {
					if err := s.MoveMark("/dev/shm/mark"); err != nil {
						b.Skip("there is no file system in memory: ", err)
					}
					defer os.Remove("/dev/shm/mark")
				}
				name := strings.Repeat("n", 3000)
				var wg sync.WaitGroup
				work := make(chan struct{})
				for range writers {
					c, err := s.CreateConnection(b.Context(), tokenstore.Connection{ID: tokenstore.NewID(), Name: name})
					if err != nil {
						b.Fatal(err)
					}
					wg.Go(func() {
						for range work {
							_, err := s.UpdateConnection(b.Context(), c.ID, func(*tokenstore.Connection) error { return nil })
							if err != nil {
								b.Error(err)
							}
						}
					})
				}
				for b.Loop() {
					work <- struct{}{}
				}
				close(work)
				wg.Wait()
			})
		}
	}
}
