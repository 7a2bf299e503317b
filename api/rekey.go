package api

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Rekeying says how far re-sealing is.
type Rekeying struct {
	// State is `idle` (everything is under the primary key), `needed` (not
	// everything, and nobody has begun), `running`, or `done`.
	State string `json:"state"`
	Total int    `json:"total"` // records to be under the primary key
	Done  int    `json:"done"`  // of them, those that are
	// Damaged is how many can't be opened, and so not be sealed again either.
	Damaged int `json:"damaged"`
	// Error is why it doesn't get on, empty if it does. It is tried again.
	Error string `json:"error,omitempty"`
}

func (h *Handler) rekey(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	if err := h.cfg.Audit.Record(r.Context(), tokenstore.Event{Type: tokenstore.EventRekey, Actor: in.by}); err != nil {
		return nil, h.storeProblem(err)
	}
	if err := h.cfg.Keeper.Rekey(r.Context()); err != nil {
		return nil, h.storeProblem(err)
	}
	now := h.cfg.Keeper.Rekeying()
	h.log.Info("rekey asked for", zap.String("state", now.State))
	return now, nil
}

func (h *Handler) rekeying(_ *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	return h.cfg.Keeper.Rekeying(), nil
}
