package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// tend keeps the ballast: it is made when there is room for it, and given up
// when the disk fills while Badger is busy. While Badger is idle it is worth
// more for the next start, since who fills a disk would take it at once.
func (sp *space) tend(merging func() bool) {
	d := sp.look()
	held := sp.ballast()
	switch {
	case !d.known || d.readOnly:
	case !held && d.free >= roomForNew+d.extra+ballastSize:
		if err := makeBallast(filepath.Join(sp.dir, ballastFile)); err != nil {
			sp.log.Warn("ballast not made", zap.Error(err))
		}
	case held && d.free < roomForWrites && (sp.busy() || merging()):
		sp.giveUpBallast()
	}
}

// busy reports whether Badger may still be making a table of a log. Where that
// lacks room it tries for ever, and the transaction that begins the next log but
// one waits for it.
func (sp *space) busy() bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return time.Since(sp.worked) < tableTime || (!sp.since.IsZero() && time.Since(sp.since) > tableTime)
}

func (sp *space) ballast() bool {
	info, err := os.Lstat(filepath.Join(sp.dir, ballastFile))
	return err == nil && info.Size() >= ballastSize
}

// giveUpBallast reports whether there was a ballast, which now is room.
func (sp *space) giveUpBallast() bool {
	if !sp.ballast() || os.Remove(filepath.Join(sp.dir, ballastFile)) != nil {
		return false
	}
	sp.log.Warn("ballast given up", zap.String("dir", sp.dir))
	// Some file systems hold back what was freed until they have synced.
	_ = syncDir(sp.dir)
	return true
}

// makeBallast makes the file whole or not at all.
func makeBallast(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // the operator names the directory
	if err != nil {
		return fmt.Errorf("making the ballast: %w", err)
	}
	err = allocate(f, ballastSize)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("making the ballast: %w", err), os.Remove(path))
	}
	return nil
}
