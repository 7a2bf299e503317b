package pgstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

func corrupt(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, tokenstore.ErrCorrupt) {
		t.Errorf("%s = %v, want ErrCorrupt", what, err)
	}
}

// someConnections makes three connections, of which the second was changed twice.
func someConnections(t *testing.T, s *pgstore.Store) (ids []string) {
	t.Helper()
	for range 3 {
		conn := aConnection()
		conn.Labels = map[string]string{"team": "blue"}
		conn, err := s.CreateConnection(t.Context(), conn)
		must(t, err)
		ids = append(ids, conn.ID)
	}
	for range 2 {
		_, err := s.UpdateConnection(t.Context(), ids[1], func(c *tokenstore.Connection) error { c.Name += "x"; return nil })
		must(t, err)
	}
	return ids
}

// TestTamperedConnections: whoever writes in the database can't make one record
// of another.
func TestTamperedConnections(t *testing.T) {
	for name, edit := range map[string]string{
		"another's record":     `update lanyard_connections c set sealed = o.sealed, revision = o.revision from lanyard_connections o where c.id = $1 and o.id = $2`,
		"two rows swapped":     `update lanyard_connections c set sealed = o.sealed from lanyard_connections o where (c.id = $1 and o.id = $2) or (c.id = $2 and o.id = $1)`,
		"revision put back":    `update lanyard_connections set revision = revision - 1 where id = $1 and $2 <> ''::bytea`,
		"revision put forward": `update lanyard_connections set revision = revision + 1 where id = $1 and $2 <> ''::bytea`,
		"a bit flipped":        `update lanyard_connections set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) where id = $1 and $2 <> ''::bytea`,
		"cut off":              `update lanyard_connections set sealed = substr(sealed, 1, 40) where id = $1 and $2 <> ''::bytea`,
		"emptied":              `update lanyard_connections set sealed = '' where id = $1 and $2 <> ''::bytea`,
	} {
		t.Run(name, func(t *testing.T) {
			dsn := pgtest.Shared(t).Database(t)
			s := opened(t, dsn, parsed(t, newKeyset(t)))
			ids := someConnections(t, s)
			q := direct(t, dsn)
			q.changed(edit, []byte(ids[1]), []byte(ids[0]))
			_, err := s.Connection(t.Context(), ids[1])
			corrupt(t, "Connection", err)
			_, err = s.UpdateConnection(t.Context(), ids[1], func(*tokenstore.Connection) error {
				t.Error("a change ran on a damaged record")
				return nil
			})
			corrupt(t, "UpdateConnection", err)
			for _, f := range []tokenstore.Filter{{}, {UserID: "user-1"}, {Labels: map[string]string{"team": "blue"}, UserID: "user-1"}} {
				page, _, err := s.ListConnections(t.Context(), f, "", 10)
				must(t, err)
				if len(page) != 3 || !page[1].Damaged || page[1].ID != ids[1] || page[1].CreatedAt.IsZero() || page[1].UserID != "" {
					t.Errorf("ListConnections = %d connections, the second %+v", len(page), page[min(1, len(page)-1)])
				}
			}
			deleted, err := s.DeleteConnection(t.Context(), ids[1], tokenstore.Event{Type: tokenstore.EventDeleted})
			if err != nil || !deleted.Damaged || deleted.ID != ids[1] {
				t.Errorf("DeleteConnection = %+v, %v", deleted, err)
			}
			page, _, err := s.ListConnections(t.Context(), tokenstore.Filter{}, "", 10)
			for _, c := range page {
				if c.ID == ids[1] {
					t.Errorf("a deleted connection is listed: %+v, %v", c, err)
				}
			}
			again := aConnection()
			again.ID = ids[1]
			if _, err := s.CreateConnection(t.Context(), again); !errors.Is(err, tokenstore.ErrExists) {
				t.Errorf("CreateConnection = %v, want ErrExists", err)
			}
		})
	}
}

