package badgerstore

import (
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// watchSpace keeps the ballast, and says so when room goes or comes while
// nobody writes.
func (s *Store) watchSpace() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-ticker.C:
			s.space.foresee(spansOf(s.current()))
			s.space.tend(s.merging)
		}
	}
}

// merging reports whether Badger has tables to merge.
func (s *Store) merging() bool {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return !s.closed && slices.ContainsFunc(s.db.Levels(), func(l badger.LevelInfo) bool { return l.Score >= 1 })
}
