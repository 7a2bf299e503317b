package badgerstore_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// The fuzzers read what somebody may have written who has the disk, and not the
// keyset: nothing panics, and nothing is taken that was not written so.

var fuzzKey = bytes.Repeat([]byte{7}, 32)

// storeFiles makes a closed store, and returns its directory and those of its
// files whose names match.
func storeFiles(f *testing.F, keys tokenstore.Codec, pattern string) (dir string, files [][]byte) {
	f.Helper()
	dir = f.TempDir()
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys})
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		c, err := s.CreateConnection(f.Context(), tokenstore.Connection{ID: tokenstore.NewID()})
		if err == nil {
			_, err = s.DeleteConnection(f.Context(), c.ID, tokenstore.Event{Type: tokenstore.EventDeleted})
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(badgerstore.Files(dir), pattern))
	if err != nil {
		f.Fatal(err)
	}
	read := func() {
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			files = append(files, bytes.TrimRight(text, "\x00"))
		}
	}
	if pattern == "*.mem" { // which closing makes a table of
		read()
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	if pattern != "*.mem" {
		if names, err = filepath.Glob(filepath.Join(badgerstore.Files(dir), pattern)); err != nil {
			f.Fatal(err)
		}
		read()
	}
	if len(files) == 0 {
		f.Fatalf("there is no %s", pattern)
	}
	return dir, files
}

func FuzzValue(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, value []byte) {
		if err := badgerstore.FuzzedValue(value); err != nil {
			t.Error(err)
		}
	})
}

func FuzzHead(f *testing.F) {
	written := badgerstore.WrittenHead(fuzzKey)
	f.Add(written)
	f.Add(append([]byte{1}, written[1:len(written)-16]...))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := badgerstore.FuzzedHead(fuzzKey, b, written); err != nil {
			t.Error(err)
		}
	})
}

func FuzzMark(f *testing.F) {
	dir := f.TempDir()
	written, err := badgerstore.WrittenMark(dir, fuzzKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(written)
	f.Add(written[:4096])
	f.Add(written[4096:])
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := badgerstore.FuzzedMark(dir, fuzzKey, text); err != nil {
			t.Error(err)
		}
	})
}

func FuzzIdentity(f *testing.F) {
	keys := newKeys(f)
	f.Add([]byte(`{"format": 2, "store_id": "a", "epoch": "b", "generation": 1, "index_key": "AAAA"}`))
	f.Add([]byte(`{"format": 2, "store_id": "a", "epoch": "b", "older_keys": [null, "AQAAAAE="]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := badgerstore.FuzzedIdentity(text, keys); err != nil {
			t.Error(err)
		}
	})
}

func FuzzLog(f *testing.F) {
	_, logs := storeFiles(f, newKeys(f), "*.mem")
	for _, log := range logs {
		f.Add(log, make([]byte, 12), true)
		f.Add(log[:len(log)/2], []byte{1, 0, 0, 0, 40, 0, 0, 0, 20, 0, 0, 0}, false)
	}
	f.Fuzz(func(t *testing.T, file, pointer []byte, fix bool) {
		if err := badgerstore.FuzzedLog(file, pointer, fix); err != nil {
			t.Error(err)
		}
	})
}

func FuzzTable(f *testing.F) {
	dir := f.TempDir()
	_, tables := storeFiles(f, newKeys(f), "*.sst")
	for _, table := range tables {
		f.Add(table, true)
		f.Add(table[:len(table)-7], false)
	}
	f.Fuzz(func(t *testing.T, text []byte, fix bool) {
		if err := badgerstore.FuzzedTable(dir, text, fix); err != nil {
			t.Error(err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	dir := f.TempDir()
	_, manifests := storeFiles(f, newKeys(f), "MANIFEST")
	f.Add(manifests[0])
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := badgerstore.FuzzedManifest(dir, text); err != nil {
			t.Error(err)
		}
	})
}

func FuzzBackup(f *testing.F) {
	keys := newKeys(f)
	dir, _ := storeFiles(f, keys, "MANIFEST")
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys})
	if err != nil {
		f.Fatal(err)
	}
	var written bytes.Buffer
	if err := s.Backup(f.Context(), &written); err != nil {
		f.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(written.Bytes())
	f.Add(written.Bytes()[:written.Len()-1])
	f.Add([]byte("lanyard backup 1\nh\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := badgerstore.FuzzedBackup(text, keys, written.Bytes()); err != nil {
			t.Error(err)
		}
	})
}
