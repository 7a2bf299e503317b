package api

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// linkView is the answer to begin and connect.
type linkView struct {
	ID         string            `json:"id"`
	Status     tokenstore.Status `json:"status"`
	ConnectURL string            `json:"connect_url"`
	ExpiresAt  *time.Time        `json:"expires_at"` // of the link
}

// way is how a connection is to get its credential.
type way int

const (
	byLink   way = iota // in the browser
	byGiven             // what it is made of is in the request, or nothing is needed
	byDevice            // on another device (RFC 8628)
)

// begin makes a connection: INITIATED with a link or a device code that connects
// it, or ACTIVE with the credential that was given.
func (h *Handler) begin(r *http.Request, in *input) (any, *guard.Problem) {
	integration := h.chosen(in)
	c := in.described(integration)
	given := in.credentials(integration)
	how := in.way(integration, given != nil)
	var to destination
	if how == byLink {
		to = h.destination(in, tokenstore.Connection{})
	}
	if p := in.done(); p != nil {
		return nil, p
	}
	ctx, cancel := detached(r)
	defer cancel()
	before, p := h.before(ctx, in.once, &c)
	if p != nil {
		return nil, p
	}
	switch how {
	case byGiven:
		if before != nil {
			return h.single(*before), nil
		}
		return h.beginActive(ctx, in, c, integration, given)
	case byDevice:
		return h.beginDevice(ctx, in, c, before)
	default:
		return h.beginLink(ctx, in, c, to, before)
	}
}

// beginLink stores c, unless this request has done so before.
func (h *Handler) beginLink(
	ctx context.Context, in *input, c tokenstore.Connection, to destination, before *tokenstore.Connection,
) (any, *guard.Problem) {
	if before != nil {
		c = *before
	}
	c.RedirectURL = to.redirectURL
	link, expires := h.cfg.Links.Link(c, to.redirectURL, to.state, nil, to.formPost)
	if before == nil {
		// A link opened in its last second begins a flow that may take its own time.
		c.InitiatedUntil = expires.Add(tokenstore.FlowLife)
		c.Happened(tokenstore.Event{Type: tokenstore.EventBegun, Actor: in.by})
		var err error
		if c, err = h.cfg.Store.CreateConnection(ctx, c); err != nil {
			return nil, h.storeProblem(err)
		}
		h.changed("connection begun", c)
	}
	return linkView{ID: c.ID, Status: c.Status, ConnectURL: link, ExpiresAt: instant(expires)}, nil
}

// connect makes a link for a connection that exists: to connect it again, or
// to add scopes. It changes nothing, but no link leaves without its event. What
// a credential is made of may be given instead, or a device be asked for.
func (h *Handler) connect(r *http.Request, in *input) (any, *guard.Problem) {
	ctx, cancel := detached(r)
	defer cancel()
	c, err := h.cfg.Store.Connection(ctx, in.id)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	integration, configured := h.cfg.Integrations[c.Integration]
	// First, since what may be given is the integration's to say.
	if c.Disabled || !configured || integration.bind(c.Params) != nil {
		return nil, h.notActive(c, "Connecting would not help this connection: it is disabled, or its integration is not configured, or has other parameters now.")
	}
	given := in.credentials(integration)
	how := in.way(integration, given != nil)
	var to destination
	var scopes []string
	if how == byLink {
		to = h.destination(in, c)
	}
	if integration.scheme() == tokenstore.AuthOAuth2 {
		scopes = in.scopes(integration)
	}
	if p := in.done(); p != nil {
		return nil, p
	}
	switch how { //nolint:exhaustive // by link: below
	case byGiven:
		return h.reconnect(ctx, in, c, integration, given)
	case byDevice:
		answer, p := h.device(ctx, c, tokenstore.UnionScopes(c.RequestedScopes, scopes))
		if p == nil {
			p = h.linked(ctx, in, c)
		}
		return answer, p
	}
	link, expires := h.cfg.Links.Link(c, to.redirectURL, to.state, scopes, to.formPost)
	if p := h.linked(ctx, in, c); p != nil {
		return nil, p
	}
	return linkView{ID: c.ID, Status: c.Status, ConnectURL: link, ExpiresAt: instant(expires)}, nil
}

// linked writes that a way to connect c is given out.
func (h *Handler) linked(ctx context.Context, in *input, c tokenstore.Connection) *guard.Problem {
	err := h.cfg.Audit.Record(ctx, tokenstore.Event{
		Type: tokenstore.EventLinked, Actor: in.by, ConnectionID: c.ID, Integration: c.Integration, UserID: c.UserID,
	})
	if err != nil {
		return h.storeProblem(err)
	}
	h.log.Info("connect link made", zap.String("connection_id", c.ID), zap.String("integration", c.Integration))
	return nil
}

// chosen takes the field `integration`, which may be left out where there is
// only one.
func (h *Handler) chosen(in *input) Integration {
	name, given := in.text("integration", maxName)
	names := slices.Sorted(maps.Keys(h.cfg.Integrations))
	if !given && len(names) == 1 {
		name = names[0]
	}
	integration, ok := h.cfg.Integrations[name]
	switch {
	case ok:
	case len(names) == 0:
		in.refuse(invalidRequest("Field `integration`: none is configured."))
	case given:
		in.refuse(invalidRequest("Field `integration` names none that is configured. There is: %s.", strings.Join(names, ", ")))
	default:
		in.refuse(invalidRequest("Field `integration` is required. There is: %s.", strings.Join(names, ", ")))
	}
	return integration
}

