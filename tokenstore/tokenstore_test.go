package tokenstore_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestCursor(t *testing.T) {
	for _, p := range []tokenstore.Position{
		{CreatedAt: now, ID: "conn_1"},
		{CreatedAt: now.Add(1), ID: "a.b.c"},
		{CreatedAt: time.Time{}, ID: "x"},
		{CreatedAt: now.AddDate(-100, 0, 0).Add(999), ID: "x"},
	} {
		got, err := tokenstore.ParseCursor(p.Cursor())
		if err != nil || got.Compare(p) != 0 {
			t.Errorf("ParseCursor(Cursor of %v) = %v, %v", p, got, err)
		}
	}
	for _, cursor := range []string{"", "!", "MS4yLg", "MS4y", "LjEueA", "MS4xMDAwMDAwMDAwLng", "MS4tMS54"} {
		if _, err := tokenstore.ParseCursor(cursor); !errors.Is(err, tokenstore.ErrBadCursor) {
			t.Errorf("ParseCursor(%q) = %v, want ErrBadCursor", cursor, err)
		}
	}
}

func TestPositionOrder(t *testing.T) {
	first := tokenstore.Position{CreatedAt: now, ID: "b"}
	for other, want := range map[tokenstore.Position]int{
		first:                             0,
		{CreatedAt: now, ID: "c"}:         -1,
		{CreatedAt: now, ID: "a"}:         1,
		{CreatedAt: now.Add(1), ID: "a"}:  -1,
		{CreatedAt: now.Add(-1), ID: "c"}: 1,
	} {
		if got := first.Compare(other); got != want {
			t.Errorf("Compare(%v) = %d, want %d", other, got, want)
		}
	}
}

// TestAssociatedData: parts that run together the same way are told apart.
func TestAssociatedData(t *testing.T) {
	var seen [][]byte
	for _, ad := range [][]byte{
		tokenstore.AssociatedData("s", "e", tokenstore.KindConnection, "id", 1),
		tokenstore.AssociatedData("s", "e", tokenstore.KindConnection, "id", 2),
		tokenstore.AssociatedData("s", "e", tokenstore.KindFlow, "id", 1),
		tokenstore.AssociatedData("se", "", tokenstore.KindConnection, "id", 1),
		tokenstore.AssociatedData("", "se", tokenstore.KindConnection, "id", 1),
		tokenstore.AssociatedData("s", "econnection", "", "id", 1),
		tokenstore.AssociatedData("s", "e", "connectioni", "d", 1),
	} {
		for _, other := range seen {
			if bytes.Equal(ad, other) {
				t.Errorf("two records have the associated data %q", ad)
			}
		}
		seen = append(seen, ad)
	}
}
