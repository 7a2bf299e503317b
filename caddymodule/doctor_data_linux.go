package caddymodule

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// notLasting are the file systems that end with the machine or the container.
var notLasting = map[int64]string{
	unix.TMPFS_MAGIC:           "a tmpfs, which is memory and gone after a restart",
	unix.RAMFS_MAGIC:           "a ramfs, which is memory and gone after a restart",
	unix.OVERLAYFS_SUPER_MAGIC: "a container's own layer (overlayfs), which is gone with the container",
}

func statFileSystem(dir string) fileSystem {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return fileSystem{}
	}
	return fileSystem{
		known: true, free: int64(st.Bavail) * int64(st.Bsize), //nolint:gosec,unconvert // the types differ between architectures
		readOnly: st.Flags&unix.ST_RDONLY != 0,
		lost:     notLasting[int64(st.Type)], //nolint:unconvert // as above
	}
}

func canWrite(dir string) bool { return unix.Access(dir, unix.W_OK|unix.X_OK) == nil }

// lockHolder returns the process that holds the lock of a data directory, 0 if
// there is none or if it can't be seen from here. It asks for no lock itself: a
// Lanyard that starts at this moment would be refused it.
func lockHolder(dir string) int {
	info, err := os.Stat(dir)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	inode := strconv.FormatUint(st.Ino, 10)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 10347 fe:00:9978021 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5][strings.LastIndexByte(fields[5], ':')+1:] != inode {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

// programOf returns the name of a process in parentheses.
func programOf(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return " (" + strings.TrimSpace(string(name)) + ")"
}
