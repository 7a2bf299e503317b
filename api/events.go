package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Audit writes the audit log, where an event belongs to no change of a record.
type Audit interface {
	// Record writes events of what was done: they are stored when it returns
	// nil. The error is the store's.
	Record(ctx context.Context, events ...tokenstore.Event) error
	// Refused writes or counts an event of what was refused.
	Refused(ctx context.Context, e tokenstore.Event)
}

// eventView is a line of the audit log as the API shows it.
type eventView struct {
	Seq          uint64               `json:"seq"`
	ID           string               `json:"id"` // the cursor after it
	At           *time.Time           `json:"at"`
	Type         tokenstore.EventType `json:"type"`
	ConnectionID string               `json:"connection_id,omitempty"`
	Integration  string               `json:"integration,omitempty"`
	UserID       string               `json:"user_id,omitempty"`
	Actor        actorView            `json:"actor"`
	Allowed      bool                 `json:"allowed"`
	Reason       string               `json:"reason,omitempty"`
	Count        uint64               `json:"count"`
}

type actorView struct {
	Kind string `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
	From string `json:"from,omitempty"`
}

func viewEvent(e tokenstore.Event) eventView {
	return eventView{
		Seq: e.Seq, ID: tokenstore.EventCursor(e.Seq), At: instant(e.At), Type: e.Type,
		ConnectionID: e.ConnectionID, Integration: e.Integration, UserID: e.UserID,
		Actor: actorView(e.Actor), Allowed: !e.Denied, Reason: e.Reason, Count: max(e.Count, 1),
	}
}

// EventJSON returns e as the API shows it, without a line's end.
func EventJSON(e tokenstore.Event) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(viewEvent(e)); err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// events shows the audit log: a page, the oldest or the newest first, as JSON
// lines all that is there, or as server-sent events what happens.
func (h *Handler) events(r *http.Request, in *input) (any, *guard.Problem) {
	var f tokenstore.EventFilter
	id, given := in.param("connection_id", maxName)
	if given && !tokenstore.IsID(id) {
		in.refuse(invalidRequest("Query parameter `connection_id` is not the ID of a connection."))
	}
	f.ConnectionID = id
	switch order, given := in.param("order", maxName); {
	case order == "newest":
		f.NewestFirst = true
	case given && order != "oldest":
		in.refuse(invalidRequest("Query parameter `order` is neither `oldest` nor `newest`."))
	}
	cursor, _ := in.param("cursor", maxCursor)
	media, sse := lines(r), wantsSSE(r)
	if f.NewestFirst && (sse || media != "") {
		in.refuse(invalidRequest("Query parameter `order`: `newest` goes with pages of JSON alone, not with lines or a stream."))
	}
	if sse {
		return h.sse(r, in, f, cursor)
	}
	limit := maxLimit
	if media == "" {
		limit = in.limit()
	}
	if p := in.done(); p != nil {
		return nil, p
	}
	page, next, p := h.eventPage(r.Context(), f, cursor, limit)
	if p != nil {
		return nil, p
	}
	if media != "" {
		return stream(func(w http.ResponseWriter) { h.streamEvents(w, r, media, f, page, next) }), nil
	}
	answer := struct {
		Events     []eventView `json:"events"`
		NextCursor *string     `json:"next_cursor"` // at the end, too: later there will be more
	}{make([]eventView, 0, len(page)), &next}
	if f.NewestFirst && next == "" {
		answer.NextCursor = nil // before the first there will never be one
	}
	for _, e := range page {
		answer.Events = append(answer.Events, viewEvent(e))
	}
	return answer, nil
}

func (h *Handler) eventPage(
	ctx context.Context, f tokenstore.EventFilter, cursor string, limit int,
) ([]tokenstore.Event, string, *guard.Problem) {
	page, next, err := h.cfg.Store.ListEvents(ctx, f, cursor, limit)
	if errors.Is(err, tokenstore.ErrBadCursor) {
		return nil, "", invalidRequest("Query parameter `cursor` is none that the audit log gave out.")
	}
	if err != nil {
		return nil, "", h.storeProblem(err)
	}
	if next == "" && !f.NewestFirst {
		next = tokenstore.EventCursor(0) // a cursor is a parameter that must not be empty
	}
	return page, next, nil
}

// lines returns the media type of JSON lines that the client asks for, empty if
// it does not.
func lines(r *http.Request) string {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			media, _, err := mime.ParseMediaType(part)
			if err == nil && (media == "application/jsonl" || media == "application/x-ndjson") {
				return media
			}
		}
	}
	return ""
}

// streamEvents writes page and all that comes after it, one event a line.
func (h *Handler) streamEvents(
	w http.ResponseWriter, r *http.Request, media string, f tokenstore.EventFilter, page []tokenstore.Event, next string,
) {
	header := w.Header()
	header.Set("Content-Type", media)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	out := &streamWriter{to: w, control: http.NewResponseController(w)}
	for {
		var b bytes.Buffer
		for _, e := range page {
			line, err := EventJSON(e)
			if err != nil {
				h.log.Error("event not encoded", zap.Error(err))
				panic(http.ErrAbortHandler)
			}
			b.Write(append(line, '\n'))
		}
		if _, err := out.Write(b.Bytes()); err != nil {
			return // the client has gone
		}
		if len(page) < maxLimit {
			break
		}
		var p *guard.Problem
		if page, next, p = h.eventPage(r.Context(), f, next, maxLimit); p != nil {
			panic(http.ErrAbortHandler) // so that it doesn't look like the end
		}
	}
	_ = out.control.SetWriteDeadline(time.Time{}) // the connection may serve on
}
