package tokenstore

import "encoding/binary"

// Codec turns records into sealed bytes and back. An engine keeps nothing of a
// connection or flow but these bytes, and the keys by which it finds them.
//
// ad is the associated data (see AssociatedData): it says which record of which
// store this is, so that sealed bytes moved elsewhere don't open. The Open
// methods return an error that wraps ErrCorrupt for bytes that don't open under
// ad. A record whose own texts (not the provider's) aren't UTF-8 is refused.
type Codec interface {
	SealConnection(c *Connection, ad []byte) ([]byte, error)
	OpenConnection(sealed, ad []byte) (Connection, error)
	SealFlow(f *Flow, ad []byte) ([]byte, error)
	OpenFlow(sealed, ad []byte) (Flow, error)
	SealEvent(e *Event, ad []byte) ([]byte, error)
	OpenEvent(sealed, ad []byte) (Event, error)
	SealNote(n *Note, ad []byte) ([]byte, error)
	OpenNote(sealed, ad []byte) (Note, error)
	// SealBytes and OpenBytes do the same for an engine's own secrets.
	SealBytes(plain, ad []byte) ([]byte, error)
	OpenBytes(sealed, ad []byte) ([]byte, error)
	// Reseal opens what one of the keys sealed and seals it with the primary
	// key, whatever it is.
	Reseal(sealed, ad []byte) ([]byte, error)
	// Keys returns the IDs of the keys that open. The first is the primary
	// key's, which seals.
	Keys() []uint32
	// KeyOf returns the ID of the key by which sealed bytes were sealed, as they
	// say of themselves: nothing is opened for it. ok is false if they say
	// nothing.
	KeyOf(sealed []byte) (id uint32, ok bool)
}

// Kind says what a sealed record is.
type Kind string

// The kinds of sealed records.
const (
	KindConnection Kind = "connection"
	KindFlow       Kind = "flow"
	KindEvent      Kind = "event"
	KindNote       Kind = "note"
	KindIdentity   Kind = "identity" // of the store itself: proves that the keyset is the right one
	KindBackup     Kind = "backup"   // the end of a backup: proves that it is whole and as it was written
)

// AssociatedData returns the associated data under which every engine seals a
// record: the record's ID and revision, and the store and epoch it belongs to.
// A revision is bound rather than a generation, since it changes with every
// write and so covers the generation too.
func AssociatedData(storeID, epoch string, kind Kind, id string, revision uint64) []byte {
	ad := append(make([]byte, 0, 192), "lanyard-record-v1"...) // as long as it is for a random ID, and more
	for _, part := range []string{storeID, epoch, string(kind), id} {
		ad = binary.BigEndian.AppendUint32(ad, uint32(len(part))) //nolint:gosec // no part is near 4 GiB
		ad = append(ad, part...)
	}
	return binary.BigEndian.AppendUint64(ad, revision)
}
