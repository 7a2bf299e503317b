package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// killAt kills the child when the next token request reaches the stage.
func (w *world) killAt(stage fakeprovider.Stage) (killed <-chan struct{}) {
	done := make(chan struct{})
	var once sync.Once
	w.fake.OnTokenRequest(func(at fakeprovider.Stage, _ string) {
		if at == stage {
			once.Do(func() {
				w.kill()
				close(done)
			})
		}
	})
	return done
}

// refreshAndDie asks for a refresh in the middle of which the child is killed,
// and starts it again.
func (w *world) refreshAndDie(id string, stage fakeprovider.Stage) {
	w.t.Helper()
	killed := w.killAt(stage)
	var wg sync.WaitGroup
	wg.Go(func() {
		req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.proxyURL("/v1/connections/"+id+"/refresh"), nil)
		if err != nil {
			w.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+w.apiKey)
		_, _ = w.tryDo(req) // the child dies of it
	})
	select {
	case <-killed:
	case <-time.After(patience):
		w.t.Fatalf("no token request came as far as %q", stage)
	}
	wg.Wait()
	w.fake.OnTokenRequest(nil)
	w.start()
}

func withGrace(d time.Duration) option {
	return func(_ *world, c *fakeprovider.Config) { c.ReuseGrace = d }
}

// F002.
func TestKilledBeforeTheProviderTookTheToken(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	w.fake.Faults.Token(fakeprovider.Dropped())
	w.refreshAndDie(id, fakeprovider.Received)
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Fatalf("the next call: HTTP %d: %s", a.Status, a.Body)
	}
	w.eventually("the interrupted refresh is resolved", func() error { return w.generation(id, 2) })
	w.wantNoReuse()
}

// F003 at a provider with grace: nothing is lost.
func TestKilledBeforeTheAnswerWithGrace(t *testing.T) {
	w := newWorld(t, withGrace(time.Minute))
	id := w.connect("u1")
	w.refreshAndDie(id, fakeprovider.Committed)
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Fatalf("the next call: HTTP %d: %s", a.Status, a.Body)
	}
	w.eventually("the interrupted refresh is resolved", func() error { return w.generation(id, 2) })
}

// F003, the one case that nobody can save: the provider rotated, its answer died with
// the process, and it gives no grace. It has to be named, never silent.
func TestKilledBeforeTheAnswerWithoutGrace(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	w.refreshAndDie(id, fakeprovider.Committed)
	w.eventually("the connection says that it must be reconnected", func() error {
		return w.wantCall(id, http.StatusFailedDependency)
	})
	c := w.connection(id)
	if c.Status != "EXPIRED" || c.StatusReason != "refresh_interrupted" || c.ConnectURL == "" {
		t.Errorf("connection = %+v, want EXPIRED (refresh_interrupted) with a connect_url", c)
	}
	if a := w.call(id, "/me"); !strings.Contains(a.Body, "refresh_interrupted") || a.Header.Get("Lanyard-Error") != "reconnect_required" {
		t.Errorf("the call's answer does not say why: %s", a.Body)
	}
	// Reconnecting by the link gives the same connection a new life.
	back := w.follow(newBrowser(t), c.ConnectURL)
	w.complete(id, back.Get("completion_code"), "u1")
	if a := w.call(id, "/me"); a.Status != http.StatusOK {
		t.Errorf("after reconnecting: HTTP %d: %s", a.Status, a.Body)
	}
}

