package badgerstore

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A backup is a line of text, then frames: a byte that says what it is, four
// bytes of length, and as many bytes.
//
//	h   the header, JSON
//	x   the ID of a deleted connection
//	c   a connection: two bytes of length, its ID, its value as it is stored
//	v   an event: eight bytes of Seq, its value as it is stored
//	f   a flow, as a connection; only in what a store is moved with
//	n   a note, in the same way
//	e   the end: a digest of everything before it, sealed
//
// The header comes first, the deleted before the connections, the events behind
// them in their order, the end last.
// Nobody without the keyset can make an end, so that what is cut, edited or put
// together from two is found, whatever it was.
const (
	backupMagic = "lanyard backup 2\n"
	// backupBeforeEvents begins a backup without events, in nothing else different.
	backupBeforeEvents = "lanyard backup 1\n"
	// exportMagic begins what a store is moved with: a backup with flows and notes
	// behind its events. No restore takes it.
	exportMagic = "lanyard export 1\n"

	frameHeader     = 'h'
	frameDeleted    = 'x'
	frameConnection = 'c'
	frameEvent      = 'v'
	frameFlow       = 'f'
	frameNote       = 'n'
	frameEnd        = 'e'

	frameHeadLen = 1 + 4
	// maxFrame is more than a record can have: two answers of a token endpoint
	// of 1 MiB each, as JSON.
	maxFrame = 16 << 20
)

// ErrBadBackup is returned for a file that is no backup, or not a whole one as
// it was written.
var ErrBadBackup = errors.New("not a whole backup")

// backupHeader says what the backup is of.
type backupHeader struct {
	StoreID   string    `json:"store_id"`
	Epoch     string    `json:"epoch"`
	Sequence  uint64    `json:"sequence"` // of the store's last write
	CreatedAt time.Time `json:"created_at"`
	// IndexKeys is the store's index key, sealed with each key that sealed
	// something in the backup.
	IndexKeys [][]byte `json:"index_keys"`
}

func (h backupHeader) identity() identity {
	return identity{
		Format: identityFormat, StoreID: h.StoreID, Epoch: h.Epoch,
		IndexKey: h.IndexKeys[0], OlderKeys: h.IndexKeys[1:],
	}
}

func (h backupHeader) endData() []byte {
	return tokenstore.AssociatedData(h.StoreID, h.Epoch, tokenstore.KindBackup, "", h.Sequence)
}

// backupWriter writes a backup. The first error stays.
type backupWriter struct {
	out    io.Writer
	digest hash.Hash // of what was written
	err    error
}

func newBackupWriter(out io.Writer, magic string, h backupHeader) *backupWriter {
	w := &backupWriter{out: out, digest: sha256.New()}
	text, err := json.Marshal(h)
	if err != nil {
		w.err = fmt.Errorf("encoding the header: %w", err)
	}
	w.write([]byte(magic))
	w.frame(frameHeader, text)
	return w
}

func (w *backupWriter) write(b []byte) {
	if w.err == nil {
		_, _ = w.digest.Write(b) // never fails
		_, w.err = w.out.Write(b)
	}
}

func (w *backupWriter) frame(kind byte, parts ...[]byte) {
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(length))
	w.write(head)
	for _, p := range parts {
		w.write(p)
	}
}

func (w *backupWriter) deleted(id string) { w.frame(frameDeleted, []byte(id)) }

func (w *backupWriter) record(kind byte, id string, value []byte) {
	w.frame(kind, binary.BigEndian.AppendUint16(nil, uint16(len(id))), []byte(id), value) //nolint:gosec // checkID
}

func (w *backupWriter) event(seq, value []byte) { w.frame(frameEvent, seq, value) }

// end writes the end record, without which the backup is none.
func (w *backupWriter) end(h backupHeader, codec tokenstore.Codec) error {
	if w.err != nil {
		return w.err
	}
	sealed, err := codec.SealBytes(w.digest.Sum(nil), h.endData())
	if err != nil {
		return err
	}
	w.frame(frameEnd, sealed)
	return w.err
}

