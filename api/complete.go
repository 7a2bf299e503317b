package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// writeTimeout bounds a change that must not be given up because its caller
// has hung up.
const writeTimeout = 30 * time.Second

// detached returns a context that outlives the caller: a change that was begun
// is brought to its end, and what it erased is dealt with.
func detached(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), writeTimeout)
}

// complete makes the credential that waits for completion the live one. The
// rules are Connection.Complete's, inside the store's transaction.
func (h *Handler) complete(r *http.Request, in *input) (any, *guard.Problem) {
	code := secret.New(in.required("completion_code", maxCode))
	userID := in.required("user_id", maxUserID)
	if p := in.done(); p != nil {
		return nil, p
	}
	ctx, cancel := detached(r)
	defer cancel()
	var (
		refused error              // why the code was not taken
		erased  *tokenstore.Staged // what that erased
		changed bool
	)
	c, err := h.cfg.Store.UpdateConnection(ctx, in.id, func(c *tokenstore.Connection) error {
		staged, wrong, before := c.Staged, 0, c.Token
		if staged != nil {
			wrong = staged.WrongCodes
		}
		refused, erased = c.Complete(code, userID, time.Now().UTC()), nil
		if refused != nil && c.Staged == nil {
			erased = staged
		}
		changed = c.Staged != staged || staged != nil && staged.WrongCodes != wrong
		if !changed {
			return tokenstore.ErrUnchanged
		}
		tellCompletion(c, refused, erased != nil, in.by)
		if refused == nil && before.Generation > 0 && !before.SameScopes(&c.Token) {
			c.Happened(tokenstore.Event{Type: tokenstore.EventScopes, Actor: in.by})
		}
		return nil // a refusal that counts is stored too
	})
	if err != nil {
		return nil, h.storeProblem(err)
	}
	if refused == nil {
		if changed {
			h.changed("connection completed", c)
		}
		return h.single(c), nil
	}
	h.changed("completion refused", c)
	if !changed { // else it was written with the change
		h.cfg.Audit.Refused(ctx, tokenstore.Event{
			Type: tokenstore.EventCompletion, Reason: completionCode(refused), Actor: in.by,
			ConnectionID: c.ID, Integration: c.Integration, UserID: c.UserID,
		})
	}
	if erased != nil {
		h.cfg.Revoker.Discard(ctx, c.Integration, c.UserID, c.Params, erased.Account, erased.Token)
	}
	if errors.Is(refused, tokenstore.ErrUserMismatch) {
		return nil, &guard.Problem{
			Status: http.StatusConflict, Code: completionCode(refused),
			Detail: "This connection was begun for another user. The code is spent; the user has to connect again.",
		}
	}
	return nil, &guard.Problem{
		Status: http.StatusConflict, Code: completionCode(refused),
		Detail: "The completion code is wrong, used or too late. After five wrong codes the right one is spent too.",
	}
}

func completionCode(refused error) string {
	if errors.Is(refused, tokenstore.ErrUserMismatch) {
		return tokenstore.ReasonUserMismatch
	}
	return tokenstore.ReasonCompletionInvalid
}

// tellCompletion notes in c what came of a try to complete it.
func tellCompletion(c *tokenstore.Connection, refused error, erased bool, by tokenstore.Actor) {
	if refused == nil {
		c.Happened(tokenstore.Event{Type: tokenstore.EventActive, Actor: by})
		return
	}
	reason := completionCode(refused)
	c.Happened(tokenstore.Event{Type: tokenstore.EventCompletion, Actor: by, Denied: true, Reason: reason})
	if !erased {
		return
	}
	c.Happened(tokenstore.Event{Type: tokenstore.EventDropped, Actor: by, Reason: reason})
	if c.Status == tokenstore.StatusFailed {
		c.Happened(tokenstore.Event{Type: tokenstore.EventFailed, Actor: by, Reason: reason})
	}
}
