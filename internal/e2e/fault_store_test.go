package e2e_test

import (
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// F019: writing fails, or syncing, once or for a while, just when the answer to
// a refresh is to be stored; or the process is killed there. What the process
// has in memory it does not lose, and valid tokens go on serving.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	w, all := newCrowd(t, 13)
	next := 0
	for _, place := range []string{"store.commit", "store.sync", "store.mark"} {
		for _, tc := range []struct {
			name, action string
			then         func(m *member)
		}{
			{"fails once", "once:error", func(*member) {}},
			{"fails for a while", "error", func(*member) {
				w.eventually("it is not ready", func() error { return w.wantReady(http.StatusServiceUnavailable) })
				w.mustServeEach(slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m.ended != "" }))
				w.fail()
			}},
			{"fails until the process is killed", "error", func(m *member) {
				w.eventually("it is not ready", func() error { return w.wantReady(http.StatusServiceUnavailable) })
				w.signal(syscall.SIGKILL)
				w.died(soon)
				m.unknown = 1
				w.fail()
				w.start()
			}},
			{"killed there", "crash", func(m *member) {
				w.died(soon)
				m.unknown = 1
				w.fail()
				w.start()
			}},
		} {
			t.Run(place+" "+tc.name, func(t *testing.T) {
				outer := w.t
				w.t = t
				defer func() { w.t = outer }()
				m := all[next]
				next++
				posts := len(w.fake.Ledger().Posts)
				w.fake.OnTokenRequest(func(at fakeprovider.Stage, _ string) {
					if at == fakeprovider.Committed {
						w.fail(place + "=" + tc.action)
					}
				})
				over := w.refresh(m)
				w.wantAsked(posts + 1)
				if tc.action != "crash" {
					<-over
				}
				w.fake.OnTokenRequest(nil)
				tc.then(m)
				<-over
				back := time.Now()
				w.eventually("it is ready", func() error { return w.wantReady(http.StatusOK) })
				if took := time.Since(back); took > soon {
					t.Errorf("ready after %v", took)
				}
				w.nothingLost(all)
			})
		}
	}
}

// A program without the tag has no failpoints.
func TestNoFailpointsWithoutTheirTag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.join("account 1")
	w.fail("refresh.before_send=crash", "refresh.before_persist=crash", "store.commit=crash", "clock=1h")
	w.nothingLost([]*member{m})
}
