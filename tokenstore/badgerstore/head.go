package badgerstore

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
)

// head is what every transaction says of the whole store, under keyHead: its own
// number, which is Badger's version of all that is in it, a digest of the
// connections, by ID and revision, and of the IDs of deleted ones, and which
// events there are. Whoever puts back a record, takes one out, or loses a
// transaction, can't make it agree.
type head struct {
	seq         uint64
	connections uint64
	deleted     uint64
	events      eventRange
	sum         [sha256.Size]byte // keyed digests of all of them, xored
}

const (
	headFormat       = 2
	headBeforeEvents = 1 // without the last two numbers
	headNumbers      = 5
	headLen          = 1 + headNumbers*8 + 2*sha256.Size
)

// numbers returns the head's numbers in the order in which they are stored.
func (h *head) numbers() [headNumbers]*uint64 {
	return [...]*uint64{&h.seq, &h.connections, &h.deleted, &h.events.oldest, &h.events.newest}
}

func (h *head) xor(sum []byte) {
	for i, b := range sum {
		h.sum[i] ^= b
	}
}

// digester makes what is xored into a head's sum, again and again.
type digester struct {
	mac       hash.Hash
	text, sum []byte // of the last
}

func newDigester(key []byte) *digester { return &digester{mac: hmac.New(sha256.New, key)} }

// of returns the digest of a connection or deleted ID, which is valid until the
// next.
func (d *digester) of(prefix string, id []byte, revision uint64) []byte {
	d.text = append(d.text[:0], prefix...)
	d.text = binary.BigEndian.AppendUint64(d.text, revision)
	d.text = append(d.text, id...)
	d.mac.Reset()
	d.mac.Write(d.text)
	d.sum = d.mac.Sum(d.sum[:0])
	return d.sum
}

// count puts a connection or deleted ID in.
func (h *head) count(digest *digester, prefix string, id []byte, revision uint64) {
	h.xor(digest.of(prefix, id, revision))
	*h.counter(prefix)++
}

// countConnection puts a connection in, as it is stored.
func (h *head) countConnection(digest *digester, id, value []byte) error {
	revision, _, err := splitValue(value)
	if err != nil {
		return fmt.Errorf("connection %q: %w", id, err)
	}
	h.count(digest, keyConnection, id, revision)
	return nil
}

// discount takes one out.
func (h *head) discount(digest *digester, prefix string, id []byte, revision uint64) {
	h.xor(digest.of(prefix, id, revision))
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
	for _, n := range h.numbers() {
		b = binary.BigEndian.AppendUint64(b, *n)
	}
	b = append(b, h.sum[:]...)
	return append(b, headMAC(key, b)...)
}

// parseHead is false for what encode with this key has not written.
func parseHead(key, b []byte) (h head, ok bool) {
	numbers, length := h.numbers(), headLen
	has := numbers[:]
	if len(b) > 0 && b[0] == headBeforeEvents {
		has, length = has[:3], length-2*8
	}
	if len(b) != length || (b[0] != headFormat && b[0] != headBeforeEvents) {
		return h, false
	}
	text, mac := b[:length-sha256.Size], b[length-sha256.Size:]
	if !hmac.Equal(mac, headMAC(key, text)) {
		return h, false
	}
	for i, n := range has {
		*n = binary.BigEndian.Uint64(b[1+8*i:])
	}
	copy(h.sum[:], b[1+8*len(has):])
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
	case h.events != counted.events:
		return fmt.Errorf("there should be events %d to %d, and %d to %d are there",
			h.events.oldest, h.events.newest, counted.events.oldest, counted.events.newest)
	case h.sum != counted.sum:
		return fmt.Errorf("of the %d connections some are not as they were last written", h.connections)
	}
	return nil
}

// counted returns the prefix and ID of a key that the head counts.
func counted(key []byte) (prefix string, id []byte, ok bool) {
	for _, prefix := range []string{keyConnection, keyDeleted} {
		if id, ok := bytes.CutPrefix(key, []byte(prefix)); ok {
			return prefix, id, true
		}
	}
	return "", nil, false
}
