package badgerstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// level returns n tables side by side, over the keys from 000 to 999.
func level(number, n int, size int64) (tables []badgerstore.Span) {
	for i := range n {
		tables = append(tables, badgerstore.Span{
			Level: number, First: fmt.Sprintf("%03d", i*1000/n), Last: fmt.Sprintf("%03d", (i+1)*1000/n-1), Bytes: size,
		})
	}
	return tables
}

// TestSpaceForMerges: the longer the tables that Badger may merge, the more has
// to be free for something new, for the next log and for opening.
func TestSpaceForMerges(t *testing.T) {
	const half = 4 // tables of the next level that are in the range of one
	for _, tt := range []struct {
		name   string
		tables []badgerstore.Span
		extra  int64 // MiB
	}{
		{"none", nil, 0},
		{"a small store", level(6, 5, 2*mib), 0},
		{"level 0 and the next", append(level(0, 20, 3*mib), level(6, 10, 2*mib)...), 60 + 20 + 2 - 36},
		{"a large store", append(level(5, 10, 2*mib), level(6, 10*half, 16*mib)...), 2*(2+16*half) - 36},
		{"a large store with room for a level above", append(level(5, 10, 8*mib), level(6, 10*half, 16*mib)...), 2*(8+16*half) - 36},
		{"one large level, as after a restore", level(6, 40, 16*mib), 24 + 16 - 36},
		{"one level, of a small store", level(6, 15, 2*mib), 24 + 30 + 2 - 36},
		{"a large level above a small one", append(level(5, 20, 2*mib), level(6, 10, 2*mib)...), 24 + 40 + 2 + 2 - 36},
		{"a table over a gap", append(level(6, 40, 16*mib), badgerstore.Span{Level: 5, First: "000", Last: "999", Bytes: mib}), 641 + 25 - 36},
		{"a table of one key", append(level(6, 40, 16*mib), badgerstore.Span{Level: 5, First: "024", Last: "024", Bytes: mib}), 17 + 25 - 36},
	} {
		t.Run(tt.name, func(t *testing.T) {
			extra := max(0, tt.extra) * mib
			s, logs := newSpace(t)
			s.Foresee(tt.tables...)
			s.Free.Store(64*mib + extra)
			if err := s.RefuseWrite(true); err != nil {
				t.Errorf("with enough room: %v", err)
			}
			s.Free.Store(64*mib + extra - 1)
			err := s.RefuseWrite(true)
			if want := fmt.Sprintf("a new connection needs %d", 64+extra/mib); !errors.Is(err, tokenstore.ErrFull) || !strings.Contains(err.Error(), want) {
				t.Errorf("without enough room: %v, want %q", err, want)
			}
			if got := logs.FilterMessage("store is low on space").Len(); got != 1 {
				t.Errorf("it was logged %d times, want 1", got)
			}
			s.Wrote(t.TempDir(), badgerstore.MemTableSize)
			s.Free.Store(48*mib + extra)
			if err := s.RefuseWrite(false); err != nil || !s.Ballast() {
				t.Errorf("the next log with enough room: %v, and there is a ballast: %v", err, s.Ballast())
			}
			s.Free.Store(48*mib + extra - badgerstore.BallastSize - 1)
			if err := s.RefuseWrite(false); !errors.Is(err, tokenstore.ErrFull) || s.Ballast() {
				t.Errorf("the next log without enough room: %v, and there is a ballast: %v", err, s.Ballast())
			}
		})
	}
}
