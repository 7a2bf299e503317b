package badgerstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestHoldTables(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	for range 2 { // closing writes a table
		s := open(t, dir, keys)
		if _, err := s.CreateConnection(t.Context(), tokenstore.Connection{ID: tokenstore.NewID(), Integration: "github", UserID: "u", Status: tokenstore.StatusActive}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, keys)
	n, over := 0, errors.New("over")
	err := s.HoldTables(func(tables map[string]bool) error {
		for path := range tables {
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		}
		n = len(tables)
		return over
	})
	if !errors.Is(err, over) {
		t.Errorf("HoldTables = %v", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "badger", "*", "*.sst"))
	if err != nil || n == 0 || n != len(files) {
		t.Errorf("%d tables are held of %d (%v)", n, len(files), err)
	}
}
