package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// TestAttackReplay has an API refuse tokens. More of it: TestHundredRefusalsOneRefresh,
// TestRefusedUploadIsSentAgain, TestCallerWhoHangsUpCancelsNothing (A125).
func TestAttackReplay(t *testing.T) {
	w := newWorld(t)
	// counted returns how many API calls and token requests something makes.
	counted := func(do func()) (calls, refreshes int) {
		before := w.fake.Ledger()
		do()
		after := w.fake.Ledger()
		return after.CallCount(-1) - before.CallCount(-1), len(after.Refreshes()) - len(before.Refreshes())
	}
	w.in(t, "A119 a token that was replaced", func(t *testing.T) {
		id := w.connect("u119")
		w.fake.ExpireAccessTokens()
		calls, refreshes := counted(func() {
			if a := w.call(id, "/me"); a.Status != http.StatusOK {
				t.Errorf("HTTP %d: %s", a.Status, a.Body)
			}
		})
		if calls != 2 || refreshes != 1 {
			t.Errorf("%d calls and %d refreshes, want 2 and 1", calls, refreshes)
		}
	})
	w.in(t, "A121 in the middle of a large body", func(t *testing.T) {
		id := w.connect("u121")
		w.fake.ExpireAccessTokens()
		// The API refuses before it has read anything.
		in, out := io.Pipe()
		req, err := http.NewRequestWithContext(w.ctx(), http.MethodPost, w.proxyURL("/upload"), in)
		if err != nil {
			t.Fatal(err)
		}
		w.name(req, id)
		var wg sync.WaitGroup
		sent := 0
		wg.Go(func() {
			chunk := make([]byte, 64<<10)
			for range 1600 { // 100 MiB
				n, err := out.Write(chunk)
				if sent += n; err != nil {
					break
				}
			}
			_ = out.Close()
		})
		calls, refreshes := counted(func() {
			if a, err := w.tryDo(req); err == nil && (a.Status != http.StatusUnauthorized || a.Header.Get("Lanyard-Hint") != "token-refreshed") && a.Status != http.StatusOK {
				t.Errorf("HTTP %d, hint %q: %s", a.Status, a.Header.Get("Lanyard-Hint"), a.Body)
			}
			_ = in.Close()
			wg.Wait()
		})
		if calls > 2 || refreshes != 1 {
			t.Errorf("%d calls and %d refreshes after %d bytes, want at most 2 and 1", calls, refreshes, sent)
		}
		if a := w.call(id, "/me"); a.Status != http.StatusOK {
			t.Errorf("the next call: HTTP %d", a.Status)
		}
	})
	w.in(t, "A121 after a large body", func(t *testing.T) {
		id := w.connect("u121")
		w.fake.Faults.API(fakeprovider.Unauthorized().AfterCommit())
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.proxyURL("/upload"), struct{ io.Reader }{bytes.NewReader(make([]byte, 8<<20))})
		if err != nil {
			t.Fatal(err)
		}
		w.name(req, id)
		calls, refreshes := counted(func() {
			if a := w.do(req); a.Status != http.StatusUnauthorized || a.Header.Get("Lanyard-Hint") != "token-refreshed" {
				t.Errorf("HTTP %d, hint %q: %s", a.Status, a.Header.Get("Lanyard-Hint"), a.Body)
			}
		})
		if calls != 1 || refreshes != 1 {
			t.Errorf("%d calls and %d refreshes, want 1 and 1", calls, refreshes)
		}
	})
	w.in(t, "A122 an API that refuses always", func(t *testing.T) {
		id := w.connect("u122")
		w.fake.Faults.API(fakeprovider.Unauthorized().Always())
		defer w.fake.Faults.Clear()
		client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 100}}
		defer client.CloseIdleConnections()
		calls, refreshes := counted(func() {
			var wg sync.WaitGroup
			for range 1000 {
				wg.Go(func() {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.proxyURL("/me"), nil)
					if err != nil {
						t.Error(err)
						return
					}
					w.name(req, id)
					res, err := client.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					_ = res.Body.Close()
					if res.StatusCode != http.StatusUnauthorized || res.Header.Get("Lanyard-Error") != "" {
						t.Errorf("HTTP %d, Lanyard-Error %q, want the API's own 401", res.StatusCode, res.Header.Get("Lanyard-Error"))
					}
				})
			}
			wg.Wait()
		})
		if calls > 2000 || refreshes != 1 {
			t.Errorf("%d calls and %d refreshes, want at most 2000 and 1", calls, refreshes)
		}
		if err := w.status(id, "ACTIVE"); err != nil {
			t.Error(err)
		}
	})
	w.in(t, "A123 answers that say nothing of the token", func(t *testing.T) {
		id := w.connect("u123")
		for name, fault := range map[string]fakeprovider.Fault{
			"403": fakeprovider.Status(http.StatusForbidden), "insufficient_scope": fakeprovider.InsufficientScope("write"),
			"400": fakeprovider.Answer(http.StatusBadRequest, "application/json", `{"error":"invalid_request"}`), "407": fakeprovider.Status(http.StatusProxyAuthRequired),
		} {
			calls, refreshes := counted(func() {
				w.fake.Faults.API(fault)
				if a := w.call(id, "/me"); a.Status < 400 || a.Header.Get("Lanyard-Error") != "" {
					t.Errorf("%s: HTTP %d %v", name, a.Status, a.Header)
				}
			})
			if calls != 1 || refreshes != 0 {
				t.Errorf("%s: %d calls and %d refreshes, want 1 and 0", name, calls, refreshes)
			}
		}
	})
	w.in(t, "A126 nothing is kept for others", func(t *testing.T) { w.cacheNothing(t, counted) })
}

// cacheNothing asks twice for what may be kept, by two connections.
func (w *world) cacheNothing(t *testing.T, counted func(func()) (int, int)) {
	one := w.connect("u126")
	w.fake.SetUser(fakeprovider.User{ID: "bob", Name: "Bob"})
	two := w.connect("u127")
	w.fake.SetUser(fakeprovider.User{ID: "ada", Name: "Ada Lovelace"})
	calls, _ := counted(func() {
		for _, id := range []string{one, two, one} {
			a := w.call(id, "/me")
			var me struct{ ID string }
			if err := json.Unmarshal([]byte(a.Body), &me); err != nil || (me.ID == "ada") != (id == one) {
				t.Errorf("%s is told of %q, %v", id, me.ID, err)
			}
		}
		for range 2 {
			if a := w.call(one, "/status/200?header=Cache-Control:+public,max-age=600&header=ETag:+x&body="+fmt.Sprint(time.Now().UnixNano())); a.Header.Get("Age") != "" || strings.Contains(a.Header.Get("Cache-Control"), "private") {
				t.Errorf("%v, want the API's own", a.Header)
			}
		}
	})
	if calls != 5 {
		t.Errorf("%d calls went out, want 5", calls)
	}
}
