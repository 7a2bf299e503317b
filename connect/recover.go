package connect

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// recoverAtOnce bounds the interrupted flows that are ended at the same time:
// for each, an account may have to be asked for.
const recoverAtOnce = 16

// Recover ends the flows whose exchange was under way when the program last
// ended: with the stored answer where there is one, else as failed, never by a
// second request for a token. It is called once, when the program starts; flows
// that this Handler is working on are not touched. A flow whose integration is
// not configured now, or not for its parameters, is left for a later start. Devices that were waited for are
// waited for again (see Resume).
func (h *Handler) Recover(ctx context.Context) error {
	flows, err := h.cfg.Store.TakenFlows(ctx)
	if err != nil {
		return fmt.Errorf("listing interrupted connect flows: %w", err)
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, recoverAtOnce)
	for i := range flows {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			h.recover(ctx, &flows[i])
		})
	}
	all.Wait()
	return h.Resume(ctx)
}

func (h *Handler) recover(ctx context.Context, f *tokenstore.Flow) {
	if h.underWay(f.ID) {
		return
	}
	in, ok := h.integration(f.Integration)
	var no *failure
	switch {
	case f.Answer == nil:
		no = h.settle(ctx, f, failure{codeSourceError, errors.New("exchange was interrupted")}, lanyard)
	case !ok:
		no = &failure{codeProvisioning, errIntegrationMissing}
	default:
		if err := in.bind(f.Params); err != nil {
			no = &failure{codeInvalidParameter, err}
			break
		}
		_, no = h.conclude(ctx, f, in, *f.Answer, lanyard)
	}
	if no != nil {
		h.report(f, *no)
	}
}
