package badgerstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// edit flips a bit in what is sealed of a connection, or empties its value.
func edit(id string, empty bool) func(*badger.Txn) error {
	return func(txn *badger.Txn) error {
		item, err := txn.Get([]byte("c/" + id))
		if err != nil {
			return err
		}
		value, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		if empty {
			return txn.Set([]byte("c/"+id), nil)
		}
		value[len(value)/2] ^= 1
		return txn.Set([]byte("c/"+id), value)
	}
}

// TestDamagedRecords: what can't be opened is logged once, is not due, and can
// be deleted for good.
func TestDamagedRecords(t *testing.T) {
	core, logs := observer.New(zapcore.ErrorLevel)
	dir, keys := t.TempDir(), newKeys(t)
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	due := tokenstore.Connection{
		UserID: "ada", Integration: "acme", Status: tokenstore.StatusInitiated, InitiatedUntil: time.Now().Add(-time.Hour),
	}
	var ids []string
	for range 4 {
		c := due
		c.ID = tokenstore.NewID()
		ids = append(ids, create(t, s, c).ID)
	}
	if got, err := s.DueConnections(t.Context(), time.Now()); err != nil || len(got) != 4 {
		t.Fatalf("DueConnections = %v, %v; want four", got, err)
	}
	tamper(t, s, edit(ids[0], false))
	tamper(t, s, edit(ids[1], true))

	for range 3 {
		for _, id := range ids[:2] {
			if _, err := s.Connection(t.Context(), id); !errors.Is(err, tokenstore.ErrCorrupt) {
				t.Errorf("Connection = %v, want ErrCorrupt", err)
			}
		}
	}
	if n := logs.FilterMessage("record is damaged").Len(); n != 2 || s.Damaged() != 2 {
		t.Errorf("%d damaged records were logged and %d counted, want 2", n, s.Damaged())
	}
	if got, err := s.DueConnections(t.Context(), time.Now()); err != nil || len(got) != 2 {
		t.Errorf("DueConnections = %v, %v; want the two that are whole", got, err)
	}
	for _, id := range ids[:2] {
		if c, err := s.DeleteConnection(t.Context(), id); err != nil || c.ID != id || !c.Damaged {
			t.Errorf("DeleteConnection = %+v, %v", c, err)
		}
		if _, err := s.Connection(t.Context(), id); !errors.Is(err, tokenstore.ErrNotFound) {
			t.Errorf("Connection of a deleted one = %v, want ErrNotFound", err)
		}
	}
	check := func() {
		t.Helper()
		page, _, err := s.ListConnections(t.Context(), tokenstore.Filter{UserID: "ada"}, "", 10)
		if err != nil || len(page) != 2 || page[0].Damaged || page[1].Damaged {
			t.Errorf("ListConnections = %d, %v; want two that are whole", len(page), err)
		}
		for _, id := range ids[:2] {
			if _, err := s.CreateConnection(t.Context(), tokenstore.Connection{ID: id}); !errors.Is(err, tokenstore.ErrExists) {
				t.Errorf("CreateConnection of a deleted one = %v, want ErrExists", err)
			}
		}
	}
	check()
	shut(t, s)
	s = open(t, dir, keys) // what is counted agrees
	check()
}

// TestPass: damage is found without anybody asking for the record.
func TestPass(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	var damaged string
	for range 250 {
		damaged = create(t, s, tokenstore.Connection{ID: tokenstore.NewID()}).ID
	}
	tamper(t, s, edit(damaged, false))
	shut(t, s)

	core, logs := observer.New(zapcore.ErrorLevel)
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	eventually(t, "the pass finds the damaged record", func() bool { return s.Damaged() == 1 })
	if found := logs.FilterMessage("record is damaged").All(); len(found) != 1 || found[0].ContextMap()["connection_id"] != damaged {
		t.Errorf("logged %v", found)
	}
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-ticker.C:
		}
	}
}
