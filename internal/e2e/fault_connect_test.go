package e2e_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// crashInExchange loads a callback that the program dies of at the given place,
// and starts the program again.
func (w *world) crashInExchange(place string, browser *http.Client, callback string) {
	w.t.Helper()
	w.fail(place + "=crash")
	var wg sync.WaitGroup
	wg.Go(func() {
		req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, callback, nil)
		if err != nil {
			w.t.Error(err)
			return
		}
		if res, err := browser.Do(req); err == nil {
			_ = res.Body.Close()
		}
	})
	w.died(soon)
	wg.Wait()
	w.fail()
	w.start()
}

// F009 and F010: a crash at every place of a code exchange. The code is never
// sent again, nothing is ACTIVE without a token, and the user can start anew.
func TestCrashInAnExchange(t *testing.T) {
	t.Parallel()
	w, all := newCrowd(t, 2)
	for _, tc := range []struct {
		name, place string
		posts       int
		status      string
	}{
		{"F010 state taken, code not sent", "connect.after_take", 0, "FAILED"},
		{"F009 tokens issued, not stored", "connect.before_persist", 1, "FAILED"},
		// What the answer brought waits to be completed; the browser that could
		// have is gone, so that it lapses, or is replaced by the next flow's.
		{"F009 answer stored, not read", "connect.after_persist", 1, "INITIATED"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			before := len(w.fake.Ledger().Posts)
			c := w.begin("u1")
			browser := newBrowser(t)
			callback := w.consent(browser, w.open(browser, c.ConnectURL))
			w.crashInExchange(tc.place, browser, callback)
			w.eventually("the flow has ended", func() error { return w.status(c.ID, tc.status) })
			if got := w.connection(c.ID); tc.status == "FAILED" && got.StatusReason != "source_error" {
				t.Errorf("the connection is %+v, want the reason source_error", got)
			}
			if err := w.wantCall(c.ID, http.StatusConflict); err != nil {
				t.Errorf("a call: %v", err)
			}
			res := w.browse(browser, callback)
			if page, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusBadRequest || !strings.Contains(string(page), "state_used") {
				t.Errorf("the callback again: HTTP %d: %s", res.StatusCode, page)
			}
			if n := len(w.fake.Ledger().Posts) - before; n != tc.posts {
				t.Errorf("%d token requests, want %d", n, tc.posts)
			}
			var again connection
			w.api(http.MethodPost, "/v1/connections/"+c.ID+"/connect", map[string]any{}, &again)
			back := w.follow(newBrowser(t), again.ConnectURL)
			w.complete(c.ID, back.Get("completion_code"), "u1")
			if err := w.wantCall(c.ID, http.StatusOK); err != nil {
				t.Errorf("after connecting again: %v", err)
			}
			w.nothingLost(all)
		})
	}
}

// F046: a state that has expired stays so when the clock goes back.
func TestExpiredStateStaysExpired(t *testing.T) {
	t.Parallel()
	w, all := newCrowd(t, 1)
	c := w.begin("u1")
	browser := newBrowser(t)
	callback := w.consent(browser, w.open(browser, c.ConnectURL))
	before := len(w.fake.Ledger().Posts)
	w.fail("clock=1h")
	res := w.browse(browser, callback)
	if to := res.Header.Get("Location"); !strings.Contains(to, "error=timeout") {
		t.Errorf("after an hour: HTTP %d to %q, want the app to be told timeout", res.StatusCode, to)
	}
	for _, clock := range []string{"", "clock=-1h"} {
		w.fail(clock)
		if res := w.browse(browser, callback); res.StatusCode != http.StatusBadRequest {
			t.Errorf("clock back (%q): HTTP %d", clock, res.StatusCode)
		}
		// A link that was good once is no good for an hour more.
		if res := w.browse(newBrowser(t), c.ConnectURL); clock == "" && res.StatusCode != http.StatusSeeOther {
			t.Errorf("the link, not expired: HTTP %d", res.StatusCode)
		}
	}
	if err := w.status(c.ID, "FAILED"); err != nil {
		t.Error(err)
	}
	if n := len(w.fake.Ledger().Posts) - before; n != 0 {
		t.Errorf("%d token requests for an expired state", n)
	}
	w.fail()
	w.nothingLost(all)
}
