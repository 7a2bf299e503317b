package badgerstore

import (
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// before is what updates see of a store while a transaction is being committed:
// all that was committed before it. Badger has whoever begins to read wait until
// it is synced.
type before struct {
	mu  sync.Mutex
	now *earlier // guarded by mu; nil while nothing is being committed
}

// earlier is a transaction that many read with. Badger wants one used by one at a
// time, but to get a key from one that only reads changes nothing in it.
type earlier struct {
	txn   *badger.Txn
	users int // guarded by before.mu; the last of them ends the transaction
}

// begin is called before a transaction is committed, and end after that.
func (b *before) begin(db *badger.DB) {
	e := &earlier{txn: db.NewTransaction(false), users: 1}
	b.mu.Lock()
	b.now = e
	b.mu.Unlock()
}

func (b *before) end() {
	b.mu.Lock()
	e := b.now
	b.now = nil
	b.mu.Unlock()
	b.leave(e)
}

// join returns nil while nothing is being committed.
func (b *before) join() *earlier {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now != nil {
		b.now.users++
	}
	return b.now
}

func (b *before) leave(e *earlier) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.users--; e.users == 0 {
		e.txn.Discard()
	}
}

// view is Badger's, but that it doesn't wait: what is being committed may not be
// seen. So it is for who looks again in the committer; read gets keys, and makes no
// iterator.
func (g *generation) view(read func(txn *badger.Txn) error) error {
	e := g.before.join()
	if e == nil {
		return g.db.View(read)
	}
	defer g.before.leave(e)
	return read(e.txn)
}
