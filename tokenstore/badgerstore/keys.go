package badgerstore

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// The kinds of keys, by their first bytes. IDs stand at the end of a key, so
// that nothing in them can be taken for a separator.
const (
	keyIdentity   = "m/identity" // → the identity with which the database was made
	keyHead       = "m/head"     // → the last transaction's head
	keyConnection = "c/"         // ID → sealed connection
	keyDeleted    = "x/"         // ID → nothing: a connection that was deleted
	keyDue        = "d/"         // time, ID → nothing: when Connection.Due is
	keyList       = "l/"         // digest of a filter or label, time, ID → nothing: what the filter shows
	keyFlow       = "f/"         // ID → sealed flow
	keyTaken      = "t/"         // ID → nothing: a flow that is taken and not finished
	keyEvent      = "e/"         // Seq → sealed event
	keyHistory    = "h/"         // digest of a connection's ID, Seq → nothing: what happened to it
	keyNote       = "n/"         // ID → sealed note
)

// present is the value of keys that say all by being there. It is not empty,
// since an empty value is how Badger shows a damaged one.
var present = []byte{1}

const (
	timeLen   = 12
	digestLen = 16
	seqLen    = 8
)

// keyMaker builds keys. All that is no ID nor a time is digested: user IDs are
// personal data, and keys stand in the directory's bytes as they are.
type keyMaker struct{ indexKey []byte }

// headKey, markKey and knownKey are the keys of the head's, the mark's and the
// record's own digests.
func (m keyMaker) headKey() []byte  { return m.derive("lanyard-head-v1") }
func (m keyMaker) markKey() []byte  { return m.derive("lanyard-mark-v1") }
func (m keyMaker) knownKey() []byte { return m.derive("lanyard-known-v1") }

func (m keyMaker) derive(label string) []byte {
	mac := hmac.New(sha256.New, m.indexKey)
	mac.Write([]byte(label))
	return mac.Sum(nil)
}

func connectionKey(id string) []byte { return []byte(keyConnection + id) }
func deletedKey(id string) []byte    { return []byte(keyDeleted + id) }
func flowKey(id string) []byte       { return []byte(keyFlow + id) }
func takenKey(id string) []byte      { return []byte(keyTaken + id) }
func noteKey(id string) []byte       { return []byte(keyNote + id) }

func eventKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte(keyEvent), seq) }

// eventSeq returns the Seq in the key of an event.
func eventSeq(key []byte) (seq uint64, ok bool) {
	rest, ok := bytes.CutPrefix(key, []byte(keyEvent))
	if !ok || len(rest) != seqLen {
		return 0, false
	}
	return binary.BigEndian.Uint64(rest), true
}

// historyPrefix begins the keys of what happened to a connection. Its ID is
// digested only to be of one length, so that no other's keys are among them.
func (m keyMaker) historyPrefix(connectionID string) []byte {
	mac := hmac.New(sha256.New, m.indexKey)
	mac.Write([]byte("lanyard-history-v1"))
	mac.Write([]byte(connectionID))
	return append([]byte(keyHistory), mac.Sum(nil)[:digestLen]...)
}

func (m keyMaker) historyKey(connectionID string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(m.historyPrefix(connectionID), seq)
}

// dueKey sorts by time. It returns nil for the zero time: never due.
func dueKey(at time.Time, id string) []byte {
	if at.IsZero() {
		return nil
	}
	return append(appendTime([]byte(keyDue), at), id...)
}

// listPrefix begins the keys of the connections that f shows without its labels.
func (m keyMaker) listPrefix(f tokenstore.Filter) []byte {
	mac := hmac.New(sha256.New, m.indexKey)
	for _, part := range []string{f.UserID, f.Integration, string(f.Status)} {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // no part is near 4 GiB
		mac.Write([]byte(part))
	}
	return append([]byte(keyList), mac.Sum(nil)[:digestLen]...)
}

// labelPrefix begins the keys of the connections that have this label.
func (m keyMaker) labelPrefix(key, value string) []byte {
	mac := hmac.New(sha256.New, m.indexKey)
	mac.Write([]byte("lanyard-label-v1"))
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(key)))) //nolint:gosec // as above
	mac.Write([]byte(key))
	mac.Write([]byte(value))
	return append([]byte(keyList), mac.Sum(nil)[:digestLen]...)
}

// listPrefixes returns the prefixes of the ranges whose common places f shows.
func (m keyMaker) listPrefixes(f tokenstore.Filter) (prefixes [][]byte) {
	for key, value := range f.Labels {
		prefixes = append(prefixes, m.labelPrefix(key, value))
	}
	if len(prefixes) == 0 || f.UserID != "" || f.Integration != "" || f.Status != "" {
		prefixes = append(prefixes, m.listPrefix(f))
	}
	return prefixes
}

// labelKeys returns the keys by which c is found by its labels.
func (m keyMaker) labelKeys(c *tokenstore.Connection) (keys [][]byte) {
	for key, value := range c.Labels {
		keys = append(keys, append(m.labelPrefix(key, value), placeOf(tokenstore.PositionOf(c))...))
	}
	return keys
}

// indexKeys returns the keys besides its own by which c is found: one for each
// of the eight filters that show it, so that every list without labels is one
// range of keys, and one for each label.
func (m keyMaker) indexKeys(c *tokenstore.Connection) [][]byte {
	keys := make([][]byte, 0, 9+len(c.Labels))
	at := placeOf(tokenstore.PositionOf(c))
	for bits := range 8 {
		var f tokenstore.Filter
		if bits&1 != 0 {
			f.UserID = c.UserID
		}
		if bits&2 != 0 {
			f.Integration = c.Integration
		}
		if bits&4 != 0 {
			f.Status = c.Status
		}
		keys = append(keys, append(m.listPrefix(f), at...))
	}
	keys = append(keys, m.labelKeys(c)...)
	if due := dueKey(c.Due(), c.ID); due != nil {
		keys = append(keys, due)
	}
	return keys
}

// sameLists reports whether the index keys of a connection before and after a
// change can differ in when it is due alone, as they do after a refresh: it
// spares the digests, which are most of what such a write costs.
func sameLists(old, c *tokenstore.Connection) bool {
	return old.ID == c.ID && old.CreatedAt.Equal(c.CreatedAt) && old.UserID == c.UserID &&
		old.Integration == c.Integration && old.Status == c.Status && maps.Equal(old.Labels, c.Labels)
}

// appendTime appends t so that bytes sort as times do, before 1970 too.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix())^(1<<63))  //nolint:gosec // the sign bit is flipped on purpose
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond())) //nolint:gosec // below 1e9
}

// timeOf returns the time that appendTime has put at the begin of b.
func timeOf(b []byte) time.Time {
	return time.Unix(int64(binary.BigEndian.Uint64(b)^(1<<63)), int64(binary.BigEndian.Uint32(b[8:]))).UTC() //nolint:gosec // as above
}
