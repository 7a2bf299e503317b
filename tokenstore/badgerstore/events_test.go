package badgerstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

// events returns the events of a store, in one page.
func events(t *testing.T, s tokenstore.Store, connectionID string) []tokenstore.Event {
	t.Helper()
	page, _, err := s.ListEvents(t.Context(), tokenstore.EventFilter{ConnectionID: connectionID}, "", 1_000_000)
	if err != nil {
		t.Fatalf("ListEvents = %v", err)
	}
	return page
}

// logged appends n events of a connection, which say which they are.
func logged(t *testing.T, s tokenstore.Store, connectionID string, n int) {
	t.Helper()
	for i := range n {
		e := tokenstore.Event{Type: tokenstore.EventUsed, ConnectionID: connectionID, Reason: fmt.Sprint(i)}
		if err := s.AppendEvents(t.Context(), e); err != nil {
			t.Fatalf("AppendEvents = %v", err)
		}
	}
}

// shown describes events by Seq, with the type of those that are lost.
func shown(events []tokenstore.Event) (said []string) {
	for _, e := range events {
		text := fmt.Sprint(e.Seq)
		if e.Type == tokenstore.EventLost {
			text += " damaged"
		}
		said = append(said, text)
	}
	return said
}

func keysUnder(t *testing.T, s *badgerstore.Store, prefix string) int {
	t.Helper()
	n, err := s.CountKeys(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEventRing: there are never more than so many, whoever writes, and nothing
// is left of those that made room.
func TestEventRing(t *testing.T) {
	const most = 10
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	s.SetMaxEvents(most)
	c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for range 20 {
				err := s.AppendEvents(t.Context(), tokenstore.Event{ConnectionID: fmt.Sprint("conn_", w)}, tokenstore.Event{})
				if err == nil {
					_, err = s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
						c.Happened(tokenstore.Event{})
						return nil
					})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	logged(t, s, c.ID, 25) // more than there may be
	check := func(s *badgerstore.Store, newest, n int) {
		t.Helper()
		all := events(t, s, "")
		if len(all) != n || all[0].Seq != uint64(newest-n+1) || all[n-1].Seq != uint64(newest) || slices.Contains(shown(all), "damaged") {
			t.Errorf("the events are %v, want %d to %d", shown(all), newest-n+1, newest)
		}
		if of := shown(events(t, s, c.ID)); len(of) != n {
			t.Errorf("the connection's events are %v", of)
		}
		if events, index := keysUnder(t, s, "e/"), keysUnder(t, s, "h/"); events != n || index != n {
			t.Errorf("there are %d events and %d index keys, want %d", events, index, n)
		}
	}
	check(s, 265, most)
	shut(t, s)

	// Room for more, and for less: that is then made by and by.
	s = open(t, dir, keys)
	s.SetMaxEvents(20)
	check(s, 265, most)
	logged(t, s, c.ID, 5)
	check(s, 270, 15)
	s.SetMaxEvents(12)
	logged(t, s, c.ID, 1)
	check(s, 271, 14)
	logged(t, s, c.ID, 10)
	check(s, 281, 12)
	shut(t, s)
	check(open(t, dir, keys), 281, 12)
}

// TestManyEventsAtOnce: more than one transaction has room for.
func TestManyEventsAtOnce(t *testing.T) {
	s := open(t, t.TempDir(), newKeys(t))
	var many []tokenstore.Event
	for range 1000 {
		many = append(many, tokenstore.Event{ConnectionID: "conn_A", UserID: strings.Repeat("u", 2000)})
	}
	if err := s.AppendEvents(t.Context(), many...); err != nil {
		t.Fatalf("AppendEvents = %v", err)
	}
	if n := len(events(t, s, "conn_A")); n != len(many) {
		t.Errorf("there are %d events, want %d", n, len(many))
	}
}

// TestStoreBeforeEvents: a store that a version without events has written opens,
// and gets events.
func TestStoreBeforeEvents(t *testing.T) {
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	c := create(t, s, storetest.FullConnection())
	shut(t, s)
	if err := badgerstore.WriteHeadBeforeEvents(dir, keys); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, keys)
	if got, err := s.Connection(t.Context(), c.ID); err != nil || !cmp.Equal(c, got) {
		t.Errorf("Connection = %v, %v", got.ID, err)
	}
	if got := events(t, s, ""); len(got) != 0 {
		t.Errorf("the events are %v, want none", shown(got))
	}
	logged(t, s, c.ID, 2)
	shut(t, s)
	if got := shown(events(t, open(t, dir, keys), c.ID)); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("the events are %v, want two", got)
	}
}

// TestEventsOfFailedWrites: a transaction that was given up leaves no gap.
func TestEventsOfFailedWrites(t *testing.T) {
	for _, place := range []string{"store.commit", "store.sync", "store.mark"} {
		t.Run(place, func(t *testing.T) {
			dir, keys, f := t.TempDir(), newKeys(t), &faults{}
			s := openHooked(t, dir, keys, f.hit)
			logged(t, s, "conn_A", 3)
			f.set(place, 1)
			err := s.AppendEvents(t.Context(), tokenstore.Event{ConnectionID: "conn_A", Reason: "unknown"})
			if !errors.Is(err, tokenstore.ErrUnavailable) {
				t.Errorf("AppendEvents = %v, want ErrUnavailable", err)
			}
			eventually(t, "writes are taken again", func() bool {
				return s.AppendEvents(t.Context(), tokenstore.Event{ConnectionID: "conn_A", Reason: "after"}) == nil
			})
			all := events(t, s, "conn_A")
			for i, e := range all {
				if e.Seq != uint64(i+1) || e.Type == tokenstore.EventLost {
					t.Errorf("the events are %v", shown(all))
				}
			}
			if n := len(all); (n != 4 && n != 5) || all[n-1].Reason != "after" {
				t.Errorf("the events are %v, want the last one to be the last", shown(all))
			}
		})
	}
}

