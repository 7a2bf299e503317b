package connect

import (
	"crypto/rand"
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// The codes with which a flow or a page fails. The first six go to the app.
const (
	codeUserDenied       = "user_denied"
	codeSourceError      = "source_error"
	codeProvisioning     = "provisioning_failed"
	codeTimeout          = "timeout"
	codeInvalidScope     = "invalid_scope"
	codeRedirectMismatch = "redirect_uri_mismatch" // a page, never redirected to

	codeLinkInvalid       = "link_invalid"
	codeLinkExpired       = "link_expired"
	codeStateInvalid      = "state_invalid"
	codeStateUsed         = "state_used"
	codeBrowserMismatch   = "browser_mismatch"
	codeIssuerMismatch    = "issuer_mismatch"
	codeConnectionUnknown = "connection_not_found"
	codeHostInvalid       = "host_invalid"
	codeNotFound          = "not_found"
	codeMethod            = "method_not_allowed"
	codeClosing           = "unavailable"
	codeRateLimited       = "rate_limited"
	codeInvalidParameter  = tokenstore.ReasonInvalidParameter
	codeForm              = "form_invalid"
	codeDisconnect        = "disconnect_failed"
	codeCredential        = "credential_refused" //nolint:gosec // G101: a code, in the log alone: the form says it
	codeAccountMismatch   = "account_mismatch"   // a page of its own, from which the app is told
)

// failure is how a step of the flow ends it: the code decides what the user
// and the app are told, the error is for the log.
type failure struct {
	code string
	err  error // nil where the code says it all; holds no secret
}

// reply is how a code is answered. The page's texts are in page/words, under
// the code.
type reply struct {
	status int
	level  zapcore.Level
	mark   string // info, warn or bad: the icon, with its colour; empty: no page of its own
	told   string // error_description for the app; empty: shown as a page only
}

// What a stranger can cause without limit is told at level debug only.
var replies = map[string]reply{
	codeUserDenied:   {http.StatusOK, zap.InfoLevel, "info", "The user declined to connect the account."},
	codeSourceError:  {http.StatusBadGateway, zap.WarnLevel, "warn", "The provider failed or rejected the request."},
	codeProvisioning: {http.StatusServiceUnavailable, zap.ErrorLevel, "bad", "The connection could not be saved."},
	codeTimeout:      {http.StatusGone, zap.InfoLevel, "warn", "The user took longer than 10 minutes."},
	codeInvalidScope: {
		http.StatusBadRequest, zap.ErrorLevel, "bad",
		"A requested scope is not one of the provider's or the integration's.",
	},
	codeAccountMismatch: {
		http.StatusConflict, zap.WarnLevel, "info",
		"The user chose another account than the connection's.",
	},

	codeRedirectMismatch:  {http.StatusBadRequest, zap.ErrorLevel, "bad", ""},
	codeInvalidParameter:  {http.StatusBadRequest, zap.WarnLevel, "bad", ""},
	codeLinkInvalid:       {http.StatusBadRequest, zap.InfoLevel, "bad", ""},
	codeLinkExpired:       {http.StatusGone, zap.InfoLevel, "warn", ""},
	codeStateInvalid:      {http.StatusBadRequest, zap.InfoLevel, "bad", ""},
	codeStateUsed:         {http.StatusBadRequest, zap.InfoLevel, "info", ""},
	codeBrowserMismatch:   {http.StatusBadRequest, zap.WarnLevel, "bad", ""},
	codeIssuerMismatch:    {http.StatusBadRequest, zap.WarnLevel, "bad", ""},
	codeConnectionUnknown: {http.StatusNotFound, zap.InfoLevel, "info", ""},
	codeHostInvalid:       {http.StatusMisdirectedRequest, zap.DebugLevel, "bad", ""},
	codeNotFound:          {http.StatusNotFound, zap.DebugLevel, "info", ""},
	codeMethod:            {http.StatusMethodNotAllowed, zap.DebugLevel, "bad", ""},
	codeForm:              {http.StatusForbidden, zap.InfoLevel, "warn", ""},
	codeDisconnect:        {http.StatusServiceUnavailable, zap.ErrorLevel, "bad", ""},
	codeClosing:           {http.StatusServiceUnavailable, zap.InfoLevel, "warn", ""},
	codeRateLimited:       {http.StatusTooManyRequests, zap.DebugLevel, "warn", ""},
	codeCredential:        {http.StatusUnprocessableEntity, zap.InfoLevel, "", ""},
}

// answer tells the app how f ended, by way of the browser, or shows a page
// where there is no app to tell, or where this is not for the app.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, x failure) {
	if other, ok := errors.AsType[*mismatchError](x.err); ok {
		h.mismatch(w, r, f, x, other)
		return
	}
	told := replies[x.code].told
	if told == "" || f.RedirectURL == "" || !h.registered(f.RedirectURL) {
		h.page(w, r, f, x)
		return
	}
	h.report(f, x)
	h.toApp(w, r, f, "error", x.code, "error_description", told, "state", f.AppState)
}

// page shows what became of f as a page, even where there is an app to tell.
func (h *Handler) page(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, x failure) {
	rep := replies[x.code]
	view := outcomeView{Mark: rep.mark, Code: x.code, ErrorID: h.report(f, x), Again: h.again(r, f, x.code)}
	if x.code == codeUserDenied { // the user's choice: there is nothing to support
		view.Code = ""
	}
	h.outcome(w, r, f, rep.status, x.code, view)
}

// refuse shows a page for a request that belongs to no flow.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, x failure) {
	h.page(w, r, &tokenstore.Flow{}, x)
}

// report logs a failure and returns the ID by which its entry is found.
func (h *Handler) report(f *tokenstore.Flow, x failure) string {
	id := strings.ToLower(rand.Text()[:10])
	fields := []zap.Field{zap.String("error_code", x.code), zap.String("error_id", id), zap.Error(x.err)}
	if f.Integration != "" {
		fields = append(fields, zap.String("integration", f.Integration),
			zap.String("connection_id", f.ConnectionID), zap.String("user_id", f.UserID))
	}
	h.log.Log(replies[x.code].level, "connect flow ended", fields...)
	return id
}

// used shows what happened in a flow whose callback comes again.
func (h *Handler) used(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow) {
	rep := replies[codeStateUsed]
	view := outcomeView{Mark: rep.mark, Code: codeStateUsed}
	switch {
	case f.Stage != tokenstore.FlowFinished:
		view.Text = "used.running"
	case f.Outcome == outcomeConnected && f.RedirectURL == "":
		view.Mark, view.Text = "ok", "used.connected"
	case f.Outcome == outcomeConnected:
		view.Mark, view.Text = "ok", "used.allowed"
	case f.Outcome == codeUserDenied:
		view.Text = "used.denied"
	case replies[f.Outcome].mark == "":
		view.Text = "used.failed"
	default:
		view.Text, view.Why = "used.failed_why", f.Outcome+".title"
	}
	view.ErrorID = h.report(f, failure{code: codeStateUsed})
	h.outcome(w, r, f, rep.status, "used", view)
}
