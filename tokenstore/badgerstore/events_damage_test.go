package badgerstore_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestEditedEvents: an event that was edited past the keyset is shown as
// damaged, alone, and the log says so once.
func TestEditedEvents(t *testing.T) {
	keys := newKeys(t)
	t.Run("A167 bound", func(t *testing.T) { testEditedEvents(t, keys) })
	t.Run("A167 unbound", func(t *testing.T) { testEditedEvents(t, unbound{keys}) })
}

func testEditedEvents(t *testing.T, keys tokenstore.Codec) {
	t.Helper()
	dir := t.TempDir()
	core, logs := observer.New(zapcore.InfoLevel)
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: keys, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	logged(t, s, "conn_A", 6)
	logged(t, s, "conn_B", 2)
	var older []byte
	tamper(t, s, func(txn *badger.Txn) error {
		item, err := txn.Get(badgerstore.EventKey(5))
		if err == nil {
			older, err = item.ValueCopy(nil)
		}
		older[8] = 2 // another revision
		return errors.Join(err,
			swap(txn, string(badgerstore.EventKey(1)), string(badgerstore.EventKey(7))),
			txn.Set(badgerstore.EventKey(3), nil),
			txn.Set(badgerstore.EventKey(5), older),
			txn.Set(s.HistoryKey("conn_A", 8), []byte{1}), // another's
		)
	})
	check := func(s *badgerstore.Store) {
		t.Helper()
		want := []string{"1 damaged", "2", "3 damaged", "4", "5 damaged", "6", "7 damaged", "8"}
		if diff := cmp.Diff(want, shown(events(t, s, ""))); diff != "" {
			t.Errorf("all events (-want +got):\n%s", diff)
		}
		want = []string{"1 damaged", "2", "3 damaged", "4", "5 damaged", "6", "8 damaged"}
		of := events(t, s, "conn_A")
		if diff := cmp.Diff(want, shown(of)); diff != "" {
			t.Errorf("the events of conn_A (-want +got):\n%s", diff)
		}
		if of[0].ConnectionID != "conn_A" || of[6].Reason != "" || !of[6].At.IsZero() {
			t.Errorf("a damaged event is shown as %+v, and another's as %+v", of[0], of[6])
		}
	}
	check(s)
	check(s)
	if n := logs.FilterMessage("event is damaged").Len(); n != 5 {
		t.Errorf("the log has %d lines of 5 damaged events", n)
	}
	shut(t, s)
	s = open(t, dir, keys)
	check(s)
	s.SetMaxEvents(4) // damaged ones make room like others
	logged(t, s, "conn_A", 8)
	if got := shown(events(t, s, "conn_A")); !slices.Equal(got, []string{"13", "14", "15", "16"}) {
		t.Errorf("the events are %v, want 13 to 16", got)
	}
	shut(t, s)
	open(t, dir, keys)
}

// TestEventsOfDamagedConnection: deleting it counts all connections anew, but
// not the events, and is an event itself.
func TestEventsOfDamagedConnection(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	c := create(t, s, live("u"))
	create(t, s, live("other"))
	logged(t, s, c.ID, 3)
	tamper(t, s, func(txn *badger.Txn) error { return txn.Set([]byte("c/"+c.ID), nil) })
	gone, err := s.DeleteConnection(t.Context(), c.ID, tokenstore.Event{Type: tokenstore.EventDeleted})
	if err != nil || !gone.Damaged || gone.News != nil {
		t.Errorf("DeleteConnection = %+v, %v", gone, err)
	}
	shut(t, s)
	s = open(t, dir, keys)
	of := events(t, s, c.ID)
	if len(of) != 4 || of[3].Type != tokenstore.EventDeleted || of[3].ConnectionID != c.ID {
		t.Errorf("the events are %v, want the deletion at the end", shown(of))
	}
}

// TestMissingEvents: what was taken out, cut off or put in is found when the
// store is opened, and what is left can be had by accepting the loss.
func TestMissingEvents(t *testing.T) {
	keys := newKeys(t)
	for _, tc := range []struct {
		name, want string
		change     func(txn *badger.Txn, removed []byte) error
		left       []string
		lost       int
	}{
		{
			"taken out", "events 6 to 7 are gone",
			func(txn *badger.Txn, _ []byte) error {
				return errors.Join(txn.Delete(badgerstore.EventKey(6)), txn.Delete(badgerstore.EventKey(7)))
			},
			[]string{"3", "4", "5", "6 damaged", "7 damaged", "8"},
			2,
		},
		{
			"cut off the end", "should be events 3 to 8",
			func(txn *badger.Txn, _ []byte) error { return txn.Delete(badgerstore.EventKey(8)) },
			[]string{"3", "4", "5", "6", "7", "8 damaged"},
			1,
		},
		{
			"cut off the begin", "should be events 3 to 8",
			func(txn *badger.Txn, _ []byte) error { return txn.Delete(badgerstore.EventKey(3)) },
			[]string{"3 damaged", "4", "5", "6", "7", "8"},
			1,
		},
		{
			"all taken out", "should be events 3 to 8",
			func(txn *badger.Txn, _ []byte) error {
				var err error
				for seq := uint64(3); seq <= 8; seq++ {
					err = errors.Join(err, txn.Delete(badgerstore.EventKey(seq)))
				}
				return err
			},
			[]string{"3 damaged", "4 damaged", "5 damaged", "6 damaged", "7 damaged", "8 damaged"},
			6,
		},
		{
			"an old one put back", "should be events 3 to 8",
			func(txn *badger.Txn, removed []byte) error { return txn.Set(badgerstore.EventKey(2), removed) },
			[]string{"3", "4", "5", "6", "7", "8"},
			0,
		},
		{
			"one put in at the end", "should be events 3 to 8",
			func(txn *badger.Txn, removed []byte) error { return txn.Set(badgerstore.EventKey(9), removed) },
			[]string{"3", "4", "5", "6", "7", "8"},
			0,
		},
		{
			"a key that is none", "key of an event",
			func(txn *badger.Txn, removed []byte) error { return txn.Set([]byte("e/"), removed) },
			[]string{"3", "4", "5", "6", "7", "8"},
			0,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, keys)
			c := create(t, s, live("u"))
			logged(t, s, c.ID, 6)
			var removed []byte
			tamper(t, s, func(txn *badger.Txn) error {
				item, err := txn.Get(badgerstore.EventKey(2))
				if err == nil {
					removed, err = item.ValueCopy(nil)
				}
				return err
			})
			s.SetMaxEvents(6)
			logged(t, s, c.ID, 2)
			tamper(t, s, func(txn *badger.Txn) error { return tc.change(txn, removed) })
			shut(t, s)
			foundOut(t, dir, keys, tc.want)
			done, err := badgerstore.AcceptLoss(dir, badgerstore.RestoreConfig{Codec: keys})
			if err != nil || done.LostEvents != tc.lost || done.Connections != 1 {
				t.Fatalf("AcceptLoss = %+v, %v; want %d events lost", done, err, tc.lost)
			}
			s = open(t, dir, keys)
			logged(t, s, c.ID, 1)
			if diff := cmp.Diff(append(tc.left, "9"), shown(events(t, s, ""))); diff != "" {
				t.Errorf("the events that are left (-want +got):\n%s", diff)
			}
		})
	}
}
