package badgerstore

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

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
