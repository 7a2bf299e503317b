package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

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
