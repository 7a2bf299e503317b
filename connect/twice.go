package connect

import (
	"net/http"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A form that is sent twice is worked on once. The browser gives up the first
// answer for the second, and with it the completion code, which nobody else has:
// so the second gets the same.

const (
	// recentLife is how long after its end a form's answer is given again.
	recentLife = 30 * time.Second
	// maxRecent bounds how many of them are kept.
	maxRecent = 1000
)

// work is what is under way for one flow, and what came of it.
type work struct {
	done   chan struct{}                            // closed at its end, after which the rest stands
	answer func(http.ResponseWriter, *http.Request) // nil: another request has to be answered in another way
	until  time.Time                                // when the answer is forgotten
	hold   *tokenstore.Hold                         // keeps other processes from it
}

// enter counts the work on a flow as under way, before the flow is taken, until
// leave. It reports whether that may begin, and if not, whether because the
// Handler is closing.
func (h *Handler) enter(flowID string) (began, closing bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing || h.active[flowID] != nil {
		return false, h.closing
	}
	h.active[flowID] = &work{done: make(chan struct{})}
	h.running.Add(1)
	return true, false
}

func (h *Handler) leave(flowID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ended := h.active[flowID]
	close(ended.done)
	delete(h.active, flowID)
	if ended.hold == nil {
		h.running.Done()
	} else {
		go func() { // behind the answer to a browser; Close waits for it
			defer h.running.Done()
			ended.hold.Release()
		}()
	}
	now := time.Now()
	for id, w := range h.recent {
		if !now.Before(w.until) {
			delete(h.recent, id)
		}
	}
	if ended.answer != nil && len(h.recent) < maxRecent {
		ended.until = now.Add(recentLife)
		h.recent[flowID] = ended
	}
}

// answered lets further requests for a flow be answered as the one that did the
// work.
func (h *Handler) answered(flowID string, answer func(http.ResponseWriter, *http.Request)) {
	h.mu.Lock()
	h.active[flowID].answer = answer
	h.mu.Unlock()
}

// second answers a form of the flow's own browser as the one before it, for whose
// end it waits.
func (h *Handler) second(w http.ResponseWriter, r *http.Request, f tokenstore.Flow) {
	h.mu.Lock()
	first := h.active[f.ID]
	h.mu.Unlock()
	if first != nil {
		select {
		case <-first.done:
		case <-time.After(exchangeLimit + accountLimit): // it goes on behind (see Recover)
		case <-r.Context().Done():
			return
		}
	}
	h.repeat(w, r, f)
}

// repeat answers a form of the flow's own browser as the one before it, which has
// ended.
func (h *Handler) repeat(w http.ResponseWriter, r *http.Request, f tokenstore.Flow) {
	h.mu.Lock()
	first := h.recent[f.ID]
	h.mu.Unlock()
	if first != nil && time.Now().Before(first.until) {
		first.answer(w, r)
		return
	}
	h.usedNow(r.Context(), w, r, f)
}
