package badgerstore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
)

// reader reads Badger's files in one directory without Badger, and without a
// change to them: Badger repairs what it finds damaged by forgetting it, and
// does so in goroutines of its own, where its panics end the process.
type reader struct {
	dir      string
	known    bool    // the tables' blocks are taken as they are, and nothing is counted
	problems []error // what is damaged or missing, by file

	manifest []byte                   // the MANIFEST file
	levels   map[uint8][]*table.Table // level 0 by age, the others by key
	tables   []string                 // names of the files
	logs     []memLog
	skips    *skl.Skiplist // what is in the logs, sorted
	last     uint64        // the last transaction that is whole, with all before it

	mu     sync.Mutex
	values map[uint32][]byte // guarded by mu until all is read; bytes of the .vlog files that something points to
}

// newReader opens the files in dir and verifies them, but for the blocks of tables
// that are known. What is damaged is left out, and is in problems. An error is one
// that says nothing about the files.
func newReader(dir string, known bool) (*reader, error) {
	r := &reader{dir: dir, known: known, levels: map[uint8][]*table.Table{}, values: map[uint32][]byte{}}
	text, manifest, err := readManifest(dir)
	r.manifest = text
	if isRefused(err) {
		return nil, err
	}
	if err != nil {
		r.damaged("%s: %w", filepath.Join(dir, badger.ManifestFilename), err)
		if manifest.Tables, err = tablesIn(dir); err != nil {
			return nil, err
		}
	}
	if err := r.openTables(manifest.Tables); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if err := r.readLogs(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// openTables opens and, unless they are known, verifies as many tables at a time as there are processors.
func (r *reader) openTables(tables map[uint64]badger.TableManifest) error {
	ids := slices.Sorted(maps.Keys(tables))
	opened, errs := make([]*table.Table, len(ids)), make([]error, len(ids))
	each(len(ids), func(n int) {
		opened[n], errs[n] = openTable(filepath.Join(r.dir, table.IDToFilename(ids[n])), tables[ids[n]].Compression, r.known)
	})
	var refused error
	for n, id := range ids {
		name := table.IDToFilename(id)
		r.tables = append(r.tables, name)
		switch t, err := opened[n], errs[n]; {
		case err == nil:
			level := tables[id].Level
			r.levels[level] = append(r.levels[level], t)
			r.last = max(r.last, t.MaxVersion())
		case isRefused(err):
			refused = err
		case errors.Is(err, os.ErrNotExist):
			r.damaged("%s: it is missing", filepath.Join(r.dir, name))
		default:
			r.damaged("%s: %w", filepath.Join(r.dir, name), err)
		}
	}
	for level, tables := range r.levels {
		slices.SortFunc(tables, func(a, b *table.Table) int {
			if level == 0 { // the newest first
				return cmp.Compare(b.ID(), a.ID())
			}
			return y.CompareKeys(a.Smallest(), b.Smallest())
		})
	}
	return refused
}

// each calls do for all numbers below n, as many at a time as there are processors.
func each(n int, do func(n int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// tablesIn returns all tables that are there, for where no MANIFEST says which
// are in force: the newest version of a key counts, in whatever table it is, and
// old ones that were merged hold older versions only.
func tablesIn(dir string) (map[uint64]badger.TableManifest, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) { // what is missing is named already
		return nil, nil
	}
	tables := map[uint64]badger.TableManifest{}
	for _, f := range files {
		if id, ok := table.ParseFileID(f.Name()); ok {
			tables[id] = badger.TableManifest{}
		}
	}
	return tables, err
}

// isRefused reports whether err says nothing about a file: it is there, and this
// process, as it stands, may not open it or can't.
func isRefused(err error) bool {
	return errors.Is(err, fs.ErrPermission) || slices.ContainsFunc(
		[]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR},
		func(refusal error) bool { return errors.Is(err, refusal) })
}

func (r *reader) damaged(format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf(format, args...))
}

// readManifest returns the MANIFEST, and what it says, up to an entry at the end
// that is cut off: what that told of is then found to be missing, or still
// stands in a log.
func readManifest(dir string) (text []byte, m badger.Manifest, err error) {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename)) //nolint:gosec // the operator names the directory
	if errors.Is(err, os.ErrNotExist) {
		return nil, m, errors.New("it is missing")
	}
	if err != nil {
		return nil, m, err
	}
	defer func() { _ = f.Close() }()
	whole := int64(0)
	err = catch(func() error {
		m, whole, err = badger.ReplayManifestFile(f, 0, badger.Options{})
		return err
	})
	if err != nil {
		return nil, m, err
	}
	text = make([]byte, whole)
	_, err = f.ReadAt(text, 0)
	return text, m, err
}

