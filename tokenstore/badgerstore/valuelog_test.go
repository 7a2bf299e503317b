package badgerstore_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// TestGapInALog: a log that misses a transaction in its middle, which no other
// count misses: flows are in none.
func TestGapInALog(t *testing.T) {
	t.Parallel()
	k := &killed{dir: fastDir(t), keys: newKeys(t), records: map[string]tokenstore.Connection{}}
	live := fastDir(t)
	s := open(t, live, k.keys)
	logged := func() (log string, text []byte) {
		k.copy(t, live, k.dir)
		log = k.files(t, ".mem")[0]
		return log, read(t, filepath.Join(k.dir, log))
	}
	add := func() {
		c := create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
		k.records[c.ID] = c
	}
	add()
	_, before := logged()
	if err := s.CreateFlow(t.Context(), tokenstore.Flow{ID: "f", ExpiresAt: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	_, with := logged()
	add()
	log, whole := logged()
	if err := k.judge(t, k.clone(t), "nothing"); err != nil {
		t.Fatalf("Open of a whole store = %v", err)
	}
	dir := k.clone(t)
	if err := os.WriteFile(filepath.Join(dir, log), slices.Concat(before, whole[len(with):]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.judge(t, dir, "a gap"); err == nil || !strings.Contains(err.Error(), "misses transactions after number") {
		t.Errorf("Open = %v, want what is missing", err)
	}
}

// TestValueLogsAreFreed: long values that were overwritten don't stay for ever,
// and those that are moved for it survive a kill.
func TestValueLogsAreFreed(t *testing.T) {
	t.Parallel()
	k := &killed{dir: fastDir(t), keys: newKeys(t), records: map[string]tokenstore.Connection{}}
	live := fastDir(t)
	s := open(t, live, k.keys)
	kept := create(t, s, absurd())
	long, filler := create(t, s, absurd()), create(t, s, tokenstore.Connection{ID: tokenstore.NewID()})
	overwrite := func(c *tokenstore.Connection, change func(c *tokenstore.Connection)) {
		t.Helper()
		var err error
		*c, err = s.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error { change(c); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	files := func() []string {
		names, err := filepath.Glob(filepath.Join(live, "badger", "*", "*.vlog"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	freed := 0
	var before []string
	for round := 0; freed == 0; round++ {
		if round == 40 {
			t.Fatalf("nothing was freed of %v", files())
		}
		for range 10 {
			overwrite(&long, func(c *tokenstore.Connection) { c.Name += "x" })
			for range 3 { // fills memtables
				overwrite(&filler, func(c *tokenstore.Connection) { c.Name = strings.Repeat("x", 190_000) })
			}
		}
		atRest(t, s, live)
		before = files()
		freed = s.FreeValueLogs()
	}
	gone := func() bool {
		now := files()
		return slices.ContainsFunc(before, func(name string) bool { return !slices.Contains(now, name) })
	}
	eventually(t, "a file is gone", gone)
	for _, c := range []tokenstore.Connection{kept, long, filler} {
		k.records[c.ID] = c
	}
	atRest(t, s, live)
	k.copy(t, live, k.dir)
	if err := k.judge(t, k.clone(t), "value logs were freed"); err != nil {
		t.Errorf("Open = %v", err)
	}
}
