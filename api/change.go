package api

import (
	"maps"
	"net/http"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// change is what a PATCH says; nil fields stay as they are.
type change struct {
	name, metadata *string
	labels         map[string]string
	relabel        bool
	disabled       *bool
}

// patch changes what is the app's own of a connection, whatever its status.
func (h *Handler) patch(r *http.Request, in *input) (any, *guard.Problem) {
	var ch change
	empty := ""
	if in.null("name") {
		ch.name = &empty
	} else if name, given := in.text("name", maxName); given {
		ch.name = &name
	}
	switch _, given := in.body["metadata"]; {
	case in.null("metadata"):
		ch.metadata = &empty
	case given:
		metadata := in.metadata()
		ch.metadata = &metadata
	}
	_, given := in.body["labels"]
	if ch.relabel = given; given && !in.null("labels") {
		ch.labels = in.object("labels")
	}
	if disabled, given := in.flag("disabled"); given {
		ch.disabled = &disabled
	}
	if p := in.done(); p != nil {
		return nil, p
	}
	ctx, cancel := detached(r)
	defer cancel()
	changed := false
	c, err := h.cfg.Store.UpdateConnection(ctx, in.id, func(c *tokenstore.Connection) error {
		if changed = ch.into(c, in.by); !changed {
			return tokenstore.ErrUnchanged
		}
		return nil
	})
	if err != nil {
		return nil, h.storeProblem(err)
	}
	if changed {
		h.changed("connection changed", c)
	}
	return h.single(c), nil
}

// into changes c, notes what happened, and reports whether anything did.
func (ch *change) into(c *tokenstore.Connection, by tokenstore.Actor) bool {
	told := false
	if ch.name != nil && *ch.name != c.Name {
		c.Name, told = *ch.name, true
	}
	if ch.metadata != nil && *ch.metadata != c.Metadata {
		c.Metadata, told = *ch.metadata, true
	}
	if ch.relabel && !maps.Equal(ch.labels, c.Labels) {
		c.Labels, told = ch.labels, true
	}
	if told {
		c.Happened(tokenstore.Event{Type: tokenstore.EventChanged, Actor: by})
	}
	if ch.disabled == nil || *ch.disabled == c.Disabled {
		return told
	}
	c.Disabled = *ch.disabled
	reason := reasonEnabled
	if c.Disabled {
		reason = reasonDisabled
	}
	c.Happened(tokenstore.Event{Type: tokenstore.EventChanged, Actor: by, Reason: reason})
	return true
}
