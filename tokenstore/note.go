package tokenstore

import (
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
)

// Note is a small sealed record that a part of Lanyard keeps for itself: how far
// a webhook has come, what a request was answered, a revocation that is still to
// be made. Backups hold no notes, and a store that was restored has none, since
// what they speak of is another time: a webhook then goes on at the end of the
// log, say.
type Note struct {
	// ID says what it is of, in parts with slashes: webhook/… It has 1 to 512
	// bytes, and stands on the disk in clear text.
	ID   string
	Text secret.String // at most 1 MiB
	// KeepUntil is when the store may forget it: it is then gone, as if it had
	// never been. Zero: never.
	KeepUntil time.Time
	// Revision grows with each write of this record. The store sets it.
	Revision uint64
}

// Forgotten reports whether n is to be forgotten at now.
func (n *Note) Forgotten(now time.Time) bool {
	return !n.KeepUntil.IsZero() && !now.Before(n.KeepUntil)
}
