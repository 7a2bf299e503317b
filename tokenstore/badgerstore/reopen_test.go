package badgerstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// faults fails failpoints.
type faults struct {
	mu   sync.Mutex
	left map[string]int // guarded by mu :: place → how often it fails, -1 for always
	hits map[string]int // guarded by mu
}

func (f *faults) set(place string, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == nil {
		f.left, f.hits = map[string]int{}, map[string]int{}
	}
	f.left[place] = times
}

func (f *faults) hit(place string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left[place] == 0 {
		return nil
	}
	f.left[place]--
	f.hits[place]++
	return fmt.Errorf("%s: %w", place, syscall.EIO)
}

func (f *faults) count(place string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits[place]
}

func openHooked(t *testing.T, dir string, keys tokenstore.Codec, hit func(string) error) *badgerstore.Store {
	t.Helper()
	s, err := badgerstore.OpenHooked(dir, badgerstore.Config{Codec: keys}, hit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.CloseAbandoned()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return s
}

// The tests of failed writes stand for F019: an error of the disk at a write or
// a sync. A write that failed is not acknowledged, nor is any other until the
// store was opened again.

// TestFailedWrite: everybody in the batch learns of it, even those who wrote
// nothing, since what they saw may be gone.
func TestFailedWrite(t *testing.T) {
	for _, place := range []string{"store.commit", "store.sync", "store.mark"} {
		t.Run(place, func(t *testing.T) {
			dir, keys, f := t.TempDir(), newKeys(t), &faults{}
			s := openHooked(t, dir, keys, f.hit)
			c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
			before := badgerstore.Files(dir)
			f.set(place, 1)
			f.set("store.reopen", -1)
			release := hold(t, s)
			var wg sync.WaitGroup
			for _, change := range []func(*tokenstore.Connection) error{
				func(c *tokenstore.Connection) error { c.Name = "x"; return nil },
				func(*tokenstore.Connection) error { return tokenstore.ErrUnchanged },
				func(*tokenstore.Connection) error { return errors.New("refused") },
			} {
				wg.Go(func() {
					_, err := s.UpdateConnection(t.Context(), c.ID, change)
					if !errors.Is(err, tokenstore.ErrUnavailable) || !errors.Is(err, syscall.EIO) {
						t.Errorf("UpdateConnection in a failed batch = %v, want ErrUnavailable for EIO", err)
					}
				})
			}
			release()
			wg.Wait()
			// The disk is well again, but nobody has looked at what is on it.
			start := time.Now()
			if _, err := s.DeleteConnection(t.Context(), c.ID); !errors.Is(err, tokenstore.ErrUnavailable) {
				t.Errorf("DeleteConnection before the store was reopened = %v, want ErrUnavailable", err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %v to say so", took)
			}
			if got, err := s.Connection(t.Context(), c.ID); err != nil || got.ID != c.ID {
				t.Errorf("Connection = %v; reads go on", err)
			}
			eventually(t, "it tries to reopen", func() bool { return f.count("store.reopen") > 0 })
			f.set("store.reopen", 0)
			eventually(t, "writes are taken again", func() bool {
				_, err := s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error { c.Name = "y"; return nil })
				return err == nil
			})
			if after := badgerstore.Files(dir); after == before {
				t.Errorf("the store was not opened again: it is still in %s", after)
			}
			shut(t, s)
			s = open(t, dir, keys)
			if got, err := s.Connection(t.Context(), c.ID); err != nil || got.Name != "y" {
				t.Errorf("Connection = %q, %v; want what was acknowledged", got.Name, err)
			}
		})
	}
}

// TestBrokenDisk: nothing is acknowledged while the fault lasts, and Close
// leaves the files as a kill would.
func TestBrokenDisk(t *testing.T) {
	for _, place := range []string{"store.commit", "store.sync", "store.mark"} {
		t.Run(place, func(t *testing.T) {
			dir, keys, f := t.TempDir(), newKeys(t), &faults{}
			s := openHooked(t, dir, keys, f.hit)
			c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), Name: "acknowledged"})
			f.set(place, -1)
			write := func() {
				t.Helper()
				_, err := s.CreateConnection(t.Context(), tokenstore.Connection{ID: tokenstore.NewID()})
				if !errors.Is(err, tokenstore.ErrUnavailable) {
					t.Errorf("CreateConnection = %v, want ErrUnavailable", err)
				}
			}
			write()
			eventually(t, "it has failed after a reopening too", func() bool { write(); return f.count(place) > 1 })
			f.set("store.reopen", -1)
			eventually(t, "it can't be reopened", func() bool { write(); return f.count("store.reopen") > 0 })
			shut(t, s)
			if files := badgerstore.Files(dir); !strings.HasSuffix(files, "-left") {
				t.Errorf("Close has closed a Badger whose write had failed: its files are still in %s", files)
			}
			s = open(t, dir, keys)
			if got, err := s.Connection(t.Context(), c.ID); err != nil || got.Name != "acknowledged" || got.Revision != 1 {
				t.Errorf("Connection = %q, revision %d, %v", got.Name, got.Revision, err)
			}
		})
	}
}

// TestFaultsUnderLoad fails one place in forty while others read and write, and
// merges go on. What was acknowledged is there, while the store is open and after.
func TestFaultsUnderLoad(t *testing.T) {
	dir, keys := fastDir(t), newKeys(t)
	var mu sync.Mutex
	var failing atomic.Bool
	places, failed := 0, 0 // guarded by mu
	s := openHooked(t, dir, keys, func(place string) error {
		mu.Lock()
		defer mu.Unlock()
		if place == "store.reopen" || !failing.Load() {
			return nil
		}
		if places++; places%40 != 0 {
			return nil
		}
		failed++
		return syscall.EIO
	})
	var ids []string
	for range 8 {
		ids = append(ids, create(t, s, tokenstore.Connection{ID: tokenstore.NewID()}).ID)
	}
	failing.Store(true)
	body := string(make([]byte, 20_000)) // so that memtables fill and tables are merged
	var wg sync.WaitGroup
	acknowledged := make([]uint64, len(ids)) // revisions
	var enough atomic.Bool
	for i, id := range ids {
		wg.Go(func() {
			for !enough.Load() {
				c, err := s.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error { c.Name = body; return nil })
				if err == nil {
					acknowledged[i] = c.Revision
				} else {
					time.Sleep(time.Millisecond)
				}
				if got, err := s.Connection(t.Context(), id); err != nil || got.Revision < acknowledged[i] {
					t.Errorf("Connection = revision %d, %v; %d was acknowledged", got.Revision, err, acknowledged[i])
				}
			}
		})
	}
	t.Cleanup(func() { // also where the test ends early
		enough.Store(true)
		wg.Wait()
	})
	eventually(t, "several writes have failed", func() bool { mu.Lock(); defer mu.Unlock(); return failed >= 3 })
	failing.Store(false)
	eventually(t, "a Badger that failed is closed", func() bool { return s.Abandoned() == 0 })
	enough.Store(true)
	wg.Wait()
	shut(t, s)
	s = open(t, dir, keys)
	for i, id := range ids {
		if c, err := s.Connection(t.Context(), id); err != nil || c.Revision < acknowledged[i] {
			t.Errorf("Connection = revision %d, %v; %d was acknowledged", c.Revision, err, acknowledged[i])
		}
	}
}
