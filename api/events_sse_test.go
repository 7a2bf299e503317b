package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// sseClient is the client's end of a stream of events.
type sseClient struct {
	cancel context.CancelFunc
	over   chan struct{}

	mu     sync.Mutex
	header http.Header
	status int
	text   strings.Builder
	open   int // the bytes that were not flushed
}

func (c *sseClient) Header() http.Header { return c.header }

func (c *sseClient) WriteHeader(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
}

func (c *sseClient) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open += len(b)
	return c.text.Write(b)
}

func (c *sseClient) FlushError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = 0
	return nil
}

// take returns what was flushed since it was last called.
func (c *sseClient) take() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.text.String()[:c.text.Len()-c.open]
	c.text.Reset()
	return text
}

func (c *sseClient) ended() bool {
	synctest.Wait()
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

func (b *bench) sse(target string, change ...func(*http.Request)) *sseClient {
	ctx, cancel := context.WithCancel(b.t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+target, nil)
	r.Header.Set("Authorization", "Bearer "+apiKey)
	r.Header.Set("Accept", "text/event-stream")
	for _, f := range change {
		f(r)
	}
	c := &sseClient{cancel: cancel, over: make(chan struct{}), header: http.Header{}}
	go func() {
		defer close(c.over)
		b.h.ServeHTTP(c, r)
	}()
	synctest.Wait()
	return c
}

func (b *bench) happens(t tokenstore.EventType, conn string) {
	b.t.Helper()
	if err := b.store.AppendEvents(b.t.Context(), tokenstore.Event{Type: t, ConnectionID: conn}); err != nil {
		b.t.Fatal(err)
	}
}

// seqs returns the numbers of the events in a piece of a stream.
func seqs(t *testing.T, text string) string {
	t.Helper()
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			var e struct{ Seq uint64 }
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			out = append(out, fmt.Sprint(e.Seq))
		}
	}
	return strings.Join(out, " ")
}

func streamTest(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newBench(t)) })
}

func TestStreamTellsWhatHappens(t *testing.T) {
	streamTest(t, func(t *testing.T, b *bench) {
		b.happens(tokenstore.EventActive, "before")
		c := b.sse("/v1/events")
		if c.status != http.StatusOK || c.header.Get("Content-Type") != "text/event-stream" || c.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("answer = %d, %v", c.status, c.header)
		}
		if got := c.take(); got != "retry: 1000\nid: ZTE\n\n" {
			t.Errorf("the beginning is %q", got)
		}
		at := time.Now().UTC().Format(time.RFC3339Nano)
		b.happens(tokenstore.EventExpired, "c1")
		time.Sleep(500 * time.Millisecond)
		want := fmt.Sprintf("event: connection.expired\nid: ZTI\ndata: "+
			`{"seq":2,"id":"ZTI","at":%q,"type":"connection.expired","connection_id":"c1","actor":{},"allowed":true,"count":1}`+"\n\n", at)
		if got := c.take(); got != want {
			t.Errorf("event = %q, want %q", got, want)
		}
		time.Sleep(14 * time.Second)
		if got := c.take(); got != "" {
			t.Errorf("before the heartbeat: %q", got)
		}
		time.Sleep(2 * time.Second)
		if got := c.take(); got != ": still here\n\n" {
			t.Errorf("the heartbeat is %q", got)
		}
		c.cancel()
		if !c.ended() {
			t.Error("the client has gone, and the stream goes on")
		}
		if n := b.logs.Len(); n != 0 {
			t.Errorf("logged: %v", b.logs.All())
		}
	})
}