// TestTamperedLists: a list that leads to what it does not show is told.
func TestTamperedLists(t *testing.T) {
	dsn := pgtest.Shared(t).Database(t)
	s := opened(t, dsn, parsed(t, newKeyset(t)))
	ids := someConnections(t, s)
	other := aConnection()
	other.UserID = "user-2"
	other, err := s.CreateConnection(t.Context(), other)
	must(t, err)
	q := direct(t, dsn)
	q.changed(`insert into lanyard_lists (digest, place) select digest, (select place from lanyard_lists where substr(place, 13) = $1 limit 1)
		from lanyard_lists where substr(place, 13) = $2 on conflict do nothing`, []byte(other.ID), []byte(ids[0]))
	page, _, err := s.ListConnections(t.Context(), tokenstore.Filter{UserID: "user-1"}, "", 10)
	if err != nil || len(page) != 4 || !page[3].Damaged || page[3].ID != other.ID {
		t.Errorf("ListConnections = %+v, %v", page, err)
	}
	_, err = s.NewestConnection(t.Context(), tokenstore.Filter{UserID: "user-1"})
	corrupt(t, "NewestConnection", err)
}

func TestTamperedOthers(t *testing.T) {
	dsn := pgtest.Shared(t).Database(t)
	s := opened(t, dsn, parsed(t, newKeyset(t)))
	now := time.Now().UTC()
	for _, id := range []string{"a", "b"} {
		must(t, s.CreateFlow(t.Context(), tokenstore.Flow{ID: id, Stage: tokenstore.FlowTaken, ExpiresAt: now.Add(time.Hour)}))
		_, err := s.UpdateNote(t.Context(), id, func(n *tokenstore.Note) error { n.Text = secret.New(id); return nil })
		must(t, err)
		must(t, s.AppendEvents(t.Context(), tokenstore.Event{Reason: id, ConnectionID: id}))
	}
	_, _, err := s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 10)
	must(t, err)
	q := direct(t, dsn)
	q.changed(`update lanyard_flows set sealed = (select sealed from lanyard_flows where id = 'b') where id = 'a'`)
	q.changed(`update lanyard_notes set sealed = (select sealed from lanyard_notes where id = 'b') where id = 'a'`)
	q.changed(`update lanyard_events set sealed = (select sealed from lanyard_events where seq = 2) where seq = 1`)
	_, err = s.Flow(t.Context(), "a")
	corrupt(t, "Flow", err)
	taken, err := s.TakenFlows(t.Context())
	corrupt(t, "TakenFlows", err)
	if len(taken) != 1 || taken[0].ID != "b" {
		t.Errorf("TakenFlows = %v", taken)
	}
	_, err = s.Note(t.Context(), "a")
	corrupt(t, "Note", err)
	if notes, err := s.ListNotes(t.Context(), ""); err != nil || len(notes) != 1 || notes[0].ID != "b" {
		t.Errorf("ListNotes = %v, %v", notes, err)
	}
	for _, f := range []tokenstore.EventFilter{{}, {ConnectionID: "a"}} {
		page, _, err := s.ListEvents(t.Context(), f, "", 10)
		if err != nil || len(page) == 0 || page[0].Type != tokenstore.EventLost || page[0].Seq != 1 {
			t.Errorf("ListEvents = %+v, %v", page, err)
		}
	}
	q.changed(`delete from lanyard_events where seq = 1`)
	page, _, err := s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 10)
	if err != nil || len(page) != 2 || page[0].Type != tokenstore.EventLost {
		t.Errorf("ListEvents without a row = %+v, %v", page, err)
	}
	must(t, s.AppendEvents(t.Context(), tokenstore.Event{Reason: "c"}, tokenstore.Event{Reason: "d"}))
	q.changed(`update lanyard_events_new set sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) where id = (select min(id::text)::bytea from lanyard_events_new)`)
	page, _, err = s.ListEvents(t.Context(), tokenstore.EventFilter{}, tokenstore.EventCursor(2), 10)
	if err != nil || len(page) != 2 || page[0].Type != tokenstore.EventLost || page[1].Reason != "d" || page[1].Seq != 4 {
		t.Errorf("ListEvents with a damaged new event = %+v, %v", page, err)
	}
}

