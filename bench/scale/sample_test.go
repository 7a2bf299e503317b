package main

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// TestFill: every connection of a small sample is found as it was made, listed
// with its user's, and due when it says.
func TestFill(t *testing.T) {
	s := sample{n: 500, seed: 1, at: time.Now().UTC().Round(0), bytes: 1000}
	dir := t.TempDir()
	if err := fill(dir, s, io.Discard); err != nil {
		t.Fatal(err)
	}
	store, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	of, due := map[string][]string{}, []string{}
	until := s.at.Add(60 * 24 * time.Hour)
	for i := range s.n {
		want := s.connection(i)
		got, err := store.Connection(t.Context(), s.id(i))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if got.Token.AccessToken.Hash() != want.Token.AccessToken.Hash() || got.UserID != want.UserID ||
			!cmp.Equal(got.Labels, want.Labels) || (got.Status == tokenstore.StatusActive) != s.active(i) {
			t.Fatalf("connection %d is another than it was", i)
		}
		of[want.UserID] = append(of[want.UserID], want.ID)
		if at := want.Due(); !at.IsZero() && !at.After(until) {
			due = append(due, want.ID)
		}
	}
	if len(of) != s.users() {
		t.Errorf("there are %d users, want %d", len(of), s.users())
	}
	for user, want := range of {
		page, next, err := store.ListConnections(t.Context(), tokenstore.Filter{UserID: user}, "", 50)
		if err != nil || next != "" {
			t.Fatalf("the list of %s: %q, %v", user, next, err)
		}
		var got []string
		for _, c := range page {
			got = append(got, c.ID)
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" || (len(got) != 3 && len(got) != 7) {
			t.Errorf("the list of %s (-want +got):\n%s", user, diff)
		}
	}
	got, err := store.DueConnections(t.Context(), until)
	slices.Sort(got)
	slices.Sort(due)
	if diff := cmp.Diff(due, got); err != nil || diff != "" || len(due) == 0 {
		t.Errorf("due: %v (-want +got):\n%s", err, diff)
	}
}
