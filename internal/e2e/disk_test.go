//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// diskSize is that of the disks in these tests: room for the ballast, for what
// new connections need, and for a store.
const diskSize = 160 << 20

// withDisk gives the data directory a disk of its own, which a test may fill.
// Only root may mount it, and not in every container; elsewhere, the CI of
// others included, the test is skipped.
func withDisk(w *world, _ *fakeprovider.Config) {
	w.t.Helper()
	dir := w.path("data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", diskSize)); err != nil {
		w.t.Skipf("needs a disk to fill, and may not mount one: %v. As root in a container that is allowed to (docker run --privileged) this test runs", err)
	}
	w.t.Cleanup(func() {
		for syscall.Unmount(dir, syscall.MNT_DETACH) == nil { // what a test put over it, too
		}
	})
}

// settledDisk waits until the program has made its ballast, and keeps it on a
// full disk, since Badger has nothing more to do.
func (w *world) settledDisk() {
	w.t.Helper()
	w.eventually("the ballast is there", func() error {
		info, err := os.Stat(w.path("data/lanyard-ballast"))
		if err == nil && time.Since(info.ModTime()) < 2*time.Second {
			err = errors.New("it is new")
		}
		return err
	})
}

// fill takes the disk's space to the last byte, as fast as it can.
func (w *world) fill() {
	w.t.Helper()
	f, err := os.OpenFile(w.path("data/filler"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for len(chunk) > 0 {
		if _, err := f.Write(chunk); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				w.t.Fatal(err)
			}
			chunk = chunk[:len(chunk)/2]
		}
	}
	if free := w.freeSpace(); free != 0 {
		w.t.Fatalf("%d bytes are free on a disk that was filled", free)
	}
}

// fillBut leaves so many bytes free.
func (w *world) fillBut(free int64) {
	w.t.Helper()
	f, err := os.Create(w.path("data/filler"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if n := w.freeSpace() - free; n > 0 {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) freeSpace() int64 {
	w.t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(w.path("data"), &st); err != nil {
		w.t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

func (w *world) unfill() {
	w.t.Helper()
	if err := os.Remove(w.path("data/filler")); err != nil {
		w.t.Fatal(err)
	}
}

// files returns the names of all files in the data directory but the ballast
// and the filler.
func (w *world) files() map[string]bool {
	w.t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(w.path("data"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "filler" && d.Name() != "lanyard-ballast" {
			names[path] = true
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// wantReady checks readiness: 200 or 503.
func (w *world) wantReady(status int) error {
	res, err := http.Get(w.proxyURL("/v1/health/ready"))
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != status {
		return fmt.Errorf("ready: HTTP %d, want %d", res.StatusCode, status)
	}
	return nil
}

// wantNew begins a connection and checks the answer.
func (w *world) wantNew(status int) error {
	a := w.api(http.MethodPost, "/v1/connections", map[string]any{
		"integration": "fake", "user_id": "somebody new", "redirect_url": w.app.url + "/callback",
	}, nil)
	if a.Status != status || status == http.StatusInsufficientStorage && !strings.Contains(a.Body, `"store_full"`) {
		return fmt.Errorf("a new connection: HTTP %d: %s; want %d", a.Status, a.Body, status)
	}
	return nil
}

// lines counts the entries of the program's log with this message.
func (w *world) lines(message string) int {
	w.t.Helper()
	log, err := os.ReadFile(w.path("caddy.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Count(string(log), `"msg":"`+message+`"`)
}

// callTogether makes a call for each member at the same time.
func (w *world) callTogether(all []*member) map[*member]answer {
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := map[*member]answer{}
	for _, m := range all {
		wg.Go(func() {
			a, err := w.tryCall(m)
			if err != nil {
				w.t.Errorf("%s: %v", m.account, err)
			}
			mu.Lock()
			answers[m] = a
			mu.Unlock()
		})
	}
	wg.Wait()
	return answers
}

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

// lastWords returns the errors and warnings that the program ended with.
func (w *world) lastWords() string {
	w.t.Helper()
	log, err := os.ReadFile(w.path("caddy.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	var words []string
	for line := range strings.Lines(w.output() + string(log)) {
		if !strings.Contains(line, `"level":"debug"`) && !strings.Contains(line, `"level":"info"`) {
			words = append(words, line)
		}
	}
	return strings.Join(words[max(0, len(words)-20):], "")
}

// answers waits until the program serves requests or has ended.
func (w *world) answers() bool {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-w.exited:
			w.exited <- err
			return false
		default:
		}
		res, err := http.Get(w.proxyURL("/v1/health/live"))
		if err == nil {
			_ = res.Body.Close()
			return res.StatusCode == http.StatusOK
		}
	}
	w.t.Fatal("the program neither serves nor ends")
	return false
}

// readOnly puts a read-only mount of the disk over its writable one, which
// can't be made read-only itself while files are open for writing, or takes it
// off. All that is opened by name from then on is read-only; what the program
// has open can still be written, as on a disk that the kernel has not given up
// yet.
func (w *world) readOnly(ro bool) {
	w.t.Helper()
	dir := w.path("data")
	if !ro {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		w.t.Fatal(err)
	}
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
	w.eventually("all is stored", func() error { return w.wantReady(http.StatusOK) })
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

// F029: every sync takes two seconds.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	w, all := newCrowd(t, 6)
	w.fail("store.commit=sleep:2s")
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
	if slowest > time.Second {
		t.Errorf("the slowest of %d calls with a valid token took %v", calls, slowest)
	}
	t.Logf("the slowest of %d calls with a valid token took %v", calls, slowest)
	w.fail()
	if n := len(w.fake.Ledger().Refreshes()); n != len(slow) {
		t.Errorf("%d refreshes for %d ends of tokens", n, len(slow))
	}
	w.nothingLost(all)
}
