package proxy

import (
	"cmp"
	"context"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// noteRefusal writes down that a call was refused, if p is what a caller can
// bring about that may not call. What is only the state of things is no event.
func (h *Handler) noteRefusal(ctx context.Context, c *call, p *guard.Problem) {
	if h.cfg.Audit == nil {
		return
	}
	e := tokenstore.Event{Type: tokenstore.EventCallRefused, Actor: c.actor(), Reason: cmp.Or(c.reason, p.Code)}
	switch p.Code {
	case "key_required", "rate_limited":
		e.Type, e.Reason = tokenstore.EventKeyRefused, "proxy"
	case "connection_not_found":
		e.Reason = cmp.Or(c.reason, "connection_unknown")
	case "not_allowed", "host_not_allowed", "browser_request_blocked", "host_invalid":
	default:
		return
	}
	if tokenstore.IsID(c.id) {
		e.ConnectionID = c.id
	}
	if c.grant != nil {
		e.Integration, e.UserID = c.grant.Integration, c.grant.UserID
	}
	h.cfg.Audit.Refused(ctx, e)
}

// noteUse writes down who uses a token, the first time, before it goes out.
func (h *Handler) noteUse(ctx context.Context, c *call) {
	g := c.grant
	if h.cfg.Audit == nil || g.Uses == nil || !g.Uses.First(c.who.Name) {
		return
	}
	h.cfg.Audit.Used(ctx, tokenstore.Event{
		Type: tokenstore.EventUsed, ConnectionID: g.ConnectionID, Integration: g.Integration, UserID: g.UserID, Actor: c.actor(),
	}, func() { g.Uses.Forget(c.who.Name) }) // the next call tells it
}

// actor is who makes the call.
func (c *call) actor() tokenstore.Actor {
	who := c.who
	who.From = guard.From(c.in)
	return who
}
