package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A stored value is a header in clear text, then the sealed record. The header
// is the format and the record's revision, which is part of the associated data.
const (
	valueFormat = 1
	headerLen   = 1 + 8
)

// maxIDLen keeps keys far below what Badger takes.
const maxIDLen = 512

func checkID(id string) error {
	if id == "" || len(id) > maxIDLen {
		return fmt.Errorf("an ID has 1 to %d bytes, not %d", maxIDLen, len(id))
	}
	return nil
}

func newValue(revision uint64, sealed []byte) []byte {
	value := make([]byte, 0, headerLen+len(sealed))
	value = binary.BigEndian.AppendUint64(append(value, valueFormat), revision)
	return append(value, sealed...)
}

func splitValue(value []byte) (revision uint64, sealed []byte, err error) {
	if len(value) <= headerLen {
		return 0, nil, fmt.Errorf("%w: its value is empty", tokenstore.ErrCorrupt)
	}
	if value[0] != valueFormat {
		return 0, nil, fmt.Errorf("%w: its value has an unknown format", tokenstore.ErrCorrupt)
	}
	return binary.BigEndian.Uint64(value[1:headerLen]), value[headerLen:], nil
}

// readValue calls use with the parts of the value under key, or returns
// ErrNotFound.
func readValue(txn *badger.Txn, key []byte, use func(revision uint64, sealed []byte) error) error {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return tokenstore.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	found := false
	err = item.Value(func(value []byte) error {
		found = true
		revision, sealed, err := splitValue(value)
		if err != nil {
			return err
		}
		return use(revision, sealed)
	})
	if err != nil && !found { // Badger could not read what the key points to
		return fmt.Errorf("%w: %w", tokenstore.ErrCorrupt, err)
	}
	return err
}

// revisionOf returns the revision of the record in item.
func revisionOf(item *badger.Item) (revision uint64, err error) {
	err = item.Value(func(value []byte) error {
		revision, _, err = splitValue(value)
		return err
	})
	if err != nil && !errors.Is(err, tokenstore.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", tokenstore.ErrCorrupt, err)
	}
	return revision, err
}

func exists(txn *badger.Txn, key []byte) (bool, error) {
	_, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	return true, nil
}

// view runs a reading transaction on what is committed.
func (s *Store) view(read func(txn *badger.Txn) error) error {
	return s.readWith(func() error { return s.db.View(read) })
}

// readWith calls read, which reads from s.gen.
func (s *Store) readWith(read func() error) error {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	err := s.readBadger(read)
	if errors.Is(err, badger.ErrDBClosed) {
		return errClosed
	}
	return err
}

// readBadger outlives a Badger that panics: one that could not begin its next
// log, for want of file descriptors say, does so at every read.
func (s *Store) readBadger(read func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// Not what it says, which may be the bytes that it could not read.
			s.log.Error("badger panicked", zap.String("panic", fmt.Sprintf("%T", p)), zap.Stack("stack"))
			err = fmt.Errorf("%w: Badger panicked", tokenstore.ErrUnavailable)
		}
	}()
	return read()
}
