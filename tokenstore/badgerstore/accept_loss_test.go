package badgerstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// manyTables makes a store whose tables have 50 connections, some in more than
// one version, and a deleted one.
func manyTables(t *testing.T, keys tokenstore.Codec) (dir string, ids []string, gone string) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, dir, keys)
	for range 50 {
		ids = append(ids, create(t, s, live("u")).ID)
	}
	gone = create(t, s, live("gone")).ID
	if _, err := s.DeleteConnection(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, dir, keys)
	for _, id := range ids[:5] {
		if err := rename(t, s, id)(); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, s)
	return dir, ids, gone
}

func flip(t *testing.T, name string) {
	t.Helper()
	text := read(t, name)
	text[len(text)/3] ^= 1
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAcceptLossOfFiles: whatever file is damaged or missing, what the others
// have is read, and what is lost is said. The MANIFEST says which tables there
// are, but nothing that they don't have.
func TestAcceptLossOfFiles(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		damage     func(t *testing.T, name string)
		all        bool // nothing is lost
	}{
		{"no MANIFEST", "MANIFEST", func(t *testing.T, name string) { t.Helper(); _ = os.Remove(name) }, true},
		{"a flipped bit in the MANIFEST", "MANIFEST", flip, true},
		{"a flipped bit in a table", "*.sst", flip, false},
		{"no table", "*.sst", func(t *testing.T, name string) { t.Helper(); _ = os.Remove(name) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys := newKeys(t)
			dir, ids, gone := manyTables(t, keys)
			files, err := filepath.Glob(filepath.Join(badgerstore.Files(dir), tc.file))
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %v", tc.file, err)
			}
			tc.damage(t, files[0])
			if _, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys}); !errors.Is(err, badgerstore.ErrIncomplete) {
				t.Fatalf("Open = %v, want ErrIncomplete", err)
			}
			done, err := badgerstore.AcceptLoss(dir, badgerstore.RestoreConfig{Codec: keys})
			if err != nil || done.Unread == nil || strings.Contains(done.Unread.Error(), "nothing was changed") {
				t.Fatalf("AcceptLoss = %+v, %v", done, err)
			}
			if known := done.Connections + len(done.Damaged) + done.Unnamed; tc.all && done.Connections != 50 || known == 0 {
				t.Errorf("AcceptLoss = %+v", done)
			}
			s := open(t, dir, keys)
			if c, err := s.Connection(t.Context(), ids[0]); tc.all && (err != nil || c.Name != "x") {
				t.Errorf("Connection = %q, %v; want its last version", c.Name, err)
			}
			if _, err := s.Connection(t.Context(), gone); !errors.Is(err, tokenstore.ErrNotFound) {
				t.Errorf("the deleted one: %v, want ErrNotFound", err)
			}
		})
	}
}

// TestAcceptLossOfEverything: the keyset is the right one, and none of the
// connections opens.
func TestAcceptLossOfEverything(t *testing.T) {
	keys, dir := newKeys(t), t.TempDir()
	s := open(t, dir, keys)
	c := create(t, s, live("u"))
	tamper(t, s, edit(c.ID, false))
	shut(t, s)
	done, err := badgerstore.AcceptLoss(dir, badgerstore.RestoreConfig{Codec: keys})
	if err != nil || done.Connections != 0 || len(done.Damaged) != 1 || done.Damaged[0] != c.ID {
		t.Errorf("AcceptLoss = %+v, %v; want the one that is damaged", done, err)
	}
}

// openOnce opens each record once only.
type openOnce struct {
	tokenstore.Codec
	opened map[string]bool
}

func (o openOnce) OpenConnection(sealed, ad []byte) (tokenstore.Connection, error) {
	if o.opened[string(sealed)] {
		return tokenstore.Connection{}, tokenstore.ErrCorrupt
	}
	o.opened[string(sealed)] = true
	return o.Codec.OpenConnection(sealed, ad)
}

// TestAcceptLossReadsTheSameTwice: what could be read when the loss was counted
// has to be there when the store is built.
func TestAcceptLossReadsTheSameTwice(t *testing.T) {
	keys := newKeys(t)
	dir := filled(t, keys)
	if err := os.Remove(badgerstore.Mark(dir)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	cfg := badgerstore.RestoreConfig{Codec: openOnce{keys, map[string]bool{}}}
	if done, err := badgerstore.AcceptLoss(dir, cfg); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("AcceptLoss = %+v, %v; want ErrUnavailable", done, err)
	}
	if len(before) != len(snapshot(t, dir)) {
		t.Error("AcceptLoss changed the directory, and then refused")
	}
}
