package refresh

import (
	"maps"
	"sync/atomic"
)

// tableSize is about how many entries a table has at most: it is copied for
// each that comes or goes, which takes some microseconds, less than the read of
// the store that brings one.
const tableSize = 64

// tables returns how many tables there have to be for size entries, and how
// many each may hold.
func tables(size int) (n, limit int) {
	n = (size + tableSize - 1) / tableSize
	return n, max(size/n, 1)
}

// table is a small map that is read without a lock, so that no call waits for
// another: whatever adds or removes replaces it as a whole, under a lock of its
// owner's. The zero table is empty.
type table[K comparable, V any] struct{ m atomic.Pointer[map[K]V] }

// all returns the map as it is now. Nobody changes it.
func (t *table[K, V]) all() map[K]V {
	if m := t.m.Load(); m != nil {
		return *m
	}
	return nil
}

func (t *table[K, V]) set(k K, v V) {
	next := make(map[K]V, len(t.all())+1)
	maps.Copy(next, t.all())
	next[k] = v
	t.m.Store(&next)
}

func (t *table[K, V]) clear() { t.m.Store(nil) }

func (t *table[K, V]) remove(k K) {
	if _, ok := t.all()[k]; !ok {
		return
	}
	next := maps.Clone(t.all())
	delete(next, k)
	t.m.Store(&next)
}
