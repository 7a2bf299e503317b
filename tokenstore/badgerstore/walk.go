package badgerstore

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// place is the end of an index key, behind the digest: a time and an ID. Its
// bytes sort as tokenstore.Position does.
type place []byte

func placeOf(p tokenstore.Position) place { return append(appendTime(nil, p.CreatedAt), p.ID...) }

func (p place) position() tokenstore.Position {
	return tokenstore.Position{CreatedAt: timeOf(p), ID: string(p[timeLen:])}
}

// walk goes through the places that several ranges of index keys have in common,
// in their order: it moves whichever range is behind to where the foremost is,
// so that it costs what the shortest range holds, whichever that is.
type walk struct {
	ranges  []*badger.Iterator
	prefix  [][]byte // of ranges
	reverse bool

	at     place // the foremost
	agreed bool  // all ranges have it
	turn   int   // the range to move next
	have   int   // ranges that are known to be at it
	before place // the last place that was left behind
	passed int   // moves to where not all ranges had to be
}

// newWalk begins a walk, which has to be closed.
func newWalk(txn *badger.Txn, prefixes [][]byte, reverse bool) *walk {
	w := &walk{prefix: prefixes, reverse: reverse}
	for _, prefix := range prefixes {
		w.ranges = append(w.ranges, txn.NewIterator(badger.IteratorOptions{Prefix: prefix, Reverse: reverse}))
	}
	return w
}

func (w *walk) close() {
	for _, it := range w.ranges {
		it.Close()
	}
}

// first returns the first place of the first range from start on, or nil if it
// has none. A nil start is the begin, or with reverse the end.
func (w *walk) first(start place) place {
	if start == nil && w.reverse {
		start = bytes.Repeat([]byte{0xff}, timeLen) // after every time
	}
	w.ranges[0].Seek(append(bytes.Clone(w.prefix[0]), start...))
	return w.arrive()
}

// next moves one range, and returns the foremost place, or nil if there is no
// further one that all ranges can have. It is one that all have if agreed says so.
func (w *walk) next() place {
	if w.agreed {
		w.agreed = false
		w.ranges[w.turn].Next()
		return w.arrive()
	}
	w.passed++
	w.turn = (w.turn + 1) % len(w.ranges)
	w.ranges[w.turn].Seek(append(bytes.Clone(w.prefix[w.turn]), w.at...))
	return w.arrive()
}

// arrive notes where the range whose turn it was has come to.
func (w *walk) arrive() place {
	it := w.ranges[w.turn]
	if !it.Valid() {
		return nil
	}
	at := place(it.Item().Key()[len(w.prefix[w.turn]):])
	if w.at != nil && bytes.Equal(at, w.at) {
		w.have++
	} else {
		w.before, w.at, w.have = w.at, bytes.Clone(at), 1
	}
	w.agreed = w.have == len(w.ranges)
	return w.at
}
