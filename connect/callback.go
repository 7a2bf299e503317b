package connect

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/lanyard-proxy/lanyard/internal/spans"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// response is an authorization response (RFC 6749 sections 4.1.2 and 4.1.2.1).
// It has either a code or an error.
type response struct {
	state  secret.String
	code   secret.String
	errc   string // the `error`, as sent
	iss    string
	hasIss bool
	query  string // all that could be read, encoded anew
}

// parseResponse reads a callback's query, with the code in codeParam. "Response
// parameters MUST NOT be included more than once" (RFC 6749 section 3.1): of two
// values, one may be an attacker's. A token in the query is never taken (RFC 9700
// section 2.1.2).
func parseResponse(rawQuery, codeParam string) (response, bool) {
	q, _ := url.ParseQuery(rawQuery) // drops pairs it can't read, wherever the provider made them
	for _, name := range []string{"state", codeParam, "error", "iss", "access_token"} {
		if len(q[name]) > 1 {
			return response{}, false
		}
	}
	resp := response{
		state: secret.New(q.Get("state")), code: secret.New(q.Get(codeParam)),
		errc: q.Get("error"), iss: q.Get("iss"), hasIss: q.Has("iss"), query: q.Encode(),
	}
	ok := !resp.state.IsZero() && resp.code.IsZero() == (resp.errc != "") && !q.Has("access_token")
	return resp, ok
}

// callback serves {public_url}/callback/{name}. Whatever can't be tied to an
// open flow of this integration changes nothing.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request, name, rawQuery string) {
	rawQuery, err := h.carried(name, rawQuery)
	if err != nil {
		h.guess(w, r, failure{codeStateInvalid, err})
		return
	}
	resp, ok := parseResponse(rawQuery, h.codeParam(name))
	if !ok {
		h.guess(w, r, failure{codeStateInvalid, errors.New("callback without one state and either a code or an error")})
		return
	}
	f, err := h.cfg.Store.Flow(r.Context(), resp.state.Hash())
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		h.guess(w, r, failure{codeStateInvalid, errors.New("callback for an unknown state")})
	case err != nil:
		h.refuse(w, r, failure{codeProvisioning, err})
	case f.Integration != name:
		h.guess(w, r, failure{codeStateInvalid, errors.New("callback of another integration than the flow's")})
	case f.Stage != tokenstore.FlowOpen:
		h.used(w, r, &f)
	case !wallNow().Before(f.ExpiresAt):
		h.end(w, r, f, failure{code: codeTimeout})
	case !h.bound(r, &f) && resp.code.IsZero():
		h.refused(r, &f, codeBrowserMismatch)
		h.page(w, r, &f, failure{codeBrowserMismatch, errors.New("error callback without the flow's cookie")})
	case !h.bound(r, &f):
		// The code is in other hands than the flow: it must not be redeemed
		// later either.
		h.end(w, r, f, failure{codeBrowserMismatch, errors.New("callback without the flow's cookie")})
	default:
		h.respond(w, r, f, resp)
	}
}

// codeParam returns where the integration with this name has its codes.
func (h *Handler) codeParam(name string) string {
	if in, ok := h.cfg.Integrations[name]; ok && in.Provider != nil {
		return in.Provider.CodeParam()
	}
	return "code"
}

// respond goes on with a response that belongs to an open flow and came by the
// flow's own browser.
func (h *Handler) respond(w http.ResponseWriter, r *http.Request, f tokenstore.Flow, resp response) {
	in, no := h.usable(&f)
	if no == nil && in.Provider.Scheme() != tokenstore.AuthOAuth2 {
		no = &failure{codeProvisioning, errors.New("flow's integration takes no authorization codes any more")}
	}
	if no != nil {
		h.end(w, r, f, *no)
		return
	}
	err := checkIssuer(r.Context(), in.Provider, resp)
	switch {
	case errors.Is(err, errIssuer) && resp.code.IsZero():
		h.refused(r, &f, codeIssuerMismatch)
		h.page(w, r, &f, failure{codeIssuerMismatch, err})
	case errors.Is(err, errIssuer):
		h.end(w, r, f, failure{codeIssuerMismatch, err})
	case err != nil:
		h.end(w, r, f, failure{codeSourceError, err})
	case resp.errc != "":
		h.end(w, r, f, refusal(in.Provider, resp.errc))
	default:
		told, err := in.Provider.Callback(resp.query)
		if err != nil {
			h.end(w, r, f, failure{codeSourceError, err})
			return
		}
		h.complete(w, r, f, in, resp.code, told)
	}
}

// usable returns an open flow's integration, if all that the flow began with is
// still there.
func (h *Handler) usable(f *tokenstore.Flow) (Integration, *failure) {
	in, ok := h.integration(f.Integration)
	if !ok {
		return in, &failure{codeProvisioning, errIntegrationMissing}
	}
	if err := in.bind(f.Params); err != nil {
		return in, &failure{codeInvalidParameter, err}
	}
	if f.RedirectURL != "" && !h.registered(f.RedirectURL) {
		return in, &failure{codeRedirectMismatch, errors.New("flow's redirect_url is no longer registered")}
	}
	return in, nil
}