// noEvents is a codec that seals no event.
type noEvents struct{ tokenstore.Codec }

func (noEvents) SealEvent(*tokenstore.Event, []byte) ([]byte, error) {
	return nil, errors.New("no events")
}

// TestEventsThatFail: a token that was renewed is written, whatever becomes of
// the line about it.
func TestEventsThatFail(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	s, err := badgerstore.Open(t.TempDir(), badgerstore.Config{Codec: noEvents{newKeys(t)}, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	c := create(t, s, live("before"))
	_, err = s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
		c.Token = live("after").Token
		c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshed})
		return nil
	})
	if err != nil {
		t.Errorf("UpdateConnection = %v", err)
	}
	if got, err := s.Connection(t.Context(), c.ID); err != nil || !got.Token.AccessToken.Equal(live("after").Token.AccessToken) {
		t.Errorf("Connection = revision %d, %v; want the new token", got.Revision, err)
	}
	if logs.FilterMessage("event was lost").FilterField(zap.String("connection_id", c.ID)).Len() != 1 {
		t.Errorf("the log says %v", logs.All())
	}
	if err := s.AppendEvents(t.Context(), tokenstore.Event{}); err == nil {
		t.Error("AppendEvents of one that was not written succeeded")
	}
	if got := events(t, s, ""); len(got) != 0 {
		t.Errorf("the events are %v", shown(got))
	}
	shut(t, s)
}

// TestBackupOfEvents: a restored store has the events of its backup, in their
// places, and goes on behind them.
func TestBackupOfEvents(t *testing.T) {
	keys := newRotation(t)
	s := open(t, t.TempDir(), keys.before)
	c := create(t, s, live("u"))
	logged(t, s, c.ID, 10)
	s.SetMaxEvents(8)
	logged(t, s, c.ID, 1)
	want := events(t, s, c.ID)
	text := backup(t, s)
	logged(t, s, c.ID, 5) // not in it
	if strings.Contains(string(text), "connection.used") {
		t.Error("an event stands in the backup")
	}

	dir := t.TempDir()
	if done := restore(t, dir, text, badgerstore.RestoreConfig{Codec: keys.both}); done.LostEvents != 0 {
		t.Errorf("Restore = %+v", done)
	}
	again := open(t, dir, keys.after)
	if diff := cmp.Diff(want, events(t, again, c.ID)); diff != "" {
		t.Errorf("the restored events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, events(t, again, "")); diff != "" {
		t.Errorf("all restored events (-want +got):\n%s", diff)
	}
	// A cursor from before tells its reader that the log was put back.
	_, _, err := again.ListEvents(t.Context(), tokenstore.EventFilter{}, tokenstore.EventCursor(14), 10)
	if !errors.Is(err, tokenstore.ErrBadCursor) {
		t.Errorf("ListEvents with a cursor of what was not restored = %v, want ErrBadCursor", err)
	}
	logged(t, again, c.ID, 1)
	if got := shown(events(t, again, "")); got[len(got)-1] != "12" {
		t.Errorf("the events are %v, want number 12 at the end", got)
	}

	tamper(t, s, func(txn *badger.Txn) error {
		return errors.Join(txn.Set(badgerstore.EventKey(9), nil), swap(txn, string(badgerstore.EventKey(10)), string(badgerstore.EventKey(16))))
	})
	dir = t.TempDir()
	if done := restore(t, dir, backup(t, s), badgerstore.RestoreConfig{Codec: keys.both}); done.LostEvents != 3 {
		t.Errorf("Restore of damaged events = %+v, want three lost", done)
	}
	damaged := []string{"9 damaged", "10 damaged", "11", "12", "13", "14", "15", "16 damaged"}
	if diff := cmp.Diff(damaged, shown(events(t, open(t, dir, keys.both), ""))); diff != "" {
		t.Errorf("the events of a damaged store, restored (-want +got):\n%s", diff)
	}
}

// TestRekeyOfEvents: afterwards no event needs the old key.
func TestRekeyOfEvents(t *testing.T) {
	keys, dir := newRotation(t), t.TempDir()
	s := open(t, dir, keys.before)
	logged(t, s, "conn_A", 100)
	tamper(t, s, func(txn *badger.Txn) error { return txn.Set(badgerstore.EventKey(7), nil) })
	err := errors.Join(s.SetCodec(keys.both), s.BeginRekey())
	logged(t, s, "conn_A", 5)
	if err = errors.Join(err, s.Rekey(t.Context(), nothing)); err != nil {
		t.Fatal(err)
	}
	if p := s.RekeyProgress(); p.Total != 105 || p.Done != 104 || p.Damaged != 1 || p.State != "done" {
		t.Errorf("RekeyProgress = %+v", p)
	}
	logged(t, s, "conn_A", 1)
	shut(t, s)
	got := shown(events(t, open(t, dir, keys.after), "conn_A"))
	if len(got) != 106 || strings.Count(fmt.Sprint(got), "damaged") != 1 || got[6] != "7 damaged" {
		t.Errorf("the events are %v, want 106 and number 7 damaged", got)
	}
}

// TestNothingOfEventsInClear: what is in an event stands nowhere in the files.
func TestNothingOfEventsInClear(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, newKeys(t))
	e := storetest.FullEvent()
	if err := s.AppendEvents(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	for path, text := range snapshot(t, dir) {
		if strings.Contains(text, storetest.Canary) || strings.Contains(text, string(e.Type)) {
			t.Errorf("%s has an event in clear", path)
		}
	}
}
