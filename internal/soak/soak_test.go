package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
)

// testConfig returns a small soak of the built program: $LANYARD_BIN, or
// ./caddy at the top of the repository.
func testConfig(t *testing.T) config {
	t.Helper()
	bin := os.Getenv("LANYARD_BIN")
	if bin == "" {
		bin = "../../caddy"
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("the program under test is not built: run ./xcaddy.sh, or ./test.sh for everything (%v)", err)
	}
	return config{rounds: 12, connections: 40, sidecars: 1, tenders: 2, bin: bin}
}

// F074, in short and with kills as the only fault: go run ./internal/soak goes on
// for as long as one likes.
func TestNothingIsLostByKills(t *testing.T) {
	cfg := testConfig(t)
	r, err := soak(t.Context(), cfg, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if kills := total(r.kills); kills < cfg.rounds {
		t.Errorf("%d kills, want at least %d", kills, cfg.rounds)
	}
	if total(r.underWay) == 0 {
		t.Error("no refresh was under way at any kill: nothing was tested")
	}
}

// With a provider that takes a spent refresh token again for a while, no kill
// costs anything.
func TestNothingIsInDoubtWithGrace(t *testing.T) {
	cfg := testConfig(t)
	cfg.rounds, cfg.grace = 4, patience
	r, err := soak(t.Context(), cfg, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if n := total(r.inDoubt); n > 0 {
		t.Errorf("%d refreshes in doubt, want none", n)
	}
}

// The judge is a defence too: it has to see what is broken.
func TestTheJudge(t *testing.T) {
	t.Run("sees a lost connection", func(t *testing.T) {
		w := newTestWorld(t)
		w.dieAndRise(t, func() { w.fake.RevokeAll() })
		w.judgeNow(t)
		if w.report.lost != w.cfg.connections {
			t.Errorf("%d seen, want all %d:\n%s", w.report.lost, w.cfg.connections, strings.Join(w.faults, "\n"))
		}
	})
	// A store that forgets what it has acknowledged: what the API said is not
	// so, and old refresh tokens are presented again.
	t.Run("sees a store that went back", func(t *testing.T) {
		w := newTestWorld(t)
		data, kept := filepath.Join(w.cfg.dir, "data"), filepath.Join(w.cfg.dir, "kept")
		w.dieAndRise(t, func() {
			if err := os.CopyFS(kept, os.DirFS(data)); err != nil {
				t.Fatal(err)
			}
		})
		w.refreshAll(t)
		w.dieAndRise(t, func() {
			if err := errors.Join(os.RemoveAll(data), os.Rename(kept, data), os.Chmod(data, 0o700)); err != nil {
				t.Fatal(err)
			}
		})
		clear(w.doubt)
		w.judgeNow(t)
		if w.report.lost != w.cfg.connections {
			t.Errorf("%d seen to have gone back, want all %d:\n%s", w.report.lost, w.cfg.connections, strings.Join(w.faults, "\n"))
		}
		w.refreshAll(t)
		w.checkPosts()
		if w.report.reused < w.cfg.connections {
			t.Errorf("%d reuses seen, want at least %d:\n%s", w.report.reused, w.cfg.connections, strings.Join(w.faults, "\n"))
		}
	})
	t.Run("sees a deleted connection that is back", func(t *testing.T) {
		w := newTestWorld(t)
		c := w.conns[0]
		w.forget(c) // nobody has deleted it
		w.judgeNow(t)
		if len(w.faults) != 1 || !strings.Contains(w.faults[0], c.id+" was deleted, and is back") {
			t.Errorf("findings: %q", w.faults)
		}
	})
	t.Run("sees a call with another's token", func(t *testing.T) {
		w := newTestWorld(t)
		c := w.conns[0]
		c.account = w.conns[1].account
		w.judgeNow(t)
		if w.report.lost == 0 {
			t.Error("not seen")
		}
	})
}

// newTestWorld returns a small world whose population is connected.
func newTestWorld(t *testing.T) *world {
	t.Helper()
	cfg := testConfig(t)
	cfg.rounds, cfg.connections, cfg.seed, cfg.dir = 1, 5, 1, t.TempDir()
	w, err := newWorld(t.Context(), cfg, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	if err := w.populate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// dieAndRise kills the program and starts it again after meanwhile.
func (w *world) dieAndRise(t *testing.T, meanwhile func()) {
	t.Helper()
	c := w.running()
	c.kill()
	if err := w.bury(c); err != nil {
		t.Fatal(err)
	}
	meanwhile()
	if err := w.startReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) refreshAll(t *testing.T) {
	t.Helper()
	for _, c := range w.everyone() {
		if err := w.refresh(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) judgeNow(t *testing.T) {
	t.Helper()
	if err := w.judge(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// F050 and F074 on several: three on one PostgreSQL lose nothing, whichever of them
// is killed, and whichever of the database's two servers.
func TestNothingIsLostByKillsOfSeveral(t *testing.T) {
	pgtest.Shared(t) // or else it is skipped
	cfg := testConfig(t)
	cfg.rounds, cfg.connections, cfg.sidecars, cfg.failovers, cfg.tenders = 10, 60, 3, 2, 0
	r, err := soak(t.Context(), cfg, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if kills := total(r.kills); kills != cfg.rounds || r.failovers != cfg.failovers {
		t.Errorf("%d kills and %d failovers, want %d and %d", kills, r.failovers, cfg.rounds, cfg.failovers)
	}
	if total(r.underWay) == 0 {
		t.Error("no refresh was under way at any kill: nothing was tested")
	}
}
