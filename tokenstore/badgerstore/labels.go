package badgerstore

import (
	"context"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// indexBatch is about how many labels are put into their index in one write, far
// below what Badger takes at once.
const indexBatch = 1000

// indexLabels puts the connections of a store from before there was an index of
// labels into that, and does nothing for others. Open waits for it, so that no
// list lacks one. After an error, or a kill, the next opening begins anew.
func (s *Store) indexLabels() error {
	if _, id := s.sealing(); !id.Indexing {
		return nil
	}
	for from := []byte(keyConnection); from != nil; {
		var keys [][]byte
		err := s.view(func(txn *badger.Txn) (err error) {
			keys, from, err = s.someLabels(txn, from)
			return err
		})
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			continue
		}
		err = s.write(context.Background(), func(w *write) error {
			for _, key := range keys {
				w.set(key, present)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.changeSealing(func(now *sealing) error {
		now.id.Indexing = false
		return writeIdentity(s.dir, now.id)
	})
}

// someLabels returns the keys for the labels of some connections, and the key to
// go on from, nil at the end. One that can't be opened has none.
func (s *Store) someLabels(txn *badger.Txn, from []byte) (keys [][]byte, next []byte, err error) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(keyConnection)})
	defer it.Close()
	for it.Seek(from); it.Valid(); it.Next() {
		if len(keys) >= indexBatch {
			return keys, it.Item().KeyCopy(nil), nil
		}
		c, err := s.connection(txn, string(it.Item().Key()[len(keyConnection):]))
		switch {
		case err == nil:
			keys = append(keys, s.keys.labelKeys(&c)...)
		case !errors.Is(err, tokenstore.ErrCorrupt):
			return nil, nil, err
		}
	}
	return keys, nil, nil
}
