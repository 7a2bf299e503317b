package badgerstore

import "hash/maphash"

// written remembers which transaction was the last to write a record, so that
// the committer need not read again what nobody has written since it was read.
// Records share places, by a hash of their keys: one that has its place with
// another which was written is read once more than it had to be.
type written struct {
	seed maphash.Seed
	last [1 << 14]uint64
}

func (w *written) place(key []byte) *uint64 {
	return &w.last[maphash.Bytes(w.seed, key)%uint64(len(w.last))]
}

// add notes that the transaction seq writes key.
func (w *written) add(key []byte, seq uint64) { *w.place(key) = seq }

// since reports whether key may have been written after the transaction seq.
func (w *written) since(key []byte, seq uint64) bool { return *w.place(key) > seq }
