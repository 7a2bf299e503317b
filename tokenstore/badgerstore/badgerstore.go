// Package badgerstore is the default tokenstore.Store: Badger, embedded, in one
// directory that one process holds at a time.
package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// defaultLockWait is long enough for the process before to finish its refreshes
// and close, and short enough for a supervisor to show the error.
const defaultLockWait = 10 * time.Second

// Config is what Open needs.
type Config struct {
	// Codec seals the records. Required.
	Codec tokenstore.Codec
	// Logger gets what is found out about the disk and about damaged records, and
	// what Badger warns of. Default: none.
	Logger *zap.Logger
	// LockWait is how long Open waits for another process to let go of the
	// directory. Default: 10 seconds.
	LockWait time.Duration

	loading bool // it is not in force yet
}

// Store implements tokenstore.Store on Badger.
type Store struct {
	dir    string
	log    *zap.Logger
	lock   *dirLock
	keys   keyMaker
	sealer sealer
	damage damage
	space  *space
	// maxEvents is tokenstore.MaxEvents, but in tests.
	maxEvents uint64
	hit       func(place string) error // failpoint.Hit, but in tests

	reading   sync.RWMutex  // held by readers: Badger's Close unmaps what they read
	closed    bool          // guarded by reading
	gen       *generation   // guarded by reading, and changed by the committer
	db        *badger.DB    // gen's; guarded by reading
	abandoned []*generation // after failed writes; guarded by reading
	failed    bool          // a write has failed, and gen is as it left it; the committer's
	refusal   error         // guarded by reading; why nothing is read or written any more (see behind.go)

	doubtful atomic.Bool // the check behind the start has failed: nothing is known

	rekeying rekeying
	frozen   atomic.Bool // it takes no writes
	loading  bool        // it is being moved to here

	jobs    chan *job     // to the committer
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when the committer has answered its last job
	close   sync.Once
	wg      sync.WaitGroup // the committer and what goes on beside it
}

var _ tokenstore.Store = (*Store)(nil)

// Open opens the store in dir, Lanyard's data directory, and makes both if they
// are not there. Badger's files are in a directory below dir/badger that each
// opening makes anew, out of those that are in force; dir/lanyard-store.json says
// which these are, and dir/lanyard-mark-N which transaction was the last to be
// acknowledged.
//
// Opening reads the whole store, unless all of its tables are as the file system
// has them in dir/lanyard-known-N: then it reads what else there is, and the tables
// are read and everything is counted after Open has returned. If that finds damage,
// all calls fail from then on with tokenstore.ErrUnavailable and ErrIncomplete, and
// Open does so the next time.
//
// Open changes nothing if it finds that the keyset is not the store's (an error
// that wraps tokenstore.ErrKeyMissing), that another process has the directory
// (tokenstore.ErrUnavailable), or that something is damaged, missing or of another
// store (ErrIncomplete). tokenstore.ErrFull says that there is no room to open.
func Open(dir string, cfg Config) (*Store, error) { return openHooked(dir, cfg, failpoint.Hit) }

