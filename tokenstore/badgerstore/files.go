package badgerstore

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// link makes to the same file as from, or a copy where there are no links.
func link(from, to string) error {
	if err := os.Link(from, to); err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyFile(from, to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from) //nolint:gosec // the operator names the directory
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	return writeFile(to, in)
}

// writeFile makes a file of what in has, but for blocks of zeros.
func writeFile(to string, in io.Reader) error {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the same
	if err != nil {
		return err
	}
	return errors.Join(copySparse(out, in), out.Close())
}

func copySparse(out *os.File, in io.Reader) error {
	block, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(in, block)
		if string(block[:n]) != string(zero[:n]) {
			if _, err := out.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return out.Truncate(at)
		}
		if err != nil {
			return err
		}
	}
}
