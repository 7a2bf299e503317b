package badgerstore

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// head is what every transaction says of the whole store, under keyHead: its own
// number, which is Badger's version of all that is in it, and a digest of the
// connections, by ID and revision, and of the IDs of deleted ones. Whoever puts
// back a record, takes one out, or loses a transaction, can't make it agree.
type head struct {
	seq         uint64
	connections uint64
	deleted     uint64
	sum         [sha256.Size]byte // keyed digests of all of them, xored
}

const (
	headFormat = 1
	headLen    = 1 + 3*8 + 2*sha256.Size
)

func (h *head) toggle(key []byte, prefix, id string, revision uint64) {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(prefix))
	mac.Write(binary.BigEndian.AppendUint64(nil, revision))
	mac.Write([]byte(id))
	for i, b := range mac.Sum(nil) {
		h.sum[i] ^= b
	}
}

// count puts a connection or deleted ID in.
func (h *head) count(key []byte, prefix, id string, revision uint64) {
	h.toggle(key, prefix, id, revision)
	*h.counter(prefix)++
}

// discount takes one out.
func (h *head) discount(key []byte, prefix, id string, revision uint64) {
	h.toggle(key, prefix, id, revision)
	*h.counter(prefix)--
}

func (h *head) counter(prefix string) *uint64 {
	if prefix == keyDeleted {
		return &h.deleted
	}
	return &h.connections
}

func (h *head) encode(key []byte) []byte {
	b := []byte{headFormat}
	for _, n := range []uint64{h.seq, h.connections, h.deleted} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, h.sum[:]...)
	return append(b, headMAC(key, b)...)
}

// parseHead is false for what encode with this key has not written.
func parseHead(key, b []byte) (h head, ok bool) {
	if len(b) != headLen || b[0] != headFormat {
		return h, false
	}
	text, mac := b[:headLen-sha256.Size], b[headLen-sha256.Size:]
	if !hmac.Equal(mac, headMAC(key, text)) {
		return h, false
	}
	h.seq = binary.BigEndian.Uint64(b[1:])
	h.connections = binary.BigEndian.Uint64(b[9:])
	h.deleted = binary.BigEndian.Uint64(b[17:])
	copy(h.sum[:], b[25:])
	return h, true
}

func headMAC(key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("head"))
	mac.Write(text)
	return mac.Sum(nil)
}

// differs says what counted, which was found, has not of h, which is true.
func (h *head) differs(counted head) error {
	switch {
	case h.connections != counted.connections || h.deleted != counted.deleted:
		return fmt.Errorf("there should be %d connections and %d deleted IDs, and %d and %d are there",
			h.connections, h.deleted, counted.connections, counted.deleted)
	case h.sum != counted.sum:
		return fmt.Errorf("of the %d connections some are not as they were last written", h.connections)
	}
	return nil
}

// counted returns the prefix and ID of a key that the head counts.
func counted(key []byte) (prefix, id string, ok bool) {
	for _, prefix := range []string{keyConnection, keyDeleted} {
		if id, ok := bytes.CutPrefix(key, []byte(prefix)); ok {
			return prefix, string(id), true
		}
	}
	return "", "", false
}
