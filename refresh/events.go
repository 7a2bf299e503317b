package refresh

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// itself is who acts where nobody has asked.
var itself = tokenstore.Actor{Kind: tokenstore.ActorLanyard}

// tellTime bounds the writing of an event.
const tellTime = 5 * time.Second

// tell writes an event that belongs to no change of a record. Nothing depends
// on it.
func (r *Refresher) tell(ctx context.Context, e tokenstore.Event) {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	if err := r.cfg.Store.AppendEvents(ctx, e); err != nil {
		r.cfg.Logger.Warn("event not written", zap.String("connection_id", e.ConnectionID),
			zap.String("event", string(e.Type)), zap.Error(err))
	}
}

// tellFailure writes the first failure of a row, behind the flight: nobody
// waits for that.
func (r *Refresher) tellFailure(f *flight, cause error) {
	e := tokenstore.Event{
		Type: tokenstore.EventRefreshFailed, ConnectionID: f.of.ConnectionID,
		Integration: f.of.Integration, UserID: f.of.UserID, Actor: f.by, Reason: failureCode(cause),
	}
	r.flights.Go(func() { r.tell(r.ctx, e) }) // f itself is one of them, so Close still waits
}

// failureCode says in a word why a token was not renewed.
func failureCode(cause error) string {
	refusal, refused := errors.AsType[*tokenstore.RefusalError](cause)
	_, unreadable := errors.AsType[*tokenstore.UnreadableError](cause)
	switch {
	case refused && refusal.Code != "":
		return refusal.Code
	case refused:
		return "refused"
	case errors.Is(cause, tokenstore.ErrFull):
		return "store_full"
	case errors.Is(cause, tokenstore.ErrUnavailable):
		return "store_unavailable"
	case unreadable:
		return "unreadable"
	case errors.Is(cause, tokenstore.ErrOutcomeUnknown):
		return "no_answer"
	default:
		return "unavailable"
	}
}

// tellRenewed notes in cur, whose token is about to become next, what a renewal
// by somebody brings.
func tellRenewed(cur *tokenstore.Connection, next *tokenstore.Token, by tokenstore.Actor) {
	cur.Happened(tokenstore.Event{Type: tokenstore.EventRefreshed, Actor: by})
	if !cur.Token.SameScopes(next) {
		cur.Happened(tokenstore.Event{Type: tokenstore.EventScopes, Actor: by})
	}
}

// maxDamage bounds the damaged connections that are remembered. More of them
// make no more events: what happened is plain by then.
const maxDamage = 10_000

// noteDamage writes an event when a connection is found to be damaged for the
// first time in this run.
func (r *Refresher) noteDamage(ctx context.Context, id string) {
	r.mu.Lock()
	known := r.damaged[id] || len(r.damaged) >= maxDamage
	if !known {
		r.damaged[id] = true
	}
	r.mu.Unlock()
	if known {
		return
	}
	// Whoever met it may hang up: it is told all the same.
	r.tell(context.WithoutCancel(ctx), tokenstore.Event{
		Type: tokenstore.EventDamaged, ConnectionID: id, Actor: itself, Reason: "store_corrupt",
	})
}
