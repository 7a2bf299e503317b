package badgerstore

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// A mark is a small file outside of Badger that says which transaction was the
// last to be acknowledged. It is written in place, in one of two slots in turn,
// so that a write that is cut off leaves the mark before it.
type mark struct {
	f   *os.File
	key []byte
}

const (
	markSlot = 4096 // bytes: no disk writes less than one block
	markLen  = 8 + sha256.Size
)

// newMark makes the mark at path and syncs it, but not its directory.
func newMark(path string, key []byte, seq uint64) (*mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the operator names the directory
	if err != nil {
		return nil, err
	}
	m := &mark{f, key}
	// Bytes that take blocks: writing later needs none.
	_, err = f.WriteAt(make([]byte, 2*markSlot), 0)
	if err == nil {
		err = m.put(seq)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

func (m *mark) put(seq uint64) error {
	b := binary.BigEndian.AppendUint64(nil, seq)
	b = append(b, markMAC(m.key, b)...)
	_, err := m.f.WriteAt(b, int64(seq%2)*markSlot)
	return err
}

// write says, synced, that the transaction seq is going to be acknowledged.
func (m *mark) write(seq uint64) error {
	if err := m.put(seq); err != nil {
		return err
	}
	return syncData(m.f)
}

func (m *mark) close() {
	if m != nil {
		_ = m.f.Close()
	}
}

// readMark returns the last transaction that was acknowledged.
func readMark(path string, key []byte) (seq uint64, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the directory
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%s is missing", path)
	}
	if err != nil {
		return 0, err
	}
	found := false
	for at := 0; at+markLen <= len(text); at += markSlot {
		slot := text[at : at+markLen]
		if hmac.Equal(slot[8:], markMAC(key, slot[:8])) {
			seq, found = max(seq, binary.BigEndian.Uint64(slot)), true
		}
	}
	if !found {
		return 0, fmt.Errorf("%s is damaged", path)
	}
	return seq, nil
}

func markMAC(key, seq []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("mark"))
	mac.Write(seq)
	return mac.Sum(nil)
}
