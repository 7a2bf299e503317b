package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// wantAsked waits until so many requests have come to the token endpoint.
func (w *world) wantAsked(n int) {
	w.t.Helper()
	w.eventually("the token endpoint is asked", func() error { return atLeast(len(w.fake.Ledger().Posts), n) })
}

// F011: SIGTERM while a refresh is under way.
func TestTermInARefresh(t *testing.T) {
	t.Parallel()
	t.Run("waits for a slow provider", func(t *testing.T) {
		t.Parallel()
		w, all := newCrowd(t, 2)
		posts := len(w.fake.Ledger().Posts)
		const slowness = 5 * time.Second
		w.fake.Faults.Token(fakeprovider.Delay(slowness))
		began := time.Now()
		w.refreshAndLeave(all[0])
		slow := w.download(all[1].id)
		w.eventually("the download has begun", func() error { return atLeast(w.fake.Ledger().CallCount(200), 1) })
		w.signal(syscall.SIGTERM)
		if err := <-slow; err != nil {
			t.Errorf("a download that was under way: %v", err)
		}
		if s := w.died(patience); s.ExitStatus() != 0 || s.Signaled() {
			t.Errorf("ended by %v, want exit 0", s)
		}
		if took := time.Since(began); took < slowness {
			t.Errorf("ended %v after the refresh had begun, before the provider's answer", took)
		}
		w.start()
		if err := w.generation(all[0].id, 2); err != nil {
			t.Errorf("right after the start: %v", err)
		}
		if n := len(w.fake.Ledger().Posts); n != posts+1 {
			t.Errorf("%d requests, want 1", n-posts)
		}
		w.nothingLost(all)
	})
	t.Run("waits for a code exchange", func(t *testing.T) {
		t.Parallel()
		w, all := newCrowd(t, 1)
		c := w.begin("u1")
		browser := newBrowser(t)
		callback := w.consent(browser, w.open(browser, c.ConnectURL))
		w.fake.Faults.Token(fakeprovider.Delay(2 * time.Second).OnCode())
		back := make(chan url.Values, 1)
		go func() { back <- w.finish(browser, callback) }()
		w.wantAsked(2)
		w.signal(syscall.SIGTERM)
		code := (<-back).Get("completion_code")
		if s := w.died(patience); s.ExitStatus() != 0 || s.Signaled() {
			t.Errorf("ended by %v, want exit 0", s)
		}
		w.start()
		w.complete(c.ID, code, "u1")
		if err := w.wantCall(c.ID, http.StatusOK); err != nil {
			t.Error(err)
		}
		w.nothingLost(all)
	})
	t.Run("killed before the answer leaves the intent", func(t *testing.T) {
		t.Parallel()
		w, all := newCrowd(t, 2)
		posts := len(w.fake.Ledger().Posts)
		w.fake.Faults.Token(fakeprovider.Blackholed())
		w.refreshAndLeave(all[0])
		w.signal(syscall.SIGTERM)
		select {
		case err := <-w.exited:
			t.Fatalf("did not wait for the refresh: %v", err)
		case <-time.After(time.Second):
		}
		w.signal(syscall.SIGKILL) // as an orchestrator does when its time is over
		w.died(soon)
		all[0].unknown = 1
		w.start()
		w.wantAsked(posts + 2)
		w.nothingLost(all)
	})
	t.Run("no answer at all leaves the intent", func(t *testing.T) {
		t.Parallel()
		// Its hard margin begins at 36 s: long after the 20 that the request
		// takes, and the start after it.
		w, all := newCrowd(t, 2, withLife(40*time.Second))
		posts := len(w.fake.Ledger().Posts)
		w.fake.Faults.Token(fakeprovider.Blackholed())
		w.refreshAndLeave(all[0])
		w.signal(syscall.SIGTERM)
		if s := w.died(patience); s.ExitStatus() != 0 || s.Signaled() {
			t.Errorf("ended by %v, want exit 0: the outcome is noted", s)
		}
		all[0].unknown = 1
		w.fake.SetAccessLife(time.Hour)
		w.start()
		if n := len(w.fake.Ledger().Posts); n != posts+1 {
			t.Error("the refresh token was tried again while the access token serves")
		}
		w.wantAsked(posts + 2)
		w.nothingLost(all)
	})
}

