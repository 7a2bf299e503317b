package badgerstore

import (
	"context"

	"github.com/dgraph-io/badger/v4"
)

// DropLabels takes out of the index of labels what is in it.
func (s *Store) DropLabels() error {
	var keys [][]byte
	err := s.view(func(txn *badger.Txn) (err error) {
		for from := []byte(keyConnection); from != nil && err == nil; {
			var some [][]byte
			some, from, err = s.someLabels(txn, from)
			keys = append(keys, some...)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.write(context.Background(), func(w *write) error {
		for _, key := range keys {
			w.remove(key)
		}
		return nil
	})
}
