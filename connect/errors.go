package connect

import (
	"crypto/rand"
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
)

// failure is how a step of the flow ends it: the code decides what the user
// and the app are told, the error is for the log.
type failure struct {
	code string
	err  error // nil where the code says it all; holds no secret
}

// reply is what is said about a code. In the texts, {provider} and {app} stand
// for their names.
type reply struct {
	status int
	level  zapcore.Level
	mark   string // info, warn or bad: the icon, with its colour
	title  string
	text   string // what happened
	next   string // what to do about it
	told   string // error_description for the app; empty: shown as a page only
}

const (
	startAgain = "Go back to {app} and start again from there."
	tellApp    = "Tell the people who run {app}; the details below help them."
)

// What a stranger can cause without limit is told at level debug only.
var replies = map[string]reply{
	codeUserDenied: {
		http.StatusOK, zap.InfoLevel, "info", "You did not connect {provider}",
		"You chose not to allow access, so nothing was shared.",
		"You can connect at any later time from {app}.",
		"The user declined to connect the account.",
	},
	codeSourceError: {
		http.StatusBadGateway, zap.WarnLevel, "warn", "{provider} did not complete the connection",
		"{provider} answered with an error, or not at all. Nothing was connected.",
		"Go back to {app} and try again in a few minutes.",
		"The provider failed or rejected the request.",
	},
	codeProvisioning: {
		http.StatusServiceUnavailable, zap.ErrorLevel, "bad", "We could not save this connection",
		"Something went wrong on our side, so your account was not connected. It is nothing that you did.",
		"Go back to {app} and try again in a few minutes.",
		"The connection could not be saved.",
	},
	codeTimeout: {
		http.StatusGone, zap.InfoLevel, "warn", "This took longer than 10 minutes",
		"To keep your account safe, the request to connect {provider} has ended. Nothing was shared.",
		startAgain,
		"The user took longer than 10 minutes.",
	},
	codeInvalidScope: {
		http.StatusBadRequest, zap.ErrorLevel, "bad", "{provider} does not offer one of these permissions",
		"{app} asked for a permission that {provider} does not know, so we stopped. It is nothing that you did, and nothing was shared.",
		tellApp,
		"A requested scope is not one of the provider's or the integration's.",
	},
	codeRedirectMismatch: {
		http.StatusBadRequest, zap.ErrorLevel, "bad", "This link is not set up correctly",
		"{app} asked to come back to an address that it has not registered, so we stopped. It is nothing that you did, and nothing was shared.",
		tellApp, "",
	},
	codeInvalidParameter: {
		http.StatusBadRequest, zap.WarnLevel, "bad", "This link is not set up correctly",
		"It does not say in the right form which account at {provider} is meant. Nothing was shared.",
		"Go back to {app} and check what you entered there. " + tellApp, "",
	},
	codeLinkInvalid: {
		http.StatusBadRequest, zap.InfoLevel, "bad", "This link does not work",
		"It is not complete, or it was changed on its way to you. Nothing was shared.",
		"Go back to {app} for a new link. If that one does not work either, tell the people who run {app}.", "",
	},
	codeLinkExpired: {
		http.StatusGone, zap.InfoLevel, "warn", "This link has expired",
		"Links that connect an account work for a short time only. Nothing was shared.",
		"Go back to {app} for a new link.", "",
	},
	codeStateInvalid: {
		http.StatusBadRequest, zap.InfoLevel, "bad", "This page does not belong to a request we know",
		"It may be from an earlier day, or was not opened by following a link in {app}. Nothing was changed.",
		startAgain, "",
	},
	codeStateUsed: {
		http.StatusBadRequest, zap.InfoLevel, "info", "This step was already done",
		"", "Opening it again changed nothing. You can close this page and go back to {app}.", "",
	},
	codeBrowserMismatch: {
		http.StatusBadRequest, zap.WarnLevel, "bad", "This was started in another browser",
		"Connecting {provider} has to end in the browser in which it began. To keep your account safe, nothing was connected.",
		"If you began this yourself, go back to {app} and start again, all in one browser and with cookies allowed. If somebody sent you here, close this page.", "",
	},
	codeIssuerMismatch: {
		http.StatusBadRequest, zap.WarnLevel, "bad", "This answer did not come from {provider}",
		"It names another service as its sender. To keep your account safe, nothing was connected.",
		startAgain, "",
	},
	codeConnectionUnknown: {
		http.StatusNotFound, zap.InfoLevel, "bad", "This connection is not there any more",
		"The link is for a connection that was deleted, or that belongs to somebody else. Nothing was shared.",
		"Go back to {app} and connect the account anew.", "",
	},
	codeHostInvalid: {
		http.StatusMisdirectedRequest, zap.DebugLevel, "bad", "This is not the right address",
		"Accounts are connected at another host name than the one in your address bar.",
		startAgain, "",
	},
	codeNotFound: {
		http.StatusNotFound, zap.DebugLevel, "info", "There is no page here",
		"The address may have been cut short when it was copied.",
		startAgain, "",
	},
	codeMethod: {
		http.StatusMethodNotAllowed, zap.DebugLevel, "bad", "This page can't be used like that",
		"It was sent a form, and it takes none. Nothing was changed.",
		startAgain, "",
	},
	codeClosing: {
		http.StatusServiceUnavailable, zap.InfoLevel, "warn", "One moment",
		"This service is just being restarted. Nothing is lost.",
		"Reload this page in a few seconds.", "",
	},
	codeRateLimited: {
		http.StatusTooManyRequests, zap.DebugLevel, "warn", "One moment",
		"Too many pages like this one were opened in a short time. Nothing was changed, and nothing is lost.",
		"Reload this page in a few seconds.", "",
	},
}