// TestNothingInClear: of what is kept nothing can be read in the database but
// IDs, times and revisions.
func TestNothingInClear(t *testing.T) {
	dsn := pgtest.Shared(t).Database(t)
	s := opened(t, dsn, parsed(t, newKeyset(t)))
	conn := storetest.FullConnection()
	conn.Happened(storetest.FullEvent())
	_, err := s.CreateConnection(t.Context(), conn)
	must(t, err)
	plain := aConnection()
	plain.UserID, plain.Labels = "canary-user", map[string]string{"canary-key": "canary-value"}
	_, err = s.CreateConnection(t.Context(), plain)
	must(t, err)
	flow := storetest.FullFlow()
	flow.ID = "flow"
	flow.Happened(storetest.FullEvent())
	must(t, s.CreateFlow(t.Context(), flow))
	_, err = s.UpdateNote(t.Context(), "note", func(n *tokenstore.Note) error {
		full := storetest.FullNote()
		n.Text, n.KeepUntil = full.Text, full.KeepUntil
		return nil
	})
	must(t, err)
	_, _, err = s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 10)
	must(t, err)
	must(t, s.AppendEvents(t.Context(), storetest.FullEvent()))
	rows := direct(t, dsn).dump()
	if len(rows) < 20 {
		t.Fatalf("the database has %d rows", len(rows))
	}
	for _, text := range []string{storetest.Canary, "github", "ACTIVE"} {
		for _, row := range rows {
			// As text, and as bytes that are shown in hexadecimal.
			if strings.Contains(row, text) || strings.Contains(row, hexOf(text)) {
				t.Errorf("%q stands in the database: %.200s", text, row)
			}
		}
	}
}

// TestRecordsOfElsewhere: what was sealed for another store with the same keyset,
// or for another write of the record, does not open.
func TestRecordsOfElsewhere(t *testing.T) {
	ks := parsed(t, newKeyset(t))
	dsn, otherDSN := pgtest.Shared(t).Database(t), pgtest.Shared(t).Database(t)
	s, other := opened(t, dsn, ks), opened(t, otherDSN, ks)
	conn, err := s.CreateConnection(t.Context(), aConnection())
	must(t, err)
	_, err = other.CreateConnection(t.Context(), conn)
	must(t, err)
	sealed := func(q sql, from string) (b []byte) {
		t.Helper()
		must(t, q.conn.QueryRow(t.Context(), `select sealed from `+from).Scan(&b))
		return b
	}
	q, otherQ := direct(t, dsn), direct(t, otherDSN)
	q.changed(`update lanyard_connections set sealed = $1`, sealed(otherQ, "lanyard_connections"))
	_, err = s.Connection(t.Context(), conn.ID)
	corrupt(t, "Connection of another store", err)

	must(t, s.CreateFlow(t.Context(), tokenstore.Flow{ID: "flow", Stage: tokenstore.FlowOpen, ExpiresAt: time.Now().Add(time.Hour)}))
	open := sealed(q, "lanyard_flows")
	_, err = s.UpdateFlow(t.Context(), "flow", (*tokenstore.Flow).Take)
	must(t, err)
	q.changed(`update lanyard_flows set sealed = $1`, open)
	_, err = s.UpdateFlow(t.Context(), "flow", (*tokenstore.Flow).Take)
	corrupt(t, "UpdateFlow of a flow as it was", err)

	must(t, s.AppendEvents(t.Context(), tokenstore.Event{Reason: "one"}))
	before := sealed(q, "lanyard_events_new")
	_, _, err = s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 1)
	must(t, err)
	q.changed(`insert into lanyard_events_new (id, written_at, sealed) values ('other', now(), $1)`, before)
	page, _, err := s.ListEvents(t.Context(), tokenstore.EventFilter{}, tokenstore.EventCursor(1), 10)
	if err != nil || len(page) != 1 || page[0].Type != tokenstore.EventLost {
		t.Errorf("ListEvents of an event that was put in again = %+v, %v", page, err)
	}
}
