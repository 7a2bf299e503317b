package badgerstore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

func TestSwappedRecords(t *testing.T) {
	keys := newKeys(t)
	t.Run("A167 bound", func(t *testing.T) { testSwappedRecords(t, keys) })
	t.Run("A167 unbound", func(t *testing.T) { testSwappedRecords(t, unbound{keys}) })
}

func testSwappedRecords(t *testing.T, keys tokenstore.Codec) {
	t.Helper()
	s := open(t, t.TempDir(), keys)
	a := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), UserID: "a"})
	b := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), UserID: "b"})
	emptied := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), UserID: "c"})
	fine := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), UserID: "d"})
	for _, id := range []string{"f", "g"} {
		if err := s.CreateFlow(t.Context(), tokenstore.Flow{ID: id, Stage: tokenstore.FlowTaken, ExpiresAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CreateFlow(t.Context(), tokenstore.Flow{ID: "fine", Stage: tokenstore.FlowTaken, ExpiresAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	tamper(t, s, func(txn *badger.Txn) error {
		return errors.Join(
			swap(txn, "c/"+a.ID, "c/"+b.ID), swap(txn, "f/f", "f/g"), txn.Set([]byte("c/"+emptied.ID), nil))
	})
	for _, id := range []string{a.ID, b.ID, emptied.ID} {
		if c, err := s.Connection(t.Context(), id); !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("Connection = user %q, %v; want ErrCorrupt", c.UserID, err)
		}
		_, err := s.UpdateConnection(t.Context(), id, func(*tokenstore.Connection) error {
			t.Error("a change ran on a damaged record")
			return nil
		})
		if !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("UpdateConnection = %v, want ErrCorrupt", err)
		}
	}
	if _, err := s.Flow(t.Context(), "f"); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("Flow = %v, want ErrCorrupt", err)
	}
	if err := s.CreateFlow(t.Context(), tokenstore.Flow{ID: "f", ExpiresAt: time.Now()}); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("CreateFlow over a damaged flow = %v, want ErrCorrupt", err)
	}
	if flows, err := s.TakenFlows(t.Context()); !errors.Is(err, tokenstore.ErrCorrupt) || len(flows) != 1 || flows[0].ID != "fine" {
		t.Errorf("TakenFlows = %d flows, %v; want the undamaged one and ErrCorrupt", len(flows), err)
	}
	listed := map[string]bool{} // ID → damaged
	for cursor, more := "", true; more; more = cursor != "" {
		page, next, err := s.ListConnections(t.Context(), tokenstore.Filter{}, cursor, 1)
		if err != nil {
			t.Fatalf("ListConnections = %v", err)
		}
		for _, c := range page {
			listed[c.ID] = c.Damaged
			if c.Damaged == (c.UserID != "") || c.CreatedAt.IsZero() {
				t.Errorf("a list shows %+v", c)
			}
		}
		cursor = next
	}
	if diff := cmp.Diff(map[string]bool{a.ID: true, b.ID: true, emptied.ID: true, fine.ID: false}, listed); diff != "" {
		t.Errorf("ListConnections (-want +got):\n%s", diff)
	}
	if _, err := s.Connection(t.Context(), fine.ID); err != nil {
		t.Errorf("Connection beside damaged ones = %v", err)
	}
}

// TestForeignRecord puts in a record of the same ID, revision and keyset, and an
// event of the same Seq, that were sealed for another store.
func TestForeignRecord(t *testing.T) {
	keys := newKeys(t)
	c := tokenstore.Connection{ID: tokenstore.NewID(), UserID: "a"}
	stores := []*badgerstore.Store{open(t, t.TempDir(), keys), open(t, t.TempDir(), keys)}
	for _, s := range stores {
		create(t, s, c)
		logged(t, s, c.ID, 1)
	}
	foreign := map[string][]byte{"c/" + c.ID: nil, string(badgerstore.EventKey(1)): nil}
	for key := range foreign {
		tamper(t, stores[1], func(txn *badger.Txn) error {
			item, err := txn.Get([]byte(key))
			if err == nil {
				foreign[key], err = item.ValueCopy(nil)
			}
			return err
		})
		tamper(t, stores[0], func(txn *badger.Txn) error { return txn.Set([]byte(key), foreign[key]) })
	}
	if got := events(t, stores[0], c.ID); len(got) != 1 || got[0].Type != tokenstore.EventLost {
		t.Errorf("the events are %+v, want one that is damaged", got)
	}
	if _, err := stores[0].Connection(t.Context(), c.ID); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("Connection = %v, want ErrCorrupt", err)
	}
}

