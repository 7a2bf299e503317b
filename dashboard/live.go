package dashboard

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// maxStreams bounds the live streams there may be at once. Pages beyond them
	// are still, as without JavaScript.
	maxStreams = 64
	// streamLife is how long a stream lasts. Its browser then comes back and
	// passes the authentication again.
	streamLife = 5 * time.Minute
	// beatEvery keeps a stream from being taken for dead where nothing happens.
	beatEvery = 15 * time.Second
	// writeTime bounds one write to a browser.
	writeTime = 10 * time.Second
	// eventsAtOnce is how many events are read in one look.
	eventsAtOnce = 100
)

// stream tells a page which connections something has happened to, as
// server-sent events: the data are connection IDs, the page asks for itself again.
func (h *Handler) stream(v *visit) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		v.w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	h.live.Add(1)
	h.mu.Unlock()
	defer h.live.Done()
	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		v.w.WriteHeader(http.StatusNoContent) // an EventSource then asks no more
		return
	}
	cursor, err := h.startOf(v)
	if err != nil {
		h.fail(v, err)
		return
	}
	v.w.Header().Set("Content-Type", "text/event-stream")
	v.w.Header().Set("X-Accel-Buffering", "no")
	v.w.WriteHeader(http.StatusOK)
	if v.r.Method == http.MethodHead {
		return
	}
	h.tell(v, cursor)
	_ = http.NewResponseController(v.w).SetWriteDeadline(time.Time{}) // the connection may serve on
}

// startOf returns where in the log a stream begins: where the browser's last one
// ended, else at its end.
func (h *Handler) startOf(v *visit) (string, error) {
	if last := v.r.Header.Get("Last-Event-ID"); last != "" {
		_, _, err := h.cfg.Store.ListEvents(v.r.Context(), tokenstore.EventFilter{}, last, 1)
		if !errors.Is(err, tokenstore.ErrBadCursor) {
			return last, err
		}
	}
	return tokenstore.EventsEnd(v.r.Context(), h.cfg.Store)
}

func (h *Handler) tell(v *visit, cursor string) {
	if v.send(fmt.Sprintf("retry: 2000\nid: %s\nevent: hello\ndata:\n\n", cursor)) != nil {
		return
	}
	look := time.NewTicker(h.cfg.Live)
	defer look.Stop()
	end := time.NewTimer(streamLife)
	defer end.Stop()
	for quiet := time.Now(); ; {
		select {
		case <-v.r.Context().Done():
			return
		case <-h.ctx.Done():
			return
		case <-end.C:
			return
		case <-look.C:
		}
		page, next, err := h.cfg.Store.ListEvents(v.r.Context(), tokenstore.EventFilter{}, cursor, eventsAtOnce)
		switch {
		case err != nil:
			if !errors.Is(err, tokenstore.ErrBadCursor) && v.r.Context().Err() == nil {
				h.log.Warn("live page ended", zap.Error(err))
			}
			return
		case len(page) > 0:
			cursor, quiet = next, time.Now()
			err = v.send(message(page, cursor))
		case time.Since(quiet) > beatEvery:
			quiet = time.Now()
			err = v.send(": still here\n\n")
		}
		if err != nil {
			return
		}
	}
}

// message tells of a page of events: the connections they are of, each once.
func message(page []tokenstore.Event, cursor string) string {
	var ids []string
	seen := map[string]bool{}
	for _, e := range page {
		if id := e.ConnectionID; tokenstore.IsID(id) && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return fmt.Sprintf("id: %s\nevent: changed\ndata: %s\n\n", cursor, strings.Join(ids, " "))
}

func (v *visit) send(text string) error {
	control := http.NewResponseController(v.w)
	_ = control.SetWriteDeadline(time.Now().Add(writeTime)) // a server that has none writes without
	if _, err := v.w.Write([]byte(text)); err != nil {
		return err
	}
	return control.Flush()
}
