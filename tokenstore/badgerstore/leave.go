package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// A Badger whose write has failed is left as it stands: its Close writes, and to
// a full disk that ends the process (SIGBUS). But it goes on working: it makes
// tables of its logs, merges tables, and cuts the old ones to nothing before it
// removes them. What reads a table that another cuts ends the process too. So
// what was left shares no table with the next generation.

// errReadOnlyFiles is returned by leave where nothing can be moved, and Badger
// can't make tables either.
var errReadOnlyFiles = errors.New("the file system is read-only")

// leave sees to it that the Badger of g changes nothing any more that is in its
// directory. It can be called again.
//
// Badger knows its files by their paths, and makes new tables before it gives up
// old ones: so the directory is moved away from it. What it had begun before may
// still end. So an iterator that nobody ever ends holds on to all tables, and
// the MANIFEST has to be the same before and after. Then they can be copied.
func (g *generation) leave() error {
	from := strings.TrimSuffix(g.files, leftSuffix)
	leftHere.Store(from, true)
	if err := os.Rename(from, from+leftSuffix); err != nil && !isDir(from+leftSuffix) {
		if errors.Is(err, syscall.EROFS) {
			pin(g.db)
			return errReadOnlyFiles
		}
		return err
	}
	if err := syncDir(filepath.Dir(from)); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		before, _, err := readManifest(from + leftSuffix)
		if err != nil {
			return err
		}
		pin(g.db)
		after, _, err := readManifest(from + leftSuffix)
		if err != nil {
			return err
		}
		if bytes.Equal(before, after) {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("it doesn't end merging tables")
		}
	}
}

// leave leaves a generation that is in force still. An attempt to reopen may have
// put another in force before it failed: then nobody reads the old one's files.
func (s *Store) leave(g *generation) error {
	_, id := s.sealing()
	if filepath.Base(strings.TrimSuffix(g.files, leftSuffix)) != strconv.FormatUint(id.Generation, 10) {
		return nil
	}
	return g.leave()
}

// leftHere has the directories that Badgers of this process were left in, and
// are not closed: whichever Store opens them next has to know. :: path without
// leftSuffix → true
var leftHere sync.Map

// mayChange reports whether a Badger may still cut the tables in files.
func mayChange(files string) bool {
	_, is := leftHere.Load(strings.TrimSuffix(files, leftSuffix))
	return is
}

func pin(db *badger.DB) {
	opt := badger.DefaultIteratorOptions
	opt.PrefetchValues = false
	_ = db.NewTransaction(false).NewIterator(opt)
}

// bury closes a Badger that was left, once the store was reopened, and there is
// room for what it writes: into a directory that is then removed. Where that
// room never comes it stays until the process ends.
func (s *Store) bury(old *generation) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-ticker.C:
		}
		if d := s.space.look(); d.refuse(roomForNew+d.extra, "closing") == nil {
			break
		}
	}
	done := make(chan error, 1)
	go func() { done <- old.closeAside() }()
	for closing := s.closing; ; {
		select {
		case err := <-done:
			s.log.Info("badger that failed was closed", zap.Error(err))
			s.reading.Lock()
			defer s.reading.Unlock()
			s.abandoned = slices.DeleteFunc(s.abandoned, func(g *generation) bool { return g == old })
			return
		case <-closing:
			closing = nil
			ticker.Reset(buryWait)
		case <-ticker.C:
			if closing == nil { // it tries to write for ever, if it can't
				return
			}
			// A reopening in between removes what it doesn't know.
			_ = os.MkdirAll(old.files, 0o700)
		}
	}
}

// buryWait is how long Close waits for a Badger that is being closed.
const buryWait = 5 * time.Second

// closeAside closes a Badger whose directory was moved away or removed.
func (g *generation) closeAside() error {
	// It removes its LOCK file, too.
	err := errors.Join(os.MkdirAll(g.files, 0o700), os.WriteFile(filepath.Join(g.files, "LOCK"), nil, 0o600))
	if err != nil {
		return fmt.Errorf("making a directory to close in: %w", err)
	}
	err = g.db.Close()
	leftHere.Delete(g.files)
	return errors.Join(err, os.RemoveAll(g.files))
}