// unbound is a codec that doesn't bind records to their place: the engine then
// still compares what is inside with what led there.
type unbound struct{ *seal.Keyset }

func (u unbound) SealConnection(c *tokenstore.Connection, _ []byte) ([]byte, error) {
	return u.Keyset.SealConnection(c, nil)
}

func (u unbound) OpenConnection(sealed, _ []byte) (tokenstore.Connection, error) {
	return u.Keyset.OpenConnection(sealed, nil)
}

func (u unbound) SealFlow(f *tokenstore.Flow, _ []byte) ([]byte, error) {
	return u.Keyset.SealFlow(f, nil)
}

func (u unbound) OpenFlow(sealed, _ []byte) (tokenstore.Flow, error) {
	return u.Keyset.OpenFlow(sealed, nil)
}

func (u unbound) SealEvent(e *tokenstore.Event, _ []byte) ([]byte, error) {
	return u.Keyset.SealEvent(e, nil)
}

func (u unbound) OpenEvent(sealed, _ []byte) (tokenstore.Event, error) {
	return u.Keyset.OpenEvent(sealed, nil)
}

// TestMovedIndex points an index entry of one user to another user's record.
func TestMovedIndex(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	at := time.Now()
	a := create(t, s, tokenstore.Connection{ID: "conn_A", UserID: "a", CreatedAt: at})
	create(t, s, tokenstore.Connection{ID: "conn_B", UserID: "b", CreatedAt: at})
	tamper(t, s, func(txn *badger.Txn) error {
		var moved [][]byte
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte("l/")})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if key := it.Item().KeyCopy(nil); bytes.HasSuffix(key, []byte("conn_A")) {
				moved = append(moved, append(bytes.TrimSuffix(key, []byte("conn_A")), "conn_B"...))
			}
		}
		for _, key := range moved {
			if err := txn.Set(key, []byte{1}); err != nil {
				return err
			}
		}
		return nil
	})
	page, _, err := s.ListConnections(t.Context(), tokenstore.Filter{UserID: a.UserID}, "", 10)
	for _, c := range page {
		if c.ID == "conn_B" && (!c.Damaged || c.UserID != "") {
			t.Errorf("ListConnections of user a shows a connection of %q", c.UserID)
		}
	}
	if err != nil || len(page) != 2 {
		t.Errorf("ListConnections = %d connections, %v; want two", len(page), err)
	}
}

func swap(txn *badger.Txn, a, b string) error {
	var values [2][]byte
	for i, key := range []string{a, b} {
		item, err := txn.Get([]byte(key))
		if err != nil {
			return err
		}
		if values[i], err = item.ValueCopy(nil); err != nil {
			return err
		}
	}
	return errors.Join(txn.Set([]byte(a), values[1]), txn.Set([]byte(b), values[0]))
}

func tamper(t *testing.T, s *badgerstore.Store, change func(txn *badger.Txn) error) {
	t.Helper()
	if err := s.Tamper(change); err != nil {
		t.Fatal(err)
	}
}

