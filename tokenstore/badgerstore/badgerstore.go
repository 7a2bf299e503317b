// Package badgerstore is the default tokenstore.Store: Badger, embedded, in one
// directory that one process holds at a time.
package badgerstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// defaultLockWait is long enough for the process before to finish its refreshes
// and close, and short enough for a supervisor to show the error.
const defaultLockWait = 10 * time.Second

// Config is what Open needs.
type Config struct {
	// Codec seals the records. Required.
	Codec tokenstore.Codec
	// Logger gets what Badger warns of. Default: none.
	Logger *zap.Logger
	// LockWait is how long Open waits for another process to let go of the
	// directory. Default: 10 seconds.
	LockWait time.Duration
}

// Store implements tokenstore.Store on Badger.
type Store struct {
	dir   string
	db    *badger.DB
	lock  *dirLock
	id    identity
	keys  keyMaker
	codec tokenstore.Codec

	reading sync.RWMutex // held by readers: Badger's Close unmaps what they read
	closed  bool         // guarded by reading

	jobs    chan *job     // to the committer
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when the committer has answered its last job
	close   sync.Once
	wg      sync.WaitGroup // the committer and the collector
}

var _ tokenstore.Store = (*Store)(nil)

// Open opens the store in dir, Lanyard's data directory, and makes both if they
// are not there. Badger's files are in dir/badger; the store's identity is
// beside it in dir/lanyard-store.json, where nothing that happens to Badger's
// files can reach it.
//
// Open changes nothing if it finds that the keyset is not the store's (an error
// that wraps tokenstore.ErrKeyMissing), that another process has the directory
// (tokenstore.ErrUnavailable), or that the identity or Badger's files are missing
// or of another store (ErrIncomplete).
func Open(dir string, cfg Config) (*Store, error) {
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
		dir: dir, lock: lock, codec: cfg.Codec,
		jobs:    make(chan *job, maxBatch),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if err := s.open(cfg.Logger); err != nil {
		lock.release()
		return nil, fmt.Errorf("badgerstore: %w", err)
	}
	s.wg.Go(s.commitJobs)
	s.wg.Go(s.collectGarbage)
	return s, nil
}

// open opens the database between the two halves of the identity check: what
// can be known without Badger is checked before Badger may change a file.
func (s *Store) open(log *zap.Logger) error {
	id, indexKey, err := s.prepareIdentity()
	if err != nil {
		return err
	}
	s.id, s.keys = id, keyMaker{indexKey: indexKey}

	files := filepath.Join(s.dir, badgerDir)
	if err := os.MkdirAll(files, 0o700); err != nil {
		return fmt.Errorf("making Badger's directory: %w", err)
	}
	if err := os.Chmod(files, 0o700); err != nil { //nolint:gosec // a directory needs its x
		return fmt.Errorf("closing Badger's directory to others: %w", err)
	}
	if err := removeEmptyFiles(files); err != nil {
		return err
	}
	if s.db, err = badger.Open(options(files, log)); err != nil {
		return fmt.Errorf("opening Badger in %s: %w: %w", files, tokenstore.ErrUnavailable, err)
	}
	err = s.confirmIdentity()
	if err == nil {
		err = restrictFiles(files)
	}
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
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
		err = errors.Join(s.db.Close(), restrictFiles(filepath.Join(s.dir, badgerDir)))
		s.lock.release()
	})
	if err != nil {
		return fmt.Errorf("badgerstore: closing: %w", err)
	}
	return nil
}

// removeEmptyFiles removes logs without a byte in them. Badger makes a log by
// creating it and then giving it its size, and deletes one by taking its size
// and then removing it: a process that is killed in between leaves an empty
// file, which holds nothing and lets Badger's next Open fail ("Create a new
// file").
func removeEmptyFiles(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("listing Badger's files: %w", err)
	}
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != ".vlog" && ext != ".mem" {
			continue
		}
		info, err := f.Info()
		if err != nil {
			return fmt.Errorf("looking at Badger's files: %w", err)
		}
		if info.Mode().IsRegular() && info.Size() == 0 {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return fmt.Errorf("removing an empty file of Badger's: %w", err)
			}
		}
	}
	return nil
}

// restrictFiles takes from others what Badger's 0644 gives them. It runs at
// open and at close: the files that Badger makes in between stay 0644 until
// then, and the directory's 0700 is what protects them. (A umask would cover
// them, but it is the whole process's, and Caddy's other files are not ours.)
func restrictFiles(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("listing Badger's files: %w", err)
	}
	for _, f := range files {
		// Badger may be removing files it has compacted.
		err := os.Chmod(filepath.Join(dir, f.Name()), 0o600)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("closing a file of Badger to others: %w", err)
		}
	}
	return nil
}

// collectGarbage frees value-log files. Badger 4.9.6 writes a value to the value
// log only if it is as long as the threshold (1 MiB, see options), so that all
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
			// Each success freed a file; the error that ends this is
			// badger.ErrNoRewrite, or one that the next round meets again.
			var err error
			for err == nil {
				err = s.db.RunValueLogGC(0.5)
			}
		}
	}
}
