package badgerstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestNoChangeIsLost: many change the same few records at once. Each change was
// worked out on the record as those before have left it, whichever of them were
// being committed when it was read.
func TestNoChangeIsLost(t *testing.T) {
	const records, writers, times = 4, 32, 20
	s := open(t, t.TempDir(), newKeys(t))
	ids := make([]string, records)
	for i := range ids {
		ids[i] = create(t, s, tokenstore.Connection{ID: tokenstore.NewID()}).ID
	}
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := range times {
				_, err := s.UpdateConnection(t.Context(), ids[(i+n)%records], func(c *tokenstore.Connection) error {
					c.Token.Generation++
					return nil
				})
				if err != nil {
					t.Errorf("UpdateConnection = %v", err)
				}
			}
		})
	}
	wg.Wait()
	const each = writers * times / records
	for _, id := range ids {
		if c, err := s.Connection(t.Context(), id); err != nil || c.Token.Generation != each || c.Revision != each+1 {
			t.Errorf("Connection has %d changes, revision %d, %v; want %d, %d", c.Token.Generation, c.Revision, err, each, each+1)
		}
	}
}

// TestWorkedOutOnWhatIsGone: a change is worked out on what a failed write has
// left in memory while the store is being reopened. It is worked out again on what
// is on the disk, where that write is not.
func TestWorkedOutOnWhatIsGone(t *testing.T) {
	dir, f := t.TempDir(), &faults{}
	var s *badgerstore.Store
	var c tokenstore.Connection
	var logs map[string][]byte // as they were before the write that fails
	var wg sync.WaitGroup
	var saw []string // by the change, in its runs
	change := func(begun chan<- struct{}) {
		got, err := s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
			if saw = append(saw, c.Name); len(saw) == 1 {
				close(begun)
				for s.DeleteNote(t.Context(), "none") != nil { // until the store is reopened
					runtime.Gosched()
				}
			}
			c.Name += "+"
			return nil
		})
		if err != nil || got.Name != "+" || got.Revision != 2 {
			t.Errorf("UpdateConnection = %q, revision %d, %v; want %q, 2", got.Name, got.Revision, err, "+")
		}
	}
	s = openHooked(t, dir, newKeys(t), func(place string) error {
		switch {
		case logs == nil: // the first opening
		case place == "store.reopen":
			for path, text := range logs {
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Error(err)
				}
			}
		case place == "store.open": // all is in force but Badger
			begun := make(chan struct{})
			wg.Go(func() { change(begun) })
			<-begun
		}
		return f.hit(place)
	})
	c = create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	logs = readLogs(t, dir)
	f.set("store.mark", 1)
	_, err := s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error { c.Name = "gone"; return nil })
	if !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Fatalf("UpdateConnection = %v, want ErrUnavailable", err)
	}
	eventually(t, "the store is reopened", func() bool { return s.DeleteNote(t.Context(), "none") == nil })
	wg.Wait()
	if !slices.Equal(saw, []string{"gone", ""}) {
		t.Errorf("it saw %q, want first what was gone then", saw)
	}
}

// readLogs reads Badger's logs.
func readLogs(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(badgerstore.Files(dir), "*.mem"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no logs: %v", err)
	}
	logs := map[string][]byte{}
	for _, path := range paths {
		if logs[path], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return logs
}
