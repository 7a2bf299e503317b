package badgerstore_test

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

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
	opened  atomic.Int64 // how often judge has opened it whole
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
		for id, old := range k.records {
			if old.Intent != nil {
				continue // else half of the .vlog file would be dead
			}
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
	atRest(t, s, live)
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
			text = text[:logEnd(text)]
		}
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// logEnd returns where the entries of a log end. Zeros follow, and the last entry
// may end in some itself: its checksum does one time in 256.
func logEnd(text string) int {
	some := len(strings.TrimRight(text, "\x00"))
	if some == 0 {
		return 0
	}
	end := 20 // a log's own header
	for end < some {
		at := end + 2 // two bytes of marks, then the lengths of key and value, and the end of its life
		var lengths [3]uint64
		for i := range lengths {
			n, size := binary.Uvarint([]byte(text[at:]))
			if size <= 0 {
				return some
			}
			lengths[i], at = n, at+size
		}
		end = at + int(lengths[0]+lengths[1]) + 4
		if end < at || end > len(text) {
			return some
		}
	}
	return max(some, min(end, len(text)))
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
		if filepath.Ext(path) == ".sst" && !badgerstore.InForce(path) {
			continue
		}
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
// nothing was changed, and removes it. It returns why it didn't open. Opening
// takes long, so that after a while only what precedes it is done: Badger gets
// nothing to read but what has passed that.
func (k *killed) judge(t *testing.T, dir, damage string) error {
	t.Helper()
	defer os.RemoveAll(dir)
	before := snapshot(t, dir)
	var s *badgerstore.Store
	err := badgerstore.Check(dir, k.keys)
	if err == nil && k.opened.Add(1) > 40 {
		return nil
	}
	if err == nil {
		s, err = badgerstore.Open(dir, badgerstore.Config{Codec: k.keys})
	}
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

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// atRest waits until Badger has no tables to make: a copy that is made while it
// removes files is not what a kill leaves.
func atRest(t *testing.T, s *badgerstore.Store, dir string) {
	t.Helper()
	var before []string
	eventually(t, "Badger is at rest", func() bool {
		names, err := filepath.Glob(filepath.Join(badgerstore.Files(dir), "*"))
		if err != nil {
			t.Fatal(err)
		}
		logs, err := filepath.Glob(filepath.Join(badgerstore.Files(dir), "*.mem"))
		if err != nil {
			t.Fatal(err)
		}
		same := slices.Equal(before, names)
		before = names
		return same && len(logs) == 1 && s.AtRest()
	})
}
