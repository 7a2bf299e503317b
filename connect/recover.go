package connect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// recoverAtOnce bounds the interrupted flows that are ended at the same time:
// for each, an account may have to be asked for.
const recoverAtOnce = 16

// Recover ends the flows whose exchange was under way when the program last
// ended: with the stored answer where there is one, else as failed, never by a
// second request for a token. It is called once, when the program starts; on a
// shared store again and again, since other processes end too. Flows that this
// Handler is working on, or another process of the store, are not touched. A flow
// whose integration is not configured now, or not for its parameters, is left for
// a later start. One whose account can't be asked for yet is gone on with behind
// the caller, until Close. Devices that were waited for are waited for again (see
// Resume).
func (h *Handler) Recover(ctx context.Context) error {
	flows, err := h.cfg.Store.TakenFlows(ctx)
	if err != nil {
		return fmt.Errorf("listing interrupted connect flows: %w", err)
	}
	var all sync.WaitGroup
	failed := make([]error, len(flows))
	slots := make(chan struct{}, recoverAtOnce)
	for i := range flows {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			failed[i] = h.recover(ctx, &flows[i])
		})
	}
	all.Wait()
	return errors.Join(append(failed, h.Resume(ctx))...)
}

func (h *Handler) recover(ctx context.Context, f *tokenstore.Flow) error {
	hold, err := h.claim(ctx, f.ID)
	switch {
	case anothers(err):
		return nil
	case err != nil:
		return fmt.Errorf("taking up a connect flow: %w", err)
	case hold != nil: // it may have ended since it was listed
		if *f, err = h.cfg.Store.Flow(ctx, f.ID); err != nil || f.Stage != tokenstore.FlowTaken {
			h.leave(f.ID)
			return err
		}
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
		if !h.tryAnswer(ctx, f, in) {
			h.insistBehind(f, in) //nolint:contextcheck // it outlives its caller
			return nil
		}
	}
	h.leave(f.ID)
	// Another process may have the integration that is not configured here.
	if no != nil && (hold == nil || f.Answer == nil) {
		h.report(f, *no)
	}
	return nil
}

// Waits between two tries to end a flow that nobody's browser waits for.
const (
	insistPause    = 5 * time.Second
	maxInsistPause = time.Minute
	// concludeLimit is more than it takes to end a flow once its answer is there.
	concludeLimit = time.Minute
)

// tryAnswer ends a taken flow with its stored answer. It reports false, and
// leaves the flow and the credential as they are, where the account could not be
// asked for, as when the network is not up yet after boot, and the credential
// would be discarded for it.
func (h *Handler) tryAnswer(ctx context.Context, f *tokenstore.Flow, in Integration) bool {
	b, no := h.read(ctx, f, in, *f.Answer, lanyard)
	if no == nil {
		discards := errors.Is(b.unknown, tokenstore.ErrAccountNeeded) || f.Reconnect
		if b.unknown != nil && discards && passing(b.unknown) && wallNow().Add(2*maxInsistPause).Before(f.KeepUntil()) {
			return false
		}
		_, no = h.bringIn(ctx, f, in, b, lanyard)
	}
	if no != nil {
		h.report(f, *no)
	}
	return true
}

// insistBehind is insist behind its caller, who has claimed the flow.
func (h *Handler) insistBehind(f *tokenstore.Flow, in Integration) {
	go func() { // ends with the flow, or with Close, which waits for it
		defer h.leave(f.ID)
		h.insist(context.Background(), f.ID, in)
	}()
}

// insist goes on with a taken flow that is claimed until it has ended, or until
// Close. Another Handler of this store may be ending it: it is left alone until
// that is over.
func (h *Handler) insist(ctx context.Context, id string, in Integration) {
	hold := h.holdOf(id)
	for pause := insistPause; ; pause = min(2*pause, maxInsistPause) {
		timer := time.NewTimer(pause)
		select {
		case <-h.stop:
			timer.Stop()
			return
		case <-hold.Lost():
			timer.Stop()
			return
		case <-timer.C:
		}
		f, err := h.cfg.Store.Flow(ctx, id)
		switch {
		case errors.Is(err, tokenstore.ErrNotFound), err == nil && (f.Stage != tokenstore.FlowTaken || f.Answer == nil):
			return
		case err != nil:
			h.log.Error("interrupted connect flow not read", zap.Error(err))
		case wallNow().Before(f.Answer.ReceivedAt.Add(concludeLimit)):
		case h.tryAnswer(ctx, &f, in):
			return
		}
	}
}

// resumeTaken goes on with the answered flows that a Handler left which was
// closed.
func (h *Handler) resumeTaken(ctx context.Context) error {
	flows, err := h.cfg.Store.TakenFlows(ctx)
	if err != nil {
		return fmt.Errorf("listing answered connect flows: %w", err)
	}
	for i := range flows {
		f := &flows[i]
		in, ok := h.integration(f.Integration)
		if !ok || f.Answer == nil || in.bind(f.Params) != nil {
			continue
		}
		switch _, err := h.claim(ctx, f.ID); {
		case err == nil:
			h.insistBehind(f, in) //nolint:contextcheck // it outlives its caller
		case !anothers(err):
			return fmt.Errorf("going on with a connect flow: %w", err)
		}
	}
	return nil
}
