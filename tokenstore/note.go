package tokenstore

import (
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
)

// Note is a small sealed record that a part of Lanyard keeps for itself: how far
// a webhook has come, what a request was answered, a revocation that is still to
// be made. Backups have notes in them; a restore leaves them out, since what
// they speak of is another time.
type Note struct {
	// ID says what it is of, in parts with slashes: webhook/…
	ID   string
	Text secret.String // at most 1 MiB
	// KeepUntil is when the store may forget it: it is then gone, as if it had
	// never been. Zero: never.
	KeepUntil time.Time
	// Revision counts the writes of this record. The store sets it.
	Revision uint64
}