func TestStreamGoesOn(t *testing.T) {
	const conn = "conn_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, tt := range []struct{ name, query, last, want string }{
		{"after a cursor", "?cursor=" + tokenstore.EventCursor(2), "", "3 4 5"},
		{"from the beginning", "?cursor=" + tokenstore.EventCursor(0), "", "1 2 3 4 5"},
		{"after the last event", "", tokenstore.EventCursor(4), "5"},
		{"the last event counts", "?cursor=" + tokenstore.EventCursor(2), tokenstore.EventCursor(3), "4 5"},
		{"of one connection", "?connection_id=" + conn + "&cursor=" + tokenstore.EventCursor(0), "", "4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			streamTest(t, func(t *testing.T, b *bench) {
				for i := range 4 {
					b.happens(tokenstore.EventActive, []string{"c", conn}[i/3])
				}
				c := b.sse("/v1/events"+tt.query, func(r *http.Request) {
					if tt.last != "" {
						r.Header.Set("Last-Event-ID", tt.last)
					}
				})
				b.happens(tokenstore.EventActive, "c")
				time.Sleep(time.Second)
				if got := seqs(t, c.take()); got != tt.want {
					t.Errorf("events %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestStreamOfManyPages(t *testing.T) {
	streamTest(t, func(t *testing.T, b *bench) {
		for range 450 {
			b.happens(tokenstore.EventActive, "c")
		}
		c := b.sse("/v1/events?cursor=" + tokenstore.EventCursor(0))
		if got := strings.Count(c.take(), "data: "); got != 450 {
			t.Errorf("%d events, want 450", got)
		}
	})
}

func TestStreamRefused(t *testing.T) {
	streamTest(t, func(t *testing.T, b *bench) {
		for _, target := range []string{"/v1/events?cursor=ZTk", "/v1/events?limit=3", "/v1/events?connection_id=c"} {
			if c := b.sse(target); c.status != http.StatusBadRequest {
				t.Errorf("%s = %d", target, c.status)
			}
		}
		if c := b.sse("/v1/events", header("Last-Event-ID", "ZTk")); c.status != http.StatusBadRequest {
			t.Errorf("an ID from nowhere = %d", c.status)
		}
	})
}

func TestStreamsAreBoundedAndEnd(t *testing.T) {
	streamTest(t, func(t *testing.T, b *bench) {
		var open []*sseClient
		for range 64 {
			open = append(open, b.sse("/v1/events"))
		}
		c := b.sse("/v1/events")
		if c.status != http.StatusTooManyRequests || c.header.Get("Lanyard-Error") != "too_many_streams" || c.header.Get("Retry-After") == "" {
			t.Errorf("one more = %d, %v", c.status, c.header)
		}
		open[0].cancel()
		synctest.Wait()
		open = append(open, b.sse("/v1/events"))
		if open[64].status != http.StatusOK {
			t.Errorf("after one has gone: %d", open[64].status)
		}
		b.h.EndStreams()
		for i, c := range open {
			if !c.ended() {
				t.Fatalf("stream %d goes on after EndStreams", i)
			}
		}
	})
}

func TestCloseEndsStreams(t *testing.T) {
	streamTest(t, func(t *testing.T, b *bench) {
		c := b.sse("/v1/events")
		b.h.Close()
		if !c.ended() {
			t.Error("the stream goes on after Close")
		}
	})
}

// TestStreamCutBeforeItsFirstEvent: a client that comes back as a browser does
// (with the last `id:` that it was told, if any) misses nothing, also where
// nothing had happened before it was cut off.
func TestStreamCutBeforeItsFirstEvent(t *testing.T) {
	streamTest(t, func(t *testing.T, b *bench) {
		b.happens(tokenstore.EventActive, "before")
		c := b.sse("/v1/events")
		last := ""
		for line := range strings.SplitSeq(c.take(), "\n") {
			if id, ok := strings.CutPrefix(line, "id: "); ok {
				last = id
			}
		}
		c.cancel() // a reload
		if !c.ended() {
			t.Fatal("the stream goes on")
		}
		b.happens(tokenstore.EventExpired, "c1")
		time.Sleep(time.Second) // as `retry: 1000` says
		c = b.sse("/v1/events", func(r *http.Request) {
			if last != "" {
				r.Header.Set("Last-Event-ID", last)
			}
		})
		defer c.cancel()
		time.Sleep(time.Second)
		if got := seqs(t, c.take()); got != "2" {
			t.Errorf("events after coming back: %q, want 2", got)
		}
	})
}
