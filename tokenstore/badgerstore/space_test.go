package badgerstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

const mib = 1 << 20

func newSpace(t *testing.T) (*badgerstore.Space, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	s := badgerstore.NewSpace(t.TempDir(), zap.New(core))
	s.Free.Store(1000 * mib)
	s.Tend(false)
	if !s.Ballast() {
		t.Fatal("no ballast was made on an empty disk")
	}
	return s, logs
}

func TestSpaceRefusesNewBeforeOld(t *testing.T) {
	for _, tt := range []struct {
		free         int64
		readOnly     bool
		new, another error
	}{
		{free: 64 * mib},
		{free: 64*mib - 1, new: tokenstore.ErrFull},
		{free: 16 * mib, new: tokenstore.ErrFull},
		{free: 16*mib - 1, new: tokenstore.ErrFull, another: tokenstore.ErrFull},
		{free: 0, new: tokenstore.ErrFull, another: tokenstore.ErrFull},
		{free: 1000 * mib, readOnly: true, new: tokenstore.ErrUnavailable, another: tokenstore.ErrUnavailable},
	} {
		s, _ := newSpace(t)
		s.Free.Store(tt.free)
		s.ReadOnly.Store(tt.readOnly)
		if err := s.RefuseWrite(true); !errors.Is(err, tt.new) {
			t.Errorf("%d free, read-only %v: something new = %v, want %v", tt.free, tt.readOnly, err, tt.new)
		}
		if err := s.RefuseWrite(false); !errors.Is(err, tt.another) {
			t.Errorf("%d free, read-only %v: a write = %v, want %v", tt.free, tt.readOnly, err, tt.another)
		}
		s.Unknown.Store(true)
		if err := errors.Join(s.RefuseWrite(true), s.RefuseWrite(false)); err != nil {
			t.Errorf("where nothing is known of the disk: %v", err)
		}
	}
}

// TestSpaceSaysWhatToDo wants how much is free, where, how much is needed, and
// what helps, in the error.
func TestSpaceSaysWhatToDo(t *testing.T) {
	s, _ := newSpace(t)
	s.Free.Store(20 * mib)
	err := s.RefuseWrite(true)
	for _, word := range []string{"20 MiB are free", filepath.Dir(s.BallastPath()), "a new connection needs 64", "free some"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %q", err, word)
		}
	}
}

func TestSpaceIsLoggedOnce(t *testing.T) {
	s, logs := newSpace(t)
	for _, free := range []int64{500, 63, 30, 62, 65, 63, 20, 15, 5, 0, 17, 15, 30, 15, 500, 400} {
		for range 3 {
			s.Free.Store(free * mib)
			_ = s.RefuseWrite(false)
		}
	}
	s.ReadOnly.Store(true)
	_ = s.RefuseWrite(false)
	_ = s.RefuseWrite(true)
	var got []string
	for _, e := range logs.All() {
		got = append(got, e.Message)
	}
	want := []string{
		"store is low on space", "store is full", "store is low on space", "store is full",
		"store has room again", "store is read-only",
	}
	if !slices.Equal(got, want) {
		t.Errorf("log = %q\nwant  %q", got, want)
	}
}

// TestBallast is made where there is room, and given up where Badger needs it
// and it is enough.
func TestBallast(t *testing.T) {
	files := func(logBytes int) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00001.mem"), append(nonZero(logBytes), make([]byte, 4*mib)...), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, tt := range []struct {
		name string
		free int64
		do   func(s *badgerstore.Space) error
		held bool
		err  error
	}{
		{"full and idle", 0, func(s *badgerstore.Space) error { s.Tend(false); return nil }, true, nil},
		{"full and merging", 0, func(s *badgerstore.Space) error { s.Tend(true); return nil }, false, nil},
		{"full and a new log", 0, func(s *badgerstore.Space) error { s.Opened(""); s.Tend(false); return nil }, false, nil},
		{"low and merging", 20 * mib, func(s *badgerstore.Space) error { s.Tend(true); return nil }, true, nil},
		{"opening with room", 100 * mib, func(s *badgerstore.Space) error { return s.ToOpen(files(2 * mib)) }, true, nil},
		{"opening, full", 0, func(s *badgerstore.Space) error { return s.ToOpen(files(2 * mib)) }, false, nil},
		{"opening, and it would not help", 0, func(s *badgerstore.Space) error { return s.ToOpen(files(8 * mib)) }, true, tokenstore.ErrFull},
		{"opening read-only", 0, func(s *badgerstore.Space) error {
			s.ReadOnly.Store(true)
			return s.ToOpen(files(mib))
		}, true, tokenstore.ErrUnavailable},
		{"closing, full", 0, func(s *badgerstore.Space) error { return s.ToClose(files(8 * mib)) }, false, nil},
		{"closing with room", 10 * mib, func(s *badgerstore.Space) error { return s.ToClose(files(8 * mib)) }, true, nil},
		{"the next log", 20 * mib, func(s *badgerstore.Space) error {
			s.Wrote(t.TempDir(), badgerstore.MemTableSize)
			return s.RefuseWrite(false)
		}, false, nil},
		{"the next log, and too full", 15 * mib, func(s *badgerstore.Space) error {
			s.Wrote(t.TempDir(), badgerstore.MemTableSize)
			return s.RefuseWrite(false)
		}, false, tokenstore.ErrFull},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newSpace(t)
			s.Free.Store(tt.free)
			if err := tt.do(s); !errors.Is(err, tt.err) {
				t.Errorf("error = %v, want %v", err, tt.err)
			}
			if s.Ballast() != tt.held {
				t.Errorf("there is a ballast: %v, want %v", s.Ballast(), tt.held)
			}
			s.ReadOnly.Store(false)
			s.Free.Store(64*mib - 1)
			s.Tend(false)
			if s.Ballast() != tt.held {
				t.Error("the ballast was made again where new connections need the room")
			}
			s.Free.Store(64 * mib)
			s.Tend(false)
			if info, err := os.Stat(s.BallastPath()); err != nil || info.Size() != badgerstore.BallastSize {
				t.Errorf("the ballast was not made again: %v, %v", info, err)
			}
		})
	}
}

// TestSpaceFindsTheNextLog: once Badger has begun a log, no room for that has to
// be there any more.
func TestSpaceFindsTheNextLog(t *testing.T) {
	for _, tt := range []struct {
		name, first, second string
		removed             bool // the first, since its table is made
	}{
		{"the next", "00001.mem", "00002.mem", false},
		{"of more digits", "99999.mem", "100000.mem", false},
		{"not the next", "00001.mem", "00007.mem", true},
		{"of more digits, and not the next", "99998.mem", "100000.mem", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newSpace(t)
			s.Free.Store(64 * mib)
			s.Foresee(level(5, 20, 32*mib)...)
			files := t.TempDir()
			begin := func(log string) {
				if err := os.WriteFile(filepath.Join(files, log), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			begin(tt.first)
			s.Opened(files)
			s.Wrote(files, badgerstore.MemTableSize)
			if err := s.RefuseWrite(false); !errors.Is(err, tokenstore.ErrFull) {
				t.Errorf("a write that begins a log = %v, want ErrFull", err)
			}
			begin(tt.second)
			if tt.removed {
				if err := os.Remove(filepath.Join(files, tt.first)); err != nil {
					t.Fatal(err)
				}
			}
			s.Wrote(files, 1)
			if err := s.RefuseWrite(false); err != nil {
				t.Errorf("a write to the log that was begun = %v", err)
			}
		})
	}
}

func nonZero(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i | 1)
	}
	return b
}
