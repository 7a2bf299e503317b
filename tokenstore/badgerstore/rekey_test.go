package badgerstore_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

// rotation is a keyset before, during and after a rotation.
type rotation struct{ before, both, after *seal.Keyset }

func newRotation(t *testing.T) (r rotation) {
	t.Helper()
	old, err := seal.Generate()
	var both, after []byte
	if err == nil {
		both, err = seal.AddPrimary(old)
	}
	if err == nil {
		after, err = seal.DropOld(both)
	}
	for text, ks := range map[*[]byte]**seal.Keyset{&old: &r.before, &both: &r.both, &after: &r.after} {
		if err == nil {
			*ks, err = seal.Parse(*text)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func nothing() error { return nil }

// refuses checks that the store in dir doesn't open with these keys, and that
// trying changes nothing.
func refuses(t *testing.T, dir string, keys tokenstore.Codec) {
	t.Helper()
	before := snapshot(t, dir)
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys})
	if err == nil {
		shut(t, s)
	}
	if !errors.Is(err, tokenstore.ErrKeyMissing) {
		t.Errorf("Open = %v, want ErrKeyMissing", err)
	}
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Error("Open with a keyset that lacks a key changed the directory")
	}
}

// TestRekey (F063): ten thousand records change their key under load, cut off
// in the middle. No write fails, and afterwards nothing needs the old key.
func TestRekey(t *testing.T) {
	const records = 10_000
	keys, dir := newRotation(t), t.TempDir()
	s := open(t, dir, keys.before)
	ids := make([]string, records)
	var wg sync.WaitGroup
	for part := range slices.Chunk(ids, records/500) {
		wg.Go(func() {
			for i := range part {
				part[i] = create(t, s, live("u")).ID
			}
		})
	}
	wg.Wait()
	flow := storetest.FullFlow()
	if err := s.CreateFlow(t.Context(), flow); err != nil {
		t.Fatal(err)
	}
	if p := s.RekeyProgress(); p.State != "idle" {
		t.Errorf("before: %+v, want idle", p)
	}

	if err := s.SetCodec(keys.both); err != nil {
		t.Fatalf("SetCodec = %v", err)
	}
	if p := s.RekeyProgress(); p.State != "needed" {
		t.Errorf("with a new primary key: %+v, want needed", p)
	}
	for name, ks := range map[string]*seal.Keyset{"the old": keys.before, "the new": keys.after} {
		if err := s.SetCodec(ks); !errors.Is(err, tokenstore.ErrKeyMissing) {
			t.Errorf("SetCodec with %s key alone = %v, want ErrKeyMissing", name, err)
		}
	}
	if err := s.BeginRekey(); err != nil {
		t.Fatalf("BeginRekey = %v", err)
	}

	// Writers go on beside it, the whole time.
	var over atomic.Bool
	var updates [8]map[string]uint64 // :: ID → generation
	var written atomic.Int64
	for w := range updates {
		updates[w] = map[string]uint64{}
		wg.Go(func() {
			for i := w; !over.Load(); i = (i + len(updates)) % records {
				c, err := s.UpdateConnection(t.Context(), ids[i], func(c *tokenstore.Connection) error {
					c.Token.Generation++
					return nil
				})
				if err != nil {
					t.Errorf("UpdateConnection = %v", err)
					return
				}
				updates[w][c.ID] = c.Token.Generation
				written.Add(1)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	interrupted := make(chan error, 1)
	go func() { interrupted <- s.Rekey(ctx, func() error { return errors.New("it was not interrupted") }) }()
	for s.RekeyProgress().Done < records/4 && len(interrupted) == 0 {
		time.Sleep(time.Millisecond) // between two looks at a condition
	}
	cancel()
	if err := <-interrupted; !errors.Is(err, context.Canceled) {
		t.Errorf("Rekey that was cut off = %v", err)
	}
	p := s.RekeyProgress()
	if p.State != "running" || p.Total != records+1 || p.Done < records/4 || p.Done >= p.Total {
		t.Errorf("cut off: %+v", p)
	}
	t.Logf("cut off: %+v, %d writes beside it", p, written.Load())
	over.Store(true)
	wg.Wait()
	shut(t, s)

	refuses(t, dir, keys.before)
	refuses(t, dir, keys.after)
	s = open(t, dir, keys.both)
	if p := s.RekeyProgress(); p.State != "running" {
		t.Errorf("after a restart: %+v, want running", p)
	}
	finished := false
	if err := s.Rekey(t.Context(), func() error { finished = true; return s.SetCodec(keys.after) }); err != nil || !finished {
		t.Fatalf("Rekey that goes on = %v, finished %v", err, finished)
	}
	if p := s.RekeyProgress(); p != (badgerstore.RekeyProgress{State: "done", Total: records + 1, Done: records + 1}) {
		t.Errorf("after: %+v", p)
	}
	shut(t, s)

	refuses(t, dir, keys.before)
	s = open(t, dir, keys.after)
	found := all(t, s)
	if len(found) != records {
		t.Errorf("%d connections, want %d", len(found), records)
	}
	for _, part := range updates {
		for id, generation := range part {
			if found[id].Token.Generation != generation {
				t.Fatalf("connection %s has generation %d, want %d", id, found[id].Token.Generation, generation)
			}
		}
	}
	if got, err := s.Flow(t.Context(), flow.ID); err != nil || cmp.Diff(flow, got) != "" {
		t.Errorf("the flow = %+v, %v", got, err)
	}
	if p := s.RekeyProgress(); p.State != "idle" {
		t.Errorf("after a restart: %+v, want idle", p)
	}
}

// TestNewPrimaryIsNoted: the store says which key it needs before that has
// sealed anything, so that it can't get lost unnoticed.
func TestNewPrimaryIsNoted(t *testing.T) {
	for name, add := range map[string]func(t *testing.T, dir string, keys rotation){
		"while running": func(t *testing.T, dir string, keys rotation) {
			t.Helper()
			s := open(t, dir, keys.before)
			if err := s.SetCodec(keys.both); err != nil {
				t.Fatal(err)
			}
			shut(t, s)
		},
		"at a start": func(t *testing.T, dir string, keys rotation) {
			t.Helper()
			shut(t, open(t, dir, keys.both))
		},
	} {
		t.Run(name, func(t *testing.T) {
			keys := newRotation(t)
			dir := filled(t, keys.before)
			add(t, dir, keys)
			refuses(t, dir, keys.before)
			refuses(t, dir, keys.after)
			s := open(t, dir, keys.both)
			if p := s.RekeyProgress(); p.State != "needed" {
				t.Errorf("progress = %+v, want needed", p)
			}
			if len(all(t, s)) != 1 {
				t.Error("the connection is gone")
			}
		})
	}
}

// TestKeyWithTheSameID: what a key opens decides, not its name.
func TestKeyWithTheSameID(t *testing.T) {
	keys := newKeys(t)
	dir := filled(t, keys)
	refuses(t, dir, sameKeyIDs{newKeys(t), keys.Keys()})
}

type sameKeyIDs struct {
	*seal.Keyset
	ids []uint32
}

func (s sameKeyIDs) Keys() []uint32 { return s.ids }

func TestRekeyWhereNothingIsToDo(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	create(t, s, live("one"))
	if err := s.BeginRekey(); err != nil {
		t.Fatal(err)
	}
	if err := s.Rekey(t.Context(), func() error { return errors.New("called") }); err != nil {
		t.Errorf("Rekey = %v", err)
	}
	if p := s.RekeyProgress(); p.State != "idle" {
		t.Errorf("progress = %+v, want idle", p)
	}
}

// TestRekeyFinishesLater: what comes after the last record is tried again, too.
func TestRekeyFinishesLater(t *testing.T) {
	keys := newRotation(t)
	dir := filled(t, keys.before)
	s := open(t, dir, keys.both)
	if err := s.BeginRekey(); err != nil {
		t.Fatal(err)
	}
	late := errors.New("the keyset's file can't be written")
	if err := s.Rekey(t.Context(), func() error { return late }); !errors.Is(err, late) {
		t.Errorf("Rekey = %v, want what finish said", err)
	}
	if p := s.RekeyProgress(); p.State != "running" {
		t.Errorf("progress = %+v, want running", p)
	}
	shut(t, s)
	s = open(t, dir, keys.both)
	if err := s.Rekey(t.Context(), nothing); err != nil {
		t.Errorf("Rekey again = %v", err)
	}
	if p := s.RekeyProgress(); p.State != "done" {
		t.Errorf("progress = %+v, want done", p)
	}
}

// TestRekeyWithADamagedRecord: it is named, and keeps nothing else from its end.
func TestRekeyWithADamagedRecord(t *testing.T) {
	keys, dir := newRotation(t), t.TempDir()
	s := open(t, dir, keys.before)
	good, bad := create(t, s, live("good")), create(t, s, live("bad"))
	tamper(t, s, func(txn *badger.Txn) error {
		item, err := txn.Get([]byte("c/" + bad.ID))
		if err != nil {
			return err
		}
		value, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		value[len(value)-1] ^= 1
		return txn.Set(item.KeyCopy(nil), value)
	})
	shut(t, s)
	s = open(t, dir, keys.both)
	if err := s.BeginRekey(); err != nil {
		t.Fatal(err)
	}
	if err := s.Rekey(t.Context(), nothing); err != nil {
		t.Fatalf("Rekey = %v", err)
	}
	if p := s.RekeyProgress(); p != (badgerstore.RekeyProgress{State: "done", Total: 2, Done: 1, Damaged: 1}) {
		t.Errorf("progress = %+v", p)
	}
	shut(t, s)
	s = open(t, dir, keys.after)
	if _, err := s.Connection(t.Context(), good.ID); err != nil {
		t.Errorf("the good one: %v", err)
	}
	if _, err := s.Connection(t.Context(), bad.ID); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("the damaged one: %v, want ErrCorrupt", err)
	}
}

// A backup from the middle of a rotation needs both keys, and says so; what is
// restored from it needs the new one alone.
func TestBackupInTheMiddleOfARotation(t *testing.T) {
	keys := newRotation(t)
	s := open(t, t.TempDir(), keys.before)
	old := create(t, s, live("old"))
	if err := s.SetCodec(keys.both); err != nil {
		t.Fatal(err)
	}
	create(t, s, live("new"))
	text := backup(t, s)
	dir := t.TempDir()
	for _, ks := range []*seal.Keyset{keys.before, keys.after} {
		_, err := badgerstore.Restore(dir, bytes.NewReader(text), badgerstore.RestoreConfig{Codec: ks})
		if !errors.Is(err, tokenstore.ErrKeyMissing) {
			t.Errorf("Restore with one key of two = %v, want ErrKeyMissing", err)
		}
	}
	restore(t, dir, text, badgerstore.RestoreConfig{Codec: keys.both})
	s = open(t, dir, keys.after)
	if _, err := s.Connection(t.Context(), old.ID); err != nil {
		t.Errorf("Connection = %v", err)
	}
}

// TestDamagedKeyset (F062): a wrong key, an empty one, a cut one. The last two
// are refused before the store is asked.
func TestDamagedKeyset(t *testing.T) {
	text, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	dir := filled(t, keys)
	refuses(t, dir, newKeys(t))
	for _, n := range []int{0, 1, len(text) / 2, len(text) - 3} {
		if _, err := seal.Parse(text[:n]); err == nil {
			t.Errorf("a keyset cut at %d is taken", n)
		}
	}
	// The identity's copy of the index key, damaged: nobody can tell that from a
	// wrong key, and nothing is changed either.
	path := filepath.Join(dir, "lanyard-store.json")
	id, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(id, []byte(`"index_key": "`)) + len(`"index_key": "`) + 20
	id[at] ^= 1
	if err := os.WriteFile(path, id, 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	if _, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys}); err == nil {
		t.Error("Open with a damaged index key succeeded")
	}
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Error("Open with a damaged index key changed the directory")
	}
}
