package api

import (
	"bytes"
	"context"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// sseEvery is how late at most an event is told.
	sseEvery = 500 * time.Millisecond
	// sseHeartbeat keeps proxies from cutting a stream on which nothing happens,
	// and finds clients that have gone without a word.
	sseHeartbeat = 15 * time.Second
	// maxStreams bounds the streams that are open at once.
	maxStreams = 64
)

// wantsSSE reports whether the client asks for a stream of server-sent events.
func wantsSSE(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			if media, _, err := mime.ParseMediaType(part); err == nil && media == "text/event-stream" {
				return true
			}
		}
	}
	return false
}

// sse answers with events as they happen: first those after the cursor, if there
// is one. A browser that reconnects sends the header Last-Event-ID beside the
// cursor that it began with, so the header counts.
func (h *Handler) sse(r *http.Request, in *input, f tokenstore.EventFilter, cursor string) (any, *guard.Problem) {
	switch last := r.Header.Values("Last-Event-ID"); {
	case len(last) > 1 || len(last) == 1 && len(last[0]) > maxCursor:
		in.refuse(invalidRequest("Header `Last-Event-ID` is none that the audit log gave out."))
	case len(last) == 1 && last[0] != "":
		cursor = last[0]
	}
	if p := in.done(); p != nil {
		return nil, p
	}
	var page []tokenstore.Event
	if cursor == "" {
		end, err := tokenstore.EventsEnd(r.Context(), h.cfg.Store)
		if err != nil {
			return nil, h.storeProblem(err)
		}
		cursor = end
	} else {
		var p *guard.Problem
		if page, cursor, p = h.eventPage(r.Context(), f, cursor, maxLimit); p != nil {
			return nil, p
		}
	}
	if !h.openStream() {
		return nil, &guard.Problem{
			Status: http.StatusTooManyRequests, Code: "too_many_streams", RetryAfter: sseHeartbeat,
			Detail: fmt.Sprintf("There are %d streams of events open already.", maxStreams),
		}
	}
	return stream(func(w http.ResponseWriter) { //nolint:contextcheck // its context is of the request's
		defer h.streams.Add(-1)
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(h.streamCtx, cancel)()
		header := w.Header()
		header.Set("Content-Type", "text/event-stream")
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Accel-Buffering", "no")
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return
		}
		out := &streamWriter{to: w, control: http.NewResponseController(w)}
		h.tellEvents(ctx, out, f, page, cursor)
		_ = out.control.SetWriteDeadline(time.Time{}) // the connection may serve on
	}), nil
}

func (h *Handler) openStream() bool {
	if h.streams.Add(1) > maxStreams {
		h.streams.Add(-1)
		return false
	}
	return true
}

// EndStreams ends the streams of events, whose clients then connect again. A
// server that shuts down calls it: it waits for the end of every answer.
func (h *Handler) EndStreams() { h.endStreams() }

// tellEvents writes page, and what happens after cursor until ctx ends or the
// client has gone.
func (h *Handler) tellEvents(
	ctx context.Context, out *streamWriter, f tokenstore.EventFilter, page []tokenstore.Event, cursor string,
) {
	tick := time.NewTicker(sseEvery)
	defer tick.Stop()
	// The first bytes tell the client that it is connected, to come back soon, and
	// from where on: one that is cut off before its first event misses none.
	first := "retry: 1000\n"
	if len(page) == 0 {
		first += "id: " + cursor + "\n"
	}
	if !out.tell([]byte(first + "\n")) {
		return
	}
	told := time.Now()
	for {
		if len(page) > 0 {
			b, err := sseLines(page)
			if err != nil {
				h.log.Error("event not encoded", zap.Error(err))
				return
			}
			if !out.tell(b) {
				return
			}
			told = time.Now()
		} else if time.Since(told) >= sseHeartbeat {
			if !out.tell([]byte(": still here\n\n")) {
				return
			}
			told = time.Now()
		}
		if len(page) < maxLimit {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		var err error
		if page, cursor, err = h.cfg.Store.ListEvents(ctx, f, cursor, maxLimit); err != nil {
			if ctx.Err() == nil { // else the client has gone
				h.log.Error("stream of events cut off", zap.Error(err))
			}
			return
		}
	}
}

// sseLines returns events in the form of the HTML standard, section 9.2.
func sseLines(page []tokenstore.Event) ([]byte, error) {
	var b bytes.Buffer
	for _, e := range page {
		text, err := EventJSON(e)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "event: %s\nid: %s\ndata: %s\n\n", e.Type, tokenstore.EventCursor(e.Seq), text)
	}
	return b.Bytes(), nil
}

// tell writes b at once, and reports whether the client still takes it.
func (s *streamWriter) tell(b []byte) bool {
	if _, err := s.Write(b); err != nil {
		return false
	}
	return s.control.Flush() == nil
}
