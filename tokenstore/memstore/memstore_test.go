package memstore_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) tokenstore.Store { return memstore.New() })
}

func TestShared(t *testing.T) {
	open := func(*testing.T) tokenstore.Shared { return memstore.Shared{Store: memstore.New()} }
	storetest.Run(t, func(*testing.T) tokenstore.Store { return memstore.Shared{Store: memstore.New()} })
	storetest.RunShared(t, open)
}

func TestFailWrites(t *testing.T) {
	s, down := memstore.New(), errors.New("disk is full")
	id := tokenstore.NewID()
	c := tokenstore.Connection{ID: id}
	if _, err := s.CreateConnection(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s.FailWrites(down)
	rename := func(c *tokenstore.Connection) error { c.Name = "new"; return nil }
	if _, err := s.UpdateConnection(t.Context(), id, rename); !errors.Is(err, down) {
		t.Errorf("UpdateConnection while writes fail = %v, want %v", err, down)
	}
	if got, err := s.Connection(t.Context(), id); err != nil || got.Name != "" {
		t.Errorf("Connection after a failed write = %q, %v; want no name", got.Name, err)
	}
	s.FailWrites(nil)
	if got, err := s.UpdateConnection(t.Context(), id, rename); err != nil || got.Name != "new" {
		t.Errorf("UpdateConnection after the failure = %q, %v; want it to work", got.Name, err)
	}
}

// TestNoteIsForgotten: a note is there until its time has come, and then as if
// it had never been.
func TestNoteIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		_, err := s.UpdateNote(t.Context(), "answer/1", func(n *tokenstore.Note) error {
			n.KeepUntil = time.Now().Add(24 * time.Hour)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24*time.Hour - time.Nanosecond)
		if _, err := s.Note(t.Context(), "answer/1"); err != nil {
			t.Errorf("Note before its time = %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := s.Note(t.Context(), "answer/1"); !errors.Is(err, tokenstore.ErrNotFound) {
			t.Errorf("Note after its time = %v, want ErrNotFound", err)
		}
		if notes, err := s.ListNotes(t.Context(), ""); err != nil || len(notes) > 0 {
			t.Errorf("ListNotes = %v, %v; want none", notes, err)
		}
	})
}