// backupRecord is a connection, the ID of a deleted one, an event, a flow, or a note.
type backupRecord struct {
	Kind    byte   // of its frame
	ID      string // empty for an event
	Deleted bool
	Seq     uint64 // of an event
	Value   []byte // of a connection or event, as it is stored
}

// backupReader reads a backup.
type backupReader struct {
	in     *bufio.Reader
	digest hash.Hash // of what was read
	header backupHeader
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadBackup}, args...)...)
}

// backups are the beginnings of what can be restored.
var backups = []string{backupMagic, backupBeforeEvents}

// newBackupReader reads the header of what begins with one of magics. What it
// says is proved at the end only.
func newBackupReader(in io.Reader, magics []string) (*backupReader, error) {
	r := &backupReader{in: bufio.NewReaderSize(in, 64<<10), digest: sha256.New()}
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(r.in, magic); err != nil || !slices.Contains(magics, string(magic)) {
		return nil, bad("it does not begin as one, or is of another version")
	}
	_, _ = r.digest.Write(magic)
	kind, head, text, err := r.frame()
	if err != nil {
		return nil, err
	}
	if kind != frameHeader || json.Unmarshal(text, &r.header) != nil ||
		r.header.StoreID == "" || r.header.Epoch == "" || len(r.header.IndexKeys) == 0 {
		return nil, bad("its header is damaged")
	}
	r.count(head, text)
	return r, nil
}

func (r *backupReader) count(parts ...[]byte) {
	for _, p := range parts {
		_, _ = r.digest.Write(p)
	}
}

func (r *backupReader) frame() (kind byte, head, body []byte, err error) {
	head = make([]byte, frameHeadLen)
	if _, err := io.ReadFull(r.in, head); err != nil {
		return 0, nil, nil, bad("it is cut off: %w", err)
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length > maxFrame {
		return 0, nil, nil, bad("a record in it is damaged")
	}
	// Read by and by: a damaged length must not take memory.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r.in, int64(length)); err != nil {
		return 0, nil, nil, bad("it is cut off: %w", err)
	}
	return head[0], head, b.Bytes(), nil
}

// records returns what is in the backup. It ends without an error only if the
// end record was there and proves everything before it.
func (r *backupReader) records(codec tokenstore.Codec) iter.Seq2[backupRecord, error] {
	return func(yield func(backupRecord, error) bool) {
		for {
			kind, head, body, err := r.frame()
			if err == nil && kind == frameEnd {
				if err = r.checkEnd(codec, body); err == nil {
					return
				}
			}
			var rec backupRecord
			if err == nil {
				r.count(head, body)
				rec, err = parseRecord(kind, body)
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

func parseRecord(kind byte, body []byte) (backupRecord, error) {
	switch kind {
	case frameDeleted:
		if checkID(string(body)) == nil {
			return backupRecord{Kind: kind, ID: string(body), Deleted: true}, nil
		}
	case frameConnection, frameFlow, frameNote:
		if len(body) < 2 {
			break
		}
		n := int(binary.BigEndian.Uint16(body))
		if len(body) >= 2+n && checkID(string(body[2:2+n])) == nil {
			return backupRecord{Kind: kind, ID: string(body[2 : 2+n]), Value: body[2+n:]}, nil
		}
	case frameEvent:
		if len(body) >= seqLen {
			return backupRecord{Kind: kind, Seq: binary.BigEndian.Uint64(body), Value: body[seqLen:]}, nil
		}
	}
	return backupRecord{}, bad("a record in it is damaged")
}

func (r *backupReader) checkEnd(codec tokenstore.Codec, sealed []byte) error {
	digest, err := codec.OpenBytes(sealed, r.header.endData())
	if err != nil || !bytes.Equal(digest, r.digest.Sum(nil)) {
		return bad("it is not as it was written")
	}
	if _, err := r.in.ReadByte(); !errors.Is(err, io.EOF) {
		return bad("there is something behind its end")
	}
	return nil
}
