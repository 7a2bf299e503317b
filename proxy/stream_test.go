package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestEventsArriveOneByOne(t *testing.T) {
	seen := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-seen // the header alone must arrive
		for i := range 5 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-seen
		}
	})
	res, err := r.client.Do(r.request(t, http.MethodGet, "/events", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	seen <- struct{}{}
	lines := bufio.NewReader(res.Body)
	for i := range 5 {
		line, err := lines.ReadString('\n')
		if want := fmt.Sprintf("data: %d\n", i); line != want || err != nil {
			t.Fatalf("event = %q, %v; want %q", line, err, want)
		}
		_, _ = lines.ReadString('\n')
		seen <- struct{}{}
	}
}

// Once the answer has begun nothing is sent again, so a stream of events holds
// nothing of the request that asked for it.
func TestStreamsHoldNothingOfTheirRequest(t *testing.T) {
	const streams, size = 20, 1_000_000
	over := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: x\n\n")
		_ = http.NewResponseController(w).Flush()
		<-over
	})
	defer close(over)
	heap := func() int {
		runtime.GC()
		runtime.GC() // pools let go of what they have in two rounds
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	open := func(body []byte) (each int) {
		before := heap()
		for range streams {
			res, err := r.client.Do(r.request(t, http.MethodPost, "/events", bytes.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = res.Body.Close() })
			if _, err := io.ReadFull(res.Body, make([]byte, len("data: x\n\n"))); err != nil {
				t.Fatal(err)
			}
		}
		return (heap() - before) / streams
	}
	body := make([]byte, size)
	small, large := open(body[:10]), open(body)
	if large > small+size/4 {
		t.Errorf("a stream holds %d KiB after a request of %d bytes, %d KiB after one of 10", large>>10, size, small>>10)
	}
}

// A long answer of known length arrives as it is written, too.
func TestKnownLengthIsNotHeldBack(t *testing.T) {
	seen := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "4")
		_, _ = io.WriteString(w, "ab")
		_ = http.NewResponseController(w).Flush()
		<-seen
		_, _ = io.WriteString(w, "cd")
	})
	res, err := r.client.Do(r.request(t, http.MethodGet, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	half := make([]byte, 2)
	if _, err := io.ReadFull(res.Body, half); string(half) != "ab" {
		t.Errorf("first half = %q, %v", half, err)
	}
	seen <- struct{}{}
	if rest, err := io.ReadAll(res.Body); string(rest) != "cd" || err != nil {
		t.Errorf("second half = %q, %v", rest, err)
	}
}

// Both directions at once: each line is answered before the next is sent.
func TestFullDuplex(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			_, _ = fmt.Fprintln(w, strings.ToUpper(lines.Text()))
			_ = rc.Flush()
		}
	})
	reader, writer := io.Pipe()
	res, err := r.client.Do(r.request(t, http.MethodPost, "/", reader))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answers := bufio.NewScanner(res.Body)
	for i := range 5 {
		_, _ = fmt.Fprintf(writer, "line %d\n", i)
		if answers.Scan(); answers.Text() != fmt.Sprintf("LINE %d", i) {
			t.Fatalf("answer %d = %q, %v", i, answers.Text(), answers.Err())
		}
	}
	_ = writer.Close()
	if answers.Scan() {
		t.Errorf("more: %q", answers.Text())
	}
}

// endless reads n zero bytes.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.n)
	e.n -= n
	return int(n), nil
}

func TestMemoryStaysFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 2 GiB")
	}
	const size = 1 << 30
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodPost {
			_, _ = fmt.Fprint(w, n)
			return
		}
		_, _ = io.Copy(w, &endless{size})
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if res, body := r.do(t, r.request(t, http.MethodPost, "/", &endless{size})); body != fmt.Sprint(size) {
		t.Errorf("upload = %d, %s bytes arrived", res.StatusCode, body)
	}
	res, err := r.client.Do(r.request(t, http.MethodGet, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
		t.Errorf("download = %d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}

func TestEarlyAnswer(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too large")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	reader, writer := io.Pipe()
	ended := make(chan struct{})
	go func() { // an app that sends on until it is stopped
		defer close(ended)
		for {
			if _, err := writer.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	res, err := r.client.Do(r.request(t, http.MethodPost, "/", reader))
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("too large"))
	if _, err := io.ReadFull(res.Body, line); res.StatusCode != http.StatusRequestEntityTooLarge || err != nil {
		t.Errorf("answer = %d %q, %v", res.StatusCode, line, err)
	}
	res.Body.Close()
	reader.Close()
	<-ended
}

func TestManyAtOnce(t *testing.T) {
	r := newRig(t, revoked(echo))
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for round := range 5 {
				body := noise(1 + i*1000*(round+1))
				req := r.request(t, http.MethodPut, "/x", bytes.NewReader(body))
				if round%2 == 1 {
					req.ContentLength = -1
				}
				if res, got := r.do(t, req); res.StatusCode != http.StatusOK || got != string(body) {
					t.Errorf("echo of %d bytes = %d, %d bytes", len(body), res.StatusCode, len(got))
				}
			}
		})
	}
	wg.Wait()
}

func TestHTTP2BothSides(t *testing.T) {
	upstream := httptest.NewUnstartedServer(revoked(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("upstream got %s, TE %q", r.Proto, r.Header.Get("Te"))
		}
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Location", "https://"+r.Host+"/next")
		if r.URL.Path == "/early" {
			_, _ = io.WriteString(w, "early")
		} else {
			_, _ = io.Copy(w, r.Body)
			_, _ = io.WriteString(w, r.Trailer.Get("X-Sum"))
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	upstream.EnableHTTP2 = true
	upstream.StartTLS()
	defer upstream.Close()
	cfg, r := newConfig(t, upstream.URL, func(c *proxy.Config, _ *proxy.Upstream) {
		transport := upstream.Client().Transport.(*http.Transport).Clone()
		transport.DisableCompression = true
		t.Cleanup(transport.CloseIdleConnections)
		c.Transport = transport
	})
	handler, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(handler)
	front.EnableHTTP2 = true
	front.StartTLS()
	defer front.Close()
	r.proxy, r.client = front, front.Client()
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	req := r.request(t, http.MethodPost, "/rpc", io.MultiReader(strings.NewReader("message")))
	req.Header.Set("Te", "trailers")
	req.Trailer = http.Header{"X-Sum": {"7"}}
	res, body := r.do(t, req)
	if res.StatusCode != http.StatusOK || body != "message7" || res.Trailer.Get("Grpc-Status") != "0" || res.Header.Get("Location") != front.URL+"/next" {
		t.Errorf("answer = %d %q %v, trailers %v", res.StatusCode, body, res.Header, res.Trailer)
	}

	for _, generation := range []uint64{1, 2} { // with a 401 before it, and without
		r.grants.set(func(g *tokenstore.Grant) {
			g.Token.Generation, g.Token.AccessToken = generation, secret.New(token(generation))
		})
		reader, writer := io.Pipe()
		req = r.request(t, http.MethodPost, "/early", reader)
		req.Header.Set("Te", "trailers")
		if res, body := r.do(t, req); res.StatusCode != http.StatusOK || body != "early" {
			t.Errorf("early answer = %d %q", res.StatusCode, body)
		}
		writer.Close()
	}
}
