package dashboard

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// eventView is a line of the audit log.
type eventView struct {
	kind
	At           moment
	Type         tokenstore.EventType
	Who          string
	Detail       string
	Denied       bool
	Count        uint64
	ConnectionID string
	Short        string
	UserID       string
	Integration  string
}

type eventsView struct {
	frame
	ConnectionID string
	Events       []eventView
	Older        string // links, empty where there is none
	Newest       string
	LiveAny      bool
}

// events shows the audit log, newest first.
func (h *Handler) events(v *visit) {
	q := v.r.URL.Query()
	f := tokenstore.EventFilter{ConnectionID: q.Get("connection_id"), NewestFirst: true}
	if f.ConnectionID != "" && !tokenstore.IsID(f.ConnectionID) {
		h.refuse(v, badQuery)
		return
	}
	cursor := q.Get("cursor")
	page, next, err := h.cfg.Store.ListEvents(v.r.Context(), f, cursor, pageSize)
	if errors.Is(err, tokenstore.ErrBadCursor) {
		h.refuse(v, badQuery)
		return
	}
	if err != nil {
		h.fail(v, err)
		return
	}
	link := func(cursor string) string {
		q := url.Values{}
		if f.ConnectionID != "" {
			q.Set("connection_id", f.ConnectionID)
		}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		return strings.TrimSuffix("events?"+q.Encode(), "?")
	}
	view := eventsView{frame: h.frame(v, "Activity", "events"), ConnectionID: f.ConnectionID, LiveAny: cursor == ""}
	now := time.Now()
	for i := range page {
		view.Events = append(view.Events, h.eventView(&page[i], now, true))
	}
	if next != "" {
		view.Older = link(next)
	}
	if cursor != "" {
		view.Newest = link("")
	}
	h.render(v, http.StatusOK, "events", view)
}

// eventView returns how e is told; named: beside events of other connections.
func (h *Handler) eventView(e *tokenstore.Event, now time.Time, named bool) eventView {
	v := eventView{kind: kinds[e.Type], At: at(e.At, now), Type: e.Type, Denied: e.Denied, Count: max(e.Count, 1)}
	if v.Text == "" {
		v.Text = string(e.Type)
	}
	if named {
		v.ConnectionID, v.Short, v.UserID, v.Integration = e.ConnectionID, short(e.ConnectionID), e.UserID, e.Integration
	}
	v.Who = actors[e.Actor.Kind]
	switch {
	case e.Actor.Name == "":
	case e.Actor.Kind == tokenstore.ActorAPIKey:
		v.Who += " (" + e.Actor.Name + ")"
	default:
		v.Who = strings.TrimSpace(v.Who + " " + e.Actor.Name)
	}
	if e.Actor.From != "" {
		v.Who = strings.TrimSpace(v.Who + " from " + e.Actor.From)
	}
	v.Detail = e.Reason
	return v
}
