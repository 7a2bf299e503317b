package connect

import (
	"context"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// finish ends a taken flow with its outcome, unless it has one.
func (h *Handler) finish(ctx context.Context, f *tokenstore.Flow, outcome string, by tokenstore.Actor) error {
	var first bool
	_, err := h.cfg.Store.UpdateFlow(ctx, f.ID, func(f *tokenstore.Flow) error {
		if first = f.Stage != tokenstore.FlowFinished; !first { // the first outcome stands
			return tokenstore.ErrUnchanged
		}
		f.Finish(outcome)
		if outcome != outcomeConnected {
			f.Happened(ended(f, outcome, by))
		}
		return nil
	})
	if err == nil && first {
		h.cfg.Metrics.Of(f.Integration).Flows.Add(outcome)
	}
	return err
}
