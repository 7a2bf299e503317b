//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// diskSize is that of the disks in these tests: room for the ballast, for what
// new connections need, and for a store.
const diskSize = 160 << 20

// withDisk gives the data directory a disk of its own, which a test may fill.
// Only root may mount it, and not in every container; elsewhere, the CI of
// others included, the test is skipped.
func withDisk(w *world, _ *fakeprovider.Config) {
	w.t.Helper()
	dir := w.path("data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", diskSize)); err != nil {
		w.t.Skipf("needs a disk to fill, and may not mount one: %v. As root in a container that is allowed to (docker run --privileged) this test runs", err)
	}
	w.t.Cleanup(func() {
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		_ = syscall.Unmount(dir, syscall.MNT_DETACH) // what a test put over it was the first
	})
}

// settledDisk waits until the program has made its ballast, and keeps it on a
// full disk, since Badger has nothing more to do.
func (w *world) settledDisk() {
	w.t.Helper()
	w.eventually("the ballast is there", func() error {
		info, err := os.Stat(w.path("data/lanyard-ballast"))
		if err == nil && time.Since(info.ModTime()) < 2*time.Second {
			err = errors.New("it is new")
		}
		return err
	})
}

// fill takes the disk's space to the last byte, as fast as it can.
func (w *world) fill() {
	w.t.Helper()
	f, err := os.OpenFile(w.path("data/filler"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for len(chunk) > 0 {
		if _, err := f.Write(chunk); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				w.t.Fatal(err)
			}
			chunk = chunk[:len(chunk)/2]
		}
	}
	if free := w.freeSpace(); free != 0 {
		w.t.Fatalf("%d bytes are free on a disk that was filled", free)
	}
}

// fillBut leaves so many bytes free.
func (w *world) fillBut(free int64) {
	w.t.Helper()
	f, err := os.Create(w.path("data/filler"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if n := w.freeSpace() - free; n > 0 {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) freeSpace() int64 {
	w.t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(w.path("data"), &st); err != nil {
		w.t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

func (w *world) unfill() {
	w.t.Helper()
	if err := os.Remove(w.path("data/filler")); err != nil {
		w.t.Fatal(err)
	}
}

// files returns the names of all files in the data directory but the ballast
// and the filler.
func (w *world) files() map[string]bool {
	w.t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(w.path("data"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "filler" && d.Name() != "lanyard-ballast" {
			names[path] = true
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// wantNew begins a connection and checks the answer.
func (w *world) wantNew(status int) error {
	a := w.api(http.MethodPost, "/v1/connections", map[string]any{
		"integration": "fake", "user_id": "somebody new", "redirect_url": w.app.url + "/callback",
	}, nil)
	if a.Status != status || status == http.StatusInsufficientStorage && !strings.Contains(a.Body, `"store_full"`) {
		return fmt.Errorf("a new connection: HTTP %d: %s; want %d", a.Status, a.Body, status)
	}
	return nil
}

// lines counts the entries of the program's log with this message.
func (w *world) lines(message string) int {
	w.t.Helper()
	log, err := os.ReadFile(w.path("caddy.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Count(string(log), `"msg":"`+message+`"`)
}

// callTogether makes a call for each member at the same time.
func (w *world) callTogether(all []*member) map[*member]answer {
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := map[*member]answer{}
	for _, m := range all {
		wg.Go(func() {
			a, err := w.tryCall(m)
			if err != nil {
				w.t.Errorf("%s: %v", m.account, err)
			}
			mu.Lock()
			answers[m] = a
			mu.Unlock()
		})
	}
	wg.Wait()
	return answers
}

// lastWords returns the errors and warnings that the program ended with.
func (w *world) lastWords() string {
	w.t.Helper()
	log, err := os.ReadFile(w.path("caddy.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	var words []string
	for line := range strings.Lines(w.output() + string(log)) {
		if !strings.Contains(line, `"level":"debug"`) && !strings.Contains(line, `"level":"info"`) {
			words = append(words, line)
		}
	}
	return strings.Join(words[max(0, len(words)-20):], "")
}

// answers waits until the program serves requests or has ended.
func (w *world) answers() bool {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-w.exited:
			w.exited <- err
			return false
		default:
		}
		res, err := http.Get(w.proxyURL("/v1/health/live"))
		if err == nil {
			_ = res.Body.Close()
			return res.StatusCode == http.StatusOK
		}
	}
	w.t.Fatal("the program neither serves nor ends")
	return false
}

// readOnly puts a read-only mount of the disk over its writable one, which
// can't be made read-only itself while files are open for writing, or takes it
// off. All that is opened by name from then on is read-only; what the program
// has open can still be written, as on a disk that the kernel has not given up
// yet.
func (w *world) readOnly(ro bool) {
	w.t.Helper()
	dir := w.path("data")
	if !ro {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		w.t.Fatal(err)
	}
}
