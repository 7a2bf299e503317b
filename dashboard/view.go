package dashboard

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

// moment is an instant as pages show it: exactly, and as seen from now.
type moment struct {
	ISO  string // for <time datetime>; empty: there is none
	Text string // in UTC
	Rel  string // "in 12 min", "3 days ago"
}

func at(t, now time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	t = t.UTC()
	m := moment{ISO: t.Format(time.RFC3339), Text: t.Format("2 Jan 2006, 15:04:05 UTC")}
	switch d := t.Sub(now); {
	case d > -time.Second && d < time.Second:
		m.Rel = "now"
	case d > 0:
		m.Rel = "in " + span(d)
	default:
		m.Rel = span(-d) + " ago"
	}
	return m
}

// span says how long d is, in its largest unit or two.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < day:
		if m := d % time.Hour / time.Minute; m > 0 {
			return fmt.Sprintf("%d h %d min", d/time.Hour, m)
		}
		return fmt.Sprintf("%d h", d/time.Hour)
	case d < 2*day:
		return "1 day"
	}
	return fmt.Sprintf("%d days", d/day)
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
func (h *Handler) row(c *tokenstore.Connection, now time.Time) row {
	r := row{
		ID: c.ID, Short: short(c.ID), Integration: c.Integration, Title: c.Integration, Name: c.Name, UserID: c.UserID,
		Labels: pairs(c.Labels), Damaged: c.Damaged, Disabled: c.Disabled,
	}
	if c.Damaged {
		r.Title, r.Tile.Initial, r.Status = "Damaged record", "!", pill{"bad", "Damaged"}
		r.Reason, r.ReasonText, r.ExpiresText = "store_corrupt", reasons["store_corrupt"], "not known"
		return r
	}
	in, configured := h.cfg.Integrations[c.Integration]
	if configured && in.Title != "" {
		r.Title = in.Title
	}
	r.Tile = ui.ProviderTile(c.Provider, r.Title)
	r.Reason = h.reason(c)
	r.ReasonText = reasons[r.Reason]
	r.Status = status(c, r.Reason)
	r.Reconnect = configured && c.Connectable()
	r.Refreshed = at(c.LastRefreshedAt, now)
	used := c.LastUsedAt
	if t := h.cfg.Refresher.LastUsed(c.ID); t.After(used) {
		used = t
	}
	r.Used = at(used, now)
	r.expiry(c, now)
	return r
}

// expiry says when the access token ends.
func (r *row) expiry(c *tokenstore.Connection, now time.Time) {
	t := &c.Token
	switch {
	case t.AccessToken.IsZero():
		r.ExpiresText = "none is held"
	case t.ExpiryUnknown:
		r.ExpiresText = "not told by the provider"
	case t.ExpiresAt.IsZero():
		r.ExpiresText, r.Ring = "does not expire", &ring{Left: 100}
	default:
		r.Expires = at(t.ExpiresAt, now)
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
		if _, err := in.Hosts(c.Params); err != nil {
			return tokenstore.ReasonInvalidParameter
		}
	}
	return c.StatusReason
}

// status says in words what c is good for.
func status(c *tokenstore.Connection, reason string) pill {
	switch {
	case c.Disabled:
		return pill{"info", "Switched off"}
	case c.Status == tokenstore.StatusExpired:
		return pill{"bad", "Reconnect needed"}
	case c.Status == tokenstore.StatusRevoked:
		return pill{"info", "Disconnected"}
	case c.Status == tokenstore.StatusFailed:
		return pill{"warn", "Not connected"}
	case c.Status == tokenstore.StatusInitiated && c.Staged != nil:
		return pill{"info", "Waiting for the app"}
	case c.Status == tokenstore.StatusInitiated:
		return pill{"info", "Waiting for the user"}
	case reason == tokenstore.ReasonIntegrationMissing || reason == tokenstore.ReasonInvalidParameter:
		return pill{"warn", "Not configured"}
	case c.Intent != nil && c.Intent.Unknown > 0:
		return pill{"warn", "Retrying"}
	case reason != "":
		return pill{"warn", "Active, not renewable"}
	}
	return pill{"ok", "Active"}
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
