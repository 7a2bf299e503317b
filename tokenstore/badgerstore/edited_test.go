package badgerstore_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestDiskAttacks is what somebody can do who has the disk, and not the keyset.
func TestDiskAttacks(t *testing.T) {
	t.Parallel()
	t.Run("A157 nothing of deleted tokens stands in clear", testDeletedSecrets)
	t.Run("A167 a bit of a record is flipped by Badger's own client", testFlippedRecords)
	// We don't use Badger's own encryption: what is said of it holds for bytes
	// that Badger takes as good since their checksum is.
	t.Run("A169 a bit is flipped in a log and its checksum made right", testFlippedLog)
	t.Run("A170 the whole directory is put back", testRollback)
}

// testFlippedRecords flips a bit in each byte of the value of a connection, a
// flow and an event.
func testFlippedRecords(t *testing.T) {
	t.Parallel()
	s := open(t, fastDir(t), newKeys(t))
	c := create(t, s, live("u"))
	if err := s.CreateFlow(t.Context(), tokenstore.Flow{ID: "flow", ExpiresAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	logged(t, s, c.ID, 1)
	for key, read := range map[string]func() error{
		"c/" + c.ID: func() error { _, err := s.Connection(t.Context(), c.ID); return err },
		"f/flow":    func() error { _, err := s.Flow(t.Context(), "flow"); return err },
		string(badgerstore.EventKey(1)): func() error {
			if events(t, s, "")[0].Type == tokenstore.EventLost {
				return tokenstore.ErrCorrupt
			}
			return nil
		},
	} {
		var value []byte
		tamper(t, s, func(txn *badger.Txn) error {
			item, err := txn.Get([]byte(key))
			if err == nil {
				value, err = item.ValueCopy(nil)
			}
			return err
		})
		for i := range value {
			edited := bytes.Clone(value)
			edited[i] ^= 1 << (i % 8)
			tamper(t, s, func(txn *badger.Txn) error { return txn.Set([]byte(key), edited) })
			if err := read(); !errors.Is(err, tokenstore.ErrCorrupt) {
				t.Errorf("%q with a bit of byte %d flipped = %v, want ErrCorrupt", key, i, err)
			}
		}
		tamper(t, s, func(txn *badger.Txn) error { return txn.Set([]byte(key), value) })
		if err := read(); err != nil {
			t.Errorf("%q as it was = %v", key, err)
		}
	}
}

// testFlippedLog flips bits in what Badger's log has of connections.
func testFlippedLog(t *testing.T) {
	t.Parallel()
	k := newKilled(t, false)
	name := k.files(t, ".mem")[0]
	log := read(t, filepath.Join(k.dir, name))
	flipped, refused, corrupt := 0, 0, 0
	for at := 20; at < len(log); at += 397 {
		edited, is := bytes.Clone(log), false
		found := badgerstore.FixLog(edited, at, func(key, value []byte) {
			if is = bytes.HasPrefix(key, []byte("c/")) && len(value) > 0; is {
				value[at%len(value)] ^= 1 << (at % 8)
			}
		})
		if !found || !is {
			continue
		}
		flipped++
		dir := k.clone(t)
		if err := os.WriteFile(filepath.Join(dir, name), edited, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := badgerstore.Open(dir, badgerstore.Config{Codec: k.keys})
		if err != nil {
			refused++
			continue
		}
		for id, want := range k.records {
			got, err := s.Connection(t.Context(), id)
			switch {
			case errors.Is(err, tokenstore.ErrCorrupt):
				corrupt++
			case err != nil || !cmp.Equal(want, got):
				t.Errorf("Connection = revision %d, %v; want it as it was, or ErrCorrupt", got.Revision, err)
			}
		}
		shut(t, s)
		_ = os.RemoveAll(dir)
	}
	t.Logf("%d flips: %d stores refused, %d connections corrupt", flipped, refused, corrupt)
	if flipped < 10 || corrupt == 0 {
		t.Errorf("of %d flips %d made a connection corrupt", flipped, corrupt)
	}
}

// testDeletedSecrets: what is left of deleted and renewed tokens on the disk is
// sealed. There is no key of each user's to destroy.
func testDeletedSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, newKeys(t))
	c := live("u")
	c.Token.AccessToken, c.Token.RefreshToken = secret.New("canary-access"), secret.New("canary-refresh")
	c = create(t, s, c)
	_, err := s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
		c.Token.RefreshToken = secret.New("canary-rotated")
		return nil
	})
	if err == nil {
		_, err = s.DeleteConnection(t.Context(), c.ID, tokenstore.Event{Type: tokenstore.EventDeleted})
	}
	if err != nil {
		t.Fatal(err)
	}
	look := func() {
		t.Helper()
		for path, text := range snapshot(t, dir) {
			for _, word := range []string{"canary", base64.StdEncoding.EncodeToString([]byte("canary"))} {
				if strings.Contains(text, word) {
					t.Errorf("%s has %s", path, word)
				}
			}
		}
	}
	look()
	shut(t, s)
	look()
}

// testRollback: a data directory that was put back whole opens, and nothing in
// it can tell (docs/security.md says so); but whoever reads the events has been
// further.
func testRollback(t *testing.T) {
	t.Parallel()
	k := &killed{dir: fastDir(t), keys: newKeys(t)}
	live := fastDir(t)
	s := open(t, live, k.keys)
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), Name: "yesterday"})
	logged(t, s, c.ID, 3)
	k.copy(t, live, k.dir)
	logged(t, s, c.ID, 1)
	_, cursor, err := s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 10)
	if err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = open(t, k.dir, k.keys)
	if got, err := s.Connection(t.Context(), c.ID); err != nil || got.Name != "yesterday" {
		t.Errorf("Connection = %q, %v", got.Name, err)
	}
	if _, _, err := s.ListEvents(t.Context(), tokenstore.EventFilter{}, cursor, 10); !errors.Is(err, tokenstore.ErrBadCursor) {
		t.Errorf("ListEvents with the cursor of a later log = %v, want ErrBadCursor", err)
	}
}
