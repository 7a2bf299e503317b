package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/internal/resident"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A generation that was known when it was opened (known.go) is checked behind the
// start: its tables are verified, and then what the head counts is counted. That
// finds what the file system doesn't tell: bits that rot on the disk, and what
// somebody has done to the disk itself.

const (
	// behindAgain is when a check is tried again that this process can't do now.
	behindAgain = time.Minute
	// behindWork is how long it works before it rests for as long.
	behindWork = 5 * time.Millisecond
	// behindKept is how much it reads through Badger's mappings before they are
	// given back.
	behindKept = 64 * mib
)

// checkBehind checks the generation that the store was opened with, if it is known,
// and has it known the next time. It ends when that is done or Close is called. A
// reopening checks itself.
func (s *Store) checkBehind() {
	s.reading.RLock()
	g := s.gen
	s.reading.RUnlock()
	for len(g.unchecked) > 0 {
		err := s.checkRest(g)
		if err == nil {
			s.doubtful.Store(false)
			break
		}
		if errors.Is(err, errClosed) || errors.Is(err, errSnapshotGone) {
			return
		}
		s.doubtful.Store(true)
		if errors.Is(err, ErrIncomplete) {
			s.refuse(err)
			return
		}
		s.log.Error("store can't be checked", zap.Error(err))
		if !s.pause(behindAgain) {
			return
		}
	}
	if s.pause(clockTick) {
		s.remember(g, false)
	}
}

// pause is false if Close was called.
func (s *Store) pause(d time.Duration) bool {
	select {
	case <-s.closing:
		return false
	case <-time.After(d):
		return true
	}
}

// checkRest does what opening the store has left out. An error wraps ErrIncomplete
// if it says something about the files.
func (s *Store) checkRest(g *generation) error {
	p := &pace{store: s, began: time.Now()}
	for _, name := range g.unchecked {
		path := filepath.Join(g.files, name)
		err := s.hit("store.check")
		if err == nil {
			err = verifyTable(path, p.rest)
		}
		if errors.Is(err, errClosed) || isRefused(err) {
			return err
		}
		if err == nil {
			continue
		}
		switch merged, gone := s.isMerged(g, name); {
		case gone != nil:
			return gone
		case merged:
			continue
		case errors.Is(err, os.ErrNotExist):
			err = errors.New("it is missing")
		}
		return fmt.Errorf("%w: %s: %w", ErrIncomplete, path, err)
	}
	return s.countBehind(g, p)
}

// isMerged reports whether Badger has merged a table of g with others. An error
// says that nobody reads the files of g any more.
func (s *Store) isMerged(g *generation, name string) (bool, error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.closed || s.gen != g || mayChange(g.files) {
		return false, errSnapshotGone
	}
	id, _ := table.ParseFileID(name)
	return !slices.ContainsFunc(s.db.Tables(), func(t badger.TableInfo) bool { return t.ID == id }), nil
}

// countBehind compares the head with what is there, both as they stand when it
// begins.
func (s *Store) countBehind(g *generation, p *pace) error {
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	defer snap.end()
	if snap.db != g.db {
		return errSnapshotGone
	}
	var counted head
	digest := newDigester(s.keys.headKey())
	read := 0
	each := func(prefix string, count func(stored) error) {
		if err != nil {
			return
		}
		err = snap.each(context.Background(), prefix, func(r stored) error {
			if read += len(r.key) + len(r.value); read > behindKept {
				read = 0
				s.giveBack()
			}
			if err := count(r); err != nil {
				return err
			}
			return p.rest()
		})
	}
	each(keyConnection, func(r stored) error { return counted.countConnection(digest, r.key, r.value) })
	each(keyDeleted, func(r stored) error { counted.count(digest, keyDeleted, r.key, 0); return nil })
	each(keyEvent, func(r stored) error { return counted.events.count(append([]byte(keyEvent), r.key...)) })
	switch {
	case errors.Is(err, tokenstore.ErrUnavailable): // closed, reopened, or it panicked
		return err
	case err == nil && snap.head.seq == 0:
		err = errNoHead
	case err == nil:
		err = snap.head.differs(counted)
	}
	if err != nil {
		err = fmt.Errorf("%w: %s: %w", ErrIncomplete, g.files, err)
	}
	return err
}

// refuse has the store give nothing and take nothing any more, as if it had not
// been opened.
func (s *Store) refuse(err error) {
	s.log.Error("store is damaged", zap.Error(err))
	s.reading.Lock()
	defer s.reading.Unlock()
	s.refusal = fmt.Errorf("badgerstore: %w: %w; %s", tokenstore.ErrUnavailable, err, restoreOrAccept)
}

// usable returns why nothing can be read or written, or nil. s.reading is held.
func (s *Store) usable() error {
	if s.closed {
		return errClosed
	}
	return s.refusal
}

func (s *Store) refused() error {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return s.refusal
}

// giveBack gives back the pages of the tables that were read: they are most of what
// there is, and used once.
func (s *Store) giveBack() {
	_ = s.HoldTables(func(tables map[string]bool) error {
		return resident.Drop(func(path string) bool { return tables[path] })
	})
}

// pace has work take half of the time.
type pace struct {
	store *Store
	began time.Time // when it began to work
}

// rest rests if it is time to. Its error is errClosed once Close was called.
func (p *pace) rest() error {
	worked := time.Since(p.began)
	if worked < behindWork {
		return nil
	}
	if !p.store.pause(worked) {
		return errClosed
	}
	p.began = time.Now()
	return nil
}
