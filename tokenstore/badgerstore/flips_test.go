package badgerstore_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestFlippedBits (F022, F023) flips one bit at a time. Badger itself opens most
// of these stores without a word, and has lost or hidden records then, or ends
// the process.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	short, long := newKilled(t, false), newKilled(t, true)
	for _, tc := range []struct {
		kind    string
		of      *killed
		refused int // at least so many of a hundred
	}{
		{".sst", short, 98},
		{".mem", short, 90},
		{".vlog", long, 90},
		{"MANIFEST", short, 90},
		{"KEYREGISTRY", short, 0},
		{"DISCARD", short, 0},
		{"lanyard-mark-", short, 0},
		{"lanyard-store.json", short, 30},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			names := tc.of.files(t, tc.kind)
			if tc.kind == ".vlog" { // those with values
				names = slices.DeleteFunc(names, func(name string) bool { return len(read(t, filepath.Join(tc.of.dir, name))) < 100 })
			}
			refused := 0
			for range 100 {
				name := names[random.IntN(len(names))]
				dir := tc.of.clone(t)
				path := filepath.Join(dir, name)
				text := read(t, path)
				at, bit := random.IntN(len(text)), random.IntN(8)
				text[at] ^= 1 << bit
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
				if tc.of.judge(t, dir, name+": a flipped bit") != nil {
					refused++
				}
			}
			t.Logf("%d of 100 were refused", refused)
			if refused < tc.refused {
				t.Errorf("%d of 100 were refused, want %d", refused, tc.refused)
			}
		})
	}
}

// TestCutFiles (F021) cuts files at their ends.
func TestCutFiles(t *testing.T) {
	t.Parallel()
	short, long := newKilled(t, false), newKilled(t, true)
	for _, kind := range []string{".mem", ".vlog", "MANIFEST", ".sst"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			k := short
			if kind == ".vlog" {
				k = long
			}
			for _, name := range k.files(t, kind) {
				info, err := os.Stat(filepath.Join(k.dir, name))
				if err != nil {
					t.Fatal(err)
				}
				var sizes []int64
				for cut := int64(1); cut <= 64; cut++ {
					sizes = append(sizes, info.Size()-cut)
				}
				step := max(4096, info.Size()/(10*4096)*4096)
				for size := info.Size() / 4096 * 4096; size >= 0; size -= step {
					sizes = append(sizes, size)
				}
				for _, size := range sizes {
					if size < 0 {
						continue
					}
					dir := k.clone(t)
					if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
						t.Fatal(err)
					}
					_ = k.judge(t, dir, name+": cut")
				}
			}
		})
	}
}

// TestCutUnacknowledged (F021): what was never acknowledged may be cut off
// anywhere, and the store opens without a word.
func TestCutUnacknowledged(t *testing.T) {
	t.Parallel()
	k := &killed{dir: fastDir(t), keys: newKeys(t), records: map[string]tokenstore.Connection{}}
	live, f := fastDir(t), &faults{}
	s := openHooked(t, live, k.keys, f.hit)
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	k.records[c.ID] = c
	size := func() int64 { return int64(len(read(t, filepath.Join(k.dir, k.files(t, ".mem")[0])))) }
	k.copy(t, live, k.dir)
	acknowledged := size()
	f.set("store.mark", -1)
	f.set("store.reopen", -1)
	lost := tokenstore.NewID()
	if _, err := s.CreateConnection(t.Context(), tokenstore.Connection{ID: lost}); err == nil {
		t.Fatal("a write without its mark was acknowledged")
	}
	k.copy(t, live, k.dir)
	whole := size()
	for end := acknowledged; end <= whole; end += 37 {
		dir := k.clone(t)
		if err := os.Truncate(filepath.Join(dir, k.files(t, ".mem")[0]), end); err != nil {
			t.Fatal(err)
		}
		if end < whole {
			if err := k.judge(t, dir, "cut after what was acknowledged"); err != nil {
				t.Errorf("cut at %d, and %d bytes were acknowledged: %v", end, acknowledged, err)
			}
		}
	}
	// One byte less is too much.
	dir := k.clone(t)
	if err := os.Truncate(filepath.Join(dir, k.files(t, ".mem")[0]), acknowledged-1); err != nil {
		t.Fatal(err)
	}
	if err := k.judge(t, dir, "cut into what was acknowledged"); err == nil {
		t.Error("a store that has lost its last transaction opened")
	}
}

