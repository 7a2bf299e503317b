package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// What is sent arrives before more is, of whatever size, be it the first or
// after little or much: no buffer waits to be filled.
func TestStreamsPassEachPieceAtOnce(t *testing.T) {
	sizes := []int{1, 4095, 4096, 4097, 10, 32 << 10, 32<<10 + 1, 4096, 1, 100_000, 2}
	for _, kind := range []string{"text/event-stream", "Text/Event-Stream; charset=utf-8", "application/octet-stream"} {
		t.Run(kind, func(t *testing.T) {
			next := make(chan bool)
			r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", kind)
				rc := http.NewResponseController(w)
				_ = rc.Flush()
				for i, size := range sizes {
					select {
					case <-next:
					case <-r.Context().Done():
						return
					}
					_, _ = w.Write(bytes.Repeat([]byte{byte(i)}, size))
					_ = rc.Flush()
				}
			})
			res, err := r.client.Do(r.request(t, http.MethodGet, "/events", nil))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			for i, size := range sizes {
				next <- true
				got := make([]byte, size)
				if _, err := io.ReadFull(res.Body, got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, size)) {
					t.Fatalf("piece %d of %d bytes: %v", i, size, err)
				}
			}
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
				t.Errorf("after the end: %d bytes, %v", len(rest), err)
			}
		})
	}
}

// So do the messages of a tunnel.
func TestTunnelsPassEachPieceAtOnce(t *testing.T) {
	r := newRig(t, switching(t, make(chan bool, 1)))
	conn, reader := tunnelled(t, r)
	for i, size := range []int{1, 4095, 4096, 4097, 10, 32 << 10, 32<<10 + 1, 4096, 1, 100_000, 2} {
		piece := bytes.Repeat([]byte{byte(i)}, size)
		go func() { _, _ = conn.Write(piece) }()
		got := make([]byte, size)
		if _, err := io.ReadFull(reader, got); err != nil || !bytes.Equal(got, piece) {
			t.Fatalf("piece %d of %d bytes: %v", i, size, err)
		}
	}
}
