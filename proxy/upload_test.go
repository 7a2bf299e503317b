package proxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
)

// What an app sends arrives before it sends more, of whatever size, be it the
// first or after little or much: no buffer waits to be filled.
func TestUploadsPassEachPieceAtOnce(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		buf := make([]byte, 10_000)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	})
	reader, writer := io.Pipe()
	defer writer.Close()
	res, err := r.client.Do(r.request(t, http.MethodPost, "/", reader))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sizes := []int{1, 4095, 4096, 4097, 10, 32 << 10, 32<<10 + 1, 700_000}
	sizes = append(sizes, slices.Repeat(sizes, 2)...)                         // past what is kept for a replay
	sizes = append(sizes, 3<<20, 1, 256<<10, 256<<10, 256<<10+1, 32<<10, 2)   // far past it, and at the transport's buffers
	sizes = append(sizes, 32<<10, 32<<10, 32<<10, 4096, 4096, 1<<20, 4095, 1) // and back
	for i, size := range sizes {
		piece := bytes.Repeat([]byte{byte(i)}, size)
		go func() { _, _ = writer.Write(piece) }()
		got := make([]byte, size)
		if _, err := io.ReadFull(res.Body, got); err != nil || !bytes.Equal(got, piece) {
			t.Fatalf("piece %d of %d bytes: %v", i, size, err)
		}
	}
}

// scripted is a body that brings what it is asked for, or less where that is
// written, and notes how much that was.
type scripted struct {
	brings []int // 0: all
	asked  []int
}

func (s *scripted) Read(p []byte) (int, error) {
	s.asked = append(s.asked, len(p))
	if len(s.brings) == 0 {
		return 0, io.EOF
	}
	n := s.brings[0]
	s.brings = s.brings[1:]
	if n == 0 || n > len(p) {
		n = len(p)
	}
	return n, nil
}

// readsBy returns what a body is asked for by an upload of which so much is kept,
// and whose transport reads by transports.
func readsBy(t *testing.T, spool int64, transports int, brings []int) []int {
	t.Helper()
	cfg, _ := newConfig(t, "http://api.test", func(c *proxy.Config, _ *proxy.Upstream) {
		c.Spool = spool
		c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, transports))
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, err
		})
	})
	handler, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	body := &scripted{brings: brings}
	req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/x", body)
	req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Errorf("answer = %d, want 200", w.Code)
	}
	return body.asked
}

// What is not kept is read into the transport's own buffer: whoever waits for an
// app holds nothing else, and nothing is copied once more.
func TestUploadsThatAreNotKeptTakeNoBuffer(t *testing.T) {
	const transports, small, all = 10_000, 4 << 10, 0
	want := []int{small, transports, transports, transports, transports}
	if asked := readsBy(t, 1, transports, []int{all, all, 1, all}); !slices.Equal(asked, want) {
		t.Errorf("reads of %v; want %v", asked, want)
	}
}

// A body is kept up to its limit, to the byte, and what is large is read by large
// pieces.
func TestUploadsAreKeptUpToTheLimit(t *testing.T) {
	const kib, all = 1 << 10, 0
	kept := []int{4 * kib, 32 * kib, 32 * kib, 32 * kib, 32 * kib}
	kept = append(append(kept, slices.Repeat([]int{128 * kib}, 6)...), 124*kib) // 1 MiB
	want := append(kept, 4*kib, kib, kib)                                       // which is not kept; the transport's
	if asked := readsBy(t, 1<<20, kib, slices.Repeat([]int{all}, len(want)-1)); !slices.Equal(asked, want) {
		t.Errorf("reads of %v; want %v", asked, want)
	}
}

// Buffers go from one body to the next. Whatever becomes of those before, each
// upstream request has its own app's bytes and no others.
func TestBodiesDoNotMix(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2 %v", http2), func(t *testing.T) {
			var begun sync.Map // :: X-Who → true
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				who, _ := strconv.Atoi(r.Header.Get("X-Who"))
				before, _ := strconv.Atoi(r.Header.Get("X-Before"))
				_, again := begun.LoadOrStore(who, true)
				status, limit := http.StatusOK, int64(before)
				switch r.URL.Path {
				case "/refused": // in the middle, and then it takes all of it
					if !again {
						status = http.StatusUnauthorized
					} else {
						limit = 1 << 40
					}
				case "/whole":
					limit = 1 << 40
				}
				if r.ProtoMajor == 1 && r.URL.Path != "/whole" {
					w.Header().Set("Connection", "close") // a server can't go on behind a body that was left
				}
				var foreign foreigners
				_, err := io.Copy(foreign.to(byte(who)), io.LimitReader(r.Body, limit))
				w.WriteHeader(status)
				_ = http.NewResponseController(w).Flush()
				if err == nil {
					_, _ = io.Copy(foreign.to(byte(who)), io.LimitReader(r.Body, 100_000))
				}
				if foreign.count > 0 {
					t.Errorf("%s of %d: %d bytes of others", r.URL.Path, who, foreign.count)
				}
			}))
			server.EnableHTTP2 = http2
			server.StartTLS()
			t.Cleanup(server.Close)
			r := newRigFor(t, server.URL, func(c *proxy.Config, _ *proxy.Upstream) {
				transport := server.Client().Transport.(*http.Transport).Clone()
				transport.DisableCompression = true
				t.Cleanup(transport.CloseIdleConnections)
				c.Transport = transport
			})
			var wg sync.WaitGroup
			for app := range 8 {
				wg.Go(func() { sendBodies(t, r, app) })
			}
			wg.Wait()
		})
	}
}

// sendBodies sends bodies of one byte each, over and over, that end as they
// should or break off.
func sendBodies(t *testing.T, r *rig, app int) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(app), 7))
	for round := range 8 {
		who := 1 + app + 20*round
		size := 1 + random.IntN([]int{5000, 100_000, 2 << 20}[random.IntN(3)])
		path := []string{"/refused", "/whole", "/early"}[random.IntN(3)]
		body := io.Reader(bytes.NewReader(bytes.Repeat([]byte{byte(who)}, size)))
		cut := random.IntN(3) == 0
		if cut {
			body = io.MultiReader(body, brokenOff{})
		}
		req := r.request(t, http.MethodPost, path, body)
		req.ContentLength = int64(size)
		switch {
		case cut:
			req.ContentLength = int64(size) + 10
		case random.IntN(2) == 0:
			req.ContentLength = -1
		}
		req.Header.Set("X-Who", strconv.Itoa(who))
		req.Header.Set("X-Before", strconv.Itoa(random.IntN(size)))
		res, err := r.client.Do(req)
		if err != nil {
			if path == "/whole" && !cut {
				t.Errorf("%s of %d bytes: %v", path, size, err)
			}
			continue
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}

// brokenOff is a body whose app has gone.
type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, errors.New("broken off") }

// foreigners counts the bytes that are not those expected.
type foreigners struct {
	own   byte
	count int
}

func (f *foreigners) to(own byte) *foreigners {
	f.own = own
	return f
}

func (f *foreigners) Write(p []byte) (int, error) {
	f.count += len(p) - bytes.Count(p, []byte{f.own})
	return len(p), nil
}
