package badgerstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

func write(t *testing.T, s tokenstore.Store, id, text string, keepUntil time.Time) tokenstore.Note {
	t.Helper()
	n, err := s.UpdateNote(t.Context(), id, func(n *tokenstore.Note) error {
		n.Text, n.KeepUntil = secret.New(text), keepUntil
		return nil
	})
	if err != nil {
		t.Fatalf("UpdateNote = %v", err)
	}
	return n
}

// has checks that the note is there as it was written.
func has(t *testing.T, s tokenstore.Store, want tokenstore.Note) {
	t.Helper()
	got, err := s.Note(t.Context(), want.ID)
	if err != nil || !got.Text.Equal(want.Text) || got.Revision != want.Revision || !got.KeepUntil.Equal(want.KeepUntil) {
		t.Errorf("Note = %v, %v; want %v", got, err, want)
	}
}

// TestNotesStay: notes outlive a restart, also one in a value log, and a rekey,
// with the time until which they are kept.
func TestNotesStay(t *testing.T) {
	t.Parallel()
	keys, dir := newRotation(t), t.TempDir()
	s := open(t, dir, keys.before)
	const canary = "canary-of-a-note"
	short := write(t, s, "webhook/1", canary, time.Time{})
	timed := write(t, s, "answer/1", canary, time.Now().Add(time.Hour).UTC())
	long := write(t, s, "answer/long", strings.Repeat("x", 1<<20), time.Now().Add(time.Hour).UTC())
	for range 2 {
		shut(t, s)
		s = open(t, dir, keys.before)
		for _, n := range []tokenstore.Note{short, timed, long} {
			has(t, s, n)
		}
	}
	for path, text := range snapshot(t, dir) {
		if strings.Contains(text, canary) {
			t.Errorf("%s has the text of a note", path)
		}
	}
	if _, err := s.UpdateNote(t.Context(), "answer/long", func(n *tokenstore.Note) error {
		n.Text = secret.New(strings.Repeat("x", 3<<19))
		return nil
	}); err == nil {
		t.Error("a note of more than 1 MiB was taken")
	}
	if err := s.SetCodec(keys.both); err != nil {
		t.Fatal(err)
	}
	if err := s.BeginRekey(); err != nil {
		t.Fatal(err)
	}
	if err := s.Rekey(t.Context(), nothing); err != nil {
		t.Fatalf("Rekey = %v", err)
	}
	if p := s.RekeyProgress(); p.Done != 3 || p.Total != 3 {
		t.Errorf("RekeyProgress = %+v, want three records", p)
	}
	shut(t, s)
	s = open(t, dir, keys.after)
	for _, n := range []tokenstore.Note{short, timed, long} {
		has(t, s, n)
	}
	err := s.Tamper(func(txn *badger.Txn) error {
		for id, timed := range map[string]bool{"webhook/1": false, "answer/1": true, "answer/long": true} {
			item, err := txn.Get([]byte("n/" + id))
			if err != nil {
				return err
			}
			if (item.ExpiresAt() != 0) != timed {
				t.Errorf("Badger keeps %s until %d", id, item.ExpiresAt())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// A backup has none of them.
	other := t.TempDir()
	restore(t, other, backup(t, s), badgerstore.RestoreConfig{Codec: keys.after})
	if notes, err := open(t, other, keys.after).ListNotes(t.Context(), ""); err != nil || len(notes) > 0 {
		t.Errorf("after a restore ListNotes = %v, %v; want none", notes, err)
	}
}

// TestDamagedNotes: one that can't be opened is told of, left out of lists, and
// can be deleted. One that was put in another's place is damaged, too.
func TestDamagedNotes(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.ErrorLevel)
	s, err := badgerstore.Open(t.TempDir(), badgerstore.Config{Codec: newKeys(t), Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	good, moved := write(t, s, "a/1", "x", time.Time{}), write(t, s, "a/2", "y", time.Time{})
	err = s.Tamper(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte("n/a/1"))
		if err != nil {
			return err
		}
		value, err := item.ValueCopy(nil)
		return errors.Join(err, txn.Set([]byte("n/a/2"), value))
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Note(t.Context(), moved.ID); !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("Note = %v, want ErrCorrupt", err)
		}
		_, err := s.UpdateNote(t.Context(), moved.ID, func(*tokenstore.Note) error {
			t.Error("a change ran on a damaged note")
			return nil
		})
		if !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("UpdateNote = %v, want ErrCorrupt", err)
		}
		notes, err := s.ListNotes(t.Context(), "a/")
		if err != nil || len(notes) != 1 || notes[0].ID != good.ID {
			t.Errorf("ListNotes = %v, %v; want the good one", notes, err)
		}
	}
	if n := logs.FilterMessage("note is damaged").Len(); n != 1 || logs.Len() != 1 {
		t.Errorf("%d of %d lines tell of the note, want one", n, logs.Len())
	}
	if err := s.DeleteNote(t.Context(), moved.ID); err != nil {
		t.Fatal(err)
	}
	has(t, s, write(t, s, moved.ID, "z", time.Time{}))
}
