package badgerstore

import (
	"os"
	"syscall"
)

// syncData syncs what was written in place, and no times with it.
func syncData(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}
