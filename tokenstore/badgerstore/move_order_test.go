package badgerstore_test

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// load makes a store in dir of records.
func load(t *testing.T, dir string, keys tokenstore.Codec, records iter.Seq2[tokenstore.Record, error]) {
	t.Helper()
	unchecked := func(iter.Seq2[tokenstore.Record, error]) error { return nil }
	if err := errors.Join(badgerstore.Load(dir, keys, records, unchecked), badgerstore.EndLoad(dir, keys)); err != nil {
		t.Fatal(err)
	}
}

// TestLoadMuch: more than is sorted at a time, some of it too long to be in a
// table, is loaded record for record, and is found by its users and labels.
func TestLoadMuch(t *testing.T) {
	const connections, notes = 2000, 40
	made, one := time.Now().UTC().Round(0), live("")
	text := secret.New(strings.Repeat("n", 1<<20)) // 30 of them are longer than what is sorted at a time
	records := func(yield func(tokenstore.Record, error) bool) {
		for i := range connections {
			c := one
			c.ID, c.UserID, c.Revision = fmt.Sprintf("conn_%05d", i), fmt.Sprint("user-", i%7), 3
			c.CreatedAt, c.UpdatedAt = made.Add(-time.Duration(i)), made
			c.Labels = map[string]string{"team": fmt.Sprint(i % 10)}
			if !yield(tokenstore.Record{Connection: &c}, nil) {
				return
			}
		}
		for i := range 300 {
			if !yield(tokenstore.Record{Event: &tokenstore.Event{Seq: uint64(i + 5), At: made, Type: tokenstore.EventBackup}}, nil) {
				return
			}
		}
		for i := range notes {
			n := tokenstore.Note{ID: fmt.Sprintf("note-%02d", i), Revision: 2, Text: text}
			if i%4 == 0 {
				n.Text = secret.New(fmt.Sprint("short ", i))
			}
			if !yield(tokenstore.Record{Note: &n}, nil) {
				return
			}
		}
	}
	keys, dir := newKeys(t), t.TempDir()
	load(t, dir, keys, records)
	s := open(t, dir, keys)
	if n := same(t, records, s.Records(t.Context())); n.Connections != connections || n.Events != 300 || n.Notes != notes {
		t.Errorf("%+v was loaded", n)
	}
	seen := map[string]bool{}
	for cursor := ""; ; {
		f := tokenstore.Filter{UserID: "user-3", Labels: map[string]string{"team": "4"}}
		page, next, err := s.ListConnections(t.Context(), f, cursor, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			seen[c.ID] = true
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if len(seen) != connections/70+1 { // those with i%7 == 3 and i%10 == 4
		t.Errorf("%d connections of the user with the label, want %d", len(seen), connections/70+1)
	}
	create(t, s, live("another")) // and it can be written to
	shut(t, s)
	if n := len(all(t, open(t, dir, keys))); n != connections+1 {
		t.Errorf("%d connections after it was opened again, want %d", n, connections+1)
	}
}

// TestLoadOutOfOrder: records that come out of order, or twice, are refused.
func TestLoadOutOfOrder(t *testing.T) {
	for name, ids := range map[string][]string{"out of order": {"conn_2", "conn_1"}, "twice": {"conn_1", "conn_1"}} {
		t.Run(name, func(t *testing.T) {
			records := func(yield func(tokenstore.Record, error) bool) {
				for _, id := range ids {
					c := live("u")
					c.ID, c.Revision = id, 1
					if !yield(tokenstore.Record{Connection: &c}, nil) {
						return
					}
				}
			}
			dir := t.TempDir()
			err := badgerstore.Load(dir, newKeys(t), records, func(iter.Seq2[tokenstore.Record, error]) error { return nil })
			if err == nil || !strings.Contains(err.Error(), "conn_1") {
				t.Errorf("Load = %v, want an error that names the second", err)
			}
			if badgerstore.Exists(dir) {
				t.Error("something is left")
			}
		})
	}
}

// TestLoadedFlowIsNotTaken: a flow that a browser has begun is still nobody's after
// a move.
func TestLoadedFlowIsNotTaken(t *testing.T) {
	flow := tokenstore.Flow{ID: "begun", ExpiresAt: time.Now().Add(time.Hour)}
	keys, dir := newKeys(t), t.TempDir()
	load(t, dir, keys, func(yield func(tokenstore.Record, error) bool) { yield(tokenstore.Record{Flow: &flow}, nil) })
	s := open(t, dir, keys)
	if _, err := s.Flow(t.Context(), flow.ID); err != nil {
		t.Error(err)
	}
	if taken, err := s.TakenFlows(t.Context()); err != nil || len(taken) > 0 {
		t.Errorf("TakenFlows = %v, %v; want none", taken, err)
	}
}
