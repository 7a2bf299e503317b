package pgstore_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

func TestCountConnections(t *testing.T) {
	t.Cleanup(pgstore.CountBy(1))
	s := opened(t, pgtest.Shared(t).Database(t), parsed(t, newKeyset(t)))
	want := map[tokenstore.Count]int{}
	for i, integration := range []string{"github", "github", "slack", "gone", "github"} {
		c := tokenstore.Connection{ID: tokenstore.NewID(), Integration: integration, UserID: "u", Status: tokenstore.Statuses[min(i, 1)]}
		_, err := s.CreateConnection(t.Context(), c)
		must(t, err)
		if integration == "gone" {
			integration = ""
		}
		want[tokenstore.Count{Integration: integration, Status: c.Status}]++
	}
	counts, err := s.CountConnections(t.Context(), []string{"github", "slack", "unused"})
	must(t, err)
	got := map[tokenstore.Count]int{}
	for _, c := range counts {
		got[tokenstore.Count{Integration: c.Integration, Status: c.Status}] = c.N
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n, err := s.Size(t.Context()); err != nil || n < 8192 {
		t.Errorf("Size = %d, %v", n, err)
	}
	if p := s.Pool(); p.Max < 1 || p.InUse+p.Idle < 1 || p.InUse+p.Idle > p.Max {
		t.Errorf("the pool is %+v", p)
	}
}
