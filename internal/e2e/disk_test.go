//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// answersInMemory has the tokens of all members end, and the disk fill up while
// the provider renews them, and returns the members whose new tokens are in
// memory alone.
func (w *world) answersInMemory(all []*member) (unsaved []*member) {
	w.t.Helper()
	w.settledDisk()
	release := make(chan struct{})
	w.fake.Faults.Token(fakeprovider.HoldAnswer(release).OnRefresh().Always())
	w.fake.ExpireAccessTokens()
	before := len(w.fake.Ledger().Refreshes())
	var answers map[*member]answer
	var wg sync.WaitGroup
	wg.Go(func() { answers = w.callTogether(all) })
	w.eventually("as many refreshes are under way as the provider's pace allows", func() error {
		return atLeast(len(w.fake.Ledger().Refreshes())-before, min(len(all), 16))
	})
	w.fill()
	w.fake.Faults.Clear()
	close(release)
	wg.Wait()
	for _, m := range all {
		switch a := answers[m]; {
		case a.Status == http.StatusOK && strings.Contains(a.Body, `"`+m.account+`"`):
			unsaved = append(unsaved, m)
		case a.Status == http.StatusUnauthorized:
			// Its turn came when no intent could be written any more, so that
			// what the API said of the old token is the answer.
		default:
			w.t.Errorf("%s: a call on a full disk got HTTP %d: %s", m.account, a.Status, a.Body)
		}
	}
	if len(unsaved) < min(len(all), 16) {
		w.t.Errorf("only %d calls were served with a token from memory", len(unsaved))
	}
	return unsaved
}

// F014: the disk fills to the last byte while tokens are being renewed.
func TestFullDiskWhileRefreshing(t *testing.T) {
	w := newWorld(t, withDisk)
	all := w.joinAll(50)
	unsaved := w.answersInMemory(all)

	for _, m := range unsaved { // and once more, now that it is in memory
		if err := w.served(m); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(w.wantReady(http.StatusServiceUnavailable), w.wantNew(http.StatusInsufficientStorage)); err != nil {
		t.Error(err)
	}
	w.wantNoReuse()
	if n := w.lines("store is full"); n != 1 {
		t.Errorf("the log says %d times that the store is full", n)
	}

	w.unfill()
	start := time.Now()
	w.eventually("all is stored", func() error { return w.wantReady(http.StatusOK) })
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("storing took %v after there was room", took)
	}
	for _, m := range unsaved {
		m.told = 2
	}
	w.eventually("the log says that there is room", func() error { return atLeast(w.lines("store has room again"), 1) })
	w.kill()
	w.start()
	w.nothingLost(all)
}

// A disk that is only low refuses new connections, and serves and renews those
// that are there.
func TestLowDisk(t *testing.T) {
	w := newWorld(t, withDisk)
	m := w.join("account")
	w.settledDisk()
	w.fillBut(40 << 20)
	if err := errors.Join(w.wantNew(http.StatusInsufficientStorage), w.wantNew(http.StatusInsufficientStorage), w.wantReady(http.StatusOK)); err != nil {
		t.Error(err)
	}
	w.mustRefresh(m)
	w.unfill()
	if err := w.wantNew(http.StatusCreated); err != nil {
		t.Error(err)
	}
	if low, again := w.lines("store is low on space"), w.lines("store has room again"); low != 1 || again != 1 {
		t.Errorf("the log says %d times that the store is low on space and %d times that it has room again, want once each", low, again)
	}
}

// F015: starts on a full disk, by crash and by SIGTERM, with the ballast and
// without.
func TestFullDiskAtStart(t *testing.T) {
	w := newWorld(t, withDisk)
	all := w.joinAll(5)
	w.settledDisk()
	w.fill()
	started := 0
	for round := range 4 {
		if w.cmd != nil && round%2 == 0 {
			w.kill()
		} else if w.cmd != nil {
			w.stop()
		}
		before := w.files()
		w.fill() // what the end has left free
		w.launch()
		if w.answers() {
			started++
			for _, m := range all {
				if err := w.served(m); err != nil {
					t.Error(err)
				}
			}
			continue
		}
		if s := w.died(patience); s.Signaled() || s.ExitStatus() == 0 || !strings.Contains(w.lastWords(), "free some there") {
			t.Fatalf("start %d on a full disk ended with %v\n%s", round, s, w.lastWords())
		}
		for name := range before {
			if _, err := os.Stat(name); err != nil {
				t.Errorf("start %d on a full disk: %v", round, err)
			}
		}
	}
	t.Logf("%d of 4 starts on a full disk served calls, the others said why not", started)
	if started == 0 {
		t.Error("the ballast was no help to any start")
	}
	if w.cmd != nil {
		w.kill()
	}
	w.unfill()
	w.start()
	w.nothingLost(all)
}

