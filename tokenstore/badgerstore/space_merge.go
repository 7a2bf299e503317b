package badgerstore

import (
	"bytes"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/y"
)

// Badger merges a table with those of the next level whose keys are in its
// range, and level 0 as a whole. What it makes of them is there beside them until
// it is done. So it needs the more, the larger the store is: level for level,
// tables are twice as long.

const (
	// mergesAtOnce is how many merges it does at the same time.
	mergesAtOnce = 2
	// lastLevel is the number of its last level.
	lastLevel = 6
)

// span is a table of Badger's.
type span struct {
	level       int
	first, last []byte // keys
	bytes       int64
}

func spansOf(db *badger.DB) []span {
	tables := db.Tables()
	spans := make([]span, len(tables))
	for n, t := range tables {
		size := int64(t.OnDiskSize)
		spans[n] = span{t.Level, y.ParseKey(t.Left), y.ParseKey(t.Right), size + size/16} // with its index
	}
	return spans
}

func (r *reader) spans() (spans []span) {
	for level, tables := range r.levels {
		for _, t := range tables {
			spans = append(spans, span{int(level), y.ParseKey(t.Smallest()), y.ParseKey(t.Biggest()), t.Size()})
		}
	}
	return spans
}

// roomForMerges returns the most that Badger needs to merge these tables.
func roomForMerges(tables []span) (room int64) {
	levels := map[int][]span{}
	for _, s := range tables {
		levels[s.level] = append(levels[s.level], s)
	}
	for _, level := range levels {
		slices.SortFunc(level, func(a, b span) int { return bytes.Compare(a.first, b.first) })
	}
	// Level 0 has grown when it is merged, and everything may be in its range.
	zero := int64(levelZeroTables * memTableSize)
	merges := []int64{max(zero, sum(levels[0])) + sum(levels[base(levels)])}
	for n, level := range levels {
		for _, s := range level {
			if n > 0 {
				merges = append(merges, s.bytes+sum(s.among(levels[n+1])))
			}
		}
	}
	slices.Sort(merges)
	return sumOf(merges[max(0, len(merges)-mergesAtOnce):])
}

// base returns the level that Badger merges level 0 with. That is the first with
// tables, or the empty one above it once it is as large as a first level may be,
// and there is to be one more, by the size of the last.
func base(levels map[int][]span) int {
	highest := lastLevel
	for size := sum(levels[lastLevel]); size > baseLevelSize && highest > 1; size /= levelRatio {
		highest--
	}
	first := lastLevel
	for n := range levels {
		if n > 0 {
			first = min(first, n)
		}
	}
	if first > highest && sum(levels[first]) >= baseLevelSize {
		return first - 1
	}
	return first
}

// among returns the spans of a level, which are sorted and have no keys in
// common, that have keys in the range of s.
func (s *span) among(level []span) []span {
	from, _ := slices.BinarySearchFunc(level, s.first, func(o span, key []byte) int { return bytes.Compare(o.last, key) })
	to := from
	for to < len(level) && bytes.Compare(level[to].first, s.last) <= 0 {
		to++
	}
	return level[from:to]
}

func sum(spans []span) (bytes int64) {
	for _, s := range spans {
		bytes += s.bytes
	}
	return bytes
}

func sumOf(numbers []int64) (sum int64) {
	for _, n := range numbers {
		sum += n
	}
	return sum
}

// foresee takes into account what Badger needs to merge these tables. It is to
// be called again and again, as they change.
func (sp *space) foresee(tables []span) {
	sp.extra.Store(max(0, roomForMerges(tables)-roomToMerge))
}
