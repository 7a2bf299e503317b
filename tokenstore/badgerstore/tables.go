package badgerstore

import (
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
)

// HoldTables calls use with the paths of the store's tables, all of which stay
// mapped until it returns: what a compaction replaces is unmapped after that.
func (s *Store) HoldTables(use func(tables map[string]bool) error) error {
	return s.view(func(txn *badger.Txn) error {
		dir, err := filepath.EvalSymlinks(s.db.Opts().Dir)
		if err != nil {
			return err
		}
		before := map[uint64]bool{}
		for _, t := range s.db.Tables() {
			before[t.ID] = true
		}
		// An iterator over everything refers to all tables that there are.
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		held := map[string]bool{}
		for _, t := range s.db.Tables() {
			if before[t.ID] { // else it may be newer than the iterator
				held[table.NewFilename(t.ID, dir)] = true
			}
		}
		return use(held)
	})
}