var (
	errIntegrationMissing = errors.New("flow's integration is no longer configured")
	errIssuer             = errors.New("response is not from the flow's issuer")
)

// checkIssuer compares `iss` with the flow's issuer by "simple string
// comparison" (RFC 9207 section 2.4), whenever it is there and where the server
// promises to send it, on errors too.
func checkIssuer(ctx context.Context, p Provider, resp response) error {
	ctx, cancel := context.WithTimeout(ctx, discoverLimit)
	defer cancel()
	issuer, required, err := p.Issuer(ctx)
	if err != nil {
		return err
	}
	if required && !resp.hasIss || resp.hasIss && issuer != "" && resp.iss != issuer {
		return errIssuer
	}
	return nil
}

// refusal says what an authorization error is for us (RFC 6749 section
// 4.1.2.1). The provider's own words go no further than the log.
func refusal(p Provider, errc string) failure {
	err := errors.New("provider answered " + loggable(errc))
	switch {
	case p.Denied(errc):
		return failure{codeUserDenied, err}
	case errc == "invalid_scope":
		return failure{codeInvalidScope, err}
	}
	return failure{codeSourceError, err}
}

// loggable returns an error code as it may stand in a log.
func loggable(errc string) string {
	if len(errc) > 64 || !tokenstore.IsScope(errc) {
		return "an unreadable error code"
	}
	return errc
}

// end finishes an open flow with a failure and answers.
func (h *Handler) end(w http.ResponseWriter, r *http.Request, f tokenstore.Flow, x failure) {
	ctx, by := context.WithoutCancel(r.Context()), h.browser(r)
	now, ok := h.take(ctx, w, r, f, func(f *tokenstore.Flow) {
		f.Finish(x.code)
		f.Happened(ended(f, x.code, by))
	})
	if !ok {
		return
	}
	h.cfg.Metrics.Of(now.Integration).Flows.Add(x.code)
	h.failConnection(ctx, &now, x.code, by)
	h.unbind(w, &now)
	h.answer(w, r, &now, x)
}

// take takes an open flow in the store, and makes a change to it in the same
// step. Where it can't, it answers, and reports false.
func (h *Handler) take(ctx context.Context, w http.ResponseWriter, r *http.Request, f tokenstore.Flow, change func(*tokenstore.Flow)) (tokenstore.Flow, bool) {
	taken, err := h.cfg.Store.UpdateFlow(ctx, f.ID, func(f *tokenstore.Flow) error {
		if err := f.Take(); err != nil {
			return err
		}
		change(f)
		return nil
	})
	switch {
	case errors.Is(err, tokenstore.ErrFlowUsed):
		h.usedNow(ctx, w, r, f)
	case err != nil:
		h.page(w, r, &f, failure{codeProvisioning, err})
	}
	return taken, err == nil
}

// usedNow answers the one who came second to a flow.
func (h *Handler) usedNow(ctx context.Context, w http.ResponseWriter, r *http.Request, f tokenstore.Flow) {
	if now, err := h.cfg.Store.Flow(ctx, f.ID); err == nil {
		f = now
	}
	h.used(w, r, &f)
}

// complete redeems the code, beside which the response told something, and
// sends the browser on. The work is detached from the browser's request: a
// browser that goes away cancels nothing.
func (h *Handler) complete(
	w http.ResponseWriter, r *http.Request, f tokenstore.Flow, in Integration, code secret.String, told map[string]string,
) {
	ctx := context.WithoutCancel(r.Context())
	_, err := h.claim(ctx, f.ID)
	switch {
	case errors.Is(err, errClosing):
		h.page(w, r, &f, failure{code: codeClosing})
		return
	case anothers(err):
		h.usedNow(r.Context(), w, r, f)
		return
	case err != nil:
		h.page(w, r, &f, failure{codeProvisioning, err})
		return
	}
	defer h.leave(f.ID)
	taken, ok := h.take(ctx, w, r, f, func(*tokenstore.Flow) {})
	if !ok {
		return
	}
	span := spans.Start(ctx, spans.Connect, taken.Integration)
	got, no := h.redeem(ctx, &taken, in, code, told, h.browser(r))
	if no == nil {
		span.End(outcomeConnected, false)
	} else {
		span.End(no.code, true)
	}
	h.land(w, r, &taken, in, got, no)
}

// land answers the browser of a flow that has ended.
func (h *Handler) land(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, in Integration, got landing, no *failure) {
	answer := func(w http.ResponseWriter, r *http.Request) { h.tell(w, r, f, in, got, no) }
	h.answered(f.ID, answer)
	answer(w, r)
}

// tell is land for one of the requests that brought the same.
func (h *Handler) tell(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, in Integration, got landing, no *failure) {
	// The browser may have read this answer's head and yet send the form again,
	// for which it needs the cookie.
	if in.Provider.Scheme() == tokenstore.AuthOAuth2 {
		h.unbind(w, f)
	}
	switch {
	case no != nil:
		h.answer(w, r, f, *no)
	case f.RedirectURL == "":
		h.success(w, r, in, &got.connection)
	default:
		h.toApp(w, r, f, "connection_id", got.connection.ID, "completion_code", got.completionCode, "state", f.AppState)
	}
}
