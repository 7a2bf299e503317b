package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Badger's files are in a directory with a number of its own for each opening,
// their generation. The identity file names the generation that is in force.
// Whatever makes another one makes it beside that, and replaces the identity
// file at its end.

// generation is one that is open.
type generation struct {
	db     *badger.DB
	log    *logger // Badger's
	number uint64
	files  string
	mark   *mark
	head   head // as it was last committed; the committer's alone

	written written // the committer's alone
	before  before

	// What it was opened with.
	manifest  []byte
	tables    map[string]fileStat // :: name → what the file system said then
	unchecked []string            // names of the tables, if they are known and were not verified
}

// filesOf returns the directory of a generation's files: its own, or the one
// that leave has moved them to.
func filesOf(dir string, generation uint64) string {
	files := filepath.Join(dir, badgerDir, strconv.FormatUint(generation, 10))
	if left := files + leftSuffix; isDir(left) {
		return left
	}
	return files
}

// leftSuffix ends the name of a directory from which a Badger was moved away
// that could not be closed.
const leftSuffix = "-left"

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func markOf(dir string, generation uint64) string {
	return filepath.Join(dir, fmt.Sprintf("lanyard-mark-%d", generation))
}

// entry is what a store is built from: a connection, which keeps its revision
// and times, an event, which keeps its Seq, a flow, a note, or the ID of a
// connection that was deleted. Connections come in the order of their IDs, and
// events in theirs, without gaps.
type entry struct {
	connection *tokenstore.Connection
	event      *tokenstore.Event
	flow       *tokenstore.Flow
	note       *tokenstore.Note
	deleted    string // ID, if the others are nil
}

// build makes the next generation of the store in dir from entries, beside the
// one in force, which it leaves as it is. Connections are sealed for id and put
// into the indexes of indexKey. It returns id with the number of the generation
// that was made: putInForce makes that the store.
//
// The caller holds the directory's lock. An error of entries ends it; after an
// error what was made is removed.
func build(
	dir string, id identity, indexKey []byte, codec tokenstore.Codec, entries iter.Seq2[entry, error],
) (_ identity, err error) {
	if id.Generation, err = nextGeneration(dir); err != nil {
		return id, fmt.Errorf("looking for generations: %w", err)
	}
	files := filesOf(dir, id.Generation)
	defer func() {
		if err != nil {
			err = errors.Join(err, removeGeneration(dir, id.Generation))
		}
	}()
	if err := makeFilesDir(dir, id.Generation); err != nil {
		return id, err
	}
	db, err := badger.Open(options(files, newLogger(zap.NewNop())).WithSyncWrites(false).WithBaseTableSize(fillBaseTableSize))
	if err != nil {
		return id, fmt.Errorf("opening Badger in %s: %w: %w", files, tokenstore.ErrUnavailable, err)
	}
	s := &Store{keys: keyMaker{indexKey: indexKey}, space: newSpace(dir, zap.NewNop())}
	s.setSealing(codec, id)
	seq, err := s.fill(db, entries)
	if err = errors.Join(err, db.Close()); err != nil {
		return id, err
	}
	m, err := newMark(markOf(dir, id.Generation), s.keys.markKey(), seq)
	if err != nil {
		return id, fmt.Errorf("making the store's mark: %w", err)
	}
	m.close()
	return id, errors.Join(restrictFiles(files), syncFiles(files), syncDir(dir))
}

