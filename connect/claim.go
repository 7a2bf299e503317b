package connect

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A flow is worked on by one Handler at a time: in this process that is kept by
// Handler.active, and among the processes of a shared store by a lease. What must
// happen once is kept by the flow itself, which moves forward only.

const (
	// flowHold outlives a code exchange: a flow that is taken, has no answer, and
	// is nobody's, is one whose process has ended.
	flowHold = exchangeLimit + accountLimit
	// claimLimit bounds asking for the lease.
	claimLimit = 5 * time.Second
	// claimPause is how often it is asked for again where it is waited for.
	claimPause = 250 * time.Millisecond
)

// Errors of claim beside the store's.
var (
	errClosing = errors.New("handler is closing")
	errBusy    = errors.New("flow is worked on here")
)

// claim begins the work on a flow, until leave. It returns errBusy where this
// Handler works on it already, and tokenstore.ErrLeased where another one does.
func (h *Handler) claim(ctx context.Context, flowID string) (*tokenstore.Hold, error) {
	began, closing := h.enter(flowID)
	switch {
	case closing:
		return nil, errClosing
	case !began:
		return nil, errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, claimLimit)
	defer cancel()
	hold, err := tokenstore.TakeHold(ctx, h.cfg.Store, "flow/"+flowID, flowHold)
	if err != nil {
		h.leave(flowID)
		return nil, err
	}
	h.mu.Lock()
	h.active[flowID].hold = hold
	h.mu.Unlock()
	return hold, nil
}

// anothers reports whether claim's error says that the flow needs no more work of
// this Handler now.
func anothers(err error) bool {
	return errors.Is(err, errBusy) || errors.Is(err, errClosing) || errors.Is(err, tokenstore.ErrLeased)
}

// holdOf returns the lease of a flow that is worked on here.
func (h *Handler) holdOf(flowID string) *tokenstore.Hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.active[flowID].hold
}

// claimForm is claim for a form that was sent. While another process is at one of
// the same flow it waits: what that brings decides what becomes of this one. Where
// the flow is not to be worked on, it answers, and reports false.
func (h *Handler) claimForm(w http.ResponseWriter, r *http.Request, f tokenstore.Flow) bool {
	for end := time.Now().Add(flowHold); ; {
		_, err := h.claim(context.WithoutCancel(r.Context()), f.ID)
		switch {
		case err == nil:
			return true
		case errors.Is(err, tokenstore.ErrLeased) && time.Now().Before(end):
			if !rest(r.Context(), claimPause) {
				return false
			}
			continue
		case errors.Is(err, errClosing):
			h.page(w, r, &f, failure{code: codeClosing})
		case anothers(err):
			h.second(w, r, f)
		default:
			h.page(w, r, &f, failure{codeProvisioning, err})
		}
		return false
	}
}
