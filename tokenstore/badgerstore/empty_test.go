package badgerstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// A kill between the two steps in which Badger makes or deletes a log leaves
// an empty file. It must not keep the store from opening.
func TestEmptyLogsOfAKill(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), Integration: "acme", UserID: "ada"})
	shut(t, s)
	for _, name := range []string{"00099.mem", "000099.vlog"} {
		if err := os.WriteFile(filepath.Join(badgerstore.Files(dir), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir, keys)
	defer shut(t, s)
	if got, err := s.Connection(t.Context(), c.ID); err != nil || got.UserID != "ada" {
		t.Errorf("Connection() = %+v, %v", got, err)
	}
}
