package badgerstore

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// sorter sorts entries by their keys, of which there may be more than memory has
// room for: it sorts as many as there is, writes these to a file, and merges what
// is there.
type sorter struct {
	path  string
	file  *os.File // nil until something is in it
	end   int64    // of the file
	parts merge
	text  []byte  // entries that are not in the file
	at    []piece // where each of them is in text
}

type piece struct {
	from, to int
	begin    uint64 // of its key: most are told apart by that
}

const (
	// sortAtOnce is how many bytes of entries are sorted in memory.
	sortAtOnce = 32 * mib
	// partBuffer is how much is read at a time of each part when they are merged.
	partBuffer = 64 << 10
)

// add takes an entry. It is kept as the length of its key, its key, when it
// expires, the length of its value, and that.
func (s *sorter) add(e *badger.Entry) error {
	from := len(s.text)
	s.text = binary.AppendUvarint(s.text, uint64(len(e.Key)))
	s.text = append(s.text, e.Key...)
	s.text = binary.AppendUvarint(s.text, e.ExpiresAt)
	s.text = binary.AppendUvarint(s.text, uint64(len(e.Value)))
	s.text = append(s.text, e.Value...)
	var begin [8]byte
	copy(begin[:], e.Key)
	s.at = append(s.at, piece{from, len(s.text), binary.BigEndian.Uint64(begin[:])})
	if len(s.text) < sortAtOnce {
		return nil
	}
	return s.write()
}

// write sorts what is in memory and writes it to the file, as a part.
func (s *sorter) write() (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: sorting keys: %w", tokenstore.ErrUnavailable, err)
		}
	}()
	if s.file == nil {
		if s.file, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err
		}
	}
	slices.SortFunc(s.at, func(a, b piece) int {
		if a.begin != b.begin {
			return cmp.Compare(a.begin, b.begin)
		}
		return bytes.Compare(s.key(a), s.key(b))
	})
	out := bufio.NewWriterSize(io.NewOffsetWriter(s.file, s.end), 256<<10)
	for _, p := range s.at {
		if _, err := out.Write(s.text[p.from:p.to]); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	in := io.NewSectionReader(s.file, s.end, int64(len(s.text)))
	s.parts = append(s.parts, &part{in: bufio.NewReaderSize(in, partBuffer)})
	s.end += int64(len(s.text))
	s.text, s.at = s.text[:0], s.at[:0]
	return nil
}

func (s *sorter) key(p piece) []byte {
	length, n := binary.Uvarint(s.text[p.from:])
	return s.text[p.from+n:][:length]
}

// each calls use for all entries, in the order of their keys, but for one alone of
// those that have the same. An entry is valid until the next.
func (s *sorter) each(use func(*badger.Entry) error) error {
	if len(s.at) > 0 {
		if err := s.write(); err != nil {
			return err
		}
	}
	s.text, s.at = nil, nil
	for _, p := range s.parts {
		if err := p.next(); err != nil {
			return err
		}
	}
	heap.Init(&s.parts)
	var last []byte
	for len(s.parts) > 0 {
		p := s.parts[0]
		if last == nil || !bytes.Equal(p.entry.Key, last) {
			if err := use(&p.entry); err != nil {
				return err
			}
		}
		last = append(last[:0], p.entry.Key...)
		switch err := p.next(); {
		case err == nil:
			heap.Fix(&s.parts, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&s.parts)
		default:
			return err
		}
	}
	return nil
}

// close removes the file.
func (s *sorter) close() error {
	if s.file == nil {
		return nil
	}
	return errors.Join(s.file.Close(), os.Remove(s.path))
}

// part is what is in the file in the order of keys.
type part struct {
	in    *bufio.Reader
	entry badger.Entry // the first that was not used
}

// next goes to the next entry. The error is io.EOF after the last.
func (p *part) next() (err error) {
	e := &p.entry
	if _, err := p.in.Peek(1); errors.Is(err, io.EOF) {
		return io.EOF
	}
	if e.Key, err = p.bytes(e.Key); err == nil {
		e.ExpiresAt, err = binary.ReadUvarint(p.in)
	}
	if err == nil {
		e.Value, err = p.bytes(e.Value)
	}
	if err != nil {
		// Its text alone: an end in the middle of an entry is none of the part.
		return fmt.Errorf("%w: reading sorted keys: %s", tokenstore.ErrUnavailable, err.Error())
	}
	return nil
}

// bytes reads a length and as many bytes, into b if it is long enough.
func (p *part) bytes(b []byte) ([]byte, error) {
	length, err := binary.ReadUvarint(p.in)
	if err != nil {
		return nil, err
	}
	b = slices.Grow(b[:0], int(length))[:length] //nolint:gosec // as long as it was
	_, err = io.ReadFull(p.in, b)
	return b, err
}

// merge is a heap of parts, by what comes next in each.
type merge []*part

func (m merge) Len() int           { return len(m) }
func (m merge) Less(a, b int) bool { return bytes.Compare(m[a].entry.Key, m[b].entry.Key) < 0 }
func (m merge) Swap(a, b int)      { m[a], m[b] = m[b], m[a] }
func (m *merge) Push(any)          {} // none comes
func (m *merge) Pop() any {
	*m = (*m)[:len(*m)-1]
	return nil
}
