package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"

	"github.com/dgraph-io/badger/v4/fb"
	boptions "github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
	"google.golang.org/protobuf/proto"
)

// openTable opens a table for reading and verifies all of it, or of one that is
// known what is read right here: its end and its last block. Badger's own code
// panics at some damage, and ends the process at other: the latter is looked
// for before.
func openTable(path string, compression boptions.CompressionType, known bool) (t *table.Table, err error) {
	index, err := checkTableEnd(path)
	if err != nil {
		return nil, err
	}
	file, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	err = catch(func() error {
		// Each block is verified once, right below, and not again by those who read it.
		t, err = table.OpenTable(file, table.Options{
			ReadOnly: true, BlockSize: 4 << 10, Compression: compression, ChkMode: boptions.NoVerification,
		})
		if err != nil {
			return err
		}
		if compression != boptions.None {
			return t.VerifyChecksum()
		}
		first := 0
		if known {
			first = index.OffsetsLength() - 1
		}
		return verifyBlocks(index, first, func(at, n uint32) ([]byte, error) { return file.Data[at:][:n], nil })
	})
	if err != nil {
		return nil, errors.Join(err, file.Close(-1))
	}
	return t, nil
}

// verifyTable verifies the blocks of a table without compression, which it reads
// without a mapping: Badger may cut the file meanwhile, and what was looked at stays
// out of the process's memory. In between it calls rest.
func verifyTable(path string, rest func() error) error {
	index, err := checkTableEnd(path)
	if err != nil {
		return err
	}
	f, err := os.Open(path) //nolint:gosec // a file of Badger's
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	var block []byte
	return catch(func() error {
		return verifyBlocks(index, 0, func(at, n uint32) ([]byte, error) {
			block = slices.Grow(block[:0], int(n))[:n]
			_, err := f.ReadAt(block, int64(at))
			return block, errors.Join(err, rest())
		})
	})
}

// verifyBlocks is VerifyChecksum of a table without compression, from a block on,
// and keeps nothing of what it has read: that is half of what it costs. Layout of a
// block: its entries, the checksum of that, its length.
func verifyBlocks(index *fb.TableIndex, first int, read func(at, n uint32) ([]byte, error)) error {
	var place fb.BlockOffset
	var sum pb.Checksum
	for i := first; i < index.OffsetsLength(); i++ {
		if !index.Offsets(&place, i) {
			return errors.New("its index is damaged")
		}
		block, err := read(place.Offset(), place.Len())
		if err != nil {
			return err
		}
		end := len(block) - 4
		start := end - int(binary.BigEndian.Uint32(block[end:]))
		if err := proto.Unmarshal(block[start:end], &sum); err != nil {
			return fmt.Errorf("the checksum of block %d is damaged", i)
		}
		if err := y.VerifyChecksum(block[:start], &sum); err != nil {
			return fmt.Errorf("block %d is damaged: %w", i, err)
		}
	}
	return nil
}

var errUnreadable = errors.New("it can't be read")

// catch runs f and makes an error of a panic in it. That is also what a page of
// a mapped file becomes that the disk can't deliver.
func catch(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil { // Badger's text is the whole of the table
			err = errUnreadable
		}
	}()
	return f()
}

// checkTableEnd verifies the index at a table's end, and returns it. Layout:
// blocks, index, its length, the index's checksum, its length.
func checkTableEnd(path string) (*fb.TableIndex, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the directory
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at := info.Size()
	// last returns the n bytes before those it returned last.
	last := func(n int64) ([]byte, error) {
		if n > at {
			return nil, errors.New("its end is damaged")
		}
		at -= n
		b := make([]byte, n)
		_, err := f.ReadAt(b, at)
		return b, err
	}
	var parts [2][]byte // checksum and index
	for i := range parts {
		length, err := last(4)
		if err != nil {
			return nil, err
		}
		if parts[i], err = last(int64(binary.BigEndian.Uint32(length))); err != nil {
			return nil, err
		}
	}
	sum := &pb.Checksum{}
	if len(parts[1]) == 0 || proto.Unmarshal(parts[0], sum) != nil {
		return nil, errors.New("its end is damaged")
	}
	var index *fb.TableIndex
	err = catch(func() error { // of an unknown kind of checksum
		if err := y.VerifyChecksum(parts[1], sum); err != nil {
			return fmt.Errorf("its index is damaged: %w", err)
		}
		if index = fb.GetRootAsTableIndex(parts[1], 0); index.OffsetsLength() < 1 {
			return errors.New("its index is empty")
		}
		return nil
	})
	return index, err
}
