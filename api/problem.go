package api

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func invalidRequest(format string, args ...any) *guard.Problem {
	return &guard.Problem{
		Status: http.StatusBadRequest, Code: "invalid_request",
		Detail: fmt.Sprintf(format, args...),
	}
}

// connectionNotFound is the one answer for an ID that is malformed, unknown or
// deleted.
func connectionNotFound() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusNotFound, Code: "connection_not_found",
		Detail: "There is no connection with this ID.",
	}
}

func internalError() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusInternalServerError, Code: "internal_error",
		Detail: "Something went wrong inside Lanyard. Its log says what.",
	}
}

// codeCorrupt is said of a record that is there and can't be opened.
const codeCorrupt = "store_corrupt"

// storeProblem turns an error of the store into an answer.
func (h *Handler) storeProblem(err error) *guard.Problem {
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return connectionNotFound()
	case errors.Is(err, tokenstore.ErrExists):
		return &guard.Problem{
			Status: http.StatusConflict, Code: "connection_exists",
			Detail: "There is a connection with this ID, or was one: an ID is never given twice.",
		}
	case errors.Is(err, tokenstore.ErrCorrupt):
		h.log.Error("record is damaged", zap.String("error_code", codeCorrupt), zap.Error(err))
		return &guard.Problem{
			Status: http.StatusServiceUnavailable, Code: codeCorrupt,
			Detail: "The record is there, but it is damaged and can't be read. Restore a backup, or delete it and have its user connect again.",
		}
	case errors.Is(err, tokenstore.ErrFull):
		// The store's own line in the log says so once, not for each request.
		h.log.Debug("write refused", zap.String("error_code", "store_full"), zap.Error(err))
		return storeFull(fullRetryAfter)
	case errors.Is(err, tokenstore.ErrReadOnly):
		h.log.Debug("write refused", zap.String("error_code", "store_readonly"), zap.Error(err))
		return storeReadOnly()
	case errors.Is(err, tokenstore.ErrUnavailable):
		h.log.Error("store unavailable", zap.String("error_code", "store_unavailable"), zap.Error(err))
		return &guard.Problem{
			Status: http.StatusServiceUnavailable, Code: "store_unavailable",
			Detail: "The store can't be asked now.",
		}
	default:
		h.log.Error("request failed", zap.String("error_code", "internal_error"), zap.Error(err))
		return internalError()
	}
}

// fullRetryAfter is a guess: room comes from an operator.
const fullRetryAfter = 30 * time.Second

func storeFull(after time.Duration) *guard.Problem {
	return &guard.Problem{
		Status: http.StatusInsufficientStorage, Code: "store_full",
		Detail:     "The disk of Lanyard's store has too little room left for this. An operator has to free some.",
		RetryAfter: after,
	}
}

// readOnlyRetryAfter is about how long the end of a move takes to be seen.
const readOnlyRetryAfter = 5 * time.Second

func storeReadOnly() *guard.Problem {
	return &guard.Problem{
		Status: http.StatusServiceUnavailable, Code: "store_readonly",
		Detail:     "The store is being moved to another place, or was: it takes no writes. Valid tokens are served meanwhile.",
		RetryAfter: readOnlyRetryAfter,
	}
}

// refreshProblem turns an error of refreshing c into an answer.
func (h *Handler) refreshProblem(err error, c tokenstore.Connection) *guard.Problem {
	if un, ok := errors.AsType[*tokenstore.UnavailableError](err); ok {
		if errors.Is(un.Cause, tokenstore.ErrFull) {
			return storeFull(un.RetryAfter)
		}
		if errors.Is(un.Cause, tokenstore.ErrReadOnly) {
			return storeReadOnly()
		}
		return &guard.Problem{
			Status: http.StatusServiceUnavailable, Code: "refresh_unavailable",
			Detail:     "The provider's token endpoint did not renew the token. It may later.",
			RetryAfter: un.RetryAfter,
		}
	}
	switch {
	case errors.Is(err, tokenstore.ErrReconnect):
		return &guard.Problem{
			Status: http.StatusFailedDependency, Code: "reconnect_required",
			Detail: "The provider no longer takes this connection's credential. Its user has to connect again.",
			Extra:  h.help(c, cmp.Or(h.reason(c), tokenstore.ReasonInvalidGrant), true),
		}
	case errors.Is(err, tokenstore.ErrNotActive):
		return h.notActive(c, "This connection is not active, so there is nothing to refresh.")
	case errors.Is(err, tokenstore.ErrNotRenewed):
		return &guard.Problem{
			Status: http.StatusConflict, Code: "not_refreshable",
			Detail: "This connection has no refresh token: its access token serves as long as the provider takes it, and nothing can renew it.",
		}
	default:
		return h.storeProblem(err)
	}
}

// notActive says why c can't be used: in a word, and with a link where
// connecting would help.
func (h *Handler) notActive(c tokenstore.Connection, detail string) *guard.Problem {
	reason := h.reason(c)
	switch {
	case reason == tokenstore.ReasonIntegrationMissing, reason == tokenstore.ReasonInvalidParameter:
	case c.Disabled:
		reason = "disabled"
	case reason == "":
		reason = strings.ToLower(string(c.Status))
	}
	return &guard.Problem{
		Status: http.StatusConflict, Code: "connection_not_active", Detail: detail,
		Extra: h.help(c, reason, c.Connectable()),
	}
}

// help returns the members of a problem that connecting again may solve.
func (h *Handler) help(c tokenstore.Connection, reason string, connectable bool) map[string]any {
	extra := map[string]any{"reason": reason}
	if link := h.connectURL(c); connectable && link != "" {
		extra["connect_url"] = link
	}
	return extra
}
