package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// keepConnections returns a connection to each of Lanyard's sites that is kept
// after a request, until the test's end at the latest.
func (w *world) keepConnections() (kept []net.Conn) {
	w.t.Helper()
	for _, port := range []int{w.site.Connect, w.site.Proxy} {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprintf(conn, "GET /v1/health/live HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", port); err != nil {
			w.t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		kept = append(kept, conn)
	}
	return kept
}

// whileCalling does something while the API is called over a connection, again
// and again and from 8 sides at once. No call may fail.
func (w *world) whileCalling(id string, do func()) {
	w.t.Helper()
	// Go's HTTP server, and so Caddy's, closes a connection whose first request
	// it reads just as it shuts down, unserved. Nothing was done of it, so the
	// call is made once more, as HTTP clients do on connections they keep.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func() (*http.Response, error) {
		req, _ := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.proxyURL("/me"), nil)
		w.name(req, id)
		return client.Do(req)
	}
	var calls, again atomic.Int32
	call := func() error {
		res, err := get()
		calls.Add(1)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			again.Add(1)
			res, err = get()
		}
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("HTTP %d: %s", res.StatusCode, body)
		}
		return err
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	defer func() {
		stop.Store(true)
		wg.Wait()
		w.t.Logf("%d calls meanwhile, %d made once more", calls.Load(), again.Load())
	}()
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				if err := call(); err != nil {
					w.t.Errorf("a call meanwhile: %v", err)
					return
				}
			}
		})
	}
	do()
}

// download reads a stream of 20 events, 4 s long, and then reports whether all
// came.
func (w *world) download(id string) <-chan error {
	done := make(chan error, 1)
	go func() {
		req, _ := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.proxyURL("/events?count=20&interval=200ms"), nil)
		w.name(req, id)
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			done <- err
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if n := bytes.Count(b, []byte("data:")); err == nil && n != 20 {
			err = fmt.Errorf("%d of 20 events", n)
		}
		done <- err
	}()
	return done
}

// F058: reloads under load.
func TestReloadInTheMiddle(t *testing.T) {
	w := newWorld(t, withLife(3*time.Second))
	id := w.connect("u1")
	second := w.begin("u2")
	browser := newBrowser(t)
	callback := w.consent(browser, w.open(browser, second.ConnectURL))
	files := w.openFiles()
	w.whileCalling(id, func() {
		slow := w.download(id)
		for range 4 {
			before := len(w.fake.Ledger().Refreshes())
			if err := w.reload(); err != nil {
				t.Fatal(err)
			}
			w.eventually("refreshes go on", func() error { return atLeast(len(w.fake.Ledger().Refreshes()), before+1) })
		}
		if err := <-slow; err != nil {
			t.Errorf("the stream that was open: %v", err)
		}
	})
	back := w.finish(browser, callback)
	w.complete(back.Get("connection_id"), back.Get("completion_code"), "u2")
	if err := w.wantCall(second.ID, http.StatusOK); err != nil {
		t.Error(err)
	}
	w.wantNoReuse()
	w.eventually("no files stay open", func() error {
		if n := w.openFiles(); n > files+8 {
			return fmt.Errorf("%d, %d before the reloads", n, files)
		}
		return nil
	})
}

// openFiles returns how many files the child has open, 0 where the system
// doesn't say.
func (w *world) openFiles() int {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.cmd.Process.Pid))
	return len(fds)
}

// F059.
func TestBadReloadChangesNothing(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	for extra, named := range map[string]string{
		"no_such_word here":                     "no_such_word",
		"client other {env.NOT_SET}":            "{env.NOT_SET}",
		"integration nowhere {\nclient_id x\n}": "nowhere",
	} {
		w.site.Extra = extra
		if err := w.reload(); err == nil || !strings.Contains(err.Error(), named) {
			t.Errorf("reload = %v, want an error that names %s", err, named)
		}
		if err := w.wantCall(id, http.StatusOK); err != nil {
			t.Error(err)
		}
	}
	w.site.Extra = ""
	if err := w.reload(); err != nil {
		t.Error(err)
	}
	if a := w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil); a.Status != http.StatusOK {
		t.Errorf("refresh: HTTP %d: %s", a.Status, a.Body)
	}
}
