package dashboard

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

// eventView is a line of the audit log.
type eventView struct {
	Text         string
	Class        string // of the mark before it: none, n, w or e
	At           moment
	Who          string
	Detail       string
	ConnectionID string
	Short        string
	User         string
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
	view := eventsView{frame: h.frame(v, v.lang.Say("activity"), "events"), ConnectionID: f.ConnectionID, LiveAny: cursor == ""}
	now := time.Now()
	for i := range page {
		view.Events = append(view.Events, eventViewOf(v.lang, &page[i], now, true))
	}
	if next != "" {
		view.Older = link(next)
	}
	if cursor != "" {
		view.Newest = link("")
	}
	h.render(v, http.StatusOK, "events", view)
}

// eventViewOf returns how e is told; named: beside events of other connections.
func eventViewOf(l *ui.Lang, e *tokenstore.Event, now time.Time, named bool) eventView {
	v := eventView{Text: string(e.Type), Class: marks[e.Type], At: at(l, e.At, now), Who: who(l, e.Actor), Detail: e.Reason}
	if key := "event." + v.Text; l.Has(key) {
		v.Text = l.Say(key)
	}
	if e.Denied {
		v.Text = l.Say("event_refused", "what", v.Text)
	}
	if e.Count > 1 {
		v.Text += " × " + strconv.FormatUint(e.Count, 10)
	}
	if named {
		v.ConnectionID, v.Short, v.Integration = e.ConnectionID, short(e.ConnectionID), e.Integration
		if e.UserID != "" {
			v.User = l.Say("event_user", "user", e.UserID)
		}
	}
	return v
}

// who says by whom something was done, and from where.
func who(l *ui.Lang, a tokenstore.Actor) string {
	var parts []string
	key := "by." + a.Kind
	switch {
	case a.Name != "" && l.Has(key+".named"):
		parts = append(parts, l.Say(key+".named", "name", a.Name))
	case a.Name != "":
		parts = append(parts, l.Say("by.other.named", "name", a.Name))
	case l.Has(key):
		parts = append(parts, l.Say(key))
	}
	if a.From != "" {
		parts = append(parts, l.Say("by.from", "address", a.From))
	}
	return strings.Join(parts, " ")
}