// A program that is stopped where its store has no room to close leaves it as
// kill -9 would.
func TestStopWithoutRoom(t *testing.T) {
	w := newWorld(t, withDisk)
	all := w.joinAll(5)
	w.settledDisk()
	if err := os.Remove(w.path("data/lanyard-ballast")); err != nil {
		t.Fatal(err)
	}
	w.fill()
	w.stop()
	w.unfill()
	w.start()
	w.nothingLost(all)
}

// F017: the file system becomes read-only under load.
func TestReadOnlyWhileRunning(t *testing.T) {
	w := newWorld(t, withDisk)
	all := w.joinAll(10)
	release := make(chan struct{})
	w.fake.Faults.Token(fakeprovider.HoldAnswer(release).OnRefresh().Always())
	w.fake.ExpireAccessTokens()
	var answers map[*member]answer
	var wg sync.WaitGroup
	wg.Go(func() { answers = w.callTogether(all) })
	w.eventually("refreshes are under way", func() error { return atLeast(len(w.fake.Ledger().Refreshes()), len(all)) })
	w.readOnly(true)
	w.fake.Faults.Clear()
	close(release)
	wg.Wait()
	for _, m := range all {
		if a := answers[m]; a.Status != http.StatusOK {
			t.Errorf("%s: a call got HTTP %d: %s", m.account, a.Status, a.Body)
		}
		m.told = 2
	}
	if err := errors.Join(w.wantReady(http.StatusServiceUnavailable), w.wantNew(http.StatusServiceUnavailable)); err != nil {
		t.Error(err)
	}
	if n := w.lines("store is read-only"); n != 1 {
		t.Errorf("the log says %d times that the store is read-only", n)
	}
	w.readOnly(false)
	start := time.Now()
	w.eventually("all is stored", func() error { return w.wantReady(http.StatusOK) })
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("storing took %v after the disk could be written again", took)
	}
	w.kill()
	w.start()
	w.nothingLost(all)
}

// F018: the file system is read-only at the start.
func TestReadOnlyAtStart(t *testing.T) {
	w := newWorld(t, withDisk)
	all := w.joinAll(3)
	w.kill()
	before := w.files()
	w.readOnly(true)
	for range 2 {
		w.launch()
		if s := w.died(patience); s.Signaled() || s.ExitStatus() == 0 || !strings.Contains(w.lastWords(), "file system is read-only") {
			t.Fatalf("a start on a read-only disk ended with %v\n%s", s, w.lastWords())
		}
	}
	w.readOnly(false)
	for name := range before {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	w.start()
	w.nothingLost(all)
}

// The program is stopped while answers are in memory alone: it tries as long as
// it may, and then names what is lost.
func TestStopOnAFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withDisk)
	all := w.joinAll(3)
	unsaved := w.answersInMemory(all)
	w.signal(syscall.SIGTERM)
	status := w.died(2 * patience)
	if status.Signaled() || status.ExitStatus() == 0 {
		t.Errorf("the program ended with %v, want an exit status that says that something is lost", status)
	}
	log, err := os.ReadFile(w.path("caddy.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range unsaved {
		if !strings.Contains(string(log), fmt.Sprintf(`"msg":"token answer lost","connection_id":%q`, m.id)) {
			t.Errorf("the log does not say that %s's token is lost", m.id)
		}
		m.unknown = 1
	}
	w.unfill()
	w.start()
	w.nothingLost(all)
}

// F029: every commit takes seconds: so many that a call which waits for one is
// told from one that a busy machine holds up.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	const commit = 4 * time.Second
	w, all := newCrowd(t, 6)
	w.fail("store.commit=sleep:" + commit.String())
	slow, fast := all[:3], all[3:]
	refreshed := make([]<-chan struct{}, len(slow))
	for i, m := range slow {
		refreshed[i] = w.refresh(m)
	}
	slowest, calls := time.Duration(0), 0
	for over := false; !over; {
		for _, m := range fast {
			start := time.Now()
			if err := w.served(m); err != nil {
				t.Error(err)
			}
			slowest = max(slowest, time.Since(start))
			calls++
		}
		over = true
		for _, done := range refreshed {
			select {
			case <-done:
			default:
				over = false
			}
		}
	}
	if slowest > commit/2 {
		t.Errorf("the slowest of %d calls with a valid token took %v", calls, slowest)
	}
	t.Logf("the slowest of %d calls with a valid token took %v", calls, slowest)
	w.fail()
	if n := len(w.fake.Ledger().Refreshes()); n != len(slow) {
		t.Errorf("%d refreshes for %d ends of tokens", n, len(slow))
	}
	w.nothingLost(all)
}
