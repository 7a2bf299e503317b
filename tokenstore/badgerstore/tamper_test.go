package badgerstore_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestSwappedRecords(t *testing.T) {
	keys := newKeys(t)
	t.Run("bound", func(t *testing.T) { testSwappedRecords(t, keys) })
	t.Run("unbound", func(t *testing.T) { testSwappedRecords(t, unbound{keys}) })
}

func testSwappedRecords(t *testing.T, keys tokenstore.Codec) {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir, keys)
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
	shut(t, s)
	tamper(t, dir, func(txn *badger.Txn) error {
		return errors.Join(
			swap(txn, "c/"+a.ID, "c/"+b.ID), swap(txn, "f/f", "f/g"), txn.Set([]byte("c/"+emptied.ID), nil))
	})

	s = open(t, dir, keys)
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
	if _, _, err := s.ListConnections(t.Context(), tokenstore.Filter{}, "", 10); !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("ListConnections = %v, want ErrCorrupt", err)
	}
	if _, err := s.Connection(t.Context(), fine.ID); err != nil {
		t.Errorf("Connection beside damaged ones = %v", err)
	}
}

// TestForeignRecord puts in a record of the same ID, revision and keyset that
// was sealed for another store.
func TestForeignRecord(t *testing.T) {
	keys := newKeys(t)
	c := tokenstore.Connection{ID: tokenstore.NewID(), UserID: "a"}
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		s := open(t, dir, keys)
		create(t, s, c)
		shut(t, s)
	}
	var foreign []byte
	tamper(t, dirs[1], func(txn *badger.Txn) error {
		item, err := txn.Get([]byte("c/" + c.ID))
		if err == nil {
			foreign, err = item.ValueCopy(nil)
		}
		return err
	})
	tamper(t, dirs[0], func(txn *badger.Txn) error { return txn.Set([]byte("c/"+c.ID), foreign) })
	s := open(t, dirs[0], keys)
	if _, err := s.Connection(t.Context(), c.ID); !errors.Is(err, tokenstore.ErrCorrupt) {
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

// TestMovedIndex points an index entry of one user to another user's record.
func TestMovedIndex(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	at := time.Now()
	a := create(t, s, tokenstore.Connection{ID: "conn_A", UserID: "a", CreatedAt: at})
	create(t, s, tokenstore.Connection{ID: "conn_B", UserID: "b", CreatedAt: at})
	shut(t, s)
	tamper(t, dir, func(txn *badger.Txn) error {
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
	s = open(t, dir, keys)
	page, _, err := s.ListConnections(t.Context(), tokenstore.Filter{UserID: a.UserID}, "", 10)
	if !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("ListConnections of user a = %d connections, %v; want ErrCorrupt", len(page), err)
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

func tamper(t *testing.T, dir string, change func(txn *badger.Txn) error) {
	t.Helper()
	db, err := badger.Open(badger.DefaultOptions(filepath.Join(dir, "badger")).
		WithLogger(nil).WithMemTableSize(8 << 20).WithNumVersionsToKeep(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}
