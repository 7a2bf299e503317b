package dashboard

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

const (
	// historyEvents is how many events of a connection its page is made from.
	historyEvents = 200
	// maxBars is how many refreshes are shown.
	maxBars = 60
	// maxActivity is how many events a connection's page tells.
	maxActivity = 20
)

type fact struct {
	Name, Text string
	Mono       bool
	At         moment
	Link       string
}

type scopeView struct {
	Text, Name string
	Missing    bool
}

// bar is one refresh in the picture of them.
type bar struct {
	X, Y, Height int
	Class        string // none: it worked; w: it failed; e: the provider ended the access
}

type detailView struct {
	frame
	Row            row
	CSRF           string
	Facts          []fact
	Scopes         []scopeView
	Granted        string // how many of those asked for
	Metadata       string
	Bars           []bar
	Width          int // of the picture, in its own units
	BarsLabel      string
	BarsFrom       moment
	BarsTo         moment
	Events         []eventView
	More           string // a link to the rest of the events
	Refreshable    bool
	Disconnectable bool
}

// detail shows one connection.
func (h *Handler) detail(v *visit, id string) {
	c, ok := h.find(v, id)
	if !ok {
		return
	}
	events, next, err := h.cfg.Store.ListEvents(
		v.r.Context(), tokenstore.EventFilter{ConnectionID: id, NewestFirst: true}, "", historyEvents)
	if err != nil {
		h.fail(v, err)
		return
	}
	now := time.Now()
	l := v.lang
	view := detailView{Row: h.row(l, &c, now), CSRF: v.csrf, Metadata: c.Metadata}
	title := view.Row.Title
	if c.UserID != "" {
		title = l.Say("detail.title", "title", title, "user", c.UserID)
	}
	view.frame = h.frame(v, title, "connections")
	view.Facts = h.facts(v, &c, &view.Row, now)
	view.scopes(&c, h.cfg.Integrations[c.Integration].ScopeText)
	view.history(l, events, now)
	for i := range events[:min(len(events), maxActivity)] {
		view.Events = append(view.Events, eventViewOf(l, &events[i], now, false))
	}
	if len(events) > maxActivity || next != "" {
		view.More = v.root() + "events?connection_id=" + id
	}
	view.Refreshable = !c.Damaged && !c.Disabled && c.Status == tokenstore.StatusActive && !c.Token.RefreshToken.IsZero()
	view.Disconnectable = !c.Damaged && c.Status != tokenstore.StatusRevoked
	h.render(v, http.StatusOK, "detail", view)
}

// find returns a connection, or a Damaged one where the record can't be opened.
// It has answered already if it returns false.
func (h *Handler) find(v *visit, id string) (tokenstore.Connection, bool) {
	c, err := h.cfg.Store.Connection(v.r.Context(), id)
	if isCorrupt(err) {
		return tokenstore.Connection{ID: id, Damaged: true}, true
	}
	if err != nil {
		h.fail(v, err)
	}
	return c, err == nil
}

// facts are what there is to know of c.
func (h *Handler) facts(v *visit, c *tokenstore.Connection, r *row, now time.Time) []fact {
	var facts []fact
	add := func(name, text string, mono bool) {
		if text != "" {
			facts = append(facts, fact{Name: v.lang.Say("fact." + name), Text: text, Mono: mono})
		}
	}
	when := func(name string, m moment) {
		if m.ISO != "" {
			facts = append(facts, fact{Name: v.lang.Say("fact." + name), At: m})
		}
	}
	if c.Damaged {
		add("id", c.ID, true)
		return facts
	}
	facts = append(facts, fact{Name: v.lang.Say("fact.user"), Text: c.UserID, Link: userLink(v.root(), c.UserID)})
	add("name", c.Name, false)
	add("account", c.Account.Name, false)
	add("email", c.Account.Email, false)
	add("account_id", c.Account.ID, true)
	for _, label := range r.Labels {
		add("label", label, false)
	}
	for _, param := range pairs(c.Params) {
		add("param", param, false)
	}
	for _, told := range pairs(c.Token.Metadata) {
		add("told", told, false)
	}
	add("id", c.ID, true)
	add("integration", c.Integration, true)
	add("provider", c.Provider, true)
	add("scheme", c.AuthScheme, true)
	if hosts := h.cfg.Integrations[c.Integration].Hosts; hosts != nil {
		list, _ := hosts(c.Params, &c.Token) // what is wrong is told by the status
		for _, host := range list {
			add("host", host, true)
		}
	}
	when("ends", r.Expires)
	add("token", r.ExpiresText, false)
	renewal := "no"
	if !c.Token.RefreshToken.IsZero() {
		renewal = "yes"
	}
	add("renewal", v.lang.Say(renewal), false)
	when("refresh_ends", at(v.lang, c.Token.RefreshExpiresAt, now))
	add("generation", strconv.FormatUint(c.Token.Generation, 10), false)
	when("created", at(v.lang, c.CreatedAt, now))
	when("connected", at(v.lang, c.ConnectedAt, now))
	when("refreshed", r.Refreshed)
	when("used", r.Used)
	return facts
}

// scopes tells what was asked for, and what of it was granted.
func (d *detailView) scopes(c *tokenstore.Connection, text func(string) string) {
	words := func(scope string) string {
		if text == nil {
			return ""
		}
		return ui.ScopeText(d.Lang, c.Provider, scope, text(scope))
	}
	missing := c.MissingScopes()
	if asked := len(c.RequestedScopes); asked > 0 {
		d.Granted = d.Say("scopes.count", "n", strconv.Itoa(asked-len(missing)), "all", strconv.Itoa(asked))
	}
	for _, s := range c.RequestedScopes {
		d.Scopes = append(d.Scopes, scopeView{words(s), s, slices.Contains(missing, s)})
	}
	for _, s := range c.Token.Scopes {
		if !slices.Contains(c.RequestedScopes, s) {
			d.Scopes = append(d.Scopes, scopeView{words(s), s, false})
		}
	}
}

// history draws the last refreshes; events are newest first.
func (d *detailView) history(l *ui.Lang, events []tokenstore.Event, now time.Time) {
	classes := map[tokenstore.EventType]string{
		tokenstore.EventRefreshed: "", tokenstore.EventRefreshFailed: "w", tokenstore.EventExpired: "e",
	}
	var drawn []tokenstore.Event
	for _, e := range events {
		if _, ok := classes[e.Type]; ok && len(drawn) < maxBars {
			drawn = append(drawn, e)
		}
	}
	if len(drawn) == 0 {
		return
	}
	slices.Reverse(drawn)
	d.BarsFrom, d.BarsTo = at(l, drawn[0].At, now), at(l, drawn[len(drawn)-1].At, now)
	worked := 0
	for i, e := range drawn {
		b := bar{X: 12 * i, Y: 40, Height: 44, Class: classes[e.Type]}
		if b.Class == "" {
			worked++
		} else {
			b.Y, b.Height = 4, 80
		}
		d.Bars = append(d.Bars, b)
	}
	d.Width = 12 * maxBars
	d.BarsLabel = l.Say("refreshes.worked", "worked", strconv.Itoa(worked), "n", strconv.Itoa(len(drawn)),
		"from", d.BarsFrom.Text, "to", d.BarsTo.Text)
}
