package badgerstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// labelled fills s with n connections of two users, and returns their IDs in
// order: all have the label all=yes, and odd or even ones parity.
func labelled(tb testing.TB, s tokenstore.Store, n int) []string {
	tb.Helper()
	ids := make([]string, n)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var wg sync.WaitGroup
	limit := make(chan struct{}, 256)
	for i := range ids {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			c, err := s.CreateConnection(tb.Context(), tokenstore.Connection{
				ID: tokenstore.NewID(), CreatedAt: at.Add(time.Duration(i) * time.Second), Status: tokenstore.StatusActive,
				UserID: "user-" + strconv.Itoa(i/10), Integration: "github",
				Labels: map[string]string{"all": "yes", "parity": strconv.Itoa(i % 2), "hundred": strconv.Itoa(i / 100)},
			})
			if err != nil {
				tb.Error(err)
			}
			ids[i] = c.ID
		})
	}
	wg.Wait()
	return ids
}

func byLabels(pairs ...string) tokenstore.Filter {
	f := tokenstore.Filter{Labels: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		f.Labels[pairs[i]] = pairs[i+1]
	}
	return f
}

func idsOf(page []tokenstore.Connection) (ids []string) {
	for _, c := range page {
		ids = append(ids, c.ID)
	}
	return ids
}

var errBroken = errors.New("broken off")

// opensSome opens so many connections and no more.
type opensSome struct {
	*seal.Keyset
	left int
}

func (o *opensSome) OpenConnection(sealed, ad []byte) (tokenstore.Connection, error) {
	if o.left--; o.left < 0 {
		return tokenstore.Connection{}, errBroken
	}
	return o.Keyset.OpenConnection(sealed, ad)
}

// TestLabelsOfAnOlderStore: a store from before the index of labels lists by them
// right from its first opening, also when that was broken off.
func TestLabelsOfAnOlderStore(t *testing.T) {
	t.Parallel()
	dir, keys := t.TempDir(), newKeys(t)
	s := open(t, dir, keys)
	ids := labelled(t, s, 700) // more than one batch of labels
	damaged := create(t, s, tokenstore.Connection{ID: tokenstore.NewID(), Labels: map[string]string{"all": "yes"}})
	if err := s.DropLabels(); err != nil {
		t.Fatal(err)
	}
	tamper(t, s, edit(damaged.ID, false))
	if page, _, err := s.ListConnections(t.Context(), byLabels("all", "yes"), "", 1); err != nil || len(page) > 0 {
		t.Fatalf("without the index ListConnections = %d, %v; the test tests nothing", len(page), err)
	}
	shut(t, s)
	path := filepath.Join(dir, "lanyard-store.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Replace(text, []byte(`"format": 4`), []byte(`"format": 3`), 1)
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}

	_, err = badgerstore.Open(dir, badgerstore.Config{Codec: &opensSome{Keyset: keys, left: 400}})
	if !errors.Is(err, errBroken) {
		t.Fatalf("Open = %v, want what broke it off", err)
	}
	s = open(t, dir, keys)
	page, next, err := s.ListConnections(t.Context(), byLabels("all", "yes"), "", 1000)
	if err != nil || next != "" {
		t.Fatalf("ListConnections = %q, %v", next, err)
	}
	if diff := cmp.Diff(ids, idsOf(page)); diff != "" {
		t.Errorf("the list by label (-want +got):\n%s", diff)
	}
	if text, err := os.ReadFile(path); err != nil || bytes.Contains(text, []byte("indexing")) || !bytes.Contains(text, []byte(`"format": 4`)) {
		t.Errorf("the identity is %s, %v", text, err)
	}
	// A restore has the labels, too.
	other := t.TempDir()
	restore(t, other, backup(t, s), badgerstore.RestoreConfig{Codec: keys})
	page, _, err = open(t, other, keys).ListConnections(t.Context(), byLabels("all", "yes", "hundred", "3"), "", 1000)
	if diff := cmp.Diff(ids[300:400], idsOf(page)); err != nil || diff != "" {
		t.Errorf("after a restore: %v (-want +got):\n%s", err, diff)
	}
}

