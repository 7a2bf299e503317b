package badgerstore_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// filled returns the directory of a closed store with one connection in it.
func filled(t *testing.T, keys *seal.Keyset) string {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir, keys)
	create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	shut(t, s)
	return dir
}

// remove returns a function that removes a part of a store.
func remove(part string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWrongKeyset(t *testing.T) {
	keys := newKeys(t)
	dir := filled(t, keys)
	before := snapshot(t, dir)
	_, err := badgerstore.Open(dir, badgerstore.Config{Codec: newKeys(t)})
	if !errors.Is(err, tokenstore.ErrKeyMissing) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Open with another keyset = %v, want ErrKeyMissing that names the directory", err)
	}
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Error("Open with another keyset changed the directory")
	}
	shut(t, open(t, dir, keys))
}

// TestIncomplete takes parts away. What Open can know beforehand it finds
// without a change to any file.
func TestIncomplete(t *testing.T) {
	keys := newKeys(t)
	write := func(text, path string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   string // in the error
	}{
		{"no identity file", remove("lanyard-store.json"), "lanyard-store.json beside it is missing"},
		{"no Badger directory", remove("badger"), "MANIFEST: it is missing"},
		{"empty identity file", write("", "lanyard-store.json"), "is damaged"},
		{"identity file of nothing", write("{}", "lanyard-store.json"), "is damaged"},
		{"identity file of another format", write(`{"format":1,"store_id":"a","epoch":"b"}`, "lanyard-store.json"), "has format 1"},
		{"another store's Badger", func(t *testing.T, dir string) {
			t.Helper()
			other, files := badgerstore.Files(filled(t, keys)), badgerstore.Files(dir)
			if err := errors.Join(os.RemoveAll(files), os.Rename(other, files)); err != nil {
				t.Fatal(err)
			}
		}, "are of two stores"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filled(t, keys)
			tc.damage(t, dir)
			before := snapshot(t, dir)
			if !badgerstore.Exists(dir) {
				t.Error("Exists = false beside the rest of a store")
			}
			s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys})
			if err == nil {
				shut(t, s)
			}
			if !errors.Is(err, badgerstore.ErrIncomplete) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Open = %v, want ErrIncomplete that names the directory and says %q", err, tc.want)
			}
			if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
				t.Errorf("Open changed the directory")
			}
		})
	}
}

// TestCrashAtFirstOpen: a first Open that was cut off at any point is finished
// by the next one.
func TestCrashAtFirstOpen(t *testing.T) {
	keys := newKeys(t)
	creating := func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, "lanyard-store.json")
		text, err := os.ReadFile(path)
		var fields map[string]any
		if err == nil {
			err = json.Unmarshal(text, &fields)
		}
		if err != nil {
			t.Fatal(err)
		}
		fields["creating"] = true
		text, err = json.Marshal(fields)
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, rest := range map[string]func(t *testing.T, dir string){
		"only the identity":        remove("badger"),
		"a generation without end": remove("badger/2/MANIFEST"),
		"a generation":             func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			shut(t, open(t, dir, keys))
			creating(t, dir)
			rest(t, dir)
			s := open(t, dir, keys)
			c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
			shut(t, s)
			s = open(t, dir, keys)
			if _, err := s.Connection(t.Context(), c.ID); err != nil {
				t.Errorf("Connection = %v", err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "lanyard-store.json"))
			if err != nil || strings.Contains(string(text), "creating") {
				t.Errorf("the identity file says after the first Open: %s, %v", text, err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := badgerstore.Open(t.TempDir(), badgerstore.Config{}); err == nil {
		t.Error("Open without a codec succeeded")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := badgerstore.Open(file, badgerstore.Config{Codec: newKeys(t)}); err == nil {
		t.Error("Open of a file succeeded")
	}
}
