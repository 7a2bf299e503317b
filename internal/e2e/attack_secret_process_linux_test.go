package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// The users that Lanyard and its neighbour run as here. They exist nowhere else.
const (
	ourUser   = 64301
	otherUser = 64302
)

// asUser reads a file as another user does.
func asUser(t *testing.T, user uint32, name string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cat", name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	return cmd.Output()
}

// restartAs has the program run as a user that is not root.
func (w *world) restartAs(user uint32) {
	w.t.Helper()
	if os.Getuid() != 0 {
		w.t.Skip("needs root, to become other users")
	}
	w.stop()
	err := filepath.WalkDir(w.site.Dir, func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(name, int(user), int(user)))
	})
	if err := errors.Join(err, os.Chmod(filepath.Dir(w.site.Dir), 0o711)); err != nil {
		w.t.Fatal(err)
	}
	w.user = &syscall.Credential{Uid: user, Gid: user}
	if _, err := asUser(w.t, user, w.bin); err != nil {
		w.t.Skipf("user %d can't reach %s", user, w.bin)
	}
	w.start()
}

// TestOtherProcesses looks at a running Lanyard as its neighbours do.
func TestOtherProcesses(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	w.restartAs(ourUser)
	if err := w.wantCall(id, http.StatusOK); err != nil {
		t.Error(err)
	}
	proc := fmt.Sprintf("/proc/%d/", w.cmd.Process.Pid)
	w.in(t, "A159 arguments", func(t *testing.T) {
		args, err := asUser(t, otherUser, proc+"cmdline")
		if err != nil {
			t.Fatal(err)
		}
		w.out.keep(&w.out.inside, args) // for the sweep
	})
	w.in(t, "A154 A159 environment and memory, another user", func(t *testing.T) {
		for _, name := range []string{"environ", "maps", "mem"} {
			if b, err := asUser(t, otherUser, proc+name); err == nil || len(b) > 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	w.in(t, "A154 A159 environment and memory, the same user", func(t *testing.T) {
		for _, name := range []string{"environ", "maps", "mem"} {
			if b, err := asUser(t, ourUser, proc+name); err == nil || len(b) > 0 {
				t.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
		}
	})
	w.in(t, "A166 files, another user", func(t *testing.T) {
		if err := os.Chmod(w.path("data"), 0o711); err != nil { // as an operator's own may be
			t.Fatal(err)
		}
		files := []string{"data/lanyard-keys.json", "data/lanyard-store.json", "caddy.log", "xdg/caddy/autosave.json"}
		store, err := filepath.Glob(w.storeFiles() + "/*")
		if err != nil || len(store) < 3 {
			t.Fatalf("%d files in the store, %v", len(store), err)
		}
		for _, name := range files {
			store = append(store, w.path(name))
		}
		for _, name := range store {
			if b, err := asUser(t, otherUser, name); err == nil || len(b) > 0 {
				t.Errorf("%s can be read", name)
			}
		}
	})
	w.in(t, "A166 calls without a key", func(t *testing.T) {
		for _, path := range []string{"/me", "/v1/connections", "/v1/connections/" + id, "/v1/events", "/v1/backup"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.proxyURL(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Connection-Id", id)
			if a := w.do(req); a.Status != http.StatusUnauthorized {
				t.Errorf("%s: HTTP %d: %s", path, a.Status, a.Body)
			}
		}
	})
}

// mayDumpCore checks that the program has forbidden itself core dumps, and takes
// that back as far as others can.
func (w *world) mayDumpCore() {
	w.t.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(w.cmd.Process.Pid, unix.RLIMIT_CORE, nil, &limit); err != nil || limit.Cur != 0 {
		w.t.Errorf("the limit of core dumps is %d, %v; want 0", limit.Cur, err)
	}
	limit = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(w.cmd.Process.Pid, unix.RLIMIT_CORE, &limit, nil); err != nil {
		w.t.Logf("the limit can't be lifted here: %v", err)
	}
}

// TestDumps kills the program in ways that make it, or the system, write down
// what it has in memory.
func TestDumps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withFailpoints, func(w *world, _ *fakeprovider.Config) {
		w.environ = append(w.environ, "GOTRACEBACK=crash") // the most that it can say, and a core dump
	})
	m, other := w.join("account 1"), w.join("account 2")
	w.in(t, "A154 stacks and core at SIGABRT in the middle of a refresh", func(t *testing.T) {
		w.fake.Faults.Token(fakeprovider.Blackholed())
		w.refresh(m)
		w.wantAsked(3)
		w.mayDumpCore()
		w.signal(syscall.SIGABRT)
		if status := w.died(patience); status.CoreDump() || status.Signal() != syscall.SIGABRT {
			t.Errorf("ended with %v, core dumped: %v", status, status.CoreDump())
		}
		if out := w.output(); !strings.Contains(out, "SIGABRT: abort") || !strings.Contains(out, "provider.(*Provider).Refresh") {
			t.Error("the stacks are not there, or show no refresh")
		}
		w.noLeaks("in what SIGABRT left")
	})
	w.environ = nil // with it an end takes a second for each thread
	// Caddy takes SIGQUIT for an order to end at once.
	w.in(t, "A154 SIGQUIT ends it without a word", func(*testing.T) {
		w.start()
		w.signal(syscall.SIGQUIT)
		w.died(patience)
		w.noLeaks("in what SIGQUIT left")
	})
	w.in(t, "A154 a panic with an answer in hand", func(t *testing.T) {
		w.start()
		w.fail("refresh.before_persist=panic")
		<-w.refresh(other)
		w.died(patience)
		if !strings.Contains(w.output(), "panic: failpoint") {
			t.Error("the panic is not there")
		}
		w.fail()
		w.noLeaks("in the panic")
	})
	w.start()
}
