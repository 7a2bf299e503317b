package badgerstore

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// SetMaxEvents changes how many events the store keeps. Nobody may write
// meanwhile.
func (s *Store) SetMaxEvents(n uint64) { s.maxEvents = n }

// EventKey returns the key of an event.
func EventKey(seq uint64) []byte { return eventKey(seq) }

// HistoryKey returns the key by which a connection's event is found.
func (s *Store) HistoryKey(connectionID string, seq uint64) []byte {
	return s.keys.historyKey(connectionID, seq)
}

// CountKeys returns how many keys begin with prefix.
func (s *Store) CountKeys(prefix string) (n int, err error) {
	err = s.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			n++
		}
		return nil
	})
	return n, err
}

// WriteHeadBeforeEvents makes a closed store of what a version without events has
// written: its head is in the format that knows none.
func WriteHeadBeforeEvents(dir string, codec tokenstore.Codec) error {
	s := &Store{dir: dir}
	if _, err := s.prepareIdentity(codec); err != nil {
		return err
	}
	db, err := badger.Open(options(Files(dir), newLogger(zap.NewNop())))
	if err != nil {
		return err
	}
	key := s.keys.headKey()
	err = db.Update(func(txn *badger.Txn) error {
		h, err := s.readHead(txn)
		h.seq = txn.ReadTs() + 1
		now := h.encode(key)
		old := append([]byte{headBeforeEvents}, now[1:1+3*8]...)
		old = append(old, now[1+headNumbers*8:headLen-sha256.Size]...)
		old = append(old, headMAC(key, old)...)
		return errors.Join(err, txn.Set([]byte(keyHead), old))
	})
	return errors.Join(err, db.Close())
}

// FixLog gives an entry that was changed in a .mem file the checksum that it
// would have: at is somewhere in its bytes. It is false if it is in none.
func FixLog(log []byte, at int, change func(key, value []byte)) bool {
	for begin := logHeaderLen; ; {
		e, size, ok := parseLogEntry(log[begin:])
		if !ok {
			return false
		}
		if at < begin+size {
			entry := log[begin : begin+size]
			change(e.key, e.value)
			binary.BigEndian.PutUint32(entry[size-4:], checksum(entry[:size-4]))
			return true
		}
		begin += size
	}
}
