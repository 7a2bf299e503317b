package badgerstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// rename returns a function that changes one connection.
func rename(t *testing.T, s *badgerstore.Store, id string) func() error {
	t.Helper()
	return func() error {
		_, err := s.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error { c.Name += "x"; return nil })
		return err
	}
}

// TestSwapThatIsNotSynced: when the identity file is replaced and the sync of its
// directory fails, what it names must stay.
func TestSwapThatIsNotSynced(t *testing.T) {
	t.Run("at a start", func(t *testing.T) {
		keys, f := newKeys(t), &faults{}
		dir := filled(t, keys)
		f.set("store.identity", 1)
		if _, err := badgerstore.OpenHooked(dir, badgerstore.Config{Codec: keys}, f.hit); !errors.Is(err, syscall.EIO) {
			t.Fatalf("Open = %v, want EIO", err)
		}
		if n := len(all(t, open(t, dir, keys))); n != 1 {
			t.Errorf("%d connections are there, want 1", n)
		}
	})
	t.Run("at a reopening", func(t *testing.T) {
		dir, keys, f := t.TempDir(), newKeys(t), &faults{}
		s := openHooked(t, dir, keys, f.hit)
		c := create(t, s, live("u"))
		f.set("store.identity", 1)
		f.set("store.commit", 1)
		if rename(t, s, c.ID)() == nil {
			t.Fatal("a write that failed was acknowledged")
		}
		eventually(t, "the swap fails", func() bool { return f.count("store.identity") > 0 })
		f.set("store.reopen", -1)
		eventually(t, "nothing changes any more", func() bool { return f.count("store.reopen") > 0 })
		killed := t.TempDir()
		if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, killed, keys).Connection(t.Context(), c.ID); err != nil {
			t.Errorf("after a kill: Connection = %v", err)
		}
		f.set("store.reopen", 0)
		eventually(t, "the store is reopened", func() bool { return rename(t, s, c.ID)() == nil })
		shut(t, s)
		if got, err := open(t, dir, keys).Connection(t.Context(), c.ID); err != nil || !strings.HasPrefix(got.Name, "x") {
			t.Errorf("Connection = %q, %v", got.Name, err)
		}
	})
}

// TestReopeningThatFailsAfterTheSwap: Badger can't be opened in the generation
// that was just put in force. The next attempt begins there, since the files of
// the one before are gone.
func TestReopeningThatFailsAfterTheSwap(t *testing.T) {
	dir, keys, f := t.TempDir(), newKeys(t), &faults{}
	s := openHooked(t, dir, keys, f.hit)
	c := create(t, s, live("u"))
	f.set("store.open", 2)
	f.set("store.commit", 1)
	if rename(t, s, c.ID)() == nil {
		t.Fatal("a write that failed was acknowledged")
	}
	eventually(t, "the store is reopened", func() bool { return rename(t, s, c.ID)() == nil })
	if n := f.count("store.open"); n != 2 {
		t.Errorf("%d attempts have failed, want 2", n)
	}
}

// TestCloseAfterTheSwapOfAReopening: Close comes when the files of the Badger that
// failed are gone, and the next has not been opened.
func TestCloseAfterTheSwapOfAReopening(t *testing.T) {
	dir, keys, f := t.TempDir(), newKeys(t), &faults{}
	s := openHooked(t, dir, keys, f.hit)
	c := create(t, s, live("u"))
	f.set("store.open", -1)
	f.set("store.commit", 1)
	if rename(t, s, c.ID)() == nil {
		t.Fatal("a write that failed was acknowledged")
	}
	eventually(t, "an attempt fails", func() bool { return f.count("store.open") > 0 })
	shut(t, s)
	if _, err := open(t, dir, keys).Connection(t.Context(), c.ID); err != nil {
		t.Errorf("Connection = %v", err)
	}
}

