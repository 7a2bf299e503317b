package caddymodule_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEarlyAnswerToAnUpload: an API that refuses an upload in its middle and
// hangs up has answered, whatever becomes of the rest of the body.
func TestEarlyAnswerToAnUpload(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReaderSize(conn, 16)); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
				// What was not read makes the end a reset.
			})
		}
	})
	rt := upstreamsOf(t, `{}`, l.Addr().String())
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.Addr().String(), io.NopCloser(strings.NewReader(strings.Repeat("x", 8<<20))))
		if err != nil {
			t.Fatal(err)
		}
		res, err := rt.RoundTrip(r)
		cancel()
		if err != nil {
			t.Fatalf("the answer was lost: %v", err)
		}
		if _ = res.Body.Close(); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("HTTP %d", res.StatusCode)
		}
	}
}
