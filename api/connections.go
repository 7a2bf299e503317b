package api

import (
	"errors"
	"net/http"
	"slices"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// get shows one connection.
func (h *Handler) get(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	c, err := h.cfg.Store.Connection(r.Context(), in.id)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	return h.single(c), nil
}

// The sizes of a page of a list.
const (
	defaultLimit = 50
	maxLimit     = 200
)

// list shows one page of the connections.
func (h *Handler) list(r *http.Request, in *input) (any, *guard.Problem) {
	var f tokenstore.Filter
	f.UserID, _ = in.param("user_id", maxUserID)
	f.Integration, _ = in.param("integration", maxName)
	if status, given := in.param("status", maxName); given {
		f.Status = tokenstore.Status(status)
		if !slices.Contains(statuses, f.Status) {
			in.refuse(invalidRequest("Query parameter `status` is none of INITIATED, ACTIVE, EXPIRED, FAILED, REVOKED."))
		}
	}
	f.Labels = in.labelFilter()
	cursor, _ := in.param("cursor", maxCursor)
	limit := in.limit()
	if p := in.done(); p != nil {
		return nil, p
	}
	page, next, err := h.cfg.Store.ListConnections(r.Context(), f, cursor, limit)
	if errors.Is(err, tokenstore.ErrBadCursor) {
		return nil, invalidRequest("Query parameter `cursor` is none that a list gave out.")
	}
	if err != nil {
		return nil, h.storeProblem(err)
	}
	answer := struct {
		Connections []any   `json:"connections"` // connectionView, or damagedView
		NextCursor  *string `json:"next_cursor"` // null at the end
	}{Connections: make([]any, 0, len(page))}
	for _, c := range page {
		if c.Damaged {
			answer.Connections = append(answer.Connections, viewDamaged(c))
			continue
		}
		answer.Connections = append(answer.Connections, h.view(c))
	}
	if next != "" {
		answer.NextCursor = &next
	}
	return answer, nil
}

var statuses = []tokenstore.Status{
	tokenstore.StatusInitiated, tokenstore.StatusActive, tokenstore.StatusExpired,
	tokenstore.StatusFailed, tokenstore.StatusRevoked,
}

// refresh renews the token now.
func (h *Handler) refresh(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	refused := h.cfg.Refresher.Refresh(r.Context(), in.id, in.by)
	c, err := h.cfg.Store.Connection(r.Context(), in.id)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	if refused != nil {
		return nil, h.refreshProblem(refused, c)
	}
	h.changed("connection refreshed", c)
	return h.single(c), nil
}

// changed records a change of a connection.
func (h *Handler) changed(what string, c tokenstore.Connection) {
	h.log.Info(what, zap.String("connection_id", c.ID), zap.String("integration", c.Integration))
}
