package resident_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/lanyard-proxy/lanyard/internal/resident"
)

const size = 4 << 20

// mapped maps a new file of size bytes and touches all of it.
func mapped(t *testing.T, name string, flags int) (path string, data []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, bytes.Repeat([]byte("lanyard!"), size/8), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err = syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(data); err != nil {
			t.Error(err)
		}
	})
	if bytes.Count(data, []byte("!")) != size/8 {
		t.Fatal("the file reads as something else")
	}
	return path, data
}

// residentKB returns how much of a mapped file is in this process, in KiB.
func residentKB(t *testing.T, path string) string {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(smaps), path+"\n")
	_, after, found2 := strings.Cut(after, "\nRss:")
	if !found || !found2 {
		t.Fatalf("%s is not mapped", path)
	}
	return strings.Fields(after)[0]
}

func TestDrop(t *testing.T) {
	path, data := mapped(t, "picked", syscall.MAP_SHARED)
	other, _ := mapped(t, "other", syscall.MAP_PRIVATE)
	copy(data, "changed!")
	if err := resident.Drop(func(p string) bool { return p == path }); err != nil {
		t.Fatalf("Drop = %v", err)
	}
	if got := residentKB(t, path); got != "0" {
		t.Errorf("%s KiB of the file are resident after Drop, want 0", got)
	}
	if got := residentKB(t, other); got == "0" {
		t.Error("Drop dropped a file that was not picked")
	}
	if bytes.Count(data, []byte("!")) != size/8 || string(data[:16]) != "changed!lanyard!" {
		t.Error("the file reads as something else after Drop")
	}
}

// TestDropKeepsWhatWasWritten: what was written to a private mapping is nowhere
// else.
func TestDropKeepsWhatWasWritten(t *testing.T) {
	path, data := mapped(t, "written", syscall.MAP_PRIVATE)
	copy(data, "changed!")
	if err := resident.Drop(func(p string) bool { return p == path }); err != nil {
		t.Fatalf("Drop = %v", err)
	}
	if got := string(data[:16]); got != "changed!lanyard!" {
		t.Errorf("after Drop the mapping reads %q", got)
	}
}

// TestDropKeepsWhatIsSwappedOut: such pages are nowhere else either, and not
// among the anonymous that are resident.
func TestDropKeepsWhatIsSwappedOut(t *testing.T) {
	path, data := mapped(t, "swapped", syscall.MAP_PRIVATE)
	copy(data, "changed!")
	start := uintptr(unsafe.Pointer(&data[0]))
	const smaps = "%x-%x rw-p 00000000 00:00 1 %s\nAnonymous: 0 kB\nSwap: 4 kB\nVmFlags: rd\n"
	text := fmt.Sprintf(smaps, start, start+size, path)
	if err := resident.DropBy(strings.NewReader(text), func(p string) bool { return p == path }); err != nil {
		t.Fatalf("Drop = %v", err)
	}
	if got := string(data[:16]); got != "changed!lanyard!" {
		t.Errorf("after Drop the mapping reads %q", got)
	}
}
