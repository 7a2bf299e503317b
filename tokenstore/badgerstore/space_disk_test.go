//go:build linux

package badgerstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// smallDisk mounts a disk of 160 MiB, or skips the test where that can't be
// done: without root, and in most containers.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m,mode=700"); err != nil {
		t.Skipf("needs a disk to fill, and may not mount one: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fillDisk writes to the last byte of a disk, so many MiB a second, as another
// program's log might. 0 is as fast as can be.
func fillDisk(t *testing.T, dir string, speed int) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pace := &time.Ticker{}
	if speed > 0 {
		pace = time.NewTicker(time.Second / time.Duration(speed))
		defer pace.Stop()
	}
	for chunk := make([]byte, mib); len(chunk) > 0; {
		if speed > 0 {
			<-pace.C
		}
		switch _, err := f.Write(chunk); {
		case err == nil: // something has made room again
			chunk = chunk[:cap(chunk)]
		case errors.Is(err, syscall.ENOSPC):
			chunk = chunk[:len(chunk)/2]
		default:
			t.Fatal(err)
		}
	}
}

// clients is how many write at the same time, each clientPause after its last
// write: some 800 times a second, as 400 refreshes do.
const (
	clients     = 8
	clientPause = 10 * time.Millisecond
)

// TestFullDiskUnderLoad has a process write all the time while the disk fills up
// to the last byte and is cleared again. It must not die of it, nor lose what it
// said was written. LANYARD_FILL is the speed of filling in MiB a second, and
// LANYARD_FILLS how often.
func TestFullDiskUnderLoad(t *testing.T) {
	dir := smallDisk(t)
	keyset, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	speed, fills := 80, 2
	if n, err := strconv.Atoi(os.Getenv("LANYARD_FILL")); err == nil {
		speed = n
	}
	if n, err := strconv.Atoi(os.Getenv("LANYARD_FILLS")); err == nil {
		fills = n
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=TestWriteUntilKilled")
	cmd.Env = append(os.Environ(), "LANYARD_WRITE_TO="+dir, "LANYARD_KEYSET="+string(keyset))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged, refused, lines := map[string]uint64{}, 0, atomic.Int64{}
	var reading sync.WaitGroup
	reading.Go(func() {
		for in := bufio.NewScanner(out); in.Scan(); lines.Add(1) {
			id, revision, _ := strings.Cut(in.Text(), " ")
			if n, err := strconv.ParseUint(revision, 10, 64); err == nil {
				acknowledged[id] = max(acknowledged[id], n)
			} else {
				refused++
			}
		}
	})
	atWork := func() {
		t.Helper()
		for end, begun := time.Now().Add(30*time.Second), lines.Load(); lines.Load() < begun+200; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				_ = cmd.Process.Signal(syscall.SIGQUIT) // it prints what it waits for
				reading.Wait()
				t.Fatal("the process neither writes nor refuses to")
			}
		}
	}
	for range fills {
		atWork()
		fillDisk(t, dir, speed)
		atWork()
		if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
			t.Fatal(err)
		}
	}
	atWork()
	alive := cmd.Process.Signal(syscall.Signal(0)) == nil
	_ = cmd.Process.Kill()
	reading.Wait()
	_ = cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !alive || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the process ended by itself: %v", cmd.ProcessState)
	}
	if refused == 0 || len(acknowledged) != clients {
		t.Errorf("%d writes were refused, %d connections were written", refused, len(acknowledged))
	}
	ks, err := seal.Parse(keyset)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, ks)
	for id, revision := range acknowledged {
		if c, err := s.Connection(t.Context(), id); err != nil || c.Revision < revision {
			t.Errorf("revision %d was acknowledged, revision %d is there: %v", revision, c.Revision, err)
		}
	}
	t.Logf("%d answers, %d of them refusals", lines.Load(), refused)
}

// TestWriteUntilKilled is the process of TestFullDiskUnderLoad: it says what was
// written, and what was refused.
func TestWriteUntilKilled(t *testing.T) {
	dir, keyset := os.Getenv("LANYARD_WRITE_TO"), os.Getenv("LANYARD_KEYSET")
	if dir == "" {
		t.Skip("is run by TestFullDiskUnderLoad")
	}
	ks, err := seal.Parse([]byte(keyset))
	if err != nil {
		t.Fatal(err)
	}
	s, err := badgerstore.Open(dir, badgerstore.Config{Codec: ks})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2900)
	var wg sync.WaitGroup
	for range clients {
		id := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), UserID: "user"}).ID
		wg.Go(func() {
			for {
				c, err := s.UpdateConnection(context.Background(), id, func(c *tokenstore.Connection) error {
					c.Token.Generation++
					c.Token.AccessToken = secret.New(fmt.Sprint(c.Token.Generation, long))
					return nil
				})
				time.Sleep(clientPause)
				if err == nil {
					fmt.Println(id, c.Revision)
					continue
				}
				if !errors.Is(err, tokenstore.ErrFull) && !errors.Is(err, tokenstore.ErrUnavailable) {
					t.Error(err)
				}
				fmt.Println(id, "refused")
			}
		})
	}
	wg.Wait()
}

// TestLogHasItsBlocks gives a log the blocks that it will need when it begins.
func TestLogHasItsBlocks(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, newKeys(t))
	create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	logs, err := filepath.Glob(filepath.Join(dir, "badger", "*", "*.mem"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs = %q, %v; want one", logs, err)
	}
	info, err := os.Stat(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	if has := info.Sys().(*syscall.Stat_t).Blocks * 512; has < badgerstore.MemTableSize {
		t.Errorf("the log has %d KiB on the disk, and may grow to %d", has>>10, badgerstore.MemTableSize>>10)
	}
}

// TestSpaceWantsDescriptors lets no log begin that could not be opened.
func TestSpaceWantsDescriptors(t *testing.T) {
	s, _ := newSpace(t)
	refuse := func() error {
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		few := limit
		few.Cur = uint64(f.Fd()) + 8
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) }()
		return s.RefuseWrite(false)
	}
	if err := refuse(); err != nil {
		t.Errorf("a write to the log that is there = %v", err)
	}
	s.Wrote(t.TempDir(), badgerstore.MemTableSize)
	if err := refuse(); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("a write to the next log = %v, want ErrUnavailable", err)
	}
	if err := s.RefuseWrite(false); err != nil {
		t.Errorf("with descriptors again: %v", err)
	}
}

// TestEventsOnLowDisk: where new connections are refused, so are events, but not
// the changes that bring events along.
func TestEventsOnLowDisk(t *testing.T) {
	disk := smallDisk(t)
	dir := filepath.Join(disk, "data")
	s := open(t, dir, newKeys(t))
	c := create(t, s, live("u"))
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk, n := make([]byte, mib), 0; !errors.Is(err, tokenstore.ErrFull); n++ {
		if _, err := f.Write(chunk); err != nil || n > 160 {
			t.Fatalf("AppendEvents is not refused with %d MiB in the way: %v", n, err)
		}
		err = s.AppendEvents(t.Context(), tokenstore.Event{})
	}
	before := len(events(t, s, ""))
	_, err = s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
		c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshed})
		return nil
	})
	if got := events(t, s, ""); err != nil || len(got) != before+1 {
		t.Errorf("UpdateConnection = %v, and there are %d events, want %d", err, len(got), before+1)
	}
}
