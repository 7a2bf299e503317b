package badgerstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What follows opens to the fuzzers what reads the bytes of files, and checks
// what can be said of any that are taken.

var errTaken = errors.New("what was not written so was taken")

// FuzzedValue reads a stored value.
func FuzzedValue(value []byte) error {
	revision, sealed, err := splitValue(value)
	if err == nil && !bytes.Equal(newValue(revision, sealed), value) {
		return errTaken
	}
	return nil
}

// WrittenHead is a head as it is written.
func WrittenHead(key []byte) []byte {
	h := head{seq: 7, connections: 3, deleted: 2, events: eventRange{4, 6}}
	h.count(newDigester(key), keyConnection, []byte("conn_A"), 5)
	return h.encode(key)
}

// FuzzedHead reads a head, of which only those are true that this key has made.
func FuzzedHead(key, b []byte, known ...[]byte) error {
	if _, ok := parseHead(key, b); ok && !isOneOf(b, known) {
		return errTaken
	}
	return nil
}

func isOneOf(b []byte, known [][]byte) bool {
	for _, k := range known {
		if bytes.Equal(b, k) {
			return true
		}
	}
	return false
}

// FuzzedMark reads a mark file in dir, which was written for the transactions 7
// and 8 with this key.
func FuzzedMark(dir string, key, text []byte) error {
	path := filepath.Join(dir, "mark")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	if seq, err := readMark(path, key); err == nil && seq != 7 && seq != 8 {
		return errTaken
	}
	return nil
}

// WrittenMark is the mark file that FuzzedMark speaks of.
func WrittenMark(dir string, key []byte) ([]byte, error) {
	path := filepath.Join(dir, "written-mark")
	m, err := newMark(path, key, 7)
	if err != nil {
		return nil, err
	}
	err = m.write(8)
	m.close()
	text, readErr := os.ReadFile(path)
	return text, errors.Join(err, readErr)
}

// FuzzedIdentity reads an identity file, and opens the index key that it has.
func FuzzedIdentity(text []byte, codec tokenstore.Codec) error {
	id, err := parseIdentity(text)
	if err != nil {
		return nil //nolint:nilerr // refused
	}
	if id.StoreID == "" || id.Epoch == "" || id.Format < formatBeforeEvents || id.Format > identityFormat {
		return errTaken
	}
	if _, err := id.openIndexKey(codec); err == nil || !errors.Is(err, tokenstore.ErrKeyMissing) {
		return errors.Join(errTaken, err)
	}
	return nil
}

// FuzzedLog reads a .mem file, and values of a .vlog file. If fix is set, the
// checksums of its entries are made right first.
func FuzzedLog(file, pointer []byte, fix bool) error {
	if fix {
		file = bytes.Clone(file)
		for at := logHeaderLen; at < len(file); {
			size := entrySize(file[at:])
			if size == 0 {
				break
			}
			binary.BigEndian.PutUint32(file[at+size-crc32.Size:], checksum(file[at:at+size-crc32.Size]))
			at += size
		}
	}
	l, _ := parseMemLog("x.mem", file)
	if !bytes.HasPrefix(file, l.bytes) || l.first > l.last {
		return errTaken
	}
	for _, e := range l.entries {
		if len(e.key) <= 8 {
			return errTaken
		}
	}
	if p, ok := parseValuePointer(pointer); ok && len(l.entries) > 0 {
		if value, ok := p.value(file, l.entries[0].key); ok && !bytes.Contains(file, value) {
			return errTaken
		}
	}
	return nil
}

// entrySize returns the length of an entry whose checksum may be wrong, 0 if none
// is there.
func entrySize(b []byte) int {
	at := 2
	total := uint64(0)
	for i := range 3 {
		if at >= len(b) {
			return 0
		}
		v, n := binary.Uvarint(b[at:])
		if n <= 0 || v > uint64(len(b)) && i < 2 {
			return 0
		}
		if at += n; i < 2 {
			total += v
		}
	}
	if total += uint64(at) + crc32.Size; total > uint64(len(b)) {
		return 0
	}
	return int(total)
}

// FuzzedTable opens a file as a table and reads all that is in it. If fix is set,
// the checksum of its index is made right first.
func FuzzedTable(dir string, text []byte, fix bool) error {
	if fix {
		text = fixTable(text)
	}
	path := filepath.Join(dir, table.IDToFilename(1))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	t, err := openTable(path, 0, false)
	if err != nil {
		return nil //nolint:nilerr // refused
	}
	r := &reader{dir: dir, levels: map[uint8][]*table.Table{0: {t}}, values: map[uint32][]byte{}}
	err = r.readLogs()
	if err == nil {
		_ = catch(func() error { return r.each("", func(item) error { return nil }) })
	}
	return errors.Join(err, r.close())
}

// fixTable puts the right checksum of the index into a table: its last four bytes
// are the length of the checksum, before which it is, and so on.
func fixTable(text []byte) []byte {
	end := len(text) - 4
	if end < 0 {
		return text
	}
	sumLen := int(binary.BigEndian.Uint32(text[end:]))
	indexEnd := end - sumLen - 4
	if sumLen > len(text) || indexEnd < 0 {
		return text
	}
	indexLen := int(binary.BigEndian.Uint32(text[indexEnd:]))
	if indexLen > indexEnd {
		return text
	}
	index := text[indexEnd-indexLen : indexEnd]
	sum, err := proto.Marshal(&pb.Checksum{Algo: pb.Checksum_CRC32C, Sum: y.CalculateChecksum(index, pb.Checksum_CRC32C)})
	if err != nil {
		return text
	}
	fixed := append(bytes.Clone(text[:indexEnd+4]), sum...)
	return binary.BigEndian.AppendUint32(fixed, uint32(len(sum)))
}

// FuzzedManifest reads a MANIFEST.
func FuzzedManifest(dir string, text []byte) error {
	path := filepath.Join(dir, "MANIFEST")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	whole, _, err := readManifest(dir)
	if err == nil && !bytes.HasPrefix(text, whole) {
		return errTaken
	}
	return nil
}

// FuzzedBackup reads a backup to its end. Only what is the one that was written
// may be taken.
func FuzzedBackup(text []byte, codec tokenstore.Codec, written []byte) error {
	_, err := checkBackup(bytes.NewReader(text), backups, codec)
	if err == nil && !bytes.Equal(text, written) {
		return errTaken
	}
	// Most of what a fuzzer makes has lost its first line.
	text = append([]byte(backupMagic), text...)
	if bytes.Equal(text, written) {
		return nil
	}
	r, err := newBackupReader(bytes.NewReader(text), backups)
	if err != nil {
		return nil // refused
	}
	for _, err = range r.records(codec) {
		if err != nil {
			return nil // refused
		}
	}
	return errTaken
}
