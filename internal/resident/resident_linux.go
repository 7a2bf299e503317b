package resident

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// Drop takes the pages of mapped files out of this process, for those files
// that which picks by their paths. They stay in the kernel's cache, and each
// comes back, with its neighbours, when it is used: starting up touches most of
// the program, and checking a store all of it, and neither is needed after that.
//
// Nothing is lost: what was written to a shared mapping is the file's, and a
// private one of which anything was written is left alone.
//
// What is picked has to stay mapped until Drop returns: an address that became
// free meanwhile may be somebody else's memory, of which nothing would be left.
func Drop(which func(path string) bool) error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("reading what is mapped: %w", err)
	}
	return errors.Join(drop(f, which), f.Close())
}

// drop reads smaps: for each mapping a line with its addresses and its file, and
// then some with numbers (proc_pid_smaps(5)).
func drop(smaps io.Reader, which func(path string) bool) error {
	var at struct{ start, end uintptr }
	var wanted bool
	var errs []error
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		line := lines.Text()
		if fields := strings.Fields(line); !strings.HasSuffix(fields[0], ":") {
			_, err := fmt.Sscanf(fields[0], "%x-%x", &at.start, &at.end)
			path := fields[len(fields)-1]
			wanted = err == nil && strings.HasPrefix(path, "/") && which(path)
		} else if (fields[0] == "Anonymous:" || fields[0] == "Swap:") && fields[1] != "0" {
			wanted = false // there are relocations, or a debugger's
		} else if wanted && fields[0] == "VmFlags:" { // the last
			if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, at.start, at.end-at.start, syscall.MADV_DONTNEED); errno != 0 {
				errs = append(errs, errno)
			}
		}
	}
	return errors.Join(errs...)
}
