package badgerstore

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	boptions "github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"go.uber.org/zap"
)

// A generation is known if its logs are empty, and its MANIFEST and its tables are
// those that were verified whole, or that Badger has written and closed, and nobody
// has written to them since. The file system tells: whoever writes to a file, or
// puts another in its place, changes what it says of it, and can't set the time of
// the last change (ctime). The record of that is one keyed digest of all of it: it
// is compared with what is there, and never read.
//
// A known generation is opened without reading it whole, and checked behind the
// start (behind.go).

// fileStat is what the file system says of a file, with times in nanoseconds. The
// device is left out: its number may be another after a reboot.
type fileStat struct {
	inode              uint64
	size, mtime, ctime int64
}

// clockTick is longer than a tick of the clock that files get their times of, which
// is 10 ms at most: what is written to a file so long after it was last changed
// changes its times.
const clockTick = 20 * time.Millisecond

// errNotKnown says that the files can't be told by what the file system says.
var errNotKnown = errors.New("the files can't be known again")

func knownOf(dir string, generation uint64) string {
	return filepath.Join(dir, fmt.Sprintf("lanyard-known-%d", generation))
}

// isKnown reports whether the generation n, whose files are in files, is known.
func (s *Store) isKnown(n uint64, files string) bool {
	if strings.HasSuffix(files, leftSuffix) || mayChange(files) {
		return false // a write has failed
	}
	written, err := os.ReadFile(knownOf(s.dir, n))
	if err != nil {
		return false
	}
	manifest, tables, err := statTables(files)
	return err == nil && hmac.Equal(written, knownSum(s.keys.knownKey(), n, manifest, tables))
}

// statTables returns the MANIFEST in files, and what the file system says of each
// table that it names.
func statTables(files string) (manifest []byte, tables map[string]fileStat, err error) {
	manifest, m, err := readManifest(files)
	if err != nil {
		return nil, nil, err
	}
	if err := logsEmpty(files); err != nil {
		return nil, nil, err
	}
	tables = make(map[string]fileStat, len(m.Tables))
	for id, t := range m.Tables {
		name := table.IDToFilename(id)
		st, err := statFile(filepath.Join(files, name))
		if err != nil {
			return nil, nil, err
		}
		// Its times may be whole seconds only; and we compress nothing.
		if st.ctime%int64(time.Second) == 0 || t.Compression != boptions.None {
			return nil, nil, errNotKnown
		}
		tables[name] = st
	}
	return manifest, tables, nil
}

// logsEmpty returns an error if anything is in Badger's logs. What is there is not
// counted yet, and long values are found by reading all that may point to them.
func logsEmpty(files string) error {
	mem, err := filepath.Glob(filepath.Join(files, "*.mem"))
	if err != nil {
		return err
	}
	vlog, err := filepath.Glob(filepath.Join(files, "*.vlog"))
	if err != nil {
		return err
	}
	for _, name := range append(mem, vlog...) {
		var first [16]byte      // of the first entry, which begins with its lengths
		f, err := os.Open(name) //nolint:gosec // a file of Badger's
		if err != nil {
			return err
		}
		_, err = f.ReadAt(first[:], logHeaderLen)
		_ = f.Close() // only read
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case first != [16]byte{}:
			return errNotKnown
		}
	}
	return nil
}

func knownSum(key []byte, n uint64, manifest []byte, tables map[string]fileStat) []byte {
	mac := hmac.New(sha256.New, key)
	number := func(n uint64) { mac.Write(binary.BigEndian.AppendUint64(nil, n)) }
	number(n)
	text := sha256.Sum256(manifest)
	mac.Write(text[:])
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		t := tables[name]
		number(uint64(len(name)))
		mac.Write([]byte(name))
		for _, n := range []uint64{t.inode, uint64(t.size), uint64(t.mtime), uint64(t.ctime)} { //nolint:gosec // bits are bits
			number(n)
		}
	}
	return mac.Sum(nil)
}

// opened notes what the file system says of what g was opened with.
func (g *generation) opened(r *reader) {
	g.manifest, g.tables = r.manifest, map[string]fileStat{}
	for _, name := range r.tables {
		if t, err := statFile(filepath.Join(g.files, name)); err == nil { // else Badger has merged it
			g.tables[name] = t
		}
	}
	if r.known {
		g.unchecked = r.tables
	}
}

// remember records that g is known as it stands, which has been so for clockTick.
// While it is open that is only so if nothing was written since.
func (s *Store) remember(g *generation, closed bool) {
	manifest, tables, err := statTables(g.files)
	if err == nil && !closed && !bytes.Equal(manifest, g.manifest) {
		err = errNotKnown
	}
	for name, t := range g.tables {
		if now, is := tables[name]; is && now != t { // somebody else has written to it
			err = errors.Join(err, errNotKnown)
		}
	}
	if err == nil {
		err = replaceFile(knownOf(s.dir, g.number), knownSum(s.keys.knownKey(), g.number, manifest, tables))
	}
	if err != nil {
		s.log.Debug("store will be read whole at the next start", zap.Error(err))
	}
}
