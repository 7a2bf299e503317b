package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// rss returns the child's memory in bytes: now, and the most it ever had.
func (w *world) rss() (now, peak int) {
	w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		w.t.Skip("no /proc here")
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		var kb int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			now = kb << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			peak = kb << 10
		}
	}
	return now, peak
}

func TestGigabyteEachWayInFlatMemory(t *testing.T) {
	const gib = 1 << 30
	w := newWorld(t)
	id := w.connect("u1")
	if err := w.wantCall(id, http.StatusOK); err != nil {
		t.Fatal(err)
	}
	before, _ := w.rss()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, w.proxyURL("/upload"), io.LimitReader(zeros{}, gib))
	w.name(req, id)
	if a := w.do(req); a.Status != http.StatusOK || !strings.Contains(a.Body, fmt.Sprint(gib)) {
		t.Fatalf("upload: HTTP %d: %s", a.Status, a.Body)
	}
	req, _ = http.NewRequestWithContext(t.Context(), http.MethodGet, w.proxyURL(fmt.Sprintf("/download?bytes=%d", gib)), nil)
	w.name(req, id)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); n != gib || err != nil {
		t.Fatalf("download: %d bytes, %v", n, err)
	}
	if _, peak := w.rss(); peak-before > 64<<20 {
		t.Errorf("memory grew by %d MiB", (peak-before)>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Each event is sent once the one before it has come: none is held back.
func TestEventsArriveAsSent(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	const events = 5
	ctx, came := w.ctx(), make(chan struct{})
	w.fake.Faults.API(fakeprovider.Raw("events", func(conn io.Writer) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
		for n := range events {
			_, _ = fmt.Fprintf(conn, "data: event %d\n\n", n+1)
			select {
			case <-came:
			case <-ctx.Done():
				return
			}
		}
	}))
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, w.proxyURL("/events"), nil)
	w.name(req, id)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, in := 0, bufio.NewScanner(res.Body)
	for in.Scan() {
		if in.Text() == fmt.Sprintf("data: event %d", got+1) {
			got++
			came <- struct{}{}
		}
	}
	if got != events || in.Err() != nil {
		t.Errorf("%d of %d events came, %v: they were held back", got, events, in.Err())
	}
}

// An upload that is refused while less of it was sent than the spool keeps is
// sent again from its start, whole; the app notices nothing.
func TestRefusedUploadIsSentAgain(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	body := make([]byte, 8<<20)
	_, _ = rand.Read(body)
	sum := sha256.Sum256(body)
	upload := func(first int) answer {
		w.fake.ExpireAccessTokens()
		before := len(w.fake.Ledger().Refreshes())
		in, out := io.Pipe()
		req, _ := http.NewRequestWithContext(w.ctx(), http.MethodPost, w.proxyURL("/upload"), in)
		w.name(req, id)
		go func() {
			_, _ = out.Write(body[:first])
			w.eventually("the token is renewed", func() error { return atLeast(len(w.fake.Ledger().Refreshes()), before+1) })
			_, err := out.Write(body[first:])
			_ = out.CloseWithError(err)
		}()
		return w.do(req)
	}
	if a := upload(512 << 10); a.Status != http.StatusOK || !strings.Contains(a.Body, hex.EncodeToString(sum[:])) {
		t.Errorf("with 512 KiB sent before the 401: HTTP %d: %s", a.Status, a.Body)
	}
}

// With more than that sent, the provider's answer passes, and says that the
// next try will have a new token.
func TestRefusedUploadTooFarGone(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	// The API reads all that it gets before it refuses.
	w.fake.Faults.API(fakeprovider.Unauthorized().AfterCommit())
	req, _ := http.NewRequestWithContext(w.ctx(), http.MethodPost, w.proxyURL("/upload"), bytes.NewReader(make([]byte, 8<<20)))
	w.name(req, id)
	a := w.do(req)
	if a.Status != http.StatusUnauthorized || a.Header.Get("Lanyard-Hint") != "token-refreshed" {
		t.Errorf("HTTP %d, hint %q: %s", a.Status, a.Header.Get("Lanyard-Hint"), a.Body)
	}
	if err := w.generation(id, 2); err != nil {
		t.Error(err)
	}
}

func TestWebSocketEchoes(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	w.fake.ExpireAccessTokens() // the handshake is refused first, and made again
	header := http.Header{}
	header.Set("Authorization", "Bearer "+w.clientKey+"."+id)
	c, res, err := websocket.Dial(w.ctx(), w.proxyURL("/ws"), &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(4 << 20)
	for _, msg := range [][]byte{[]byte("hello"), {}, bytes.Repeat([]byte{0, 255}, 1<<20)} {
		if err := c.Write(w.ctx(), websocket.MessageBinary, msg); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(w.ctx()); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("echo of %d bytes: %d bytes, %v", len(msg), len(got), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
}
