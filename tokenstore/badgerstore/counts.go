package badgerstore

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var (
	_ tokenstore.Counter = (*Store)(nil)
	_ tokenstore.Spacer  = (*Store)(nil)
)

// countSlice is how many keys are counted in one go: some milliseconds. Tests
// lower it.
var countSlice = 10_000

// CountConnections implements tokenstore.Counter: each integration with each
// status has a range of keys of its own, and nothing but keys is read. Half of
// the time it rests.
func (s *Store) CountConnections(ctx context.Context, integrations []string) ([]tokenstore.Count, error) {
	var counts []tokenstore.Count
	for _, status := range tokenstore.Statuses {
		others, err := s.countRange(ctx, tokenstore.Filter{Status: status})
		for i := 0; i < len(integrations) && others != 0 && err == nil; i++ {
			var n int
			if n, err = s.countRange(ctx, tokenstore.Filter{Integration: integrations[i], Status: status}); n > 0 {
				counts = append(counts, tokenstore.Count{Integration: integrations[i], Status: status, N: n})
				others -= n
			}
		}
		if err != nil {
			return nil, fmt.Errorf("badgerstore: counting connections: %w", err)
		}
		if others > 0 {
			counts = append(counts, tokenstore.Count{Status: status, N: others})
		}
	}
	return counts, nil
}

// countRange counts what f shows.
func (s *Store) countRange(ctx context.Context, f tokenstore.Filter) (n int, err error) {
	prefix := s.keys.listPrefix(f)
	for from := prefix; from != nil; {
		began := time.Now()
		err := s.view(func(txn *badger.Txn) error {
			it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
			defer it.Close()
			it.Seek(from)
			from = nil
			for left := countSlice; it.Valid(); it.Next() {
				if left == 0 {
					from = it.Item().KeyCopy(nil)
					return nil
				}
				left--
				n++
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		if from == nil { // nearly always
			return n, ctx.Err()
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Since(began)):
		}
	}
	return n, nil
}

// Space implements tokenstore.Spacer.
func (s *Store) Space() (tokenstore.Space, bool) {
	d := s.space.measure(s.dir)
	if !d.known {
		return tokenstore.Space{}, false
	}
	sp := tokenstore.Space{Free: d.free, Reserved: roomForNew + s.space.extra.Load()}
	if d.readOnly {
		sp.Free = 0
	}
	_ = filepath.WalkDir(filepath.Join(s.dir, badgerDir), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // Badger removes files as it merges them
		}
		if info, err := e.Info(); err == nil {
			sp.Size += usedBy(info)
		}
		return nil
	})
	return sp, true
}
