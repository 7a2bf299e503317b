package badgerstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestRestoreReplaces: what was deleted or revoked since stays so, and the store
// that was there is kept.
func TestRestoreReplaces(t *testing.T) {
	keys, dir := newKeys(t), t.TempDir()
	s := open(t, dir, keys)
	kept, revoked, gone := create(t, s, live("kept")), create(t, s, live("revoked")), create(t, s, live("gone"))
	earlier := create(t, s, live("earlier"))
	if _, err := s.DeleteConnection(t.Context(), earlier.ID); err != nil {
		t.Fatal(err)
	}
	text := backup(t, s)
	since := create(t, s, live("since"))
	if _, err := s.DeleteConnection(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	_, err := s.UpdateConnection(t.Context(), revoked.ID, func(c *tokenstore.Connection) error {
		c.Revoke()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := badgerstore.RestoreConfig{Codec: keys, LockWait: 10 * time.Millisecond}
	if _, err := badgerstore.Restore(dir, bytes.NewReader(text), cfg); !errors.Is(err, tokenstore.ErrUnavailable) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Restore beside a running store = %v, want ErrUnavailable that names the directory", err)
	}
	shut(t, s)
	if _, err := badgerstore.Restore(dir, bytes.NewReader(text), cfg); !errors.Is(err, badgerstore.ErrStoreExists) {
		t.Errorf("Restore over a store = %v, want ErrStoreExists", err)
	}
	cfg.Replace = true
	done := restore(t, dir, text, cfg)
	if done.Connections != 2 || done.Unproven != 1 || done.Deleted != 1 || done.Revoked != 1 || done.Unread != nil {
		t.Errorf("Restore = %+v", done)
	}

	again := open(t, dir, keys)
	if c, err := again.Connection(t.Context(), kept.ID); err != nil || !c.Token.Unproven || !c.Token.AccessToken.Equal(kept.Token.AccessToken) {
		t.Errorf("the one that stayed: %+v, %v", c, err)
	}
	if c, err := again.Connection(t.Context(), revoked.ID); err != nil || c.Status != tokenstore.StatusRevoked || !c.Token.AccessToken.IsZero() {
		t.Errorf("the one that was revoked since: %+v, %v", c, err)
	}
	for _, id := range []string{gone.ID, earlier.ID} {
		if _, err := again.CreateConnection(t.Context(), tokenstore.Connection{ID: id}); !errors.Is(err, tokenstore.ErrExists) {
			t.Errorf("making a deleted one again = %v, want ErrExists", err)
		}
	}
	if len(all(t, again)) != 2 {
		t.Errorf("%d connections are listed, want 2", len(all(t, again)))
	}
	shut(t, again)

	old := open(t, done.Kept, keys)
	if _, err := old.Connection(t.Context(), since.ID); err != nil {
		t.Errorf("the replaced store, kept: %v", err)
	}
}

// failingCodec does something when it seals its nth record.
type failingCodec struct {
	tokenstore.Codec
	at int
	do func() error
}

func (f *failingCodec) SealConnection(c *tokenstore.Connection, ad []byte) ([]byte, error) {
	if f.at--; f.at == 0 {
		if err := f.do(); err != nil {
			return nil, err
		}
	}
	return f.Codec.SealConnection(c, ad)
}

// TestRestoreInterrupted: a restore that fails or is killed leaves what was.
func TestRestoreInterrupted(t *testing.T) {
	keys := newKeys(t)
	source := open(t, t.TempDir(), keys)
	for range 3 {
		create(t, source, live("backup"))
	}
	text := backup(t, source)
	for _, fresh := range []bool{true, false} {
		for at := 1; at <= 3; at++ {
			dir := t.TempDir()
			if !fresh {
				dir = filled(t, keys)
			}
			before := snapshot(t, dir)
			killed := t.TempDir()
			kill := func() error { return os.CopyFS(killed, os.DirFS(dir)) }
			fail := errors.New("no more")
			cfg := badgerstore.RestoreConfig{Replace: !fresh, Codec: &failingCodec{keys, at, func() error { return errors.Join(kill(), fail) }}}
			if _, err := badgerstore.Restore(dir, bytes.NewReader(text), cfg); !errors.Is(err, fail) {
				t.Errorf("Restore = %v, want its codec's error", err)
			}
			if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
				t.Errorf("a restore that failed at record %d changed the directory: %s", at, diff)
			}
			if fresh && badgerstore.Exists(dir) {
				t.Error("a restore that failed left a store behind")
			}
			s := open(t, killed, keys)
			want := 1
			if fresh {
				want = 0
			}
			if n := len(all(t, s)); n != want {
				t.Errorf("after a kill at record %d there are %d connections, want %d", at, n, want)
			}
			shut(t, s)
			restore(t, killed, text, badgerstore.RestoreConfig{Codec: keys, Replace: true})
			if fresh { // and without --replace, too, if nobody opened it in between
				killed = t.TempDir()
				cfg.Codec = &failingCodec{keys, at, func() error { return errors.Join(kill(), fail) }}
				_, _ = badgerstore.Restore(dir, bytes.NewReader(text), cfg)
				restore(t, killed, text, badgerstore.RestoreConfig{Codec: keys})
			}
		}
	}
}

func TestRestoreWithAnotherKeyset(t *testing.T) {
	keys := newKeys(t)
	s := open(t, t.TempDir(), keys)
	create(t, s, live("one"))
	text := backup(t, s)
	dir := t.TempDir()
	_, err := badgerstore.Restore(dir, bytes.NewReader(text), badgerstore.RestoreConfig{Codec: newKeys(t)})
	if !errors.Is(err, tokenstore.ErrKeyMissing) {
		t.Errorf("Restore with another keyset = %v, want ErrKeyMissing", err)
	}
	if badgerstore.Exists(dir) {
		t.Error("something was restored")
	}
}

// TestAcceptLossOfNoRecord loses the identity's file; the records are all there.
func TestAcceptLossOfNoRecord(t *testing.T) {
	keys, dir := newKeys(t), t.TempDir()
	s := open(t, dir, keys)
	good, bad := create(t, s, live("good")), create(t, s, live("bad"))
	gone := create(t, s, live("gone"))
	if _, err := s.DeleteConnection(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	cfg := badgerstore.RestoreConfig{Codec: keys}
	if _, err := badgerstore.AcceptLoss(dir, cfg); err == nil || !strings.Contains(err.Error(), "is whole") {
		t.Errorf("AcceptLoss of a whole store = %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "lanyard-store.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys}); err == nil {
		t.Fatal("the damaged store opens")
	}
	if _, err := badgerstore.AcceptLoss(dir, badgerstore.RestoreConfig{Codec: newKeys(t)}); !errors.Is(err, tokenstore.ErrKeyMissing) {
		t.Errorf("AcceptLoss with another keyset = %v, want ErrKeyMissing", err)
	}
	done, err := badgerstore.AcceptLoss(dir, cfg)
	if err != nil {
		t.Fatalf("AcceptLoss = %v", err)
	}
	if done.Connections != 2 || done.Unproven != 2 || done.Unread == nil || len(done.Damaged) != 0 {
		t.Errorf("AcceptLoss = %+v", done)
	}
	s = open(t, dir, keys)
	for _, c := range []tokenstore.Connection{good, bad} {
		if got, err := s.Connection(t.Context(), c.ID); err != nil || !got.Token.Unproven {
			t.Errorf("Connection = %+v, %v", got, err)
		}
	}
	if _, err := s.CreateConnection(t.Context(), gone); !errors.Is(err, tokenstore.ErrExists) {
		t.Errorf("making the deleted one again = %v, want ErrExists", err)
	}
}

// TestAcceptLossOfRecords flips a bit in the middle of a log, behind which
// everything is lost, and lets one record be damaged before.
func TestAcceptLossOfRecords(t *testing.T) {
	const records = 60
	keys, from, dir := newKeys(t), t.TempDir(), t.TempDir()
	s := open(t, from, keys)
	var ids []string
	for i := range records {
		ids = append(ids, create(t, s, live("u")).ID)
		if i == 5 {
			tamper(t, s, func(txn *badger.Txn) error {
				return txn.Set([]byte("c/"+ids[0]), []byte("\x01\x00\x00\x00\x00\x00\x00\x00\x01torn"))
			})
		}
	}
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "badger", "*", "*.mem"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	flipped := logs[len(logs)-1]
	text, err := os.ReadFile(flipped)
	if err != nil {
		t.Fatal(err)
	}
	text[len(bytes.TrimRight(text, "\x00"))*2/3] ^= 1
	if err := os.WriteFile(flipped, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys}); !errors.Is(err, badgerstore.ErrIncomplete) {
		t.Fatalf("Open of the damaged store = %v, want ErrIncomplete", err)
	}
	done, err := badgerstore.AcceptLoss(dir, badgerstore.RestoreConfig{Codec: keys})
	if err != nil {
		t.Fatalf("AcceptLoss = %v", err)
	}
	t.Logf("%+v", done)
	if !slices.Equal(done.Damaged, ids[:1]) {
		t.Errorf("lost by ID: %v, want %v", done.Damaged, ids[:1])
	}
	if done.Connections == 0 || done.Connections >= records || done.Unproven != done.Connections || done.Unread == nil ||
		!strings.Contains(done.Unread.Error(), "transactions are gone") {
		t.Errorf("AcceptLoss = %+v", done)
	}
	s = open(t, dir, keys)
	if n := len(all(t, s)); n != done.Connections {
		t.Errorf("%d connections are listed, want %d", n, done.Connections)
	}
}

// TestRestoreWithAnOlderKeyset: the backup is older than the last rekey. What was
// revoked and deleted since is known to the store that is replaced, which opens
// with another keyset.
func TestRestoreWithAnOlderKeyset(t *testing.T) {
	for _, own := range []bool{true, false} {
		r, dir := newRotation(t), t.TempDir()
		s := open(t, dir, r.before)
		revoked, deleted := create(t, s, live("revoked")), create(t, s, live("deleted"))
		text := backup(t, s)
		err := s.SetCodec(r.both)
		if err == nil {
			err = s.BeginRekey()
		}
		if err == nil {
			err = s.Rekey(t.Context(), nothing)
		}
		if err == nil {
			err = s.SetCodec(r.after)
		}
		if err == nil {
			_, err = s.UpdateConnection(t.Context(), revoked.ID, func(c *tokenstore.Connection) error { c.Revoke(); return nil })
		}
		if err == nil {
			_, err = s.DeleteConnection(t.Context(), deleted.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		shut(t, s)
		cfg := badgerstore.RestoreConfig{Codec: r.before, Replace: true}
		if own {
			cfg.Own = r.after
		}
		done := restore(t, dir, text, cfg)
		if done.Deleted != 1 || own != (done.Revoked == 1) || own != (done.Unread == nil) {
			t.Errorf("its own keyset is there: %v; Restore = %+v", own, done)
		}
		if own {
			continue
		}
		if text := done.Unread.Error(); !strings.Contains(text, "1 connections don't open") {
			t.Errorf("what could not be read: %s", text)
		}
	}
}

// TestRestoreOverAnOlderStore: the store that is replaced may be whole by its
// files, and yet not be what was acknowledged last.
func TestRestoreOverAnOlderStore(t *testing.T) {
	keys, dir := newKeys(t), t.TempDir()
	s := open(t, dir, keys)
	c := create(t, s, live("u"))
	text := backup(t, s)
	if _, err := s.DeleteConnection(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	if err := os.Remove(badgerstore.Mark(dir)); err != nil {
		t.Fatal(err)
	}
	if done := restore(t, dir, text, badgerstore.RestoreConfig{Codec: keys, Replace: true}); done.Unread == nil {
		t.Errorf("Restore = %+v, and nobody can know what the store without its mark has lost", done)
	}
}
