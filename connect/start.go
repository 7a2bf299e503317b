package connect

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// start serves GET {public_url}/connect.
func (h *Handler) start(w http.ResponseWriter, r *http.Request, rawQuery string) {
	if p, ok := h.verify(w, r, rawQuery); ok {
		h.begin(w, r, p, rawQuery)
	}
}

// verify reads a link's query, or answers and reports false.
func (h *Handler) verify(w http.ResponseWriter, r *http.Request, rawQuery string) (Params, bool) {
	p, err := h.cfg.Signer.Verify(rawQuery, wallNow())
	switch {
	case errors.Is(err, ErrLinkExpired):
		h.refused(r, &tokenstore.Flow{}, codeLinkExpired)
		h.refuse(w, r, failure{codeLinkExpired, err})
	case err != nil:
		h.guess(w, r, failure{codeLinkInvalid, err})
	}
	return p, err == nil
}

// begin stores a flow for what the link says and sends the browser to the
// provider, by way of a page where one is due.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request, p Params, link string) {
	if p.Integration == "" && p.ConnectionID == "" && len(h.cfg.Integrations) > 1 {
		h.choose(w, r, p)
		return
	}
	f, in, no := h.plan(r.Context(), p)
	if no != nil {
		h.refused(r, &f, no.code)
		h.answer(w, r, &f, *no)
		return
	}
	if missing := in.missing(f.Params); len(missing) > 0 {
		h.keyPage(w, r, http.StatusOK, paramsView(&f, in, link, blank(missing)))
		return
	}
	if wait := h.limits.flows.Take(in.Name + "\n" + f.UserID); wait > 0 {
		h.tooMany(w, r, &f, wait)
		return
	}
	state, cookie := random(), random()
	authURL, no := h.open(r.Context(), &f, in, state, cookie)
	if no != nil {
		h.refused(r, &f, no.code)
		h.answer(w, r, &f, *no)
		return
	}
	h.bind(w, r, f.ID, cookie)
	h.log.Debug("connect flow started", zap.String("integration", f.Integration), zap.String("user_id", f.UserID))
	switch {
	case authURL == "":
		h.keyPage(w, r, http.StatusOK, credentialView(&f, in, state, blank(in.Provider.Fields())))
	case in.Review || f.RedirectURL == "" || r.Method == http.MethodPost: // a form's redirect would be held against form-action
		h.review(w, r, &f, in, authURL)
	default:
		seeOther(w, authURL)
	}
}

// plan turns what a link says into a flow, or says why that can't be. The flow
// it returns then still tells where the failure is to be shown.
func (h *Handler) plan(ctx context.Context, p Params) (tokenstore.Flow, Integration, *failure) {
	f := tokenstore.Flow{
		Integration: p.Integration, UserID: p.UserID, AppState: p.State,
		ConnectionID: p.ConnectionID, ConnectionName: p.ConnectionName, Labels: p.Labels, Params: p.Params,
		FormPost: p.FormPost,
	}
	switch {
	case p.RedirectURL == "" && len(h.cfg.RedirectURLs) > 0:
		return f, Integration{}, &failure{codeLinkInvalid, errors.New("link has no redirect_url, and some are registered")}
	case p.RedirectURL != "" && !h.registered(p.RedirectURL):
		return f, Integration{}, &failure{codeRedirectMismatch, errors.New("link's redirect_url is not registered")}
	}
	f.RedirectURL = p.RedirectURL

	asked, granted := p.Scopes, []string(nil)
	if p.ConnectionID != "" {
		c, err := h.cfg.Store.Connection(ctx, p.ConnectionID)
		switch {
		case errors.Is(err, tokenstore.ErrNotFound),
			err == nil && (c.UserID != p.UserID || p.Integration != "" && c.Integration != p.Integration):
			return f, Integration{}, &failure{codeConnectionUnknown, errors.New("link's connection is not one of this user and integration")}
		case err != nil:
			return f, Integration{}, &failure{codeProvisioning, err}
		}
		if len(p.Params) > 0 && !maps.Equal(p.Params, c.Params) {
			return f, Integration{}, &failure{codeLinkInvalid, errors.New("link has other parameters than its connection")}
		}
		f.Integration, f.Reconnect, f.Params, granted = c.Integration, true, c.Params, c.Token.Scopes
		if len(asked) == 0 {
			asked = c.RequestedScopes
		}
	}
	in, ok := h.integration(f.Integration)
	if !ok {
		return f, in, &failure{codeLinkInvalid, errors.New("link's integration is not configured")}
	}
	f.Integration = in.Name
	if err := in.accepts(f.Params); err != nil {
		return f, in, &failure{codeInvalidParameter, err}
	}
	if len(in.missing(f.Params)) == 0 || f.Reconnect {
		if err := in.bind(f.Params); err != nil {
			return f, in, &failure{codeInvalidParameter, err}
		}
	}
	if in.Provider.Scheme() != tokenstore.AuthOAuth2 { // nobody is asked, and nothing granted by name
		if len(p.Scopes) > 0 {
			return f, in, &failure{codeInvalidScope, errors.New("link asks for scopes, and the integration's auth scheme has none to ask for")}
		}
		f.Scopes = in.Scopes
		return f, in, nil
	}
	if len(asked) == 0 {
		asked = in.Scopes
	}
	for _, s := range asked {
		if len(in.DeclaredScopes) > 0 && !slices.Contains(in.DeclaredScopes, s) || !tokenstore.IsScope(s) {
			return f, in, &failure{codeInvalidScope, errors.New("link asks for a scope that the provider does not declare")}
		}
	}
	f.Scopes = tokenstore.UnionScopes(granted, asked)
	return f, in, nil
}

// open stores the flow and returns the address at the provider to which it
// leads, empty where the scheme has none. The state is known to the browser
// alone: the store has its hash.
func (h *Handler) open(ctx context.Context, f *tokenstore.Flow, in Integration, state, cookie string) (string, *failure) {
	f.ID, f.CodeVerifier = secret.New(state).Hash(), secret.New(random())
	if !f.Reconnect {
		f.ConnectionID = tokenstore.NewID()
	}
	f.BrowserHash = secret.New(cookie).Hash()
	f.Stage = tokenstore.FlowOpen
	f.CreatedAt = wallNow()
	f.ExpiresAt = f.CreatedAt.Add(tokenstore.FlowLife)

	authURL := ""
	if in.Provider.Scheme() == tokenstore.AuthOAuth2 {
		discover, cancel := context.WithTimeout(ctx, discoverLimit)
		defer cancel()
		var err error
		authURL, err = in.Provider.AuthorizeURL(discover, secret.New(state), f.CodeVerifier, slices.Clone(f.Scopes))
		if err != nil {
			return "", &failure{codeSourceError, err}
		}
	}
	if err := h.cfg.Store.CreateFlow(ctx, *f); err != nil {
		return "", &failure{codeProvisioning, err}
	}
	return authURL, nil
}
