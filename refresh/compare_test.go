package refresh_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// tally counts what the store is asked. It is slow to compare, and tells each
// change six times, as a database does.
type tally struct {
	*view
	compare, reads atomic.Int64
	last           [6][]tokenstore.Change
}

func (s *tally) Revisions(ctx context.Context, ids []string) (map[string]uint64, error) {
	s.compare.Add(1)
	time.Sleep(1100 * time.Millisecond)
	return s.Shared.Revisions(ctx, ids)
}

func (s *tally) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	s.reads.Add(1)
	return s.Shared.Connection(ctx, id)
}

func (s *tally) Changes(ctx context.Context, since tokenstore.ChangeMark) (all []tokenstore.Change, mark tokenstore.ChangeMark, err error) {
	fresh, mark, err := s.Shared.Changes(ctx, since)
	copy(s.last[1:], s.last[:])
	s.last[0] = fresh
	for _, some := range s.last {
		all = append(all, some...)
	}
	return all, mark, err
}

// A comparison that takes more than a second is no reason for the next, and what
// was made elsewhere is read once.
func TestFollowingCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, &authority{})
		s := &tally{view: &view{Shared: c.store}}
		r := refresh.New(refresh.Config{
			Store: s, Logger: zap.NewNop(),
			Provider: func(string, map[string]string) (refresh.Provider, bool) { return c.end, true },
		})
		defer func() { _ = r.Close(context.Background()) }()
		if _, err := r.Find(t.Context(), c.add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		before := s.reads.Load()
		const made = 50
		for range made {
			c.add(time.Hour)
			time.Sleep(200 * time.Millisecond)
		}
		time.Sleep(5 * time.Minute)
		if n := s.reads.Load() - before; n > made {
			t.Errorf("%d reads of %d new connections", n, made)
		}
		if n := s.compare.Load(); n > 8 {
			t.Errorf("%d comparisons in 5 minutes", n)
		}
	})
}