// openHooked is Open with a function that is called at the failpoints.
func openHooked(dir string, cfg Config, hit func(place string) error) (*Store, error) {
	if cfg.Codec == nil {
		return nil, errors.New("badgerstore: no codec to seal records with")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.LockWait == 0 {
		cfg.LockWait = defaultLockWait
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("badgerstore: data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("badgerstore: making the data directory: %w", err)
	}
	lock, err := lockDir(dir, cfg.LockWait)
	if err != nil {
		return nil, fmt.Errorf("badgerstore: %w", err)
	}
	s := &Store{
		dir: dir, log: cfg.Logger, lock: lock, loading: cfg.loading, space: newSpace(dir, cfg.Logger), hit: hit,
		maxEvents: tokenstore.MaxEvents,
		jobs:      make(chan *job, maxBatch),
		closing:   make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	if err := s.open(cfg.Codec); err != nil {
		lock.release()
		return nil, fmt.Errorf("badgerstore: %w", err)
	}
	s.wg.Go(s.commitJobs)
	if err := s.indexLabels(); err != nil {
		return nil, fmt.Errorf("badgerstore: making the index of labels: %w", errors.Join(err, s.Close()))
	}
	s.wg.Go(s.collectGarbage)
	s.wg.Go(s.watchSpace)
	s.wg.Go(s.openAll)
	s.wg.Go(s.checkBehind)
	return s, nil
}

// open makes the store if there is none, and opens the next generation of it.
func (s *Store) open(codec tokenstore.Codec) error {
	id, err := s.prepareIdentity(codec)
	if err == nil {
		err = removeTemporary(s.dir)
	}
	if err != nil {
		return err
	}
	if id.Creating {
		if id, err = s.create(id, codec); err != nil {
			return err
		}
	}
	s.setSealing(codec, id)
	g, err := s.advance()
	s.use(g)
	return err
}

// create makes a new store's first generation.
func (s *Store) create(id identity, codec tokenstore.Codec) (identity, error) {
	if err := s.space.toOpen(filepath.Join(s.dir, badgerDir)); err != nil {
		return id, err
	}
	id.Creating = false
	id, err := build(s.dir, id, s.keys.indexKey, codec, func(func(entry, error) bool) {})
	if err != nil {
		return id, err
	}
	after, err := putInForce(s.dir, id, "")
	return id, errors.Join(after, err)
}

// current returns the Badger that is open now.
func (s *Store) current() *badger.DB {
	s.reading.RLock()
	defer s.reading.RUnlock()
	return s.db
}

// Exists reports whether there is a store in dir, whole or damaged: then it has
// a keyset already, and a new one must not be made. If that can't be known, the
// answer is yes.
func Exists(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, identityFile)); !errors.Is(err, os.ErrNotExist) {
		return true
	}
	files, err := os.ReadDir(filepath.Join(dir, badgerDir))
	return len(files) > 0 || (err != nil && !errors.Is(err, os.ErrNotExist))
}

// Close implements tokenstore.Store: what was given to the store before is
// written and answered first.
func (s *Store) Close() error {
	var err error
	s.close.Do(func() {
		close(s.closing)
		s.wg.Wait()
		s.reading.Lock()
		s.closed = true
		s.reading.Unlock()
		err = s.closeFiles()
	})
	if err != nil {
		return fmt.Errorf("badgerstore: closing: %w", err)
	}
	return nil
}

// closeFiles closes Badger, the mark and the lock. Where there is no room for
// what Badger writes then, or a write has failed, the files stay as kill -9
// would leave them, which loses nothing.
func (s *Store) closeFiles() error {
	err := s.space.toClose(s.gen.files)
	leave := s.failed || err != nil
	if !leave {
		if err = errors.Join(s.db.Close(), restrictFiles(s.gen.files)); err == nil && !s.doubtful.Load() {
			time.Sleep(clockTick)
			s.remember(s.gen, true)
		}
	}
	s.gen.mark.close()
	if leave {
		s.gen.log.muted.Store(true)
		s.abandoned = append(s.abandoned, s.gen)
		if left := s.leave(s.gen); left != nil && !errors.Is(left, errReadOnlyFiles) {
			// The lock ends with the process: nobody must open what may still change.
			return errors.Join(err, fmt.Errorf("the directory stays locked: %w", left))
		}
	}
	s.lock.release()
	return err
}

// restrictFiles takes from others what Badger's 0644 gives them. It runs at
// open and at close: the files that Badger makes in between stay 0644 until
// then, and the directory's 0700 is what protects them. (A umask would cover
// them, but it is the whole process's, and Caddy's other files are not ours.)
// A file that needs no change gets none: it would not be known again.
func restrictFiles(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("listing Badger's files: %w", err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			err = os.Chmod(filepath.Join(dir, f.Name()), 0o600)
		}
		// Badger may be removing files it has compacted.
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("closing a file of Badger to others: %w", err)
		}
	}
	return nil
}

// collectGarbage frees value-log files. Badger 4.9.6 writes a value to the value
// log only if it is as long as the threshold (valueThreshold), so that all
// but a token endpoint's answer of absurd size stays in the LSM tree, which
// compacts itself. A round without such values looks at one number.
func (s *Store) collectGarbage() {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-ticker.C:
			s.freeValueLogs()
		}
	}
}

// freeValueLogs is one round, and returns how many files it has freed.
func (s *Store) freeValueLogs() (freed int) {
	// The error that ends this is badger.ErrNoRewrite, or one that the next round
	// meets again.
	for s.current().RunValueLogGC(0.5) == nil {
		freed++
	}
	return freed
}
