package dashboard

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

// moment is an instant as pages show it: exactly, and as seen from now.
type moment struct {
	ISO  string // for <time datetime>; empty: there is none
	Text string // in UTC
	Rel  string // "in 12 min", "3 days ago", "never"
}

func at(l *ui.Lang, t, now time.Time) moment {
	if t.IsZero() {
		return moment{Rel: l.Say("never")}
	}
	t = t.UTC()
	m := moment{ISO: t.Format(time.RFC3339), Text: l.Say("instant", "date", l.Date(t), "time", t.Format(time.TimeOnly))}
	switch d := t.Sub(now); {
	case d > -time.Second && d < time.Second:
		m.Rel = l.Say("now")
	case d > 0:
		m.Rel = l.Say("in", "span", span(l, d))
	default:
		m.Rel = l.Say("ago", "span", span(l, -d))
	}
	return m
}

// span says how long d is, in its largest unit or two, as it is said behind "in".
func span(l *ui.Lang, d time.Duration) string {
	const day = 24 * time.Hour
	number := func(d time.Duration) string { return strconv.Itoa(int(d)) }
	switch {
	case d < time.Minute:
		return l.Say("span.seconds", "n", number(d/time.Second))
	case d < time.Hour:
		return l.Say("span.minutes", "n", number(d/time.Minute))
	case d < day:
		hours := number(d / time.Hour)
		if m := d % time.Hour / time.Minute; m > 0 {
			return l.Say("span.hours_minutes", "n", hours, "minutes", number(m))
		}
		return l.Say("span.hours", "n", hours)
	}
	return l.Count("span.days", int(d/day))
}

// pill is a status in words. Its class gives it a shape and a colour.
type pill struct{ Class, Text string }

// ring is how much of an access token's life is left.
type ring struct {
	Class string // none: much; w: little; x: nearly nothing
	Left  int    // of 100
}

// row is a connection as the list shows it, and as the top of its own page.
type row struct {
	ID, Short    string
	Title        string // of the provider
	Tile         ui.Tile
	Integration  string
	Name, UserID string
	Labels       []string // k=v
	Damaged      bool
	Disabled     bool
	Status       pill
	Reason       string // a code
	ReasonText   string
	Ring         *ring
	Expires      moment
	ExpiresText  string // where there is no moment
	Refreshed    moment
	Used         moment
	Reconnect    bool // a link would help it
}

// row returns how c is shown. It has no place for a token.
func (h *Handler) row(l *ui.Lang, c *tokenstore.Connection, now time.Time) row {
	r := row{
		ID: c.ID, Short: short(c.ID), Integration: c.Integration, Title: c.Integration, Name: c.Name, UserID: c.UserID,
		Labels: pairs(c.Labels), Damaged: c.Damaged, Disabled: c.Disabled,
	}
	never := at(l, time.Time{}, now)
	if c.Damaged {
		r.Title, r.Tile.Initial, r.Status = l.Say("damaged.title"), "!", pill{"bad", l.Say("status.damaged")}
		r.Reason, r.ExpiresText, r.Refreshed, r.Used = "store_corrupt", l.Say("expiry.unread"), never, never
		r.ReasonText = reasonText(l, r.Reason)
		return r
	}
	in, configured := h.cfg.Integrations[c.Integration]
	if configured && in.Title != "" {
		r.Title = in.Title
	}
	r.Tile = ui.ProviderTile(c.Provider, r.Title)
	r.Reason = h.reason(c)
	r.ReasonText = reasonText(l, r.Reason)
	class, key := status(c, r.Reason)
	r.Status = pill{class, l.Say("status." + key)}
	r.Reconnect = configured && c.Connectable()
	r.Refreshed = at(l, c.LastRefreshedAt, now)
	used := c.LastUsedAt
	if t := h.cfg.Refresher.LastUsed(c.ID); t.After(used) {
		used = t
	}
	r.Used = at(l, used, now)
	r.expiry(l, &c.Token, now)
	return r
}

// expiry says when the access token ends.
func (r *row) expiry(l *ui.Lang, t *tokenstore.Token, now time.Time) {
	switch {
	case t.AccessToken.IsZero():
		r.ExpiresText = l.Say("expiry.none")
	case t.ExpiryUnknown:
		r.ExpiresText = l.Say("expiry.unknown")
	case t.ExpiresAt.IsZero():
		r.ExpiresText, r.Ring = l.Say("expiry.never"), &ring{Left: 100}
	default:
		r.Expires = at(l, t.ExpiresAt, now)
		life, left := t.ExpiresAt.Sub(t.IssuedAt), t.ExpiresAt.Sub(now)
		share := 0
		if life > 0 {
			share = int(100 * max(min(left, life), 0) / life)
		}
		r.Ring = &ring{Left: share}
		switch {
		case share < 10:
			r.Ring.Class = "x"
		case share < 25:
			r.Ring.Class = "w"
		}
	}
}

// reason returns why c is in its state: a code, or nothing.
func (h *Handler) reason(c *tokenstore.Connection) string {
	in, ok := h.cfg.Integrations[c.Integration]
	if !ok {
		return tokenstore.ReasonIntegrationMissing
	}
	if in.Hosts != nil {
		_, reason := in.Hosts(c.Params, &c.Token)
		if reason == tokenstore.ReasonInvalidParameter || reason != "" && c.Status == tokenstore.StatusActive {
			return reason
		}
	}
	if cmp.Or(c.AuthScheme, tokenstore.AuthOAuth2) != in.Scheme {
		return tokenstore.ReasonSchemeChanged
	}
	return c.StatusReason
}

// status says what c is good for: the class of the pill, and the key of its text.
func status(c *tokenstore.Connection, reason string) (class, key string) {
	switch {
	case c.Disabled:
		return "info", "disabled"
	case c.Status == tokenstore.StatusExpired, c.Status == tokenstore.StatusActive && (reason == tokenstore.ReasonSchemeChanged || reason == tokenstore.ReasonAPIUnknown):
		return "bad", "expired"
	case c.Status == tokenstore.StatusRevoked:
		return "info", "revoked"
	case c.Status == tokenstore.StatusFailed:
		return "warn", "failed"
	case c.Status == tokenstore.StatusInitiated && c.Staged != nil:
		return "info", "staged"
	case c.Status == tokenstore.StatusInitiated:
		return "info", "initiated"
	case reason == tokenstore.ReasonIntegrationMissing || reason == tokenstore.ReasonInvalidParameter:
		return "warn", "unconfigured"
	case c.Intent != nil && c.Intent.Unknown > 0:
		return "warn", "retrying"
	case reason != "":
		return "warn", "unrenewable"
	}
	return "ok", "active"
}

// short keeps an ID's beginning and end, for tables.
func short(id string) string {
	if len(id) <= 18 {
		return id
	}
	return id[:11] + "…" + id[len(id)-4:]
}

// pairs returns a map as sorted lines k=v.
func pairs(m map[string]string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+m[k])
	}
	return list
}
