package badgerstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/dgraph-io/badger/v4/y"
)

// Badger's logs (.mem, and .vlog for long values) are read here as Badger reads
// them, but for one thing: Badger takes the first entry that is not whole for
// the end, and drops what is after it without a word.

// logHeaderLen is the length of what begins a log: the ID of the key that it is
// encrypted with, which is 0 here, and bytes that only encryption uses.
const logHeaderLen = 20

// Bits in what Badger notes of an entry.
const (
	bitDelete       = 1 << 0
	bitValuePointer = 1 << 1 // the value is in a .vlog file
	bitTxn          = 1 << 6
	bitFinTxn       = 1 << 7 // the end of a transaction
)

// logEntry is one entry of a log. Its bytes are the log's.
type logEntry struct {
	meta, userMeta byte
	expiresAt      uint64
	key            []byte // in a .mem with Badger's version at its end
	value          []byte
}

// parseLogEntry reads the entry at the begin of b, which ends after size bytes.
// It is false where no whole entry begins.
func parseLogEntry(b []byte) (e logEntry, size int, ok bool) {
	if len(b) < 2 {
		return e, 0, false
	}
	e.meta, e.userMeta = b[0], b[1]
	at := 2
	var lens [3]uint64 // of key and value, and the time of expiry
	for i := range lens {
		v, n := binary.Uvarint(b[at:])
		if n <= 0 {
			return e, 0, false
		}
		lens[i], at = v, at+n
	}
	keyLen, valueLen := lens[0], lens[1]
	if keyLen == 0 || keyLen > 1<<16 || valueLen > uint64(len(b)) || uint64(at)+keyLen+valueLen+crc32.Size > uint64(len(b)) {
		return e, 0, false
	}
	e.expiresAt = lens[2]
	key := at + int(keyLen)
	end := key + int(valueLen)                                      //nolint:gosec // inside of b
	if checksum(b[:end]) != binary.BigEndian.Uint32(b[end:end+4]) { // crc32.Size
		return e, 0, false
	}
	e.key, e.value = b[at:key:key], b[key:end:end]
	return e, end + crc32.Size, true
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, y.CastagnoliCrcTable) }

// memLog is what is whole in one .mem file: transactions of Badger, each with
// the version that follows the one before.
type memLog struct {
	name        string
	first, last uint64 // versions, 0 if there is no transaction
	bytes       []byte // the file up to the end of the last transaction
	entries     []logEntry
}

// parseMemLog reads a .mem file. What is after the last whole transaction was
// never acknowledged, or is damaged: the versions tell.
func parseMemLog(name string, file []byte) (memLog, error) {
	l := memLog{name: name}
	if len(file) < logHeaderLen { // a kill came when Badger had just made it, or it was cut
		return l, nil
	}
	if binary.BigEndian.Uint64(file) != 0 {
		return l, fmt.Errorf("%s is damaged in its first bytes", name)
	}
	l.bytes = file[:logHeaderLen]
	var open []logEntry // of a transaction without an end so far
	var version uint64  // of that
	for at := logHeaderLen; ; {
		e, size, ok := parseLogEntry(file[at:])
		if !ok || len(e.key) <= 8 {
			return l, nil
		}
		at += size
		switch {
		case e.meta&bitTxn != 0:
			if len(open) > 0 && y.ParseTs(e.key) != version {
				return l, nil
			}
			version = y.ParseTs(e.key)
			open = append(open, e)
			continue
		case e.meta&bitFinTxn != 0:
			if len(open) == 0 || string(e.value) != strconv.FormatUint(version, 10) {
				return l, nil
			}
			if l.last != 0 && version != l.last+1 {
				return l, fmt.Errorf("%s misses transactions after number %d", name, l.last)
			}
			if l.first == 0 {
				l.first = version
			}
			l.last = version
			l.entries = append(l.entries, open...)
			open = open[:0]
		case len(open) > 0:
			return l, nil
		default: // moved by the collection of value logs, with the version it had
			l.entries = append(l.entries, e)
		}
		l.bytes = file[:at]
	}
}

// valuePointer says where in the .vlog files a value is.
type valuePointer struct{ file, length, offset uint32 }

func parseValuePointer(b []byte) (p valuePointer, ok bool) {
	if len(b) != 12 {
		return p, false
	}
	// Badger copies a struct as it lies in memory.
	return valuePointer{binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])}, true
}

// value returns the value that p points to in the bytes of its file, which must
// be that of key.
func (p valuePointer) value(file, key []byte) ([]byte, bool) {
	if uint64(p.offset) > uint64(len(file)) {
		return nil, false
	}
	e, size, ok := parseLogEntry(file[p.offset:])
	if !ok || size != int(p.length) || !bytes.Equal(e.key, key) {
		return nil, false
	}
	return e.value, true
}
