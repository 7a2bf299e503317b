//go:build linux

package badgerstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// TestSizeOfOverwrites renews 1,000 connections 60,000 times, with records of
// 3 KB, and wants the store to stay small. On a slow machine, or under the race
// detector, it ends after 10 seconds with fewer. LANYARD_OVERWRITES=1000000 does
// it so often, however long that takes, and -v shows how it went. (F030)
func TestSizeOfOverwrites(t *testing.T) {
	const (
		connections = 1000
		most        = 64 * mib // on the disk, the ballast apart
		writers     = 256
	)
	overwrites, limit := 60_000, 10*time.Second
	if n, err := strconv.Atoi(os.Getenv("LANYARD_OVERWRITES")); err == nil {
		overwrites, limit = n, time.Hour
	}
	dir := t.TempDir()
	s := open(t, dir, newKeys(t))
	long := strings.Repeat("x", 2900)
	ids := make([]string, connections)
	for i := range ids {
		ids[i] = create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), UserID: "user"}).ID
	}
	var next, done, largest atomic.Int64
	start := time.Now()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(overwrites) && time.Since(start) < limit; n = next.Add(1) {
				_, err := s.UpdateConnection(t.Context(), ids[n%connections], func(c *tokenstore.Connection) error {
					c.Token.AccessToken = secret.New(fmt.Sprint(n, long))
					c.Token.Generation++
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
				if n%2_000 == 0 {
					size := onDisk(t, dir)
					largest.Store(max(largest.Load(), size))
					if n%10_000 != 0 {
						continue
					}
					t.Logf("%8d overwrites: %3d MiB on the disk, %3d MiB resident, %v", n, size/mib, resident(t)/mib, time.Since(start).Round(time.Millisecond))
				}
			}
		})
	}
	wg.Wait()
	largest.Store(max(largest.Load(), onDisk(t, dir))) // a slow machine has not come to the first look
	if largest.Load() > most {
		t.Errorf("the store took up to %d MiB of the disk, want no more than %d", largest.Load()/mib, most/mib)
	}
	t.Logf("%d overwrites in %v, up to %d MiB on the disk", done.Load(), time.Since(start).Round(time.Millisecond), largest.Load()/mib)
	revisions := int64(0)
	for _, id := range ids {
		c, err := s.Connection(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		revisions += int64(c.Revision) - 1
	}
	if revisions != done.Load() {
		t.Errorf("%d overwrites are in the store, %d were acknowledged", revisions, done.Load())
	}
}

// onDisk returns the size of the blocks of all files but the ballast.
func onDisk(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == badgerstore.BallastFile {
			return err
		}
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) { // merged
			return nil
		}
		if err == nil {
			size += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	return size
}

func resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Error(err)
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
