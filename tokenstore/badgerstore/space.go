package badgerstore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Badger writes its logs and tables through memory maps. A page of those for
// which the disk has no block is a SIGBUS in one of Badger's own goroutines,
// where nothing can catch it: the process ends, and ends again at each start.
// So nothing is given to Badger that the disk has no room for.
const (
	mib = 1 << 20

	// roomForNew must be free for a new connection or flow, and more in a large
	// store (disk.extra). What is below it is kept for the tokens of those that
	// are there, and for Badger.
	roomForNew = 64 * mib
	// roomForWrites must be free for any other write: far more than a
	// transaction and what is beside it, so that another process may write in
	// between.
	roomForWrites = 16 * mib
	// roomForNextLog must be free to begin the next log, and more in a large
	// store: Badger then makes a table of the one before and merges it with
	// others (roomToMerge), and the log itself has to be there (logReserve).
	roomForNextLog = 48 * mib
	// roomToMerge is what of that is for merging tables: enough for a store of
	// some 10 MB.
	roomToMerge = 36 * mib
	// filesForNextLog is how many files must be possible to open for that. A
	// Badger that can't open its next log can't even be read any more.
	filesForNextLog = 16
	// roomAgain is how much more than that must be free for the log to say that
	// things are better, so that a disk at the border doesn't fill it.
	roomAgain = 8 * mib

	// ballastSize is given up where the store could not be opened or closed
	// otherwise, or begin its next log.
	ballastSize = 32 * mib
	ballastFile = "lanyard-ballast"

	// tableTime is more than Badger takes to make a table of a log.
	tableTime = 2 * time.Second

	// memTableSize is what is in one log of Badger's before it begins the next.
	// Badger holds as much of memory for it at once, and more for what is being
	// written: 4 MB of the heap, which the garbage collector lets grow by as much.
	memTableSize = 3 * mib
	// logReserve is the most that Badger writes into one log: it looks at its
	// size before each transaction, which is at most 15 % of memTableSize.
	logReserve = 4 * mib
	// logFull is how much is in a log when the next transaction may begin another.
	logFull = memTableSize - memTableSize/8
	// levelZeroTables is how many tables made of logs Badger merges with others, and
	// levelZeroMost how many there are at most, for which writes then wait. The more
	// are merged at once, the less often is everything else written again, and the
	// more there is to look at, and on the disk beside what it is made to.
	levelZeroTables = 8
	levelZeroMost   = 15
	// baseLevelSize is up to how many bytes the first level is that they are merged
	// with, and levelRatio how many times that each below is: about so many times
	// its own size is written again when a table goes down a level.
	baseLevelSize = 32 * mib
	levelRatio    = 6
)

// errReadOnly is returned for what can't be written since the file system is
// mounted read-only.
var errReadOnly = fmt.Errorf("%w: the file system is read-only", tokenstore.ErrUnavailable)

// disk is what is known of the file system at one time.
type disk struct {
	dir      string
	known    bool  // false: nothing is known, and nothing is refused
	free     int64 // bytes that we may use
	extra    int64 // bytes that Badger may need to merge tables, beyond roomToMerge
	readOnly bool
	logFull  bool // the next write begins Badger's next log
	noFiles  bool // and there are too few file descriptors for that
}

// refuse returns why a write that wants need bytes free may not be made, or
// nil. what needs them is for the error.
func (d disk) refuse(need int64, what string) error {
	switch {
	case !d.known:
		return nil
	case d.readOnly:
		return fmt.Errorf("%w: mount %s for writing again", errReadOnly, d.dir)
	case d.free < need:
		return fmt.Errorf("%w: %d MiB are free in %s and %s needs %d: free some there, or enlarge the disk",
			tokenstore.ErrFull, d.free/mib, d.dir, what, (need+mib-1)/mib)
	}
	return nil
}

// refuseWrite says whether a job may run: one that makes something new, or any
// other.
func (d disk) refuseWrite(isNew bool) error {
	switch {
	case isNew && d.free < roomForNew+d.extra:
		return d.refuse(roomForNew+d.extra, "a new connection")
	case d.noFiles:
		return fmt.Errorf("%w: the process has too few file descriptors left (ulimit -n)", tokenstore.ErrUnavailable)
	case d.logFull:
		return d.refuse(roomForNextLog+d.extra, "the store's next log")
	}
	return d.refuse(roomForWrites, "a write")
}

// spaceState is what the log has been told of the disk.
type spaceState int

const (
	spaceGood spaceState = iota
	spaceLow
	spaceFull
	spaceReadOnly
)

// space watches the disk that the data directory is on, and keeps the ballast.
type space struct {
	dir     string // the data directory
	log     *zap.Logger
	measure func(dir string) disk // statfs, but in tests
	extra   atomic.Int64          // as disk.extra

	mu      sync.Mutex
	told    spaceState // guarded by mu
	logged  int64      // guarded by mu; bytes in Badger's log, rather over than under
	logName string     // guarded by mu; path of Badger's log
	worked  time.Time  // guarded by mu; when Badger last had more to do than to log
	since   time.Time  // guarded by mu; when the transaction under way was given to Badger, or zero
}

func newSpace(dir string, log *zap.Logger) *space {
	return &space{dir: dir, log: log, measure: statDisk}
}

// look measures the disk, and logs a change of its state once.
func (sp *space) look() disk {
	d := sp.measure(sp.dir)
	d.dir, d.extra = sp.dir, sp.extra.Load()
	if d.known {
		sp.tell(d)
	}
	return d
}

