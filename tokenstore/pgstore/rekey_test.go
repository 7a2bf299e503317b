package pgstore_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// rotated returns a keyset with a new primary key, and one that has that alone.
func rotated(t *testing.T, text []byte) (both, alone []byte) {
	t.Helper()
	both, err := seal.AddPrimary(text)
	must(t, err)
	alone, err = seal.DropOld(both)
	must(t, err)
	return both, alone
}

func done() error { return nil }

// TestRekey: everything is sealed anew while it is written, and then the old key
// is not needed any more.
func TestRekey(t *testing.T) {
	dsn, old := pgtest.Shared(t).Database(t), newKeyset(t)
	both, alone := rotated(t, old)
	s := opened(t, dsn, parsed(t, old))
	s.SetSettle(0)
	var ids []string
	for i := range 150 {
		conn := aConnection()
		conn.Happened(tokenstore.Event{Reason: "made"})
		conn, err := s.CreateConnection(t.Context(), conn)
		must(t, err)
		ids = append(ids, conn.ID)
		must(t, s.CreateFlow(t.Context(), tokenstore.Flow{ID: fmt.Sprint(i), ExpiresAt: time.Now().Add(time.Hour)}))
		_, err = s.UpdateNote(t.Context(), fmt.Sprint(i), func(n *tokenstore.Note) error { n.Text = secret.New("x"); return nil })
		must(t, err)
	}
	_, _, err := s.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 1)
	must(t, err)
	must(t, s.AppendEvents(t.Context(), tokenstore.Event{Reason: "not numbered yet"}))
	if p := s.RekeyProgress(); p.State != "idle" {
		t.Errorf("RekeyProgress at first = %+v", p)
	}
	must(t, s.Rekey(t.Context(), func() error { t.Error("finished what was not begun"); return nil }))
	if err := s.SetCodec(parsed(t, newKeyset(t))); !errors.Is(err, tokenstore.ErrKeyMissing) {
		t.Errorf("SetCodec with another keyset = %v", err)
	}
	must(t, s.SetCodec(parsed(t, both)))
	if p := s.RekeyProgress(); p.State != "needed" {
		t.Errorf("RekeyProgress with a new key = %+v", p)
	}
	direct(t, dsn).changed(`update lanyard_connections set revision = revision + 1 where id = $1`, []byte(ids[0]))
	must(t, s.BeginRekey())
	if p := s.RekeyProgress(); p.State != "running" {
		t.Errorf("RekeyProgress after BeginRekey = %+v", p)
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		for _, id := range ids[1:] {
			if _, err := s.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error { c.Name = "x"; return nil }); err != nil {
				t.Error(err)
			}
		}
	})
	finished := 0
	must(t, s.Rekey(t.Context(), func() error { finished++; return nil }))
	writing.Wait()
	if p := s.RekeyProgress(); finished != 1 || p.State != "done" || p.Done != p.Total-1 || p.Damaged != 1 || p.Total < 600 {
		t.Errorf("RekeyProgress at the end = %+v, finished %d times", p, finished)
	}
	notOpened(t, dsn, parsed(t, old), tokenstore.ErrKeyMissing)
	after := opened(t, dsn, parsed(t, alone))
	for _, id := range ids[1:] {
		got, err := after.Connection(t.Context(), id)
		if err != nil || got.Revision != 2 || got.Name != "x" {
			t.Fatalf("Connection = revision %d, %v", got.Revision, err)
		}
	}
	events, _, err := after.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 1000)
	if err != nil || len(events) != 151 || events[150].Reason != "not numbered yet" {
		t.Errorf("ListEvents = %d events, %v", len(events), err)
	}
	notes, err := after.ListNotes(t.Context(), "")
	if err != nil || len(notes) != 150 {
		t.Errorf("ListNotes = %d notes, %v", len(notes), err)
	}
	if _, err := after.Flow(t.Context(), "149"); err != nil {
		t.Errorf("Flow = %v", err)
	}
}

// TestRekeyIsTakenOver: a rekey whose process has ended goes on in another, and is
// waited for where it runs.
func TestRekeyIsTakenOver(t *testing.T) {
	dsn, old := pgtest.Shared(t).Database(t), newKeyset(t)
	both, _ := rotated(t, old)
	one := opened(t, dsn, parsed(t, old))
	ids := someConnections(t, one)
	must(t, one.SetCodec(parsed(t, both)))
	must(t, one.BeginRekey())
	two := opened(t, dsn, parsed(t, both))
	if p := two.RekeyProgress(); p.State != "running" {
		t.Errorf("RekeyProgress of another process = %+v", p)
	}
	one.SetSettle(0)
	two.SetSettle(0)
	var all sync.WaitGroup
	for _, s := range []*pgstore.Store{one, two} {
		all.Go(func() {
			if err := s.Rekey(t.Context(), done); err != nil {
				t.Errorf("Rekey = %v", err)
			}
			if p := s.RekeyProgress(); p.State != "done" && p.State != "idle" {
				t.Errorf("RekeyProgress = %+v", p)
			}
		})
	}
	all.Wait()
	_, err := two.Connection(t.Context(), ids[0])
	must(t, err)
}

// TestKeyOfAnother: what another process has sealed with a newer key is no damage,
// and can't be deleted as such.
func TestKeyOfAnother(t *testing.T) {
	dsn, old := pgtest.Shared(t).Database(t), newKeyset(t)
	both, _ := rotated(t, old)
	behind := opened(t, dsn, parsed(t, old))
	ahead := opened(t, dsn, parsed(t, both))
	conn, err := ahead.CreateConnection(t.Context(), aConnection())
	must(t, err)
	for what, call := range map[string]func() error{
		"Connection":       func() error { _, err := behind.Connection(t.Context(), conn.ID); return err },
		"DeleteConnection": func() error { _, err := behind.DeleteConnection(t.Context(), conn.ID); return err },
		"ListConnections": func() error {
			_, _, err := behind.ListConnections(t.Context(), tokenstore.Filter{}, "", 10)
			return err
		},
	} {
		if err := call(); !errors.Is(err, tokenstore.ErrUnavailable) || !errors.Is(err, tokenstore.ErrKeyMissing) || errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("%s = %v, want ErrUnavailable for want of a key", what, err)
		}
	}
	must(t, behind.SetCodec(parsed(t, both)))
	_, err = behind.Connection(t.Context(), conn.ID)
	must(t, err)
}
