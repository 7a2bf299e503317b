//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// dirLock holds the data directory for this process. Badger locks its own
// directory too, but only once it has opened it, and in an error that can't be
// told from others.
type dirLock struct{ dir *os.File }

// lockDir locks dir without a change in it. It waits for another process up to
// wait.
func lockDir(dir string, wait time.Duration) (*dirLock, error) {
	f, err := os.Open(dir) //nolint:gosec // the operator names the directory
	if err != nil {
		return nil, fmt.Errorf("opening the data directory: %w", err)
	}
	for end := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return &dirLock{f}, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", dir, err)
		case !time.Now().Before(end):
			_ = f.Close()
			return nil, fmt.Errorf("another process has %s open (waited %s): stop it, or give this one a directory of its own: %w",
				dir, wait, tokenstore.ErrUnavailable)
		}
	}
}

func (l *dirLock) release() { _ = l.dir.Close() }