// answer tells the app how f ended, by way of the browser, or shows a page
// where there is no app to tell, or where this is not for the app.
func (h *Handler) answer(w http.ResponseWriter, f *tokenstore.Flow, x failure) {
	told := replies[x.code].told
	if told == "" || f.RedirectURL == "" || !h.registered(f.RedirectURL) {
		h.page(w, f, x)
		return
	}
	h.report(f, x)
	seeOther(w, returnURL(f.RedirectURL, "error", x.code, "error_description", told, "state", f.AppState))
}

// page shows what became of f as a page, even where there is an app to tell.
func (h *Handler) page(w http.ResponseWriter, f *tokenstore.Flow, x failure) {
	rep := replies[x.code]
	view := outcomeView{
		Mark: rep.mark, Title: rep.title, Text: rep.text, Next: rep.next, Code: x.code, ErrorID: h.report(f, x),
	}
	if x.code == codeUserDenied { // the user's choice: there is nothing to support
		view.Code = ""
	}
	h.outcome(w, f, rep.status, view)
}

// refuse shows a page for a request that belongs to no flow.
func (h *Handler) refuse(w http.ResponseWriter, x failure) { h.page(w, &tokenstore.Flow{}, x) }

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
func (h *Handler) used(w http.ResponseWriter, f *tokenstore.Flow) {
	rep := replies[codeStateUsed]
	view := outcomeView{Mark: rep.mark, Title: rep.title, Next: rep.next, Code: codeStateUsed}
	switch {
	case f.Stage != tokenstore.FlowFinished:
		view.Text = "Your {provider} account is being connected right now."
	case f.Outcome == outcomeConnected && f.RedirectURL == "":
		view.Mark, view.Text = "ok", "Your {provider} account was connected."
	case f.Outcome == outcomeConnected:
		view.Mark, view.Text = "ok", "You allowed access at {provider}, and {app} took over from there."
	case f.Outcome == codeUserDenied:
		view.Text = "You did not connect {provider}, and nothing was shared."
	case replies[f.Outcome].title == "":
		view.Text = "Your {provider} account was not connected."
	default:
		view.Text = "Your {provider} account was not connected: " + lowerFirst(replies[f.Outcome].title) + "."
	}
	view.ErrorID = h.report(f, failure{code: codeStateUsed})
	h.outcome(w, f, rep.status, view)
}

func lowerFirst(s string) string {
	if s == "" || s[0] == '{' {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
