package refresh

import (
	"errors"

	"github.com/lanyard-proxy/lanyard/internal/spans"
	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// trail is what a flight leaves for metrics and traces.
type trail struct {
	from  spans.Origin // the request that had it begin
	asked bool         // the provider was asked, or was to be
	span  spans.Span
}

func (t *trail) begin(integration string) {
	t.asked, t.span = true, t.from.Start(spans.Refresh, integration)
}

// count counts a flight that asked the provider, and ends its span.
func (r *Refresher) count(f *flight, g *tokenstore.Grant, err error) {
	if !f.trail.asked {
		return
	}
	result := resultOf(err)
	r.cfg.Metrics.Of(f.of.Integration).Refreshes.Add(result)
	if err == nil {
		f.trail.span.Generation(g.Token.Generation)
	}
	f.trail.span.End(result, err != nil)
}

// resultOf returns what metrics call the outcome of a flight.
func resultOf(err error) string {
	if un, ok := errors.AsType[*tokenstore.UnavailableError](err); ok {
		err = un.Cause
	}
	refusal, refused := errors.AsType[*tokenstore.RefusalError](err)
	switch {
	case err == nil:
		return metrics.RefreshOK
	case errors.Is(err, tokenstore.ErrReconnect):
		return metrics.RefreshDead
	case hasMoved(err), errors.Is(err, tokenstore.ErrNotActive):
		return metrics.RefreshMoved
	case refused && refusal.Kind == tokenstore.RefusedClient:
		return metrics.RefreshClient
	case refused:
		return metrics.RefreshRefused
	case errors.Is(err, tokenstore.ErrNotSent):
		return metrics.RefreshNotSent
	case errors.Is(err, tokenstore.ErrOutcomeUnknown):
		return metrics.RefreshUnknown
	case storeFailed(err):
		return metrics.RefreshUnstored
	}
	return metrics.Other
}