// TestPagesOfRareMatches: labels that many connections have, and none together,
// cost each page a bounded number of looks.
func TestPagesOfRareMatches(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), newKeys(t))
	const n = 3000
	ids := labelled(t, s, n)
	for name, test := range map[string]struct {
		f            tokenstore.Filter
		limit, pages int
		want         []string
	}{
		"one label":                    {byLabels("all", "yes"), 1000, 3, ids},
		"two that are never together":  {byLabels("parity", "0", "hundred", "none"), 10, 1, nil},
		"a rare one beside a frequent": {byLabels("all", "yes", "hundred", "7"), 100, 1, ids[700:800]},
		"a user beside a frequent": {
			tokenstore.Filter{UserID: "user-42", Status: tokenstore.StatusActive, Labels: map[string]string{"all": "yes"}}, 10, 1, ids[420:430],
		},
	} {
		var got []string
		pages := 0
		for cursor := ""; pages == 0 || cursor != ""; pages++ {
			page, next, err := s.ListConnections(t.Context(), test.f, cursor, test.limit)
			if err != nil {
				t.Fatalf("%s: ListConnections = %v", name, err)
			}
			got, cursor = append(got, idsOf(page)...), next
		}
		if diff := cmp.Diff(test.want, got); diff != "" || pages != test.pages {
			t.Errorf("%s: %d pages, want %d (-want +got):\n%s", name, pages, test.pages, diff)
		}
	}

	// Odd ones of all of them are even in no place: every look is in vain.
	for _, id := range ids {
		i, err := s.UpdateConnection(t.Context(), id, func(c *tokenstore.Connection) error {
			if c.Labels["parity"] == "1" {
				delete(c.Labels, "all")
				return nil
			}
			return tokenstore.ErrUnchanged
		})
		if err != nil {
			t.Fatalf("UpdateConnection of %q = %v", i.ID, err)
		}
	}
	pages, cursor := 0, ""
	for ; pages == 0 || cursor != ""; pages++ {
		page, next, err := s.ListConnections(t.Context(), byLabels("all", "yes", "parity", "1"), cursor, 10)
		if err != nil || len(page) > 0 || next == cursor {
			t.Fatalf("ListConnections = %d connections, %q, %v", len(page), next, err)
		}
		cursor = next
	}
	if pages < 3 || pages > 4 {
		t.Errorf("%d places that are never common took %d pages, want about a thousand looks for each", n, pages)
	}
	if _, err := s.NewestConnection(t.Context(), byLabels("all", "yes", "parity", "1")); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("NewestConnection = %v, want ErrNotFound", err)
	}
}

// TestNewestIsDamaged: another connection must not be taken for it.
func TestNewestIsDamaged(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), newKeys(t))
	at := time.Now().UTC()
	create(t, s, tokenstore.Connection{ID: "conn_A", UserID: "u", CreatedAt: at})
	create(t, s, tokenstore.Connection{ID: "conn_B", UserID: "u", CreatedAt: at.Add(1)})
	f := tokenstore.Filter{UserID: "u"}
	if c, err := s.NewestConnection(t.Context(), f); err != nil || c.ID != "conn_B" {
		t.Fatalf("NewestConnection = %q, %v", c.ID, err)
	}
	for _, change := range []func(*badger.Txn) error{
		edit("conn_B", false),
		func(txn *badger.Txn) error { return txn.Delete([]byte("c/conn_B")) },
	} {
		tamper(t, s, change)
		if c, err := s.NewestConnection(t.Context(), f); !errors.Is(err, tokenstore.ErrCorrupt) {
			t.Errorf("NewestConnection = %q, %v; want ErrCorrupt", c.ID, err)
		}
	}
}

// BenchmarkListConnections: a page costs the same however many there are. The
// lists are of one user, of a label that few have, of one that all have, and of a
// user and that.
func BenchmarkListConnections(b *testing.B) {
	sizes := []int{1000, 100_000}
	if n, err := strconv.Atoi(os.Getenv("LIST_CONNECTIONS")); err == nil {
		sizes = []int{n}
	}
	for _, n := range sizes {
		s, err := badgerstore.Open(b.TempDir(), badgerstore.Config{Codec: newKeys(b)})
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		labelled(b, s, n)
		b.Logf("%d connections written in %v", n, time.Since(began))
		user := "user-" + strconv.Itoa(n/20)
		for name, f := range map[string]tokenstore.Filter{
			"user": {UserID: user}, "rare": byLabels("hundred", "5"), "all": byLabels("all", "yes"),
			"user+all": {UserID: user, Labels: map[string]string{"all": "yes"}},
		} {
			b.Run(name+"/"+strconv.Itoa(n), func(b *testing.B) {
				for b.Loop() {
					if page, _, err := s.ListConnections(b.Context(), f, "", 10); err != nil || len(page) != 10 {
						b.Fatalf("ListConnections = %d, %v", len(page), err)
					}
				}
			})
		}
		b.Run("newest/"+strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.NewestConnection(b.Context(), tokenstore.Filter{UserID: user, Integration: "github"}); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