// TestMissingFiles (F025, F026) takes one file away, or puts one in.
func TestMissingFiles(t *testing.T) {
	t.Parallel()
	k, other := newKilled(t, true), newKilled(t, false)
	needed := map[string]bool{} // path → whether the store can't be opened without
	for path := range snapshot(t, k.dir) {
		base := filepath.Base(path)
		needed[strings.TrimPrefix(path, k.dir)] = base != "KEYREGISTRY" && base != "DISCARD" && base != "LOCK" &&
			(filepath.Ext(base) != ".sst" || badgerstore.InForce(path))
	}
	for name, isNeeded := range needed {
		dir := k.clone(t)
		text := read(t, filepath.Join(dir, name))
		if filepath.Ext(name) == ".vlog" && len(text) == 0 || filepath.Ext(name) == ".mem" && len(text) <= 20 {
			isNeeded = false // nothing is in it
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		err := k.judge(t, dir, name+": missing")
		if isNeeded && err == nil && filepath.Ext(name) != ".vlog" { // one in two is in use
			t.Errorf("the store opened without %s", name)
		}
		if ext := filepath.Ext(name); err != nil && ext != ".mem" && !strings.Contains(err.Error(), filepath.Base(name)) {
			t.Errorf("%s is missing, and the error is: %v", name, err)
		}
	}

	foreign := read(t, filepath.Join(other.dir, other.files(t, ".sst")[0]))
	put := func(name string) error {
		dir := k.clone(t)
		if err := os.WriteFile(filepath.Join(dir, name), foreign, 0o600); err != nil {
			t.Fatal(err)
		}
		return k.judge(t, dir, name+": of another store")
	}
	table := k.files(t, ".sst")[0]
	if err := put(filepath.Join(filepath.Dir(table), "000777.sst")); err != nil {
		t.Errorf("Open with a table too many = %v", err)
	}
	if err := put(table); err == nil {
		t.Error("Open with another store's table succeeded")
	}
}

// TestOlderFiles puts back what the store was before: all of Badger's files are
// whole, and only what stands beside them tells.
func TestOlderFiles(t *testing.T) {
	t.Parallel()
	keys, dir, old := newKeys(t), fastDir(t), fastDir(t)
	k := &killed{dir: old, keys: keys}
	s := open(t, dir, keys)
	create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	k.copy(t, dir, old)
	create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	k.dir = fastDir(t)
	k.copy(t, dir, k.dir)
	shut(t, s)

	both := k.clone(t)
	if err := os.RemoveAll(filepath.Join(both, "badger")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(both, "badger"), os.DirFS(filepath.Join(old, "badger"))); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := k.judge(t, both, "older files"); err == nil || !strings.Contains(err.Error(), "the last 1 transactions") {
		t.Errorf("Open of older files = %v, want what is gone", err)
	}
}

// TestDeletedStaysDeleted (F031) deletes while memtables are flushed and tables
// merged, with kills in between.
func TestDeletedStaysDeleted(t *testing.T) {
	t.Parallel()
	keys, dir := newKeys(t), fastDir(t)
	k := &killed{keys: keys}
	kept := map[string]bool{}
	var deleted []string
	s := open(t, dir, keys)
	filler := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	for cycle := range 300 {
		c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
		if cycle%10 == 0 { // fills memtables
			_, err := s.UpdateConnection(t.Context(), filler.ID, func(c *tokenstore.Connection) error {
				c.Name = strings.Repeat("x", 900_000)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if cycle%10 == 9 {
			kept[c.ID] = true
		} else {
			if _, err := s.DeleteConnection(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
			deleted = append(deleted, c.ID)
		}
		if cycle%60 == 59 {
			next := fastDir(t)
			if cycle%120 == 119 {
				atRest(t, s, dir)
				k.copy(t, dir, next)
			} else {
				shut(t, s)
				k.copy(t, dir, next)
			}
			shut(t, s)
			dir = next
			s = open(t, dir, keys)
		}
	}
	for _, id := range deleted {
		if _, err := s.Connection(t.Context(), id); !errors.Is(err, tokenstore.ErrNotFound) {
			t.Errorf("Connection of a deleted one = %v, want ErrNotFound", err)
		}
	}
	for id := range kept {
		if _, err := s.Connection(t.Context(), id); err != nil {
			t.Errorf("Connection = %v", err)
		}
	}
	page, _, err := s.ListConnections(t.Context(), tokenstore.Filter{}, "", 1000)
	if err != nil || len(page) != len(kept)+1 {
		t.Errorf("ListConnections = %d, %v; want %d", len(page), err, len(kept)+1)
	}
}

// TestTwoLogs (F023): Badger has begun the next log before the one before was
// made a table. What is damaged in the older one is missing in the middle, and
// the last transaction is there.
func TestTwoLogs(t *testing.T) {
	t.Parallel()
	k := newKilled(t, false)
	log := k.files(t, ".mem")[0]
	next := filepath.Join(filepath.Dir(log), "00007.mem")
	first, second := badgerstore.SplitLog(read(t, filepath.Join(k.dir, log)), 5)
	for _, tc := range []struct {
		name    string
		first   []byte // nil: no file
		refused bool
	}{
		{"whole", first, false},
		{"a bit flipped in its last transaction", append(slices.Clone(first[:len(first)-9]), first[len(first)-9]^4), true},
		{"cut", first[:len(first)-1], true},
		{"empty", []byte{}, true},
		{"missing", nil, true},
	} {
		dir := k.clone(t)
		err := os.WriteFile(filepath.Join(dir, next), second, 0o600)
		if tc.first != nil {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, log), tc.first, 0o600))
		} else {
			err = errors.Join(err, os.Remove(filepath.Join(dir, log)))
		}
		if err != nil {
			t.Fatal(err)
		}
		err = k.judge(t, dir, tc.name)
		if (err != nil) != tc.refused || (err != nil && !strings.Contains(err.Error(), "00007.mem")) {
			t.Errorf("%s: Open = %v", tc.name, err)
		}
	}
}

// TestDeadValueDamaged: Badger cuts its last .vlog file at the first damage in
// it, although what is damaged belongs to nobody any more.
func TestDeadValueDamaged(t *testing.T) {
	t.Parallel()
	k := &killed{dir: fastDir(t), keys: newKeys(t), records: map[string]tokenstore.Connection{}}
	s := open(t, k.dir, k.keys)
	dead, living := create(t, s, absurd()), create(t, s, absurd())
	if _, err := s.DeleteConnection(t.Context(), dead.ID); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	k.records[living.ID], k.deleted = living, []string{dead.ID}
	dir := k.clone(t)
	for _, name := range k.files(t, ".vlog") {
		if text := read(t, filepath.Join(dir, name)); len(text) > 1000 {
			text[1000] ^= 1
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := k.judge(t, dir, "a flipped bit in a dead value"); err != nil {
		t.Errorf("Open = %v", err)
	}
}
