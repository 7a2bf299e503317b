package badgerstore_test

import (
	"bytes"
	"errors"
	"iter"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

// one of everything that a store may have.
func everything(t *testing.T, s tokenstore.Store) {
	t.Helper()
	full := storetest.FullConnection()
	if _, err := s.CreateConnection(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := s.UpdateConnection(t.Context(), full.ID, func(c *tokenstore.Connection) error {
			c.Token.Generation++
			c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshed})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	gone := create(t, s.(*badgerstore.Store), live("gone"))
	if _, err := s.DeleteConnection(t.Context(), gone.ID, tokenstore.Event{Type: tokenstore.EventDeleted}); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateFlow(t.Context(), storetest.FullFlow()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := s.UpdateNote(t.Context(), "webhook/a", func(n *tokenstore.Note) error {
			n.Text = secret.New("position-canary")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AppendEvents(t.Context(), tokenstore.Event{Type: tokenstore.EventBackup}); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, want, got iter.Seq2[tokenstore.Record, error]) (n tokenstore.Counts) {
	t.Helper()
	if err := tokenstore.CompareRecords(want, got, n.Add); err != nil {
		t.Error(err)
	}
	return n
}

// TestMove: what is loaded is what was exported, record for record.
func TestMove(t *testing.T) {
	keys := newKeys(t)
	s := open(t, t.TempDir(), keys)
	everything(t, s)
	if err := s.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Export(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b.Bytes(), []byte("position-canary")) || bytes.Contains(b.Bytes(), []byte("access-")) {
		t.Error("a secret stands in the export")
	}
	if _, err := badgerstore.Restore(filepath.Join(t.TempDir(), "other"), bytes.NewReader(b.Bytes()), badgerstore.RestoreConfig{Codec: keys}); !errors.Is(err, badgerstore.ErrBadBackup) {
		t.Errorf("Restore of an export = %v, want ErrBadBackup", err)
	}
	if _, err := badgerstore.ReadExport(bytes.NewReader(b.Bytes()[:b.Len()-1]), keys); !errors.Is(err, badgerstore.ErrBadBackup) {
		t.Errorf("ReadExport of half = %v, want ErrBadBackup", err)
	}
	records, err := badgerstore.ReadExport(bytes.NewReader(b.Bytes()), keys)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	check := func(got iter.Seq2[tokenstore.Record, error]) error {
		if n := same(t, records, got); n.Connections != 1 || n.Deleted != 1 || n.Events < 5 || n.Flows != 1 || n.Notes != 1 {
			t.Errorf("%+v was moved", n)
		}
		return nil
	}
	for range 2 { // begun again after a kill
		if err := badgerstore.Load(dir, keys, records, check); err != nil {
			t.Fatal(err)
		}
		if _, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys}); !errors.Is(err, tokenstore.ErrLoading) {
			t.Errorf("Open before the end = %v, want ErrLoading", err)
		}
	}
	if err := badgerstore.EndLoad(dir, keys); err != nil {
		t.Fatal(err)
	}
	if err := badgerstore.Load(dir, keys, records, check); !errors.Is(err, tokenstore.ErrNotEmpty) {
		t.Errorf("Load over a store = %v, want ErrNotEmpty", err)
	}
	again := open(t, dir, keys)
	same(t, s.Records(t.Context()), again.Records(t.Context()))
}

// TestLoadFails: after an error there is nothing.
func TestLoadFails(t *testing.T) {
	keys := newKeys(t)
	dir, broken := t.TempDir(), errors.New("broken")
	records := func(yield func(tokenstore.Record, error) bool) {
		c := live("one")
		_ = yield(tokenstore.Record{Connection: &c}, nil) && yield(tokenstore.Record{}, broken)
	}
	check := func(iter.Seq2[tokenstore.Record, error]) error { return nil }
	if err := badgerstore.Load(dir, keys, records, check); !errors.Is(err, broken) {
		t.Errorf("Load = %v, want what the records have", err)
	}
	whole := func(yield func(tokenstore.Record, error) bool) {
		c := live("one")
		_ = yield(tokenstore.Record{Connection: &c}, nil)
	}
	if err := badgerstore.Load(dir, keys, whole, func(iter.Seq2[tokenstore.Record, error]) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Load = %v, want what check returns", err)
	}
	if badgerstore.Exists(dir) {
		t.Error("something is left")
	}
}

// TestFreeze: nothing is written once Freeze has returned, and nothing that was
// confirmed is missing.
func TestFreeze(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	c := create(t, s, live("one"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	confirmed, refused := uint64(0), make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				now, err := s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
					c.Token.Generation++
					return nil
				})
				if errors.Is(err, tokenstore.ErrReadOnly) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				confirmed = max(confirmed, now.Revision)
				if confirmed > 50 {
					select {
					case <-refused:
					default:
						close(refused)
					}
				}
				mu.Unlock()
			}
		})
	}
	<-refused
	if err := s.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	at, err := s.Connection(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if now, _ := s.Connection(t.Context(), c.ID); now.Revision != at.Revision || confirmed > at.Revision {
		t.Errorf("revision %d when it was frozen, %d confirmed, %d now", at.Revision, confirmed, now.Revision)
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
	create(t, s, live("two"))
}

// TestMoved: a store that is elsewhere does not open, until it is taken back.
func TestMoved(t *testing.T) {
	keys, dir := newKeys(t), t.TempDir()
	s := open(t, dir, keys)
	create(t, s, live("one"))
	if err := s.Moved("elsewhere"); err == nil {
		t.Error("a store that takes writes was marked")
	}
	if err := errors.Join(s.Freeze(t.Context()), s.Moved("elsewhere")); err != nil {
		t.Fatal(err)
	}
	if err := s.Thaw(); !errors.Is(err, tokenstore.ErrMoved) {
		t.Errorf("Thaw = %v, want ErrMoved", err)
	}
	shut(t, s)
	cfg := badgerstore.Config{Codec: keys, LockWait: time.Second}
	if _, err := badgerstore.Open(dir, cfg); !errors.Is(err, tokenstore.ErrMoved) {
		t.Errorf("Open = %v, want ErrMoved", err)
	}
	if from, err := badgerstore.Unmove(dir, badgerstore.RestoreConfig{Codec: keys}); err != nil || from != "elsewhere" {
		t.Errorf("Unmove = %q, %v", from, err)
	}
	if n := len(all(t, open(t, dir, keys))); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}
