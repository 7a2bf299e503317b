//go:build linux

package badgerstore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// knownStore makes a closed store that is known, of two tables with several blocks
// each, and returns their paths, the older first.
func knownStore(t *testing.T, keys *seal.Keyset) (dir string, tables []string) {
	t.Helper()
	dir = t.TempDir()
	for range 2 {
		s := open(t, dir, keys)
		for range 8 {
			create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), Name: strings.Repeat("n", 3000)})
		}
		shut(t, s)
	}
	return dir, tablesOf(t, dir)
}

// tablesOf returns the paths of a store's tables, but for the one of a few bytes
// that each store begins with.
func tablesOf(t *testing.T, dir string) []string {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(badgerstore.Files(dir), "*.sst"))
	if err != nil || len(tables) < 3 {
		t.Fatalf("the store has the tables %v, %v", tables, err)
	}
	return tables[1:]
}

// rot flips a bit in the first block of a table: in what is sealed, so that it
// still reads as a table.
func rot(t *testing.T, table string) {
	t.Helper()
	f, err := os.OpenFile(table, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err = f.ReadAt(b[:], 1000); err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b[:], 1000)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestKnown: a store is known after a Close, and after a kill if nothing was
// written since it was opened.
func TestKnown(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	dir, _ := knownStore(t, keys)
	opened := func(known bool) *badgerstore.Store {
		t.Helper()
		s := openHooked(t, dir, keys, (&faults{}).hit)
		if s.WasKnown() != known {
			t.Fatalf("the store was known: %v, want %v", s.WasKnown(), known)
		}
		if n := len(all(t, s)); n != 16 {
			t.Fatalf("%d connections are there, want 16", n)
		}
		return s
	}
	shut(t, opened(true))
	s := opened(true)
	becomesKnown(t, dir)
	s.Kill()
	s = opened(true)
	if _, err := s.DeleteConnection(t.Context(), create(t, s, live("u")).ID); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s = opened(false)
	eventually(t, "it was read whole", func() bool { return s.CheckRest() == nil })
	shut(t, s)
	shut(t, opened(true))
	if records, err := filepath.Glob(filepath.Join(dir, "lanyard-known-*")); err != nil || len(records) != 1 {
		t.Errorf("there are the records %v, %v; want one", records, err)
	}
}

// TestKnownIsNotRead: that is what a start behind which all is checked is for.
func TestKnownIsNotRead(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	dir, tables := knownStore(t, keys)
	rot(t, tables[0])
	if err := badgerstore.Remember(dir, keys); err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	s, err := badgerstore.OpenHooked(dir, badgerstore.Config{Codec: keys}, func(place string) error {
		if place == "store.check" {
			<-gate
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Open of a known store = %v: it was read", err)
	}
	close(gate)
	shut(t, s)
}

// TestEditedKnown: whoever edits a file of a known store is found out at the start,
// although the file keeps its size and the time of its last change.
func TestEditedKnown(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	for _, which := range []int{0, 1} {
		dir, tables := knownStore(t, keys)
		info, err := os.Stat(tables[which])
		if err != nil {
			t.Fatal(err)
		}
		rot(t, tables[which])
		if err := os.Chtimes(tables[which], info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		notOpened(t, dir, keys, tables[which])
	}
}

// TestReplacedKnown: a whole table that was made elsewhere is none that is known.
func TestReplacedKnown(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	dir, tables := knownStore(t, keys)
	info, err := os.Stat(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, tables[0])
	text[1000] ^= 1
	err = errors.Join(os.WriteFile(tables[0]+".new", text, 0o600), os.Chtimes(tables[0]+".new", info.ModTime(), info.ModTime()),
		os.Rename(tables[0]+".new", tables[0]))
	if err != nil {
		t.Fatal(err)
	}
	notOpened(t, dir, keys, tables[0])
}

// becomesKnown waits until what was left out at the start of the store in dir was
// checked.
func becomesKnown(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "it is known", func() bool { _, err := os.Stat(badgerstore.Known(dir)); return err == nil })
}

// TestEditedWhileOpen: what somebody writes to a table while the store is open does
// not become known when it is closed.
func TestEditedWhileOpen(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	dir, _ := knownStore(t, keys)
	s := open(t, dir, keys)
	becomesKnown(t, dir)
	tables := tablesOf(t, dir)
	rot(t, tables[0])
	shut(t, s)
	notOpened(t, dir, keys, tables[0])
}

// TestOtherManifest: a MANIFEST that names one table less, or has one on another
// level, is another one, though all tables that it names are known.
func TestOtherManifest(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	// 8 bytes, and then sets of changes, each with its length and a checksum before
	// it: an empty one, the table that each store begins with, and the older of the
	// two.
	edit := func(dir string, change func(set []byte) []byte) {
		path := filepath.Join(badgerstore.Files(dir), badger.ManifestFilename)
		text := read(t, path)
		at, end := 0, 8
		for range 3 {
			at, end = end, end+8+int(binary.BigEndian.Uint32(text[end:]))
		}
		if err := os.WriteFile(path, slices.Concat(text[:at], change(text[at+8:end]), text[end:]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, _ := knownStore(t, keys)
	edit(dir, func([]byte) []byte { return nil })
	notOpened(t, dir, keys, "there should be 16 connections and 0 deleted IDs, and 8")

	dir, _ = knownStore(t, keys)
	edit(dir, func(set []byte) []byte {
		var changes pb.ManifestChangeSet
		if err := proto.Unmarshal(set, &changes); err != nil || len(changes.Changes) != 1 {
			t.Fatalf("the MANIFEST has the changes %v, %v", &changes, err)
		}
		changes.Changes[0].Level = 1
		set, err := proto.Marshal(&changes)
		if err != nil {
			t.Fatal(err)
		}
		head := binary.BigEndian.AppendUint32(nil, uint32(len(set)))
		return append(binary.BigEndian.AppendUint32(head, crc32.Checksum(set, crc32.MakeTable(crc32.Castagnoli))), set...)
	})
	if s := open(t, dir, keys); s.WasKnown() {
		t.Error("a store with a table on another level was known")
	}
}

// TestReopenedIsRead: after a write that failed the whole store is read, though its
// files are known.
func TestReopenedIsRead(t *testing.T) {
	t.Parallel()
	keys, f := newKeys(t), &faults{}
	dir, _ := knownStore(t, keys)
	s := openHooked(t, dir, keys, f.hit)
	becomesKnown(t, dir)
	f.set("store.commit", 1)
	if _, err := s.CreateConnection(t.Context(), live("u")); err == nil {
		t.Fatal("a write that failed was acknowledged")
	}
	eventually(t, "it is reopened", func() bool { _, err := s.CreateConnection(t.Context(), live("u")); return err == nil })
	if s.WasKnown() {
		t.Error("it was not read")
	}
}

// TestRecord: by any record but the one that was made of these files the store is
// read whole.
func TestRecord(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	other, _ := knownStore(t, keys)
	foreign := read(t, badgerstore.Known(other))
	dir, tables := knownStore(t, keys)
	rot(t, tables[0])
	if err := badgerstore.Remember(dir, keys); err != nil {
		t.Fatal(err)
	}
	path := badgerstore.Known(dir)
	whole := read(t, path)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, text := range map[string][]byte{
		"flipped": flipped, "cut": whole[:len(whole)-1], "empty": {}, "of another store": foreign, "missing": nil,
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if text != nil {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Log(name)
		notOpened(t, dir, keys, tables[0])
	}
}

// TestEditedLogOfKnownTables: after a kill the tables are those that were known,
// and what somebody has put into the log, with its checksum right, is not.
func TestEditedLogOfKnownTables(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	dir, _ := knownStore(t, keys)
	s := openHooked(t, dir, keys, (&faults{}).hit)
	becomesKnown(t, dir)
	c := create(t, s, live("u"))
	s.Kill()
	logs, err := filepath.Glob(filepath.Join(badgerstore.Files(dir), "*.mem"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("there are the logs %v, %v", logs, err)
	}
	text := read(t, logs[0])
	revision := bytes.Index(text, []byte("c/"+c.ID))
	if !badgerstore.FixLog(text, revision, func(_, value []byte) { value[8]++ }) { // the revision's last byte
		t.Fatal("there is no such entry")
	}
	if err := os.WriteFile(logs[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	notOpened(t, dir, keys, "not as they were last written")
}
