package badgerstore

import (
	"path/filepath"
	"sync/atomic"

	"go.uber.org/zap"
)

// The sizes that the tests of space speak of.
const (
	BallastSize  = ballastSize
	BallastFile  = ballastFile
	MemTableSize = memTableSize
)

// Space is the guard of a directory on a disk that tests fill.
type Space struct {
	*space
	Free     atomic.Int64 // bytes, the ballast apart
	ReadOnly atomic.Bool
	Unknown  atomic.Bool
}

func NewSpace(dir string, log *zap.Logger) *Space {
	s := &Space{space: newSpace(dir, log)}
	s.measure = func(string) disk {
		free := s.Free.Load()
		if !s.Ballast() {
			free += ballastSize
		}
		return disk{known: !s.Unknown.Load(), free: free, readOnly: s.ReadOnly.Load()}
	}
	return s
}

func (s *Space) Ballast() bool                { return s.ballast() }
func (s *Space) Tend(merging bool)            { s.tend(func() bool { return merging }) }
func (s *Space) RefuseWrite(isNew bool) error { return s.lookForWrite().refuseWrite(isNew) }
func (s *Space) Wrote(files string, n int64)  { s.wrote(files, n) }
func (s *Space) Opened(files string)          { s.opened(files) }
func (s *Space) ToOpen(files string) error    { return s.toOpen(files) }
func (s *Space) ToClose(files string) error   { return s.toClose(files) }
func (s *Space) BallastPath() string          { return filepath.Join(s.dir, ballastFile) }

// Foresee has the guard foresee merges of these tables.
func (s *Space) Foresee(tables ...Span) {
	spans := make([]span, len(tables))
	for n, t := range tables {
		spans[n] = span{t.Level, []byte(t.First), []byte(t.Last), t.Bytes}
	}
	s.foresee(spans)
}

// Span is a table of Badger's.
type Span struct {
	Level       int
	First, Last string
	Bytes       int64
}
