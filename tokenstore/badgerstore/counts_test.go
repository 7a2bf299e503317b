package badgerstore_test

import (
	"cmp"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

func TestCountConnections(t *testing.T) {
	t.Cleanup(badgerstore.CountBy(1))
	s := open(t, t.TempDir(), newKeys(t))
	want := map[tokenstore.Count]int{}
	for i, integration := range []string{"github", "github", "slack", "gone", "github"} {
		c := tokenstore.Connection{ID: tokenstore.NewID(), Integration: integration, UserID: "u", Status: tokenstore.Statuses[min(i, 1)]}
		if _, err := s.CreateConnection(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if integration == "gone" {
			integration = ""
		}
		want[tokenstore.Count{Integration: integration, Status: c.Status}]++
	}
	var all []tokenstore.Count
	for c, n := range want {
		c.N = n
		all = append(all, c)
	}
	got, err := s.CountConnections(t.Context(), []string{"github", "slack", "unused"})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range [][]tokenstore.Count{all, got} {
		slices.SortFunc(l, func(a, b tokenstore.Count) int {
			return cmp.Or(cmp.Compare(a.Integration, b.Integration), cmp.Compare(a.Status, b.Status))
		})
	}
	if diff := gocmp.Diff(all, got); diff != "" {
		t.Error(diff)
	}
	if sp, ok := s.Space(); ok && (sp.Size <= 0 || sp.Free <= 0 || sp.Reserved <= 0) {
		t.Errorf("space is %+v", sp)
	}
}