// TestPutBack puts back what a record was before, takes one out, and brings one
// back, past what counts them: all that is there is well made.
func TestPutBack(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	for _, tc := range []struct {
		name, want string
		change     func(txn *badger.Txn, key, old []byte) error
	}{
		{"an older record", "not as they were last written", func(txn *badger.Txn, key, old []byte) error { return txn.Set(key, old) }},
		{"a missing record", "there should be 2 connections", func(txn *badger.Txn, key, _ []byte) error { return txn.Delete(key) }},
		{"a deleted record", "there should be 2 connections", func(txn *badger.Txn, _, old []byte) error { return txn.Set([]byte("c/conn_deleted"), old) }},
		{"a forged head", "lost its head", func(*badger.Txn, []byte, []byte) error { return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, keys)
			c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
			create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
			key := []byte("c/" + c.ID)
			var old []byte
			tamper(t, s, func(txn *badger.Txn) error {
				item, err := txn.Get(key)
				if err == nil {
					old, err = item.ValueCopy(nil)
				}
				return err
			})
			if _, err := s.UpdateConnection(t.Context(), c.ID, func(*tokenstore.Connection) error { return nil }); err != nil {
				t.Fatal(err)
			}
			tamper(t, s, func(txn *badger.Txn) error { return tc.change(txn, key, old) })
			shut(t, s)
			if tc.want == "lost its head" { // somebody else writes
				db, err := badger.Open(badger.DefaultOptions(badgerstore.Files(dir)).WithLogger(nil).WithMemTableSize(8 << 20))
				if err != nil {
					t.Fatal(err)
				}
				err = db.Update(func(txn *badger.Txn) error {
					item, err := txn.Get([]byte("m/head"))
					if err != nil {
						return err
					}
					forged, err := item.ValueCopy(nil)
					binary.BigEndian.PutUint64(forged[1:], txn.ReadTs()+1) // its number
					return errors.Join(err, txn.Set([]byte("m/head"), forged))
				})
				if err := errors.Join(err, db.Close()); err != nil {
					t.Fatal(err)
				}
			}
			foundOut(t, dir, keys, tc.want)
		})
	}
}

// foundOut opens a store that was changed past what counts. Who has only its files
// is found out at the start. Who has the disk itself can leave what the file system
// says of them as it was, and is found out behind it; and at the next start.
func foundOut(t *testing.T, dir string, keys tokenstore.Codec, words string) {
	t.Helper()
	core, logs := observer.New(zapcore.ErrorLevel)
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys, Logger: zap.New(core)})
	if err == nil {
		defer shut(t, s)
		eventually(t, "it is found behind the start", func() bool {
			_, err = s.Connection(t.Context(), "conn_none")
			return !errors.Is(err, tokenstore.ErrNotFound)
		})
		if !errors.Is(err, tokenstore.ErrUnavailable) || !strings.Contains(err.Error(), words) {
			t.Errorf("Connection = %v, want ErrUnavailable that says %q", err, words)
		}
		refusesAll(t, s)
		if found := logs.All(); len(found) != 1 || !strings.Contains(found[0].ContextMap()["error"].(string), words) {
			t.Errorf("logged %v, want one error that says %q", found, words)
		}
		shut(t, s)
	}
	notOpened(t, dir, keys, words)
}

// refusesAll checks that a store gives nothing and takes nothing.
func refusesAll(t *testing.T, s *badgerstore.Store) {
	t.Helper()
	ctx := t.Context()
	for what, do := range map[string]func() error{
		"Connection":       func() error { _, err := s.Connection(ctx, "conn_none"); return err },
		"ListConnections":  func() error { _, _, err := s.ListConnections(ctx, tokenstore.Filter{}, "", 1); return err },
		"ListEvents":       func() error { _, _, err := s.ListEvents(ctx, tokenstore.EventFilter{}, "", 1); return err },
		"CreateConnection": func() error { _, err := s.CreateConnection(ctx, live("u")); return err },
		"DeleteConnection": func() error { _, err := s.DeleteConnection(ctx, "conn_none"); return err },
		"UpdateConnection": func() error { // how readiness asks
			_, err := s.UpdateConnection(ctx, "conn_none", func(*tokenstore.Connection) error { return nil })
			return err
		},
		"Backup": func() error { return s.Backup(ctx, io.Discard) },
		"Freeze": func() error { return s.Freeze(ctx) },
	} {
		err := do()
		if !errors.Is(err, tokenstore.ErrUnavailable) || !errors.Is(err, badgerstore.ErrIncomplete) ||
			!strings.Contains(err.Error(), "restore --accept-loss") {
			t.Errorf("%s = %v, want ErrUnavailable and ErrIncomplete, and what to do", what, err)
		}
	}
}

// notOpened checks that a store is refused at the start, for a reason that has these
// words, and is left as it was.
func notOpened(t *testing.T, dir string, keys tokenstore.Codec, words string) {
	t.Helper()
	before := snapshot(t, dir)
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys})
	if err == nil {
		shut(t, s)
	}
	if !errors.Is(err, badgerstore.ErrIncomplete) || !strings.Contains(err.Error(), words) {
		t.Fatalf("Open = %v, want ErrIncomplete that says %q", err, words)
	}
	if !maps.Equal(before, snapshot(t, dir)) {
		t.Error("Open changed the directory, and then refused")
	}
}
