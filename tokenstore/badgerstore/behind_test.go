//go:build linux

package badgerstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestRotten: bits rot in a table, and nothing tells but the table.
func TestRotten(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	for which := range 2 {
		dir, tables := knownStore(t, keys)
		rot(t, tables[which])
		if err := badgerstore.Remember(dir, keys); err != nil {
			t.Fatal(err)
		}
		name := tables[which][strings.LastIndex(tables[which], "/"):] // the generation is another by then
		foundOut(t, dir, keys, name+": block 0 is damaged")
	}
}

// TestUnreadable: the disk can't deliver a table, or it is gone.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	for _, missing := range []bool{false, true} {
		dir, tables := knownStore(t, keys)
		var once sync.Once
		s, err := badgerstore.OpenHooked(dir, badgerstore.Config{Codec: keys}, func(place string) (err error) {
			if place == "store.check" && missing {
				once.Do(func() { err = os.Remove(filepath.Join(badgerstore.Files(dir), filepath.Base(tables[0]))) })
			} else if place == "store.check" {
				err = syscall.EIO
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is found", func() bool {
			_, err := s.Connection(t.Context(), "conn_none")
			return errors.Is(err, badgerstore.ErrIncomplete)
		})
		refusesAll(t, s)
		shut(t, s)
		if missing {
			notOpened(t, dir, keys, "it is missing")
		} else if s := open(t, dir, keys); s.WasKnown() {
			t.Error("a store whose check has found damage was known")
		}
	}
}

// TestCantCheck: a process that can't open the files has not found anything, and
// nothing is known.
func TestCantCheck(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	dir, _ := knownStore(t, keys)
	core, logs := observer.New(zapcore.ErrorLevel)
	s, err := badgerstore.OpenHooked(dir, badgerstore.Config{Codec: keys, Logger: zap.New(core)}, func(place string) error {
		if place == "store.check" {
			return syscall.EMFILE
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was tried", func() bool { return logs.FilterMessage("store can't be checked").Len() > 0 })
	create(t, s, live("u"))
	shut(t, s)
	if s := open(t, dir, keys); s.WasKnown() {
		t.Error("a store that could not be checked was known")
	}
}

// gated opens a known store whose check waits at its first table.
func gated(t *testing.T, dir string, keys tokenstore.Codec, hit func(string) error) (s *badgerstore.Store, logs *observer.ObservedLogs, at, gate chan struct{}) {
	t.Helper()
	at, gate = make(chan struct{}), make(chan struct{})
	var once sync.Once
	core, logs := observer.New(zapcore.InfoLevel)
	s, err := badgerstore.OpenHooked(dir, badgerstore.Config{Codec: keys, Logger: zap.New(core)}, func(place string) error {
		if place == "store.check" {
			once.Do(func() { close(at); <-gate })
			return nil
		}
		return hit(place)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.CloseAbandoned()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return s, logs, at, gate
}

// TestCloseWhileChecking: Close waits for no more than what is being read, and the
// store is as known as it was.
func TestCloseWhileChecking(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	dir, _ := knownStore(t, keys)
	s, logs, at, gate := gated(t, dir, keys, (&faults{}).hit)
	<-at
	var wg sync.WaitGroup
	wg.Go(func() { shut(t, s) })
	eventually(t, "Close has begun", s.Closing)
	close(gate)
	wg.Wait()
	if logs.FilterLevelExact(zapcore.ErrorLevel).Len() > 0 {
		t.Errorf("logged %v", logs.All())
	}
	if s := open(t, dir, keys); !s.WasKnown() {
		t.Error("a store that was closed while it was being checked was not known")
	}
}

// TestReopeningWhileChecking: a write fails while the store is being checked. The
// directory is moved, its tables are gone before another Badger is there, and none
// of that is damage.
func TestReopeningWhileChecking(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	dir, _ := knownStore(t, keys)
	f := &faults{}
	s, logs, at, gate := gated(t, dir, keys, f.hit)
	<-at
	c := create(t, s, live("u"))
	f.set("store.open", -1)
	f.set("store.commit", 1)
	write := rename(t, s, c.ID)
	if write() == nil {
		t.Fatal("a write that failed was acknowledged")
	}
	eventually(t, "the files are gone", func() bool { return f.count("store.open") > 0 })
	close(gate)
	f.set("store.open", 0)
	eventually(t, "the store is reopened", func() bool { return write() == nil })
	if n := logs.FilterMessage("store is damaged").Len() + logs.FilterMessage("store can't be checked").Len(); n > 0 || s.WasKnown() {
		t.Errorf("logged %v; the store was known: %v", logs.All(), s.WasKnown())
	}
}

// TestCheckUnderWrites: nothing that is written, deleted or merged meanwhile looks
// like damage.
func TestCheckUnderWrites(t *testing.T) {
	t.Parallel()
	keys, dir := newKeys(t), fastDir(t)
	name := strings.Repeat("n", 20_000)
	s := open(t, dir, keys)
	var ids [4][]string
	for i := range ids {
		for range 200 { // 16 MB in all
			ids[i] = append(ids[i], create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), Name: name}).ID)
		}
	}
	shut(t, s)
	s = open(t, dir, keys)
	if !s.WasKnown() {
		t.Fatal("the store was not known: the test tests nothing")
	}
	before := tablesOf(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var writes atomic.Int64
	for _, mine := range ids {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				i := n % len(mine)
				_, err := s.UpdateConnection(ctx, mine[i], func(c *tokenstore.Connection) error { c.Name = name; return nil })
				if n%5 == 0 && err == nil {
					if _, err = s.DeleteConnection(ctx, mine[i]); err == nil {
						var c tokenstore.Connection
						c, err = s.CreateConnection(ctx, tokenstore.Connection{ID: tokenstore.NewID(), Name: name})
						mine[i] = c.ID
					}
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("a write = %v", err)
					return
				}
				writes.Add(1)
			}
		})
	}
	t.Cleanup(func() { stop(); wg.Wait() })
	for checked := 0; checked < 20 || writes.Load() < 3000; checked++ {
		if err := s.CheckRest(); err != nil {
			t.Fatalf("check %d = %v", checked, err)
		}
	}
	if slices.Equal(before, tablesOf(t, dir)[:len(before)]) {
		t.Error("nothing was merged: the test tests nothing")
	}
	stop()
	wg.Wait()
	shut(t, s)
	if err := badgerstore.Check(dir, keys); err != nil {
		t.Errorf("Check = %v", err)
	}
}