// TestCloseWhileReopening: nothing is acknowledged by the Badger that failed.
func TestCloseWhileReopening(t *testing.T) {
	const writers = 64 // so that some always wait
	var acknowledged atomic.Int32
	for range 20 {
		dir, keys, f := t.TempDir(), newKeys(t), &faults{}
		s := openHooked(t, dir, keys, f.hit)
		write := rename(t, s, create(t, s, live("u")).ID)
		f.set("store.reopen", -1)
		f.set("store.sync", 1)
		if write() == nil {
			t.Fatal("a write that failed was acknowledged")
		}
		var wg sync.WaitGroup
		var writing atomic.Int32
		for range writers {
			wg.Go(func() {
				for first := true; ; first = false {
					switch err := write(); {
					case err == nil:
						acknowledged.Add(1)
					case !strings.Contains(err.Error(), "a write failed"):
						return
					}
					if first {
						writing.Add(1)
					}
				}
			})
		}
		eventually(t, "all are writing", func() bool { return writing.Load() == writers })
		shut(t, s)
		wg.Wait()
	}
	if n := acknowledged.Load(); n > 0 {
		t.Errorf("%d writes were acknowledged after a sync that failed, and before the store was reopened", n)
	}
}

// TestLastWriteFails: the write that fails is one that Close waits for. Its Badger
// is left, not closed.
func TestLastWriteFails(t *testing.T) {
	for range 12 {
		dir, keys := t.TempDir(), newKeys(t)
		var marks atomic.Int32
		marks.Store(-1000)
		in, gate := make(chan struct{}), make(chan struct{})
		s := openHooked(t, dir, keys, func(place string) error {
			if place != "store.mark" {
				return nil
			}
			switch marks.Add(1) {
			case 1:
				close(in)
				<-gate
			case 2:
				return syscall.EIO
			}
			return nil
		})
		write := rename(t, s, create(t, s, live("u")).ID)
		marks.Store(0)
		var wg sync.WaitGroup
		var last error
		wg.Go(func() { _ = write() })
		<-in
		wg.Go(func() { last = write() })
		eventually(t, "the last write waits", func() bool { return s.Waiting() == 1 })
		wg.Go(func() { shut(t, s) })
		eventually(t, "Close has begun", s.Closing)
		close(gate)
		wg.Wait()
		if last == nil {
			t.Error("a write that failed was acknowledged")
		}
		if s.Abandoned() == 0 {
			t.Error("a Badger whose write had failed was closed, which writes")
		}
	}
}

// TestLeftFiles: the tables of a Badger that was left are copied where it may
// still cut them, which is in its own process, and else linked: a restart needs
// no room for a second copy.
func TestLeftFiles(t *testing.T) {
	for _, here := range []bool{true, false} {
		dir, keys, f := t.TempDir(), newKeys(t), &faults{}
		s := open(t, dir, keys)
		c := create(t, s, live("u"))
		shut(t, s)
		if here {
			s = openHooked(t, dir, keys, f.hit)
			f.set("store.commit", -1)
			f.set("store.reopen", -1)
			if rename(t, s, c.ID)() == nil {
				t.Fatal("a write that failed was acknowledged")
			}
			shut(t, s)
		} else {
			files := badgerstore.Files(dir)
			if err := os.Rename(files, files+"-left"); err != nil {
				t.Fatal(err)
			}
		}
		files := badgerstore.Files(dir)
		tables, err := filepath.Glob(filepath.Join(files, "*.sst"))
		if err != nil || len(tables) == 0 || !strings.HasSuffix(files, "-left") {
			t.Fatalf("%s has the tables %v, %v", files, tables, err)
		}
		before, err := os.Stat(tables[0])
		if err != nil {
			t.Fatal(err)
		}
		keep, err := os.Open(tables[0]) // so that no other file gets its number
		if err != nil {
			t.Fatal(err)
		}
		defer keep.Close()
		s = open(t, dir, keys)
		after, err := os.Stat(filepath.Join(badgerstore.Files(dir), filepath.Base(tables[0])))
		if err != nil {
			t.Fatal(err)
		}
		if linked := os.SameFile(before, after); linked == here {
			t.Errorf("left by this process: %v; its tables were linked: %v", here, linked)
		}
		shut(t, s)
	}
}

// TestFilesOfAKill: what was about to become the identity file is removed.
func TestFilesOfAKill(t *testing.T) {
	keys := newKeys(t)
	dir := filled(t, keys)
	name := filepath.Join(dir, ".lanyard-store.json-123")
	for what, do := range map[string]func(){
		"Open":    func() { shut(t, open(t, dir, keys)) },
		"Restore": func() { _, _ = badgerstore.AcceptLoss(dir, badgerstore.RestoreConfig{Codec: keys}) },
	} {
		if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		do()
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s has left %s: %v", what, name, err)
		}
	}
}