func (sp *space) tell(d disk) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	state := d.state(0)
	if state < sp.told { // better, if it is by a margin
		state = min(sp.told, d.state(roomAgain))
	}
	if state == sp.told {
		return
	}
	sp.told = state
	free := zap.Int64("free_bytes", d.free)
	dir := zap.String("dir", sp.dir)
	switch state {
	case spaceGood:
		sp.log.Info("store has room again", dir, free)
	case spaceLow:
		sp.log.Warn("store is low on space", dir, free)
	case spaceFull:
		sp.log.Error("store is full", dir, free)
	case spaceReadOnly:
		sp.log.Error("store is read-only", dir)
	}
}

// state is what would be told of d if less were free.
func (d disk) state(less int64) spaceState {
	switch free := d.free - less; {
	case d.readOnly:
		return spaceReadOnly
	case free < roomForWrites:
		return spaceFull
	case free < roomForNew+d.extra:
		return spaceLow
	}
	return spaceGood
}

// lookForWrite is look before a transaction.
func (sp *space) lookForWrite() disk {
	d := sp.look()
	sp.mu.Lock()
	d.logFull = sp.logged >= logFull
	sp.mu.Unlock()
	if !d.logFull {
		return d
	}
	if d.known && d.free < roomForNextLog+d.extra && sp.giveUpBallast() {
		d = sp.look()
		d.logFull = true
	}
	d.noFiles = !canOpen(sp.dir, filesForNextLog)
	return d
}

// canOpen reports whether so many files more can be open.
func canOpen(dir string, n int) bool {
	var open []*os.File
	for range n {
		f, err := os.Open(dir) //nolint:gosec // the operator names the directory
		if err != nil {
			break
		}
		open = append(open, f)
	}
	for _, f := range open {
		_ = f.Close()
	}
	return len(open) == n
}

// writes is told that a transaction is given to Badger now.
func (sp *space) writes() {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.since = time.Now()
}

// wrote counts what a transaction has put into Badger's log. It finds out when
// Badger has begun another.
func (sp *space) wrote(files string, n int64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.logged += n
	sp.since = time.Time{}
	if sp.logged < logFull {
		return
	}
	if name := logAfter(sp.logName, files); name != sp.logName {
		sp.beginLog(name)
	}
}

// opened is told where Badger's files are, which has just opened them: Badger
// begins a log then, and makes a table of what was in the ones before.
func (sp *space) opened(files string) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.beginLog(newestLog(files))
}

// beginLog gives a log all the blocks that it will need, so that what is
// written to it later can't lack them. Where that can't be done, room is only
// looked for before. sp.mu is held.
func (sp *space) beginLog(name string) {
	sp.logName, sp.logged, sp.worked = name, 0, time.Now()
	if name != "" && sp.measure(sp.dir).free >= roomForWrites {
		_ = reserve(name, logReserve)
	}
}

// logAfter is newestLog where Badger wrote to known before. Badger numbers its
// logs: so the directory, which may have thousands of tables, is seldom read.
func logAfter(known, files string) string {
	if filepath.Dir(known) == files {
		next := filepath.Join(files, fmt.Sprintf("%05d.mem", number(known)+1))
		for _, path := range []string{next, known} {
			if _, err := os.Lstat(path); err == nil {
				return path
			}
		}
	}
	return newestLog(files)
}

// newestLog returns the path of the log that Badger writes to.
func newestLog(files string) string {
	logs, _ := filepath.Glob(filepath.Join(files, "*.mem"))
	if len(logs) == 0 {
		return ""
	}
	return slices.MaxFunc(logs, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
}

// toOpen returns nil if there is room to open Badger on a copy of files, and
// else an error that wraps ErrFull, or ErrUnavailable where nothing can be
// written. The ballast is given up for it, if that is enough. Needed are: copies
// of the logs, tables made of them, and the room to merge these with what is
// there.
func (sp *space) toOpen(files string) error {
	logs, tables, err := sizes(files)
	if err != nil {
		return fmt.Errorf("measuring Badger's files: %w", err)
	}
	need := roomForWrites + 3*logs + min(tables, roomForNextLog-roomForWrites+sp.extra.Load())
	if mayChange(files) { // then tables are copied, too
		need += tables
	}
	return sp.clear(need, "opening the store")
}

// toClose is toOpen for Badger's own Close, which makes a table of its logs.
func (sp *space) toClose(files string) error {
	logs, _, err := sizes(files)
	if err != nil {
		return fmt.Errorf("measuring Badger's files: %w", err)
	}
	return sp.clear(logs+mib, "closing the store")
}

// clear gives up the ballast if there is not enough room without it, and there
// is with it.
func (sp *space) clear(need int64, what string) error {
	d := sp.look()
	err := d.refuse(need, what)
	if !errors.Is(err, tokenstore.ErrFull) || d.free+ballastSize < need || !sp.giveUpBallast() {
		return err
	}
	return sp.look().refuse(need, what)
}

// sizes returns how many bytes there are in Badger's logs and tables.
func sizes(files string) (logs, tables int64, err error) {
	entries, err := os.ReadDir(files)
	if errors.Is(err, fs.ErrNotExist) { // a new store
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		var n int64
		switch filepath.Ext(e.Name()) {
		case ".mem", ".vlog":
			n, err = content(filepath.Join(files, e.Name()))
			logs += n
		case ".sst":
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				tables += info.Size()
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // Badger has merged it
			return 0, 0, err
		}
	}
	return logs, tables, nil
}

// content returns how many bytes of a file are in blocks that are not all zero:
// a log is as long as it may become, and its blocks are there beforehand.
func content(path string) (n int64, err error) {
	f, err := os.Open(path) //nolint:gosec // a file of Badger's
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read
	block, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		m, err := io.ReadFull(f, block)
		if !bytes.Equal(block[:m], zero[:m]) {
			n += int64(m)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
