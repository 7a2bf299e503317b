//go:build darwin || freebsd || linux

package badgerstore

import (
	"io/fs"
	"syscall"
)

// mountedReadOnly is the flag of statfs, the same on all of these systems.
const mountedReadOnly = 1

// statDisk asks the file system that dir is on. A file system without a file
// left to make (inodes) is as full as one without blocks.
func statDisk(dir string) disk {
	var st syscall.Statfs_t
	for {
		err := syscall.Statfs(dir, &st)
		if err == nil {
			break
		}
		if err != syscall.EINTR {
			return disk{}
		}
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:gosec,unconvert // the types differ between systems
	if st.Files > 0 && st.Ffree < 64 {
		free = 0
	}
	return disk{known: true, free: max(free, 0), readOnly: uint64(st.Flags)&mountedReadOnly != 0} //nolint:gosec // a flag
}

// usedBy returns how many bytes of the disk a file has: Badger makes its files
// longer than what is in them.
func usedBy(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
