package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// OpenHooked is Open with a function that is called at the failpoints.
func OpenHooked(dir string, cfg Config, hit func(place string) error) (*Store, error) {
	return openHooked(dir, cfg, hit)
}

// CloseAbandoned closes what failed writes have left open, so that the test
// leaves nothing behind.
func (s *Store) CloseAbandoned() error {
	s.reading.Lock()
	defer s.reading.Unlock()
	var errs []error
	for _, g := range s.abandoned {
		errs = append(errs, g.closeAside())
	}
	return errors.Join(errs...)
}

// Options are those that Badger is opened with.
func Options(dir string) badger.Options { return options(dir, newLogger(zap.NewNop())) }

// Waiting returns how many writes wait for the committer.
func (s *Store) Waiting() int { return len(s.jobs) }

// Tamper changes the database past everything that counts what is in it.
func (s *Store) Tamper(change func(txn *badger.Txn) error) error {
	return s.write(context.Background(), func(w *write) error {
		w.set([]byte("m/tampered"), present)
		return change(w.txn)
	})
}

// Files returns the directory of Badger's files that are in force.
func Files(dir string) string {
	id, err := readIdentity(dir)
	if err != nil {
		return filepath.Join(dir, badgerDir)
	}
	return filesOf(dir, id.Generation)
}

// InForce reports whether a table is one of those that the MANIFEST beside it
// names: others were merged, and not removed yet.
func InForce(table string) bool {
	_, m, err := readManifest(filepath.Dir(table))
	_, named := m.Tables[uint64(number(table))]
	return err == nil && named
}

// Check does what Open does before it changes anything.
func Check(dir string, codec tokenstore.Codec) error {
	s := &Store{dir: dir}
	id, err := s.prepareIdentity(codec)
	if err != nil {
		return err
	}
	r, err := newReader(filesOf(dir, id.Generation), false)
	if err != nil {
		return err
	}
	_, err = s.check(r, id)
	return errors.Join(err, r.close())
}

// Parts returns in how many parts the connections of a store are counted.
func Parts(dir string) (int, error) {
	r, err := newReader(Files(dir), false)
	if err != nil {
		return 0, err
	}
	return len(r.parts(keyConnection)), r.close()
}

// Mark returns the path of the mark that is in force.
func Mark(dir string) string {
	id, _ := readIdentity(dir)
	return markOf(dir, id.Generation)
}

// Damaged returns how many connections are known to be damaged.
func (s *Store) Damaged() int {
	s.damage.mu.Lock()
	defer s.damage.mu.Unlock()
	return len(s.damage.ids)
}

// Abandoned returns how many Badgers have failed and are not closed.
func (s *Store) Abandoned() int {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return len(s.abandoned)
}

// AtRest reports whether Badger has nothing to merge.
func (s *Store) AtRest() bool { return s.current().Levels()[0].NumTables < levelZeroTables }

// MoveMark has the store write its mark to another path from now on. Nothing may
// be under way.
func (s *Store) MoveMark(path string) error {
	m, err := newMark(path, s.keys.markKey(), 0)
	if err == nil {
		s.gen.mark.close()
		s.gen.mark = m
	}
	return err
}

// Closing reports whether Close was called.
func (s *Store) Closing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// FreeValueLogs does what is done once an hour.
func (s *Store) FreeValueLogs() (freed int) { return s.freeValueLogs() }

// SplitLog makes two logs of one, after its first n transactions.
func SplitLog(log []byte, n int) (first, second []byte) {
	at := logHeaderLen
	for n > 0 {
		e, size, ok := parseLogEntry(log[at:])
		if !ok {
			panic("the log has not so many")
		}
		if at += size; e.meta&bitFinTxn != 0 {
			n--
		}
	}
	return log[:at], append(bytes.Clone(log[:logHeaderLen]), log[at:]...)
}

// CountBy has connections counted so many at a time until the test's end.
func CountBy(n int) (restore func()) {
	before := countSlice
	countSlice = n
	return func() { countSlice = before }
}

// Known returns the path of the record that the store in dir is known by.
func Known(dir string) string {
	id, _ := readIdentity(dir)
	return knownOf(dir, id.Generation)
}

// Remember makes the record of a closed store anew, of its files as they are: as
// if what was done to them had left what the file system says of them alone.
func Remember(dir string, codec tokenstore.Codec) error {
	s := &Store{dir: dir, log: zap.NewNop()}
	id, err := s.prepareIdentity(codec)
	if err == nil {
		time.Sleep(clockTick)
		s.remember(&generation{number: id.Generation, files: filesOf(dir, id.Generation)}, true)
		if !s.isKnown(id.Generation, filesOf(dir, id.Generation)) {
			err = errNotKnown
		}
	}
	return err
}

// WasKnown reports whether the store was opened without reading it whole.
func (s *Store) WasKnown() bool {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return len(s.gen.unchecked) > 0
}

// CheckRest does once what is done behind the start.
func (s *Store) CheckRest() error {
	s.reading.RLock()
	g := s.gen
	s.reading.RUnlock()
	return s.checkRest(g)
}

// Kill leaves a store as kill -9 does, but that its Badger is still there, and
// keeps its hands off its tables. CloseAbandoned closes it.
func (s *Store) Kill() {
	s.close.Do(func() {
		close(s.closing)
		s.wg.Wait()
		s.reading.Lock()
		defer s.reading.Unlock()
		s.closed = true
		pin(s.db)
		s.gen.log.muted.Store(true)
		s.gen.mark.close()
		s.abandoned = append(s.abandoned, s.gen)
		s.lock.release()
	})
}
