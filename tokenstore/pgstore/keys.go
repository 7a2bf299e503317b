package pgstore

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	timeLen   = 12
	digestLen = 16
)

// keyMaker makes the digests by which records are found: user IDs and labels are
// personal data, and stand nowhere as they are.
type keyMaker struct{ indexKey []byte }

func (m keyMaker) digest(of string, parts ...string) []byte {
	mac := hmac.New(sha256.New, m.indexKey)
	mac.Write([]byte(of))
	for _, part := range parts {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // no part is near 4 GiB
		mac.Write([]byte(part))
	}
	return mac.Sum(nil)[:digestLen]
}

// list returns the digest of f without its labels.
func (m keyMaker) list(f tokenstore.Filter) []byte {
	return m.digest("lanyard-list-v1", f.UserID, f.Integration, string(f.Status))
}

func (m keyMaker) label(key, value string) []byte {
	return m.digest("lanyard-label-v1", key, value)
}

// history returns the digest of a connection's ID, nil for none. It is digested
// only to be of one length, since events may be of what is no ID.
func (m keyMaker) history(connectionID string) []byte {
	if connectionID == "" {
		return nil
	}
	return m.digest("lanyard-history-v1", connectionID)
}

// filter returns the digests of the lists whose common places f shows.
func (m keyMaker) filter(f tokenstore.Filter) (digests [][]byte) {
	for _, key := range slices.Sorted(maps.Keys(f.Labels)) {
		digests = append(digests, m.label(key, f.Labels[key]))
	}
	if len(digests) == 0 || f.UserID != "" || f.Integration != "" || f.Status != "" {
		digests = append(digests, m.list(f))
	}
	return digests
}

// lists returns the digests of the lists that c is in: of the eight filters
// without labels that show it, so that each of these is one range of rows, and of
// its labels.
func (m keyMaker) lists(c *tokenstore.Connection) map[string]bool {
	digests := make(map[string]bool, 8+len(c.Labels))
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
		digests[string(m.list(f))] = true
	}
	for key, value := range c.Labels {
		digests[string(m.label(key, value))] = true
	}
	return digests
}

// sameLists reports whether two versions of a connection are in the same lists at
// the same place, as they are after a refresh: it spares the digests.
func sameLists(old, c *tokenstore.Connection) bool {
	return old.CreatedAt.Equal(c.CreatedAt) && old.UserID == c.UserID &&
		old.Integration == c.Integration && old.Status == c.Status && maps.Equal(old.Labels, c.Labels)
}

// place returns where p stands in every list: its bytes sort as
// tokenstore.Position does.
func place(p tokenstore.Position) []byte { return append(appendTime(nil, p.CreatedAt), p.ID...) }

func positionOf(place []byte) tokenstore.Position {
	if len(place) < timeLen {
		return tokenstore.Position{}
	}
	return tokenstore.Position{CreatedAt: timeOf(place), ID: string(place[timeLen:])}
}

// dueKey returns a time so that it sorts; nil for the zero time: never.
func dueKey(at time.Time) []byte {
	if at.IsZero() {
		return nil
	}
	return appendTime(nil, at)
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
