package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// onceLife is how long an answer is repeated.
	onceLife = 24 * time.Hour
	// maxOnce bounds an Idempotency-Key.
	maxOnce = 255
	// replayedHeader says that an answer is a repeated one.
	replayedHeader = "Idempotency-Replayed"
)

// onceNote is what is kept of a request with an Idempotency-Key: first that it
// was begun, then what was answered.
type onceNote struct {
	Digest string // of query and body
	// ConnectionID is the ID of the connection that it makes, if it makes one. It
	// is chosen before anything is done, so that the same request after a crash
	// finds the connection and makes no second.
	ConnectionID string
	Status       int               // 0: not answered yet
	Header       map[string]string // of onceHeaders
	Text         string
}

// onceHeaders are the headers of an answer that are repeated with it.
var onceHeaders = []string{"Content-Type", "Lanyard-Error", "Retry-After", "Cache-Control", "X-Content-Type-Options"}

// once is what a request with an Idempotency-Key knows of itself. The zero value
// is that of a request without one.
type once struct {
	key    string    // the Idempotency-Key
	digest string    // SHA-256 of query and body
	madeID string    // the ID of the connection that it makes, if it makes one and is given none
	since  time.Time // when it came first, zero if that is now: else it may have made it then
	spoilt bool      // it was made, and has gone again
}

// take takes the header Idempotency-Key.
func (o *once) take(r *http.Request) *guard.Problem {
	switch given := r.Header.Values("Idempotency-Key"); {
	case len(given) == 0:
		return nil
	case len(given) > 1, given[0] == "", len(given[0]) > maxOnce,
		strings.ContainsFunc(given[0], func(r rune) bool { return r <= ' ' || r > '~' }):
		return invalidRequest("Header `Idempotency-Key` has to be 1 to %d visible ASCII characters, once.", maxOnce)
	default:
		o.key = given[0]
		return nil
	}
}

// before gives c, which a request is about to make, its ID if it has none, and
// returns what the same request made of it before a crash or an error, or nil.
func (h *Handler) before(ctx context.Context, o once, c *tokenstore.Connection) (*tokenstore.Connection, *guard.Problem) {
	if c.ID == "" {
		c.ID = cmp.Or(o.madeID, tokenstore.NewID())
	}
	if o.since.IsZero() {
		return nil, nil
	}
	made, err := h.cfg.Store.Connection(ctx, c.ID)
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, h.storeProblem(err)
	case made.CreatedAt.Before(o.since): // an `id` that the request gave, and found taken
		return nil, nil
	}
	return &made, nil
}

// serveOnce serves a request with an Idempotency-Key: what it was answered
// before, or else what it asks for, whose answer is kept.
func (h *Handler) serveOnce(w http.ResponseWriter, r *http.Request, rt *route, in *input) {
	if in.lines != "" {
		invalidRequest("`Idempotency-Key` does not go with lines. Give each its `id`: none is stored twice.").Write(w)
		return
	}
	ctx, cancel := detached(r)
	defer cancel()
	// The key and the path are in it, and neither can be read out of it.
	id := "idempotency/" + hex.EncodeToString(in.key.MAC("lanyard idempotency v1\n"+r.URL.EscapedPath()+"\n"+in.once.key))
	held := &heldWriter{ResponseWriter: w}
	defer held.release() // after the key is free again
	leave, p := h.enterOnce(ctx, id)
	if p != nil {
		p.Write(w)
		return
	}
	defer leave()
	kept, p := h.beginOnce(ctx, id, &in.once)
	switch {
	case p != nil:
		p.Write(w)
		return
	case kept.Status != 0:
		for name, value := range kept.Header {
			w.Header().Set(name, value)
		}
		w.Header().Set(replayedHeader, "true")
		w.Header().Set("Content-Length", strconv.Itoa(len(kept.Text)))
		w.WriteHeader(kept.Status)
		_, _ = w.Write([]byte(kept.Text))
		return
	}
	h.serve(held, r, rt, in)
	if held.status >= http.StatusInternalServerError && !in.once.spoilt {
		return // the ID stays, since what failed may have been done all the same
	}
	kept.Status, kept.Header, kept.Text = held.status, held.headers(), held.text.String()
	ctx, cancelEnd := detached(r) // serving may have taken as long as it may
	defer cancelEnd()
	if err := h.endOnce(ctx, id, kept); err != nil {
		// It was done, and is answered so. The same request again finds what it made.
		h.log.Warn("answer to an idempotent request not kept", zap.Error(err))
	}
}

