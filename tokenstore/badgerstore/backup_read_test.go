package badgerstore_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

func TestReadBackup(t *testing.T) {
	keys := newKeys(t)
	s := open(t, t.TempDir(), keys)
	want := map[string]tokenstore.Connection{}
	for _, name := range []string{"a", "b"} {
		c := create(t, s, live(name))
		want[c.ID] = c
	}
	gone := create(t, s, live("gone"))
	if _, err := s.DeleteConnection(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	text := backup(t, s)
	read := func(text []byte) (map[string]tokenstore.Connection, time.Time, error) {
		got := map[string]tokenstore.Connection{}
		at, err := badgerstore.ReadBackup(bytes.NewReader(text), keys, func(c tokenstore.Connection) error {
			got[c.ID] = c
			return nil
		})
		return got, at, err
	}
	got, at, err := read(text)
	if err != nil || time.Since(at) > time.Hour {
		t.Fatalf("ReadBackup = %v, %v", at, err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(secret.String.Equal)); diff != "" {
		t.Error(diff)
	}
	if got, _, err := read(text[:len(text)-1]); !errors.Is(err, badgerstore.ErrBadBackup) || len(got) > 0 {
		t.Errorf("one that is cut off: %d connections, %v", len(got), err)
	}
	enough := errors.New("enough")
	if _, err := badgerstore.ReadBackup(bytes.NewReader(text), keys, func(tokenstore.Connection) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("ReadBackup = %v, want what use returned", err)
	}
}
