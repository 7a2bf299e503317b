package tokenstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// FuzzParseCursor reads what callers of the API send as cursors.
func FuzzParseCursor(f *testing.F) {
	at := tokenstore.Position{CreatedAt: time.Now(), ID: "conn_A"}
	f.Add(at.Cursor())
	f.Add("")
	f.Fuzz(func(t *testing.T, cursor string) {
		p, err := tokenstore.ParseCursor(cursor)
		if err != nil {
			if !errors.Is(err, tokenstore.ErrBadCursor) {
				t.Errorf("ParseCursor(%q) = %v, want ErrBadCursor", cursor, err)
			}
			return
		}
		if again, err := tokenstore.ParseCursor(p.Cursor()); err != nil || again.ID != p.ID || !again.CreatedAt.Equal(p.CreatedAt) {
			t.Errorf("ParseCursor(%q) = %+v, which comes back as %+v, %v", cursor, p, again, err)
		}
	})
}

// FuzzParseEventCursor does the same for those of events.
func FuzzParseEventCursor(f *testing.F) {
	f.Add(tokenstore.EventCursor(0))
	f.Add(tokenstore.EventCursor(1<<64 - 1))
	f.Add("")
	f.Fuzz(func(t *testing.T, cursor string) {
		seq, err := tokenstore.ParseEventCursor(cursor)
		if err != nil {
			if !errors.Is(err, tokenstore.ErrBadCursor) {
				t.Errorf("ParseEventCursor(%q) = %v, want ErrBadCursor", cursor, err)
			}
			return
		}
		if again, err := tokenstore.ParseEventCursor(tokenstore.EventCursor(seq)); err != nil || again != seq {
			t.Errorf("ParseEventCursor(%q) = %d, which comes back as %d, %v", cursor, seq, again, err)
		}
	})
}
