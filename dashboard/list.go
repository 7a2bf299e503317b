package dashboard

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

const (
	// pageSize is how many connections a page of the list shows.
	pageSize = 50
	// maxFilter bounds each value that a list is filtered by, in bytes.
	maxFilter = 512
	// countUpTo bounds what is counted, so that a page costs the same however
	// many connections there are.
	countUpTo = 99
)

// tab is one of the filters that stand above the list.
type tab struct {
	Text    string
	Link    string
	Count   string // empty: not counted
	Current bool
}

type option struct {
	Value, Text string
	Selected    bool
}

type listView struct {
	frame
	Tabs         []tab
	Query        string // what stands in the search field
	Integrations []option
	Status       string
	Clear        string // a link without filters, empty where there is none to clear
	Rows         []row
	Next, First  string // links, empty where there is none
	LiveAny      bool
}

// statusTabs are the tabs, in their order.
var statusTabs = []struct {
	key    string // of its text
	status tokenstore.Status
}{
	{"tab.expired", tokenstore.StatusExpired},
	{"tab.all", ""},
	{"tab.active", tokenstore.StatusActive},
	{"tab.initiated", tokenstore.StatusInitiated},
	{"tab.failed", tokenstore.StatusFailed},
	{"tab.revoked", tokenstore.StatusRevoked},
}

// list shows a page of connections, oldest first.
func (h *Handler) list(v *visit) {
	q := v.r.URL.Query()
	if search := strings.TrimSpace(q.Get("q")); search != "" {
		v.seeOther(searched(q, search))
		return
	}
	f, ok := filterOf(q)
	if !ok {
		h.refuse(v, badQuery)
		return
	}
	page, next, err := h.cfg.Store.ListConnections(v.r.Context(), f, q.Get("cursor"), pageSize)
	if errors.Is(err, tokenstore.ErrBadCursor) {
		h.refuse(v, badQuery)
		return
	}
	if err != nil {
		h.fail(v, err)
		return
	}
	view := listView{
		frame: h.frame(v, v.lang.Say("connections"), "connections"), Query: queryText(&f), Status: string(f.Status),
		Integrations: h.integrationOptions(v.lang, f.Integration), LiveAny: next == "",
	}
	if view.Tabs, err = h.tabs(v, q, f.Status); err != nil {
		h.fail(v, err)
		return
	}
	now := time.Now()
	for i := range page {
		view.Rows = append(view.Rows, h.row(v.lang, &page[i], now))
	}
	if next != "" {
		view.Next = with(q, "cursor", next)
	}
	if q.Get("cursor") != "" {
		view.First = with(q, "cursor", "")
	}
	if f.UserID != "" || f.Integration != "" || len(f.Labels) > 0 {
		view.Clear = with(url.Values{}, "status", string(f.Status))
	}
	h.render(v, http.StatusOK, "list", view)
}

// searched returns where the search field leads: to the connection with this ID,
// to those with this label, or to this user's.
func searched(q url.Values, search string) string {
	if tokenstore.IsID(search) {
		return "./connections/" + search
	}
	name := "user"
	// A user's ID may end with = where it is base64.
	if k, value, pair := strings.Cut(search, "="); pair && k != "" && strings.Trim(value, "=") != "" {
		name = "label"
	}
	q = maps.Clone(q)
	for _, old := range []string{"q", "user", "label", "cursor"} {
		q.Del(old)
	}
	return with(q, name, search)
}

// with returns the link to the list with one parameter set, or none of it if the
// value is empty, and what is empty left out.
func with(q url.Values, name, value string) string {
	q = maps.Clone(q)
	q.Set(name, value)
	if name != "cursor" {
		q.Del("cursor")
	}
	q.Del("done")
	for k, values := range q {
		if values = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" }); len(values) == 0 {
			delete(q, k)
		} else {
			q[k] = values
		}
	}
	if len(q) == 0 {
		return "./"
	}
	return "./?" + q.Encode()
}

// filterOf reads the filters of a query, and reports whether they can be.
func filterOf(q url.Values) (f tokenstore.Filter, ok bool) {
	f = tokenstore.Filter{UserID: q.Get("user"), Integration: q.Get("integration"), Status: tokenstore.Status(q.Get("status"))}
	for _, label := range q["label"] {
		k, value, pair := strings.Cut(label, "=")
		if label == "" {
			continue
		}
		if !pair || k == "" || len(label) > maxFilter {
			return f, false
		}
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		f.Labels[k] = value
	}
	known := slices.ContainsFunc(statusTabs, func(t struct {
		key    string
		status tokenstore.Status
	},
	) bool {
		return t.status == f.Status
	})
	return f, known && max(len(f.UserID), len(f.Integration), len(q.Get("cursor"))) <= maxFilter
}

// queryText is what the search field says of a filter.
func queryText(f *tokenstore.Filter) string {
	if labels := pairs(f.Labels); len(labels) > 0 {
		return labels[0]
	}
	return f.UserID
}

// tabs returns the tabs with this status. Only what needs somebody is counted.
func (h *Handler) tabs(v *visit, q url.Values, current tokenstore.Status) ([]tab, error) {
	var tabs []tab
	for _, t := range statusTabs {
		one := tab{Text: v.lang.Say(t.key), Link: with(q, "status", string(t.status)), Current: t.status == current}
		if t.status == tokenstore.StatusExpired {
			some, _, err := h.cfg.Store.ListConnections(v.r.Context(), tokenstore.Filter{Status: t.status}, "", countUpTo+1)
			if err != nil {
				return nil, err
			}
			one.Count = upTo(len(some), countUpTo)
		}
		tabs = append(tabs, one)
	}
	return tabs, nil
}

// integrationOptions are the configured integrations, to choose one from.
func (h *Handler) integrationOptions(l *ui.Lang, current string) []option {
	options := []option{{Text: l.Say("list.all_integrations"), Selected: current == ""}}
	names := slices.Sorted(maps.Keys(h.cfg.Integrations))
	if current != "" && !slices.Contains(names, current) { // one that was taken out keeps its connections
		names = append(names, current)
	}
	for _, name := range names {
		options = append(options, option{Value: name, Text: name, Selected: name == current})
	}
	return options
}
