package badgerstore

import (
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// advance opens the store: it reads and checks the files of the generation in
// force, makes the next one of them, puts that in force, and opens Badger there.
// Until then nothing that is in force is changed. Badger can't be opened before,
// to see what it says: when it has merged tables it cuts the old ones to nothing
// before it removes them, and links don't save them from that.
func (s *Store) advance() (g *generation, err error) {
	_, id := s.sealing()
	from := filesOf(s.dir, id.Generation)
	known := s.isKnown(id.Generation, from)
	r, h, err := s.read(from, id, known)
	if err != nil && known { // all of it tells more
		r, h, err = s.read(from, id, false)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.close() }() // nothing was written
	if id.Generation, err = nextGeneration(s.dir); err != nil {
		return nil, fmt.Errorf("%w: looking for generations: %w", tokenstore.ErrUnavailable, err)
	}
	g = &generation{
		number: id.Generation, files: filesOf(s.dir, id.Generation), head: h, log: newLogger(s.log),
		written: written{seed: maphash.MakeSeed()},
	}
	if err := s.put(r, g); err != nil {
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
	g.opened(r)
	return g, nil
}

// read reads the files of the generation in force, all of them or what has to be
// read of those that are known, and checks them. Without an error the reader has
// to be closed.
func (s *Store) read(from string, id identity, known bool) (r *reader, h head, err error) {
	if r, err = newReader(from, known); err != nil {
		return nil, h, fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	s.space.foresee(r.spans())
	if err = s.space.toOpen(from); err == nil {
		err = catch(func() error {
			h, err = s.check(r, id)
			return err
		})
		if errors.Is(err, errUnreadable) || isRefused(err) { // a panic, the disk's, or this process's
			err = fmt.Errorf("%w: %s: %w", tokenstore.ErrUnavailable, from, err)
		}
	}
	if err != nil {
		_ = r.close() // nothing was written
		return nil, h, err
	}
	return r, h, nil
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

// put makes the generation g of what r reads, and puts it in force.
func (s *Store) put(r *reader, g *generation) (err error) {
	n, made := g.number, false
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
		now.id.Indexing = now.id.Indexing || now.id.Format <= formatBeforeLabels
		now.id.Generation, now.id.Format = n, identityFormat
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