// enterOnce begins to serve the request with this note, which nobody else does
// until leave is called: no other goroutine, and on a store that several processes
// have, no other process. After a crash its lease ends within 15 seconds.
func (h *Handler) enterOnce(ctx context.Context, id string) (leave func(), p *guard.Problem) {
	h.onceMu.Lock()
	taken := h.underWay[id]
	h.underWay[id] = true
	h.onceMu.Unlock()
	if taken {
		return nil, &onceConflict
	}
	forget := func() {
		h.onceMu.Lock()
		defer h.onceMu.Unlock()
		delete(h.underWay, id)
	}
	hold, err := tokenstore.TakeHold(ctx, h.cfg.Store, id, 0)
	switch {
	case errors.Is(err, tokenstore.ErrLeased):
		forget()
		return nil, &onceConflict
	case err != nil:
		forget()
		return nil, h.storeProblem(err)
	}
	return func() {
		hold.Release()
		forget()
	}, nil
}

var onceConflict = guard.Problem{
	Status: http.StatusConflict, Code: "idempotency_conflict",
	Detail: "The first request with this `Idempotency-Key` is still under way.",
}

// beginOnce returns what is kept of the request o, or keeps that it is begun.
func (h *Handler) beginOnce(ctx context.Context, id string, o *once) (onceNote, *guard.Problem) {
	fresh := onceNote{Digest: o.digest, ConnectionID: tokenstore.NewID()}
	text, err := newNoteText(fresh)
	if err != nil {
		return fresh, h.storeProblem(err)
	}
	var kept onceNote
	var unreadable error
	_, err = h.cfg.Store.UpdateNote(ctx, id, func(n *tokenstore.Note) error {
		if n.Text.IsZero() {
			kept, unreadable, o.since = fresh, nil, time.Time{}
			n.Text, n.KeepUntil = text, time.Now().Add(onceLife).UTC()
			return nil
		}
		kept, o.since = onceNote{}, n.KeepUntil.Add(-onceLife)
		unreadable = n.Text.DecodeJSON(&kept)
		return tokenstore.ErrUnchanged
	})
	switch err = errors.Join(err, unreadable); {
	case err != nil:
		return kept, h.storeProblem(err)
	case kept.Digest != o.digest:
		return kept, &guard.Problem{
			Status: http.StatusUnprocessableEntity, Code: "idempotency_key_reused",
			Detail: "This `Idempotency-Key` came with another body within the last 24 hours. Nothing was done.",
		}
	}
	o.madeID = kept.ConnectionID
	return kept, nil
}

// endOnce keeps what was answered. Where that is an error of ours, the request
// is forgotten.
func (h *Handler) endOnce(ctx context.Context, id string, kept onceNote) error {
	if kept.Status >= http.StatusInternalServerError {
		return h.cfg.Store.DeleteNote(ctx, id)
	}
	text, err := newNoteText(kept)
	if err != nil {
		return err
	}
	_, err = h.cfg.Store.UpdateNote(ctx, id, func(n *tokenstore.Note) error {
		n.Text = text
		if n.KeepUntil.IsZero() { // it ended while the request was served
			n.KeepUntil = time.Now().Add(onceLife).UTC()
		}
		return nil
	})
	return err
}

func newNoteText(n onceNote) (secret.String, error) {
	b, err := json.Marshal(n)
	return secret.New(string(b)), err
}

// heldWriter holds an answer back until it is kept, so that nobody can ask again
// in between.
type heldWriter struct {
	http.ResponseWriter
	status int
	text   bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (w *heldWriter) WriteHeader(status int) { w.status = status }

// Write implements http.ResponseWriter.
func (w *heldWriter) Write(b []byte) (int, error) { return w.text.Write(b) }

// headers returns what is repeated of the answer's headers.
func (w *heldWriter) headers() map[string]string {
	all := map[string]string{}
	for _, name := range onceHeaders {
		if value := w.Header().Get(name); value != "" {
			all[name] = value
		}
	}
	return all
}

// release sends the answer.
func (w *heldWriter) release() {
	if w.status == 0 {
		return // nothing was held back
	}
	w.ResponseWriter.WriteHeader(w.status)
	_, _ = w.ResponseWriter.Write(w.text.Bytes())
}
