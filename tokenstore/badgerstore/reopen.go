package badgerstore

import (
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// generation is one that is open.
type generation struct {
	db    *badger.DB
	log   *logger // Badger's
	files string
	mark  *mark
	head  head // as it was last committed; the committer's alone
}

// advance opens the store: it reads and checks the files of the generation in
// force, makes the next one of them, puts that in force, and opens Badger there.
// Until then nothing that is in force is changed. Badger can't be opened before,
// to see what it says: when it has merged tables it cuts the old ones to nothing
// before it removes them, and links don't save them from that.
func (s *Store) advance() (g *generation, err error) {
	_, id := s.sealing()
	from := filesOf(s.dir, id.Generation)
	if err := s.space.toOpen(from); err != nil {
		return nil, err
	}
	r, err := newReader(from)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	defer func() { _ = r.close() }() // nothing was written
	var h head
	err = catch(func() error {
		h, err = s.check(r, id)
		return err
	})
	if errors.Is(err, errUnreadable) || isRefused(err) { // a panic, the disk's, or this process's
		err = fmt.Errorf("%w: %s: %w", tokenstore.ErrUnavailable, from, err)
	}
	if err != nil {
		return nil, err
	}
	if id.Generation, err = nextGeneration(s.dir); err != nil {
		return nil, fmt.Errorf("%w: looking for generations: %w", tokenstore.ErrUnavailable, err)
	}
	g = &generation{files: filesOf(s.dir, id.Generation), head: h, log: newLogger(s.log)}
	if err := s.put(r, g, id.Generation); err != nil {
		g.mark.close()
		return nil, fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	if err = s.hit("store.open"); err == nil {
		err = g.open()
	}
	if err != nil {
		g.mark.close()
		return nil, err
	}
	s.space.opened(g.files)
	return g, nil
}

// check compares what r reads with all that is known of the store.
func (s *Store) check(r *reader, id identity) (head, error) {
	marked, err := readMark(markOf(s.dir, id.Generation), s.keys.markKey())
	if isRefused(err) {
		return head{}, err
	}
	if err != nil {
		r.problems = append(r.problems, err)
	}
	return r.check(marked, id, s.keys)
}

// put makes the generation n of what r reads, and puts it in force.
func (s *Store) put(r *reader, g *generation, n uint64) (err error) {
	made := false
	defer func() {
		if !made {
			err = errors.Join(err, removeGeneration(s.dir, n))
		}
	}()
	if err := makeFilesDir(s.dir, n); err != nil {
		return err
	}
	if err := r.copyTo(g.files); err != nil {
		return fmt.Errorf("copying Badger's files: %w", err)
	}
	if g.mark, err = newMark(markOf(s.dir, n), s.keys.markKey(), g.head.seq); err != nil {
		return fmt.Errorf("making the store's mark: %w", err)
	}
	err = s.changeSealing(func(now *sealing) error {
		now.id.Generation = n
		if err := writeIdentity(s.dir, now.id); err != nil {
			return err
		}
		return s.hit("store.identity")
	})
	if err != nil {
		made = mayBeInForce(s.dir, n)
		return err
	}
	made = true
	return removeOthers(s.dir, n)
}

// open opens Badger, which has to have read what r has.
func (g *generation) open() (err error) {
	if g.db, err = badger.Open(options(g.files, g.log)); err != nil {
		return fmt.Errorf("opening Badger in %s: %w: %w", g.files, tokenstore.ErrUnavailable, err)
	}
	err = g.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte(keyHead))
		if err == nil && (item.Version() != g.head.seq || txn.ReadTs() != g.head.seq) {
			err = fmt.Errorf("it has read %d transactions, and there are %d", item.Version(), g.head.seq)
		}
		return err
	})
	if err == nil { // Badger syncs the log that it has begun, but not its name
		err = errors.Join(restrictFiles(g.files), syncDir(g.files))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("opening Badger in %s: %w: %w", g.files, ErrIncomplete, err), g.db.Close())
	}
	return nil
}

// The pauses between attempts to reopen the store.
const (
	reopenFirst = 250 * time.Millisecond
	reopenLast  = 5 * time.Second
)

// reopen opens the store again after a write that failed, as a new process
// would, and tries until it can or Close is called: then it returns nil. The
// Badger that failed is given up as it stands: its Close would write to a disk
// that is full or broken. It goes on serving reads until then.
func (s *Store) reopen(old *generation) *generation {
	for pause := reopenFirst; ; pause = min(2*pause, reopenLast) {
		timer := time.NewTimer(pause)
		select {
		case <-s.closing:
			timer.Stop()
			return nil
		case <-timer.C:
		}
		g, err := s.tryReopen(old)
		if err == nil {
			s.log.Info("store was reopened after a write that failed")
			return g
		}
		s.log.Error("store can't be reopened", zap.Error(err))
	}
}

func (s *Store) tryReopen(old *generation) (*generation, error) {
	if err := s.hit("store.reopen"); err != nil {
		return nil, fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	if err := s.leave(old); err != nil {
		return nil, fmt.Errorf("%w: leaving the files of the Badger that failed: %w", tokenstore.ErrUnavailable, err)
	}
	return s.advance()
}

// use gives the store another generation, if g is not nil.
func (s *Store) use(g *generation) {
	if g == nil {
		return
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	old := s.gen
	s.gen, s.db, s.failed = g, g.db, false
	if old != nil {
		old.log.muted.Store(true)
		old.mark.close()
		s.abandoned = append(s.abandoned, old)
		s.wg.Go(func() { s.bury(old) })
	}
}
