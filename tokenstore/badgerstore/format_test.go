package badgerstore_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestFormatSaysThatThereAreEvents: the version before the audit log must say that
// a store or backup is of another version, and not that it is damaged and that
// --accept-loss would take what can be read: that takes the whole audit log.
func TestFormatSaysThatThereAreEvents(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	logged(t, s, "conn_A", 1)
	var backup bytes.Buffer
	if err := s.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	path := filepath.Join(dir, "lanyard-store.json")
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), `"format": 4`) {
		t.Errorf("the store's identity is %s, %v; the version before takes format 2 for its own", text, err)
	}
	if strings.HasPrefix(backup.String(), "lanyard backup 1\n") {
		t.Error("the backup has events and begins as one without")
	}
	// A version to come is refused so, too: nothing of it is damaged.
	later := bytes.Replace(text, []byte(`"format": 4`), []byte(`"format": 5`), 1)
	if err := os.WriteFile(path, later, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := badgerstore.AcceptLoss(dir, badgerstore.RestoreConfig{Codec: keys}); err == nil || !strings.Contains(err.Error(), "has format 5") {
		t.Errorf("AcceptLoss of another version's store = %v", err)
	}
	if _, err := badgerstore.Restore(dir, bytes.NewReader(backup.Bytes()), badgerstore.RestoreConfig{Codec: keys, Replace: true}); err == nil {
		t.Error("Restore --replace took another version's store for a damaged one, whose revocations are not known")
	}
	// A store of the version before is given the format by the first opening.
	old := bytes.Replace(text, []byte(`"format": 4`), []byte(`"format": 2`), 1)
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	shut(t, open(t, dir, keys))
	if now, err := os.ReadFile(path); err != nil || !strings.Contains(string(now), `"format": 4`) {
		t.Errorf("after opening it is %s, %v", now, err)
	}
}
