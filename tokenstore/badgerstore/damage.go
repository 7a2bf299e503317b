package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// damage remembers which connections can't be opened, so that each is logged
// once however often it is asked for.
type damage struct {
	mu  sync.Mutex
	ids map[string]bool // guarded by mu
}

func (d *damage) has(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ids[id]
}

// set reports whether that is news.
func (d *damage) set(id string, damaged bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids[id] == damaged {
		return false
	}
	if !damaged {
		delete(d.ids, id)
		return true
	}
	if d.ids == nil {
		d.ids = map[string]bool{}
	}
	d.ids[id] = true
	return true
}

// noteDamage notes what came of opening a connection.
func (s *Store) noteDamage(id string, err error) {
	if errors.Is(err, tokenstore.ErrUnavailable) {
		return
	}
	if damaged := errors.Is(err, tokenstore.ErrCorrupt); s.damage.set(id, damaged) && damaged {
		s.log.Error("record is damaged", zap.String("error_code", "store_corrupt"), zap.String("connection_id", id), zap.Error(err))
	}
}

// The pass over all connections opens so many at a time, and so many a second.
const (
	passBatch = 100
	passRate  = 1000
)

// openAll opens every connection once, slowly, so that damage is known before
// the record is needed.
func (s *Store) openAll() {
	ticker := time.NewTicker(time.Second * passBatch / passRate)
	defer ticker.Stop()
	for from := []byte(keyConnection); from != nil; {
		select {
		case <-s.closing:
			return
		case <-ticker.C:
		}
		err := s.view(func(txn *badger.Txn) error {
			from = s.openSome(txn, from)
			return nil
		})
		if err != nil {
			return
		}
	}
}

// openSome opens a batch and returns the key to go on from, nil at the end.
func (s *Store) openSome(txn *badger.Txn, from []byte) []byte {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(keyConnection)})
	defer it.Close()
	n := 0
	for it.Seek(from); it.Valid(); it.Next() {
		if n++; n > passBatch {
			return it.Item().KeyCopy(nil)
		}
		_, _ = s.connection(txn, string(it.Item().Key()[len(keyConnection):])) // it notes what is damaged
	}
	return nil
}

// indexOf finds the index keys that lead to a connection whose record doesn't
// tell them: by a look at all there are.
func (s *Store) indexOf(ctx context.Context, id string) (keys [][]byte, err error) {
	for prefix, length := range map[string]int{keyList: digestLen + timeLen, keyDue: timeLen} {
		err = s.view(func(txn *badger.Txn) error {
			it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
			defer it.Close()
			for it.Rewind(); it.Valid(); it.Next() {
				key := it.Item().Key()
				if at := len(prefix) + length; len(key) > at && string(key[at:]) == id {
					keys = append(keys, bytes.Clone(key))
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// deleteDamaged deletes a connection that can't be opened.
func (s *Store) deleteDamaged(ctx context.Context, id string, news []tokenstore.Event) (tokenstore.Connection, error) {
	keys, err := s.indexOf(ctx, id)
	if err != nil {
		return tokenstore.Connection{}, err
	}
	c := tokenstore.Connection{ID: id, Damaged: true}
	err = s.write(ctx, func(w *write) error {
		if _, err := s.connection(w.txn, id); !errors.Is(err, tokenstore.ErrCorrupt) {
			if err == nil {
				err = tokenstore.ErrUnavailable // it was opened with another codec
			}
			return err
		}
		w.remove(connectionKey(id))
		w.set(deletedKey(id), present)
		for _, key := range keys {
			w.remove(key)
		}
		c.News = news
		s.tell(w, c.TakeNews())
		return nil
	})
	if err == nil {
		s.damage.set(id, false)
	}
	return c, err
}
