package badgerstore_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestCountedInParts: what a store of several tables counts in parts is all of
// it, and a connection that is missing in any of them is missed.
func TestCountedInParts(t *testing.T) {
	t.Parallel()
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	name := strings.Repeat("n", 4000)
	ids := make([]string, 4000) // 16 MB: two logs become tables
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			for i := n; i < len(ids); i += 100 {
				c, err := s.CreateConnection(t.Context(), tokenstore.Connection{ID: tokenstore.NewID(), Name: name})
				if err != nil {
					t.Error(err)
				}
				ids[i] = c.ID
			}
		})
	}
	wg.Wait()
	shut(t, s)
	if n, err := badgerstore.Parts(dir); err != nil || n < 3 {
		t.Fatalf("the store has %d parts, %v; the test tests nothing", n, err)
	}
	for i := 0; i < len(ids); i += len(ids) / 3 {
		without := t.TempDir()
		if err := os.CopyFS(without, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := badgerstore.Check(without, keys); err != nil {
			t.Fatalf("with all connections Check = %v", err)
		}
		s := open(t, without, keys)
		tamper(t, s, func(txn *badger.Txn) error { return txn.Delete([]byte("c/" + ids[i])) })
		shut(t, s)
		err := badgerstore.Check(without, keys)
		if !errors.Is(err, badgerstore.ErrIncomplete) || !strings.Contains(err.Error(), "there should be 4000 connections and 0 deleted IDs, and 3999") {
			t.Fatalf("without connection %d Check = %v", i, err)
		}
	}
}
