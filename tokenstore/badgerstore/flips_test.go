package badgerstore_test

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// killed is the directory of a store as kill -9 leaves it, and what was
// acknowledged in it.
type killed struct {
	dir     string
	keys    *seal.Keyset
	records map[string]tokenstore.Connection // by ID
	deleted []string
}

// newKilled makes a store with tables and a log, and a .vlog file in use if
// long.
func newKilled(t *testing.T, long bool) *killed {
	t.Helper()
	k := &killed{dir: fastDir(t), keys: newKeys(t), records: map[string]tokenstore.Connection{}}
	live := fastDir(t)
	var s *badgerstore.Store
	fill := func() {
		for range 12 {
			c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), UserID: "ada", Name: strings.Repeat("n", 300)})
			k.records[c.ID] = c
		}
		gone := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), UserID: "bob"})
		if _, err := s.DeleteConnection(t.Context(), gone.ID); err != nil {
			t.Fatal(err)
		}
		k.deleted = append(k.deleted, gone.ID)
		for id := range k.records {
			c, err := s.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error { c.Name += "!"; return nil })
			if err != nil {
				t.Fatal(err)
			}
			k.records[id] = c
			break
		}
		if long && len(k.records) < 13 { // once
			c := create(t, s, absurd())
			k.records[c.ID] = c
		}
	}
	for range 2 {
		s = open(t, live, k.keys)
		fill()
		shut(t, s)
	}
	s = open(t, live, k.keys)
	fill()
	k.copy(t, live, k.dir)
	shut(t, s)
	return k
}

// fastDir is t.TempDir in memory, where there is such a file system: many stores
// are opened here, and each syncs.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "badgerstore-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// copy copies a data directory, of logs only what is not empty at their end.
func (k *killed) copy(t *testing.T, from, to string) {
	t.Helper()
	for path, text := range snapshot(t, from) {
		if filepath.Base(path) == "lanyard-ballast" {
			continue
		}
		if ext := filepath.Ext(path); ext == ".mem" || ext == ".vlog" {
			text = strings.TrimRight(text, "\x00")
		}
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// clone returns a copy of the directory.
func (k *killed) clone(t *testing.T) string {
	t.Helper()
	dir := fastDir(t)
	k.copy(t, k.dir, dir)
	return dir
}

// files returns the files of a kind, by the begin or end of their names.
func (k *killed) files(t *testing.T, kind string) (names []string) {
	t.Helper()
	for path := range snapshot(t, k.dir) {
		if name := filepath.Base(path); strings.HasSuffix(name, kind) || strings.HasPrefix(name, kind) {
			names = append(names, strings.TrimPrefix(path, k.dir))
		}
	}
	if len(names) == 0 {
		t.Fatalf("there is no %s", kind)
	}
	return names
}

// judge opens a store that was damaged, and checks that all is there, or that
// nothing was changed, and removes it. It returns why it didn't open.
func (k *killed) judge(t *testing.T, dir, damage string) error {
	t.Helper()
	defer os.RemoveAll(dir)
	before := snapshot(t, dir)
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: k.keys})
	if err != nil {
		if !errors.Is(err, badgerstore.ErrIncomplete) && !errors.Is(err, tokenstore.ErrKeyMissing) {
			t.Errorf("%s: Open = %v, want ErrIncomplete", damage, err)
		}
		if !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: Open = %v, which names no file", damage, err)
		}
		if !maps.Equal(before, snapshot(t, dir)) {
			t.Errorf("%s: Open changed the directory, and then refused: %v", damage, err)
		}
		return err
	}
	defer shut(t, s)
	for id, want := range k.records {
		if got, err := s.Connection(t.Context(), id); err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: Connection = revision %d, %v; want revision %d as it was", damage, got.Revision, err, want.Revision)
		}
	}
	for _, id := range k.deleted {
		if _, err := s.Connection(t.Context(), id); !errors.Is(err, tokenstore.ErrNotFound) {
			t.Errorf("%s: a deleted connection: %v", damage, err)
		}
	}
	page, _, err := s.ListConnections(t.Context(), tokenstore.Filter{}, "", 1000)
	if err != nil || len(page) != len(k.records) {
		t.Errorf("%s: ListConnections = %d, %v; want %d", damage, len(page), err, len(k.records))
	}
	return nil
}

// TestFlippedBits (F022, F023) flips one bit at a time. Badger itself opens most
// of these stores without a word, and has lost or hidden records then, or ends
// the process.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number does
	t.Logf("seed %d", seed)
	short, long := newKilled(t, false), newKilled(t, true)
	for _, tc := range []struct {
		kind    string
		of      *killed
		refused int // at least so many of a hundred
	}{
		{".sst", short, 90},
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
			random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // no secret
			names := tc.of.files(t, tc.kind)
			refused := 0
			for range 100 {
				name := names[random.IntN(len(names))]
				dir := tc.of.clone(t)
				path := filepath.Join(dir, name)
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if len(text) == 0 { // a .vlog without a value
					text = []byte{0}
				}
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

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestMissingFiles (F025, F026) takes one file away, or puts one in.
func TestMissingFiles(t *testing.T) {
	t.Parallel()
	k, other := newKilled(t, true), newKilled(t, false)
	needed := map[string]bool{} // path → whether the store can't be opened without
	for path := range snapshot(t, k.dir) {
		base := filepath.Base(path)
		needed[strings.TrimPrefix(path, k.dir)] = base != "KEYREGISTRY" && base != "DISCARD" && base != "LOCK"
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
	for cycle := range 400 {
		c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
		if cycle%8 == 0 { // fills memtables
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
		if cycle%40 == 39 {
			next := fastDir(t)
			if cycle%80 == 79 {
				k.copy(t, badgerstoreAtRest(t, s, dir), next)
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

// badgerstoreAtRest returns dir once Badger has no tables to make: a copy that
// is made while it removes files would not be what a kill leaves.
func badgerstoreAtRest(t *testing.T, s *badgerstore.Store, dir string) string {
	t.Helper()
	var before []string
	eventually(t, "Badger is at rest", func() bool {
		names, err := filepath.Glob(filepath.Join(badgerstore.Files(dir), "*"))
		if err != nil {
			t.Fatal(err)
		}
		same := cmp.Equal(before, names)
		before = names
		mems, _ := filepath.Glob(filepath.Join(badgerstore.Files(dir), "*.mem"))
		return same && len(mems) == 1 && s.AtRest()
	})
	return dir
}