func TestKilledAfterTheAnswer(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Minute} {
		t.Run("grace "+grace.String(), func(t *testing.T) {
			w := newWorld(t, withGrace(grace))
			id := w.connect("u1")
			w.refreshAndDie(id, fakeprovider.Answered)
			// The answer may have been on disk or not: a call before this is
			// settled shows neither.
			var c connection
			w.eventually("the interrupted refresh is resolved", func() error {
				if c = w.connection(id); c.Generation == 2 || c.StatusReason == "refresh_interrupted" {
					return nil
				}
				return fmt.Errorf("%+v", c)
			})
			a := w.call(id, "/me")
			switch {
			case c.Generation == 2 && a.Status == http.StatusOK:
				if grace == 0 {
					w.wantNoReuse()
				}
			case grace == 0 && a.Status == http.StatusFailedDependency && strings.Contains(a.Body, "refresh_interrupted"):
				t.Log("killed before the answer was on disk: named as interrupted")
			default:
				t.Errorf("%+v, the next call: HTTP %d: %s", c, a.Status, a.Body)
			}
		})
	}
}

func TestKilledAfterTheSync(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	for round := range 3 {
		if a := w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil); a.Status != http.StatusOK {
			t.Fatalf("refresh: HTTP %d: %s", a.Status, a.Body)
		}
		w.kill()
		w.start()
		if err := w.generation(id, uint64(round+2)); err != nil {
			t.Fatal(err)
		}
		if a := w.call(id, "/me"); a.Status != http.StatusOK {
			t.Fatalf("the next call: HTTP %d: %s", a.Status, a.Body)
		}
	}
	if n := len(w.fake.Ledger().Refreshes()); n != 3 {
		t.Errorf("%d refreshes, want 3: a restart asked again", n)
	}
	w.wantNoReuse()
}

// F009, a crash in the middle of a code exchange: the code is never sent again, and
// what begin promised ends as FAILED, from where a new link works.
func TestKilledDuringTheExchange(t *testing.T) {
	w := newWorld(t)
	c := w.begin("u1")
	browser := newBrowser(t)
	callback := w.consent(browser, w.open(browser, c.ConnectURL))
	killed := w.killAt(fakeprovider.Committed)
	var wg sync.WaitGroup
	wg.Go(func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, callback, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if res, err := browser.Do(req); err == nil {
			_ = res.Body.Close()
		}
	})
	<-killed
	wg.Wait()
	w.fake.OnTokenRequest(nil)
	w.start()
	w.eventually("the flow has ended", func() error { return w.status(c.ID, "FAILED") })
	if res := w.browse(browser, callback); res.StatusCode != http.StatusBadRequest {
		t.Errorf("the callback again: HTTP %d, want 400", res.StatusCode)
	}
	if n := len(w.fake.Ledger().Posts); n != 1 {
		t.Errorf("%d token requests, want 1: the code was sent again", n)
	}
	var again connection
	w.api(http.MethodPost, "/v1/connections/"+c.ID+"/connect", map[string]any{}, &again)
	back := w.follow(newBrowser(t), again.ConnectURL)
	w.complete(c.ID, back.Get("completion_code"), "u1")
	if a := w.call(c.ID, "/me"); a.Status != http.StatusOK {
		t.Errorf("after connecting again: HTTP %d: %s", a.Status, a.Body)
	}
}

// A storm of kills: whatever moment they hit, nothing is lost in silence.
func TestKilledAtRandom(t *testing.T) {
	w := newWorld(t, withGrace(time.Minute), withLife(2*time.Second))
	ids := []string{w.connect("u1"), w.connect("u2"), w.connect("u3")}
	for round := range 6 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, id := range ids {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, w.proxyURL("/me"), nil)
					w.name(req, id)
					if _, err := w.tryDo(req); err != nil {
						return // the child is dead
					}
				}
			})
		}
		// Tokens live two seconds: by then each has been refreshed under load.
		before := len(w.fake.Ledger().Refreshes())
		w.eventually("refreshes under load", func() error {
			return atLeast(len(w.fake.Ledger().Refreshes()), before+1+round%3)
		})
		w.kill()
		close(stop)
		wg.Wait()
		w.start()
		for _, id := range ids {
			w.eventually("the call works again", func() error { return w.wantCall(id, http.StatusOK) })
		}
	}
}
