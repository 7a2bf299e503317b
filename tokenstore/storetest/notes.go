package storetest

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// noted stores a note of this text.
func (c contract) noted(id, text string, keepUntil time.Time) tokenstore.Note {
	c.Helper()
	n, err := c.s.UpdateNote(c.Context(), id, func(n *tokenstore.Note) error {
		n.Text, n.KeepUntil = secret.New(text), keepUntil
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateNote = %v", err)
	}
	return n
}

// notes returns the IDs of the notes under a prefix.
func (c contract) notes(prefix string) (ids []string) {
	c.Helper()
	notes, err := c.s.ListNotes(c.Context(), prefix)
	if err != nil {
		c.Fatalf("ListNotes = %v", err)
	}
	for _, n := range notes {
		got, err := c.s.Note(c.Context(), n.ID)
		if err != nil {
			c.Errorf("Note = %v", err)
		}
		c.same("the note in the list", n, got)
		ids = append(ids, n.ID)
	}
	return ids
}

func (c contract) note() {
	_, err := c.s.Note(c.Context(), "webhook/a")
	c.want("Note", err, tokenstore.ErrNotFound)
	made, err := c.s.UpdateNote(c.Context(), "webhook/a", func(n *tokenstore.Note) error {
		c.same("what is not there", *n, tokenstore.Note{ID: "webhook/a"})
		n.Text = secret.New("1")
		return nil
	})
	if err != nil || made.Revision == 0 {
		c.Fatalf("UpdateNote = revision %d, %v", made.Revision, err)
	}
	for name, refusal := range map[string]error{"refused": errRefused, "unchanged": tokenstore.ErrUnchanged} {
		got, err := c.s.UpdateNote(c.Context(), "webhook/a", func(n *tokenstore.Note) error {
			c.same("what the change sees", *n, made)
			n.Text = secret.New("changed")
			return refusal
		})
		if name == "refused" && err != errRefused { //nolint:errorlint // as it is, not wrapped
			c.Errorf("UpdateNote = %v, want the change's own error as it is", err)
		}
		if name == "unchanged" {
			c.want("UpdateNote with ErrUnchanged", err, nil)
			c.same("the note left unchanged", got, made)
		}
		c.same("the notes", c.notes(""), []string{"webhook/a"})
	}
	_, err = c.s.UpdateNote(c.Context(), "webhook/none", func(*tokenstore.Note) error { return tokenstore.ErrUnchanged })
	c.want("UpdateNote of nothing with ErrUnchanged", err, nil)
	if _, err := c.s.UpdateNote(c.Context(), "webhook/a", func(n *tokenstore.Note) error { n.ID = "b"; return nil }); err == nil {
		c.Error("a note's ID was changed")
	}
	again := c.noted("webhook/a", "2", time.Time{})
	if again.Revision <= made.Revision {
		c.Errorf("Revision = %d after %d", again.Revision, made.Revision)
	}
	got, err := c.s.Note(c.Context(), "webhook/a")
	c.want("Note", err, nil)
	c.same("the note", got, again)
	if !got.Text.Equal(secret.New("2")) {
		c.Error("the note's text is not as it was written")
	}

	for range 2 {
		c.want("DeleteNote", c.s.DeleteNote(c.Context(), "webhook/a"), nil)
		_, err = c.s.Note(c.Context(), "webhook/a")
		c.want("Note", err, tokenstore.ErrNotFound)
	}
	c.same("the notes", c.notes(""), []string(nil))
	c.noted("webhook/a", "3", time.Time{})
	c.same("the notes", c.notes(""), []string{"webhook/a"})
}

func (c contract) everyNoteField() {
	full := FullNote()
	got, err := c.s.UpdateNote(c.Context(), full.ID, func(n *tokenstore.Note) error { *n = full; return nil })
	if err != nil {
		c.Fatalf("UpdateNote = %v", err)
	}
	full.Revision = got.Revision // the store's business
	c.same("the note that was made", got, full)
	got, err = c.s.Note(c.Context(), full.ID)
	c.want("Note", err, nil)
	c.same("the note", got, full)
}

func (c contract) longNote() {
	text := string(slices.Repeat([]byte{0xff}, 1<<20))
	c.noted("answer/long", text, time.Time{})
	c.noted("answer/other", "", time.Time{})
	got, err := c.s.Note(c.Context(), "answer/long")
	if err != nil || !got.Text.Equal(secret.New(text)) {
		c.Errorf("Note of 1 MiB = %v, or another text", err)
	}
}

func (c contract) listNotes() {
	for _, id := range []string{"webhook/b", "webhook/a", "webhook", "webhooks", "answer/x", "webhook/ÿ"} {
		c.noted(id, "x", time.Time{})
	}
	for prefix, want := range map[string][]string{
		"webhook/": {"webhook/a", "webhook/b", "webhook/ÿ"},
		"webhook":  {"webhook", "webhook/a", "webhook/b", "webhook/ÿ", "webhooks"},
		"answer/":  {"answer/x"},
		"none":     nil,
		"":         {"answer/x", "webhook", "webhook/a", "webhook/b", "webhook/ÿ", "webhooks"},
	} {
		c.same("the notes under "+prefix, c.notes(prefix), want)
	}
}

// forgottenNotes: a note is gone when its time has come, and one that is made
// then is a new one.
func (c contract) forgottenNotes() {
	c.noted("answer/late", "x", time.Now())
	c.noted("answer/soon", "x", time.Now().Add(time.Hour))
	c.noted("answer/ever", "x", time.Time{})
	_, err := c.s.Note(c.Context(), "answer/late")
	c.want("Note that is to be forgotten", err, tokenstore.ErrNotFound)
	c.same("the notes", c.notes("answer/"), []string{"answer/ever", "answer/soon"})
	_, err = c.s.UpdateNote(c.Context(), "answer/late", func(n *tokenstore.Note) error {
		c.same("what is forgotten", *n, tokenstore.Note{ID: "answer/late"})
		return nil
	})
	c.want("UpdateNote", err, nil)
	c.same("the notes", c.notes("answer/"), []string{"answer/ever", "answer/late", "answer/soon"})
}

func (c contract) concurrentNotes() {
	const writers, writes = 8, 25
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{} // revisions; guarded by mu
	for range writers {
		wg.Go(func() {
			for range writes {
				n, err := c.s.UpdateNote(c.Context(), "count", func(n *tokenstore.Note) error {
					n.KeepUntil = time.Now().Add(time.Hour)
					n.Text = secret.New(strconv.FormatUint(n.Revision+1, 10))
					return nil
				})
				if err != nil || !n.Text.Equal(secret.New(strconv.FormatUint(n.Revision, 10))) {
					c.Errorf("UpdateNote = revision %d, %v; want the text of that revision", n.Revision, err)
				}
				mu.Lock()
				seen[n.Revision] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	n, err := c.s.Note(c.Context(), "count")
	if err != nil || n.Revision != writers*writes || len(seen) != writers*writes {
		c.Errorf("after %d writes: revision %d, %d different ones, %v", writers*writes, n.Revision, len(seen), err)
	}
}
