// Package pgtest runs real PostgreSQL servers for tests: single ones, a primary
// with its standby, PgBouncer in front, and a network that breaks.
//
// Nothing outlives the process that has started it, however that ends: the
// servers die with it, and a shell that waits for its end removes their files.
package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrMissing is returned where PostgreSQL's or PgBouncer's programs are not
// installed, or this is not Linux.
var ErrMissing = errors.New("not installed")

// patience is how long a server may take for what takes it a second: long, since
// the machine may be busy.
const patience = 60 * time.Second

// T is what is needed of a *testing.T.
type T interface {
	Helper()
	Cleanup(f func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
}

// check ends the test with err, if it is one. What is not installed skips it,
// unless CI=true.
func check(t T, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv("CI") != "true":
		t.Skipf("skipped for want of a program: %v", err)
	default:
		t.Fatalf("pgtest: %v", err)
	}
}

// home is where the servers of this process have their files.
type home struct {
	dir      string
	uid, gid uint32 // whom the servers run as, where this runs as root
	root     bool
	password string // of the role lanyard at every server
	template string // a data directory that was not started yet
	janitor  io.Closer
}

// theHome makes the home when it is first needed. It lasts as long as the process.
var theHome = sync.OnceValues(newHome)

func newHome() (*home, error) {
	for _, name := range []string{"initdb", "postgres", "psql", "pg_basebackup"} {
		if _, err := find(name); err != nil {
			return nil, err
		}
	}
	h := &home{password: rand.Text(), root: os.Getuid() == 0}
	if h.root {
		if err := h.chooseUser(); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "lanyard-pgtest-")
	if err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	h.dir, h.template = dir, filepath.Join(dir, "template")
	if h.janitor, err = sweepAtTheEnd(dir); err != nil {
		return nil, err
	}
	if h.root {
		if err := os.Chown(dir, int(h.uid), int(h.gid)); err != nil {
			return nil, fmt.Errorf("giving a directory away: %w", err)
		}
	}
	return h, h.initdb()
}

// chooseUser finds whom the servers run as: they refuse to run as root.
func (h *home) chooseUser() error {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("reading the IDs of %s: %w", name, err)
		}
		h.uid, h.gid = uint32(uid), uint32(gid)
		return nil
	}
	return fmt.Errorf("a user postgres or nobody: %w", ErrMissing)
}

// sweepAtTheEnd starts a shell that removes dir when this process has ended. It
// lives in a session of its own: what ends the tests does not reach it.
func sweepAtTheEnd(dir string) (io.Closer, error) {
	const script = `cat
for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1"; sleep 0.3; [ -e "$1" ] || exit 0; done`
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", script, "sh", dir) //nolint:gosec // a folder of its own
	cmd.SysProcAttr = ownSession()
	end, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting the janitor: %w", err)
	}
	return end, nil
}

// initdb makes the data directory that all servers begin with. Its collation is
// not that of bytes, where the server knows another one: text is then in no
// order that a program could rely on.
func (h *home) initdb() error {
	args := []string{
		"-D", h.template, "-U", "postgres", "-E", "UTF8", "--no-sync", "--wal-segsize=1",
		"--auth-local=trust", "--auth-host=scram-sha-256",
	}
	if _, err := h.run("initdb", append(args, "--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8")...); err != nil {
		if err := os.RemoveAll(h.template); err != nil {
			return fmt.Errorf("removing what initdb left: %w", err)
		}
		if _, err := h.run("initdb", append(args, "--locale=C")...); err != nil {
			return err
		}
	}
	cmd, err := h.command("postgres", "--single", "-D", h.template, "-c", "fsync=off", "postgres")
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader("create role lanyard login password '" + h.password + "'\n")
	_, err = output(cmd)
	return err
}

// find returns where a program of PostgreSQL or PgBouncer is.
func find(name string) (string, error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("%s on %s: %w", name, runtime.GOOS, ErrMissing)
	}
	// Debian has the server's programs here alone.
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(found) > 0 {
		return found[len(found)-1], nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path := "/usr/sbin/" + name; exec.Command(path, "--version").Run() == nil { //nolint:gosec,noctx // a program of PostgreSQL
		return path, nil
	}
	return "", fmt.Errorf("%s: %w", name, ErrMissing)
}

// command returns a program that runs as the servers' user, and dies with this
// process.
func (h *home) command(name string, args ...string) (*exec.Cmd, error) {
	path, err := find(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), path, args...) //nolint:gosec // a program of PostgreSQL
	cmd.Dir, cmd.SysProcAttr = h.dir, child(h)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+h.dir, "PGPASSFILE="+h.dir+"/none")
	return cmd, nil
}

// run runs a program to its end and returns what it has written.
func (h *home) run(name string, args ...string) (string, error) {
	cmd, err := h.command(name, args...)
	if err != nil {
		return "", err
	}
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(problem.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

// freePort returns a port that nobody listens on, below those that systems give
// out by themselves: nobody gets it by chance while the server is down. Nor do the
// tests of other packages, which choose theirs among others: fidelity from 15000
// on, internal/e2e from 20000, internal/soak from 28000.
func freePort() (int, error) {
	for range 100 {
		port := 10000 + mathrand.IntN(5000) //nolint:gosec // other processes may be looking too
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = l.Close()
			return port, nil
		}
	}
	return 0, errors.New("no port is free")
}

// await asks until ask returns nil.
func await(what string, ask func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := ask()
		if err == nil {
			return nil
		}
		if fatal, ok := errors.AsType[*endedError](err); ok || time.Now().After(deadline) {
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(err, fatal))
		}
	}
}

// endedError says that a server has ended, with the end of its log.
type endedError struct{ log string }

func (e *endedError) Error() string { return "it has ended:\n" + e.log }