// copyTo makes of the files that r has read and checked the generation to: the
// tables, which never change, as links, but as copies where a Badger of this
// process that was left may still read them (see leave), the others written anew
// from what was whole in them. Neither the directory of value logs that can be freed (DISCARD)
// nor the KEYREGISTRY, empty without encryption, is needed.
func (r *reader) copyTo(to string) error {
	place := link
	if mayChange(r.dir) {
		place = copyFile
	}
	for _, name := range r.tables {
		if err := place(filepath.Join(r.dir, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	files := map[string][]byte{badger.ManifestFilename: r.manifest}
	for _, l := range r.logs {
		files[filepath.Base(l.name)] = l.bytes
	}
	last := uint32(0)
	for n, text := range r.values {
		files[valueFile(n)], last = text, max(last, n)
	}
	if last > 0 {
		// Badger cuts the last .vlog file at the first damage in it, which may be
		// in a value that nobody needs any more. So an empty one is the last.
		files[valueFile(last+1)] = make([]byte, logHeaderLen)
	}
	for name, text := range files {
		if err := writeFile(filepath.Join(to, name), bytes.NewReader(text)); err != nil {
			return err
		}
	}
	return syncFiles(to)
}

// syncFiles syncs the files in a directory, and the directory.
func syncFiles(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		f, err := os.Open(filepath.Join(dir, file.Name())) //nolint:gosec // the operator names the directory
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator names the directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// putInForce makes the generation that id names the store in dir, at once and
// for good: the identity file is replaced by id. The files of other generations
// are then removed; but if keep (a name, not a path) is not empty, the store
// that was in force is a data directory of its own in dir/keep afterwards.
//
// After an error the store is what it was; after is what went wrong once it was
// no more.
func putInForce(dir string, id identity, keep string) (after, err error) {
	if keep != "" {
		if err = keepStore(dir, filepath.Join(dir, keep)); err != nil {
			err = fmt.Errorf("keeping the store that is replaced: %w", err)
		}
	}
	if err == nil {
		err = writeIdentity(dir, id)
	}
	switch now, unread := readIdentity(dir); {
	case err == nil:
		return removeOthers(dir, id.Generation), nil
	case unread == nil && now.Generation == id.Generation:
		return err, nil // not synced; the others stay for a loss of power
	case unread == nil || errors.Is(unread, fs.ErrNotExist):
		err = errors.Join(err, removeGeneration(dir, id.Generation))
	}
	return nil, err
}

// keepStore makes links of all files of the store in dir, to keep them. By that
// it is not known any more.
func keepStore(dir, to string) error {
	names := []string{identityFile}
	for _, pattern := range []string{"lanyard-mark-*", filepath.Join(badgerDir, "*", "*")} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			names = append(names, name)
		}
	}
	for _, name := range names {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o700); err != nil {
			return err
		}
		// A store that is damaged may lack any of them.
		if err := link(filepath.Join(dir, name), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(syncDir(to), syncDir(dir))
}

// generations returns the numbers of the generations that have files in dir.
func generations(dir string) (numbers []uint64, err error) {
	files, err := os.ReadDir(filepath.Join(dir, badgerDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, f := range files {
		if n, err := strconv.ParseUint(strings.TrimSuffix(f.Name(), leftSuffix), 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, err
}

// nextGeneration returns a number that no generation in dir has or had of late.
func nextGeneration(dir string) (uint64, error) {
	last := uint64(0)
	if id, err := readIdentity(dir); err == nil {
		last = id.Generation
	}
	numbers, err := generations(dir)
	for _, n := range numbers {
		last = max(last, n)
	}
	return last + 1, err
}

// removeOthers removes all generations but one.
func removeOthers(dir string, keep uint64) error {
	numbers, err := generations(dir)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if n != keep {
			if err := removeGeneration(dir, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeGeneration(dir string, n uint64) error {
	files := filepath.Join(dir, badgerDir, strconv.FormatUint(n, 10))
	err := errors.Join(os.RemoveAll(files), os.RemoveAll(files+leftSuffix))
	for _, path := range []string{markOf(dir, n), knownOf(dir, n)} {
		if removed := os.Remove(path); !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}
	if err != nil {
		return fmt.Errorf("removing generation %d of the store: %w", n, err)
	}
	return nil
}

// makeFilesDir makes an empty directory for a generation.
func makeFilesDir(dir string, n uint64) error {
	if err := removeGeneration(dir, n); err != nil {
		return err
	}
	files := filesOf(dir, n)
	if err := os.MkdirAll(files, 0o700); err != nil {
		return fmt.Errorf("making Badger's directory: %w", err)
	}
	for _, d := range []string{filepath.Dir(files), files} { // made by hand, perhaps, or under a umask
		if err := os.Chmod(d, 0o700); err != nil { //nolint:gosec // a directory needs its x
			return fmt.Errorf("closing Badger's directory to others: %w", err)
		}
	}
	return syncDir(filepath.Dir(files))
}