// described takes the fields that say what a new connection is.
func (in *input) described(integration Integration) tokenstore.Connection {
	userID, given := in.text("user_id", maxUserID)
	switch {
	case !given:
		userID = "default"
	case userID == "":
		in.refuse(invalidRequest("Field `user_id` is empty."))
	}
	name, _ := in.text("name", maxName)
	c := tokenstore.Connection{
		Integration: integration.Name, Provider: integration.Provider, UserID: userID, Name: name,
		Labels: in.object("labels"), Params: in.params(integration), Metadata: in.metadata(),
		Status: tokenstore.StatusInitiated, AuthScheme: integration.scheme(),
	}
	c.RequestedScopes = integration.ownScopes()
	if integration.scheme() == tokenstore.AuthOAuth2 {
		if c.RequestedScopes = in.scopes(integration); len(c.RequestedScopes) == 0 {
			c.RequestedScopes = integration.Scopes
		}
	}
	return c
}

// way takes the fields that say how a connection gets its credential.
func (in *input) way(integration Integration, given bool) way {
	if scheme, named := in.text("auth_scheme", maxName); named && scheme != integration.scheme() {
		in.refuse(invalidRequest("Field `auth_scheme`: the integration's is %s.", integration.scheme()))
	}
	device, _ := in.flag("device")
	switch {
	case device && integration.scheme() != tokenstore.AuthOAuth2:
		in.refuse(invalidRequest("Field `device` goes with OAUTH2 alone. The integration's scheme is %s.", integration.scheme()))
		return byDevice
	case device:
		return byDevice
	case given, integration.scheme() == tokenstore.AuthClientCredentials:
		return byGiven
	}
	return byLink
}

// destination is where a link leads back to.
type destination struct {
	redirectURL, state string
	formPost           bool
}

// destination takes the fields `redirect_url`, `state` and `response_mode`.
func (h *Handler) destination(in *input, c tokenstore.Connection) destination {
	to := destination{state: in.state(), redirectURL: h.redirect(in, c)}
	mode, given := in.text("response_mode", maxName)
	to.formPost = mode == "form_post"
	switch {
	case given && !to.formPost && mode != "query":
		in.refuse(invalidRequest("Field `response_mode` is neither `query` nor `form_post`."))
	case to.formPost && to.redirectURL == "":
		in.refuse(invalidRequest("Field `response_mode`: form_post needs a `redirect_url`, and none is configured."))
	}
	return to
}

// params takes the field `params`, the connection parameters of the
// integration's URLs.
func (in *input) params(integration Integration) map[string]string {
	params := in.object("params")
	if in.problem != nil {
		return nil
	}
	if err := integration.bind(params); err != nil {
		in.refuse(&guard.Problem{
			Status: http.StatusBadRequest, Code: tokenstore.ReasonInvalidParameter,
			Detail: "Field `params`: " + err.Error() + ".",
		})
	}
	return params
}

// bind returns why the integration's connections can't have these parameters,
// or nil.
func (i *Integration) bind(params map[string]string) error {
	switch {
	case i.CheckParams != nil:
		return i.CheckParams(params)
	case len(params) > 0:
		return errors.New("the integration has no connection parameters")
	}
	return nil
}

// scheme returns the auth scheme of the integration's connections.
func (i *Integration) scheme() string { return cmp.Or(i.Scheme, tokenstore.AuthOAuth2) }

// ownScopes returns what is asked for where no user is there to say yes: the
// integration's, and none with a key.
func (i *Integration) ownScopes() []string {
	if i.scheme() == tokenstore.AuthClientCredentials || i.scheme() == tokenstore.AuthJWTBearer {
		return i.Scopes
	}
	return nil
}

// scopes takes the field `scopes`.
func (in *input) scopes(integration Integration) []string {
	given := in.list("scopes")
	if len(strings.Join(given, " ")) > maxScopes {
		in.refuse(invalidRequest("Field `scopes` has more than %d bytes.", maxScopes))
		return nil
	}
	var scopes []string
	for _, scope := range given {
		if slices.Contains(scopes, scope) {
			continue
		}
		declared := integration.DeclaredScopes
		if !tokenstore.IsScope(scope) || len(declared) > 0 && !slices.Contains(declared, scope) {
			in.refuse(&guard.Problem{
				Status: http.StatusBadRequest, Code: "invalid_scope",
				Detail: "Field `scopes`: " + quote(scope) + " is not a scope of this integration's provider.",
			})
		}
		scopes = append(scopes, scope)
	}
	return scopes
}

// redirect takes the field `redirect_url`. It is compared with the registered
// ones byte for byte: nothing in it is parsed, so nothing in it is misread.
func (h *Handler) redirect(in *input, c tokenstore.Connection) string {
	given, ok := in.text("redirect_url", maxURL)
	if !ok {
		return c.ReturnTo(h.cfg.RedirectURLs)
	}
	if !slices.Contains(h.cfg.RedirectURLs, given) {
		in.refuse(&guard.Problem{
			Status: http.StatusBadRequest, Code: "redirect_uri_mismatch",
			Detail: "Field `redirect_url` is not registered. It has to be one of the configured `redirect_url`s, exactly.",
		})
	}
	return given
}