// F047, as far as it is one instance's: the process is stopped in the middle of
// a refresh, and goes on.
func TestPausedInARefresh(t *testing.T) {
	t.Parallel()
	pause := func(t *testing.T, d time.Duration) (*world, []*member) {
		t.Helper()
		w, all := newCrowd(t, 2, withLife(30*time.Second))
		w.fake.SetAccessLife(time.Hour)
		release := make(chan struct{})
		w.fake.Faults.Token(fakeprovider.HoldAnswer(release))
		over := w.refresh(all[0])
		w.wantAsked(3)
		w.signal(syscall.SIGSTOP)
		close(release) // the answer waits in the socket
		time.Sleep(d)  // the fault itself
		w.signal(syscall.SIGCONT)
		<-over
		return w, all
	}
	t.Run("within the request's limit", func(t *testing.T) {
		t.Parallel()
		w, all := pause(t, 5*time.Second)
		w.nothingLost(all)
	})
	// Whether the answer or the end of its time is seen first is chance: what
	// counts is that nothing is lost unnamed.
	t.Run("beyond it", func(t *testing.T) {
		t.Parallel()
		w, all := pause(t, 25*time.Second)
		all[0].unknown = 1
		w.eventually("the outcome is known", func() error {
			if c := w.connection(all[0].id); c.Generation == 2 {
				return nil
			}
			return w.isNamed(all[0])
		})
		w.nothingLost(all)
	})
}

// F027: a second process on the same data directory ends with an error that
// names it, and the first notices nothing; also if a LOCK file is deleted.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	w, all := newCrowd(t, 2)
	err := filepath.WalkDir(w.path("data"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "LOCK" {
			return os.Remove(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	second := w.site
	second.Connect, second.Proxy = freePort(t), freePort(t)
	var b bytes.Buffer
	if err := caddyfile.Execute(&b, second); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("/admin.sock", "/admin2.sock", "/caddy.log", "/caddy2.log").Replace(b.String())
	if err := os.WriteFile(w.path("Caddyfile2"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(w.ctx(), w.bin, "run", "--config", w.path("Caddyfile2"), "--adapter", "caddyfile")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = w.env(), w.site.Dir, dieWithParent()
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	log, rerr := os.ReadFile(w.path("caddy2.log"))
	if rerr != nil {
		t.Fatal(rerr)
	}
	if _, ended := errors.AsType[*exec.ExitError](err); !ended || !bytes.Contains(log, []byte("another process has "+w.path("data")+" open")) {
		t.Errorf("the second process: %v, %s: %s", err, out, tail(log))
	}
	if took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := os.Remove(w.path("Caddyfile2")); err != nil {
		t.Error(err)
	}
	w.nothingLost(all)
}

// A process that is killed at its very first start leaves nothing that the next
// one can't start from.
func TestKilledAtTheFirstStart(t *testing.T) {
	t.Parallel()
	w, _ := newCrowd(t, 0)
	for n := range firstStarts {
		w.kill()
		if err := os.RemoveAll(w.path("data")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			w.launch()
			time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // any moment of a start
			w.kill()
		}
		w.start()
		m := w.join(fmt.Sprintf("account %d", n+1))
		w.kill()
		w.start()
		w.nothingLost([]*member{m})
	}
}

// firstStarts is how many first starts are killed.
const firstStarts = 10

// F069: restarts, again and again, while tokens expire. Some of them overlap:
// the next process starts while the one before still runs.
func TestRestartStorm(t *testing.T) {
	t.Parallel()
	const restarts, life = 30, 3 * time.Second
	w, all := newCrowd(t, 30, withLife(life))
	began := time.Now()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := i; !stop.Load(); n += 4 {
				m := all[n%len(all)]
				a, err := w.tryCall(m)
				if err == nil && (a.Status != 200 || !strings.Contains(a.Body, `"`+m.account+`"`)) && a.Header.Get("Retry-After") == "" {
					t.Errorf("%s: a call got HTTP %d: %s", m.account, a.Status, a.Body)
					return
				}
			}
		})
	}
	for n := range restarts {
		refreshed := len(w.fake.Ledger().Refreshes())
		w.eventually("tokens expire", func() error { return atLeast(len(w.fake.Ledger().Refreshes()), refreshed+len(all)/10) })
		before, exited := w.cmd, w.exited
		if n%3 == 0 {
			w.launch() // it waits for the lock
		}
		_ = before.Process.Signal(syscall.SIGTERM)
		if err := <-exited; err != nil {
			t.Errorf("restart %d: ended with %v", n, err)
		}
		if n%3 != 0 {
			w.launch()
		}
		w.ready()
	}
	stop.Store(true)
	wg.Wait()
	w.nothingLost(all)
	// No token is renewed before half its life is over.
	perToken := int(time.Since(began)/(life/2)) + 2
	l := w.fake.Ledger()
	for _, m := range all {
		if g := w.grant(l, m); g.Refreshes > perToken {
			t.Errorf("%s was refreshed %d times in %v, with tokens of %v", m.account, g.Refreshes, time.Since(began), life)
		}
	}
	t.Logf("%d restarts in %v, %d refreshes", restarts, time.Since(began).Round(time.Second), len(l.Refreshes()))
}
