package dashboard

import (
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/revoke"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// done goes back to the connection's page, which says what has become of it.
func (v *visit) done(id, notice string) {
	v.seeOther(v.root() + "connections/" + id + "?done=" + notice)
}

// refresh renews the token now.
func (h *Handler) refresh(v *visit, id string) {
	ctx, cancel := detached(v.r)
	defer cancel()
	err := h.cfg.Refresher.Refresh(ctx, id, v.by())
	_, unavailable := errors.AsType[*tokenstore.UnavailableError](err)
	switch {
	case err == nil:
		h.changed(v, "connection refreshed", id)
		v.done(id, "refreshed")
	case errors.Is(err, tokenstore.ErrReconnect):
		v.done(id, "reconnect")
	case errors.Is(err, tokenstore.ErrNotActive):
		v.done(id, "inactive")
	case errors.Is(err, tokenstore.ErrNotRenewed):
		v.done(id, "unrenewable")
	case unavailable:
		v.done(id, "unavailable")
	default:
		h.fail(v, err)
	}
}

// toggle switches a connection off or on. Its credential stays.
func (h *Handler) toggle(v *visit, id string, disabled bool) {
	ctx, cancel := detached(v.r)
	defer cancel()
	what := "enabled"
	if disabled {
		what = "disabled"
	}
	_, err := h.cfg.Store.UpdateConnection(ctx, id, func(c *tokenstore.Connection) error {
		if c.Disabled == disabled {
			return tokenstore.ErrUnchanged
		}
		c.Disabled = disabled
		c.Happened(tokenstore.Event{Type: tokenstore.EventChanged, Reason: what, Actor: v.by()})
		return nil
	})
	if err != nil {
		h.fail(v, err)
		return
	}
	h.changed(v, "connection "+what, id)
	v.done(id, what)
}

type linkView struct {
	frame
	Row  row
	Link string
	Send string // to whom
	Ends string
}

// link makes a connect link and shows it once. No link leaves without its event.
func (h *Handler) link(v *visit, id string) {
	c, ok := h.find(v, id)
	if !ok {
		return
	}
	now := time.Now()
	r := h.row(v.lang, &c, now)
	if _, configured := h.cfg.Integrations[c.Integration]; c.Damaged || c.Disabled || !configured {
		h.refuse(v, noLink)
		return
	}
	link, expires := h.cfg.Links.Link(c, c.ReturnTo(h.cfg.RedirectURLs), "", nil, false)
	err := h.cfg.Audit.Record(v.r.Context(), tokenstore.Event{
		Type: tokenstore.EventLinked, Actor: v.by(), ConnectionID: c.ID, Integration: c.Integration, UserID: c.UserID,
	})
	if err != nil {
		h.fail(v, err)
		return
	}
	h.changed(v, "connect link made", id)
	end := at(v.lang, expires, now)
	h.render(v, http.StatusOK, "link", linkView{
		frame: h.frame(v, v.lang.Say("link.heading", "title", r.Title), "connections"), Row: r, Link: link,
		Send: v.lang.Say("link.send", "user", c.UserID), Ends: v.lang.Say("link.ends", "rel", end.Rel, "at", end.Text),
	})
}

// confirmView asks before something is done that can't be undone.
type confirmView struct {
	frame
	Row                  row
	Whose                string // account it is
	CSRF, Action, Cancel string
	Do                   string // what the button says
	Consequences         []string
}

// askDisconnect asks before disconnect.
func (h *Handler) askDisconnect(v *visit, id string) { h.ask(v, id, "disconnect") }

// askDelete asks before remove.
func (h *Handler) askDelete(v *visit, id string) { h.ask(v, id, "delete") }

func (h *Handler) ask(v *visit, id, action string) {
	c, ok := h.find(v, id)
	if !ok {
		return
	}
	l, key := v.lang, "ask."+action
	view := confirmView{
		frame: h.frame(v, l.Say(key), "connections"), Row: h.row(l, &c, time.Now()),
		CSRF: v.csrf, Action: action, Cancel: "../" + id, Do: l.Say(key + ".do"),
		Consequences: []string{l.Say(key + ".calls"), l.Say("ask.erased"), l.Say(key + ".record")},
	}
	view.Whose = view.Row.Title
	if c.UserID != "" {
		view.Whose = l.Say("ask.user", "title", view.Row.Title, "user", c.UserID)
	}
	h.render(v, http.StatusOK, "confirm", view)
}

// disconnect erases the credential.
func (h *Handler) disconnect(v *visit, id string) {
	ctx, cancel := detached(v.r)
	defer cancel()
	_, outcome, err := h.cfg.Revoker.Revoke(ctx, id, v.by())
	if err != nil {
		h.fail(v, err)
		return
	}
	h.changed(v, "connection revoked", id)
	switch {
	case outcome.Done:
		v.done(id, "revoked")
	case outcome.Pending:
		v.done(id, "pending")
	case outcome.Reason == revoke.ReasonShared:
		v.done(id, "shared")
	case outcome.Reason == revoke.ReasonNothing:
		v.done(id, "nothing")
	default:
		v.done(id, "left")
	}
}

// remove deletes a connection.
func (h *Handler) remove(v *visit, id string) {
	ctx, cancel := detached(v.r)
	defer cancel()
	_, outcome, err := h.cfg.Revoker.Delete(ctx, id, v.by(), true)
	if err != nil {
		h.fail(v, err)
		return
	}
	h.changed(v, "connection deleted", id)
	notice := "deleted"
	if outcome.Pending {
		notice = "deleted_later"
	}
	v.seeOther(v.root() + "?done=" + notice)
}

// changed records what an operator has done.
func (h *Handler) changed(v *visit, what, id string) {
	h.log.Info(what, zap.String("connection_id", id), zap.String("operator", v.user))
}
