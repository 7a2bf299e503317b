package badgerstore

import (
	"bytes"
	"errors"

	"github.com/dgraph-io/badger/v4"
)

// count changes the head as an entry of w changes what it counts.
func (c *committer) count(w *write, e *badger.Entry) error {
	if seq, ok := eventSeq(e.Key); ok {
		if e.Value == nil {
			c.next.events.oldest = seq + 1
		} else {
			c.next.events.add(seq)
		}
		return nil
	}
	prefix, id, ok := counted(e.Key)
	if !ok {
		return nil
	}
	c.written.add(e.Key, c.next.seq)
	if err := c.discount(w, e.Key, prefix, id); err != nil || e.Value == nil {
		return err
	}
	revision := uint64(0)
	if prefix == keyConnection {
		var err error
		if revision, _, err = splitValue(e.Value); err != nil {
			return err
		}
	}
	c.next.count(c.digest, prefix, id, revision)
	return nil
}

// discount takes what is under key out of the head.
func (c *committer) discount(w *write, key []byte, prefix string, id []byte) error {
	if bytes.Equal(key, w.found) {
		if w.revision > 0 {
			c.next.discount(c.digest, prefix, id, w.revision)
		}
		return nil
	}
	old, err := c.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	revision := uint64(0)
	if prefix == keyConnection {
		revision, err = revisionOf(old)
	}
	if err == nil {
		c.next.discount(c.digest, prefix, id, revision)
	} else {
		c.recount(key)
	}
	return nil
}

// recount makes the head of what is there, but for the connection that is deleted
// under key, and which can't be taken out of the head since its revision is gone.
func (c *committer) recount(key []byte) {
	c.next = head{seq: c.next.seq, events: c.next.events}
	for _, prefix := range []string{keyConnection, keyDeleted} {
		it := c.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
		for it.Rewind(); it.Valid(); it.Next() {
			item, revision, err := it.Item(), uint64(0), error(nil)
			if prefix == keyConnection {
				revision, err = revisionOf(item)
			}
			if err == nil && !bytes.Equal(item.Key(), key) {
				c.next.count(c.digest, prefix, item.Key()[len(prefix):], revision)
			}
		}
		it.Close()
	}
}
