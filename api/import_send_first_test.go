package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
