//go:build linux

package main

import (
	"crypto/rand"
	"errors"
	"os"

	"github.com/dgraph-io/badger/v4"
)

// plain is the yardstick for durable writes: a Badger as it comes, that syncs
// each transaction.
type plain struct {
	db    *badger.DB
	dir   string
	value []byte
}

func newPlain(dir string, s sample) (*plain, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).WithSyncWrites(true).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	p := &plain{db: db, dir: dir, value: make([]byte, s.bytes)}
	_, _ = rand.Read(p.value) // never fails
	return p, nil
}

// write is one transaction with one record.
func (p *plain) write() error {
	return p.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(rand.Text()), p.value) })
}

func (p *plain) remove() error { return errors.Join(p.db.Close(), os.RemoveAll(p.dir)) }
