package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestImportLines(t *testing.T) {
	b := newBench(t)
	srv := httptest.NewServer(b.h)
	defer srv.Close()
	var body strings.Builder
	body.WriteString(`{"integration":"github","id":"conn_a","access_token":"canary-a","refresh_token":"canary-r"}` + "\n\n")
	body.WriteString(`{"integration":"github","id":"conn_a","access_token":"a"` + "\n") // line 3: cut short
	body.WriteString(`{"integration":"nowhere","access_token":"canary"}` + "\r\n")
	body.WriteString(`{"integration":"github","name":"` + strings.Repeat("x", 1<<20) + `"}` + "\n")
	for i := range 100 {
		fmt.Fprintf(&body, `{"integration":"github","user_id":"u%d","id":"conn_b%d","access_token":"a"}`+"\n", i, i)
	}
	body.WriteString(`{"integration":"github","id":"conn_c","access_token":"a"}`) // without an end
	res, err := srv.Client().Do(importRequest(t, srv.URL, strings.NewReader(body.String())))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/jsonl" {
		t.Fatalf("import = %d %s, %v", res.StatusCode, res.Header.Get("Content-Type"), err)
	}
	if strings.Contains(string(text), "canary") {
		t.Errorf("an answer repeats a secret: %s", text)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		var l lineOf
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got = append(got, fmt.Sprintf("%d %s%s", l.Line, l.ID, l.Error.Code))
	}
	want := []string{"1 conn_a", "3 invalid_request", "4 invalid_request", "5 body_too_large"}
	for i := range 100 {
		want = append(want, fmt.Sprintf("%d conn_b%d", i+6, i))
	}
	want = append(want, "106 conn_c")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("lines (-want +got):\n%s", d)
	}
	if n := b.count(); n != 102 {
		t.Errorf("%d connections, want 102", n)
	}
}

// slowRefresher takes until it is let go, and counts how many wait.
type slowRefresher struct {
	fakeRefresher
	let           chan struct{}
	waiting, most atomic.Int32
}

func (s *slowRefresher) Refresh(ctx context.Context, _ string, _ tokenstore.Actor) error {
	now := s.waiting.Add(1)
	defer s.waiting.Add(-1)
	for {
		if most := s.most.Load(); now <= most || s.most.CompareAndSwap(most, now) {
			break
		}
	}
	select {
	case <-s.let:
	case <-ctx.Done():
	}
	return nil
}

// Results come while lines are still being sent, in their order; and few lines
// are under way at once.
func TestImportLinesAsTheyGo(t *testing.T) {
	slow := &slowRefresher{let: make(chan struct{})}
	b := newBench(t, func(c *api.Config) { c.Refresher = slow })
	srv := httptest.NewServer(b.h)
	defer srv.Close()
	read, write := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range 40 {
			if _, err := fmt.Fprintf(write, `{"integration":"github","id":"conn_%d","refresh_token":"r"}`+"\n", i); err != nil {
				return
			}
		}
	}()
	res, err := srv.Client().Do(importRequest(t, srv.URL, read))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for i := range 40 {
		slow.let <- struct{}{}
		if i == 39 {
			_ = write.Close()
		}
	}
	n := 0
	for lines.Scan() {
		n++
		if want := fmt.Sprintf(`{"line":%d,"id":"conn_%d"`, n, n-1); !strings.HasPrefix(lines.Text(), want) {
			t.Errorf("line %q; want %s…", lines.Text(), want)
		}
	}
	<-sent
	if n != 40 || lines.Err() != nil {
		t.Errorf("%d lines, %v", n, lines.Err())
	}
	if most := slow.most.Load(); most < 2 || most > 9 {
		t.Errorf("%d lines were under way at once; want several, and 8 at most", most)
	}
}

// A client that goes stops the import; what it began is brought to its end.
func TestImportLinesCutOff(t *testing.T) {
	slow := &slowRefresher{let: make(chan struct{})}
	b := newBench(t, func(c *api.Config) { c.Refresher = slow })
	ended := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		b.h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	read, write := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() {
		_, err := write.Write([]byte(`{"integration":"github","id":"conn_1","refresh_token":"r"}` + "\n"))
		sent <- err
	}()
	res, err := srv.Client().Do(importRequest(t, srv.URL, read).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for slow.waiting.Load() == 0 { // until it is at the provider
		time.Sleep(time.Millisecond)
	}
	cancel()
	_ = write.Close()
	slow.let <- struct{}{}
	<-ended
	if c := b.stored("conn_1"); c.Status != tokenstore.StatusActive {
		t.Errorf("stored %+v", c)
	}
}

// TestImportOfAClientThatSendsFirst: most clients (Python's requests, say) send
// the whole body before they read; a unix socket holds few results.
func TestImportOfAClientThatSendsFirst(t *testing.T) {
	b := newBench(t)
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: b.h, ReadHeaderTimeout: time.Minute}}
	srv.Start()
	t.Cleanup(srv.Close)
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const n = 20_000
	line := `{"integration":"github","user_id":"` + strings.Repeat("u", 200) + `"}` + "\n"
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/jsonl\r\nContent-Length: %d\r\n\r\n%s",
		importPath, apiKey, n*len(line), strings.Repeat(line, n))
	if err != nil {
		t.Fatalf("sending: %v", err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if got := strings.Count(string(text), "\n"); err != nil || got != n {
		t.Errorf("%d results, %v; want %d", got, err, n)
	}
}
