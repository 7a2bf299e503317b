package badgerstore

import (
	"errors"
	"os"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE of fallocate(2).
const keepSize = 1

// reserve gives the file's first bytes blocks of the disk and changes nothing
// else. What is in the file stays.
func reserve(path string, bytes int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // a file of Badger's
	if err != nil {
		return err
	}
	return errors.Join(fallocate(f, keepSize, bytes), f.Close())
}

// allocate makes an empty file as long as this, with blocks of the disk.
func allocate(f *os.File, bytes int64) error {
	err := fallocate(f, 0, bytes)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return fill(f, bytes)
	}
	return err
}

func fallocate(f *os.File, mode uint32, bytes int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), mode, 0, bytes)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