// readLogs reads the .mem files. Each goes on where the one before ends, and the
// first not later than the tables end.
func (r *reader) readLogs() error {
	names, err := filepath.Glob(filepath.Join(r.dir, "*.mem"))
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	size := int64(skl.MaxNodeSize) * 2
	for _, name := range names {
		text, err := os.ReadFile(name) //nolint:gosec // the operator names the directory
		if isRefused(err) {
			return err
		}
		if err != nil {
			r.problems = append(r.problems, err)
			continue
		}
		l, err := parseMemLog(name, text)
		if err != nil {
			r.problems = append(r.problems, err)
		}
		if len(l.entries) == 0 {
			continue
		}
		if l.first > r.last+1 {
			r.damaged("transactions %d to %d are missing before %s: the log before it is damaged or missing", r.last+1, l.first-1, name)
		}
		r.last = max(r.last, l.last)
		r.logs = append(r.logs, l)
		for _, e := range l.entries {
			size += int64(len(e.key)+len(e.value)+skl.MaxNodeSize) + entryOverhead
		}
	}
	r.skips = skl.NewSkiplist(size)
	for _, l := range r.logs {
		for _, e := range l.entries {
			r.skips.Put(e.key, y.ValueStruct{Meta: e.meta, UserMeta: e.userMeta, ExpiresAt: e.expiresAt, Value: e.value})
		}
	}
	return nil
}

// number returns the number in the name of a file of Badger's, -1 if none is.
func number(path string) int64 {
	name := filepath.Base(path)
	n, err := strconv.ParseInt(strings.TrimSuffix(name, filepath.Ext(name)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func (r *reader) iterator() y.Iterator {
	its := []y.Iterator{r.skips.NewUniIterator(false)}
	// What the collection of value logs has moved is there twice under one
	// version, and the first iterator counts.
	for _, level := range slices.Sorted(maps.Keys(r.levels)) {
		tables := r.levels[level]
		if level == 0 {
			for _, t := range tables {
				its = append(its, t.NewIterator(table.NOCACHE))
			}
			continue
		}
		its = append(its, table.NewConcatIterator(tables, table.NOCACHE))
	}
	return table.NewMergeIterator(its, false)
}

// item is what Badger would show under a key.
type item struct {
	key, value []byte // valid until the next
	version    uint64
	damaged    error // why the value could not be read
}

// parts returns where parts of the keys that begin with prefix start, in their
// order: the prefix, and the first keys of tables.
func (r *reader) parts(prefix string) [][]byte {
	starts := [][]byte{[]byte(prefix)}
	for _, tables := range r.levels {
		for _, t := range tables {
			if key := y.ParseKey(t.Smallest()); bytes.HasPrefix(key, []byte(prefix)) {
				starts = append(starts, bytes.Clone(key))
			}
		}
	}
	slices.SortFunc(starts, bytes.Compare)
	return slices.CompactFunc(starts, bytes.Equal)
}

// each calls use for all keys that begin with prefix, in their order.
func (r *reader) each(prefix string, use func(item) error) error {
	return r.between(prefix, []byte(prefix), nil, use)
}

// between calls use for the keys that begin with prefix, from start on and before
// end, or all from start on if that is nil, in their order. It may be called from
// several goroutines at a time.
func (r *reader) between(prefix string, start, end []byte, use func(item) error) error {
	it := r.iterator()
	defer func() { _ = it.Close() }()
	now := uint64(time.Now().Unix()) //nolint:gosec // a time of today
	var before []byte
	for it.Seek(y.KeyWithTs(start, math.MaxUint64)); it.Valid(); it.Next() {
		full := it.Key()
		key := y.ParseKey(full)
		if !bytes.HasPrefix(key, []byte(prefix)) || (end != nil && bytes.Compare(key, end) >= 0) {
			return nil
		}
		if before != nil && bytes.Equal(key, before) { // an older version
			continue
		}
		before = append(before[:0], key...)
		v := it.Value()
		if v.Meta&bitDelete != 0 || (v.ExpiresAt != 0 && v.ExpiresAt <= now) {
			continue
		}
		found := item{key: key, value: v.Value, version: y.ParseTs(full)}
		if v.Meta&bitValuePointer != 0 {
			found.value, found.damaged = r.value(full, v.Value)
			if isRefused(found.damaged) {
				return found.damaged
			}
		}
		if err := use(found); err != nil {
			return err
		}
	}
	return nil
}

// value reads a value that is in a .vlog file.
func (r *reader) value(key, pointer []byte) ([]byte, error) {
	p, ok := parseValuePointer(pointer)
	if !ok {
		return nil, errors.New("it points nowhere")
	}
	path := filepath.Join(r.dir, valueFile(p.file))
	r.mu.Lock()
	defer r.mu.Unlock()
	file, ok := r.values[p.file]
	if !ok {
		var err error
		file, err = os.ReadFile(path) //nolint:gosec // the operator names the directory
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s is missing", path)
		}
		if err != nil {
			return nil, err
		}
		r.values[p.file] = file
	}
	value, ok := p.value(file, key)
	if !ok {
		return nil, fmt.Errorf("%s is damaged", path)
	}
	return value, nil
}

func valueFile(n uint32) string { return fmt.Sprintf("%06d.vlog", n) }

func (r *reader) close() error {
	var errs []error
	for _, tables := range r.levels {
		for _, t := range tables {
			errs = append(errs, t.Close(-1))
		}
	}
	if r.skips != nil {
		r.skips.DecrRef()
	}
	return errors.Join(errs...)
}
