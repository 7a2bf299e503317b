package proxy

import (
	"context"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/spans"
	"github.com/lanyard-proxy/lanyard/metrics"
)

// timing is what a call has waited for Lanyard before its request went upstream,
// which after a refused token is twice.
type timing struct {
	since  time.Time     // when Lanyard was given something to do
	waited time.Duration // until the last time that it went upstream
	sent   bool          // it did
}

// goes notes that the request goes upstream now, and comes that there is an
// answer, or none.
func (t *timing) goes()  { t.waited, t.sent = t.waited+time.Since(t.since), true }
func (t *timing) comes() { t.since = time.Now() }

// answered counts a call that the upstream has answered.
func (h *Handler) answered(c *call, status int) {
	c.span.Status(status)
	h.count(c, metrics.StatusClass(status), status >= 500)
}

// failed counts a call that ends with this code, or without an answer.
func (h *Handler) failed(c *call, outcome string) { h.count(c, outcome, true) }

// failedUpstream counts a call that the upstream gave no answer to.
func (h *Handler) failedUpstream(c *call, err error) {
	if timedOut(err) {
		h.failed(c, "upstream_timeout")
		return
	}
	h.failed(c, "upstream_unreachable")
}

func (h *Handler) count(c *call, outcome string, failed bool) {
	integration := h.cfg.Integration
	if c.grant != nil {
		integration = c.grant.Integration
		c.span.Generation(c.grant.Token.Generation)
	}
	counts := h.cfg.Metrics.Of(integration)
	counts.Calls.Add(outcome)
	if c.timing.sent {
		counts.Added.Observe(c.timing.waited)
	}
	c.span.End(outcome, failed)
}

// begin begins the span of what is about to be sent.
func (c *call) begin(ctx context.Context) {
	c.span = spans.Start(ctx, spans.Call, c.grant.Integration)
}
