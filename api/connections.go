package api

import (
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

// begin makes an INITIATED connection and a link that connects it.
func (h *Handler) begin(r *http.Request, in *input) (any, *guard.Problem) {
	integration := h.chosen(in)
	userID, given := in.text("user_id", maxUserID)
	switch {
	case !given:
		userID = "default"
	case userID == "":
		in.refuse(invalidRequest("Field `user_id` is empty."))
	}
	name, _ := in.text("name", maxName)
	labels := in.object("labels")
	params := in.params(integration)
	state := in.state()
	scopes := in.scopes(integration)
	if len(scopes) == 0 {
		scopes = integration.Scopes
	}
	redirectURL := h.redirect(in, tokenstore.Connection{})
	if p := in.done(); p != nil {
		return nil, p
	}
	c := tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: integration.Name, Provider: integration.Provider,
		UserID: userID, Name: name, Labels: labels, Params: params,
		Status: tokenstore.StatusInitiated, AuthScheme: tokenstore.AuthOAuth2,
		RequestedScopes: scopes, RedirectURL: redirectURL,
	}
	link, expires := h.cfg.Links.Link(c, redirectURL, state, nil)
	// A link opened in its last second begins a flow that may take its own time.
	c.InitiatedUntil = expires.Add(tokenstore.FlowLife)
	c.Happened(tokenstore.Event{Type: tokenstore.EventBegun, Actor: in.by})
	c, err := h.cfg.Store.CreateConnection(r.Context(), c)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	h.changed("connection begun", c)
	return linkView{ID: c.ID, Status: c.Status, ConnectURL: link, ExpiresAt: instant(expires)}, nil
}

// connect makes a link for a connection that exists: to connect it again, or
// to add scopes. It changes nothing, but no link leaves without its event.
func (h *Handler) connect(r *http.Request, in *input) (any, *guard.Problem) {
	c, err := h.cfg.Store.Connection(r.Context(), in.id)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	integration, configured := h.cfg.Integrations[c.Integration]
	state := in.state()
	scopes := in.scopes(integration)
	redirectURL := h.redirect(in, c)
	if p := in.done(); p != nil {
		return nil, p
	}
	if c.Disabled || !configured || integration.bind(c.Params) != nil {
		return nil, h.notActive(c, "Connecting would not help this connection: it is disabled, or its integration is not configured, or has other parameters now.")
	}
	link, expires := h.cfg.Links.Link(c, redirectURL, state, scopes)
	err = h.cfg.Audit.Record(r.Context(), tokenstore.Event{
		Type: tokenstore.EventLinked, Actor: in.by, ConnectionID: c.ID, Integration: c.Integration, UserID: c.UserID,
	})
	if err != nil {
		return nil, h.storeProblem(err)
	}
	h.log.Info("connect link made", zap.String("connection_id", c.ID), zap.String("integration", c.Integration))
	return linkView{ID: c.ID, Status: c.Status, ConnectURL: link, ExpiresAt: instant(expires)}, nil
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

// bind gives the integration the Revoker for connections with these
// parameters.
func (i *Integration) bind(params map[string]string) error {
	switch {
	case i.For != nil:
		revoker, err := i.For(params)
		i.Revoker = revoker
		return err
	case len(params) > 0:
		return errors.New("the integration has no connection parameters")
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
		if !isScope(scope) || len(declared) > 0 && !slices.Contains(declared, scope) {
			in.refuse(&guard.Problem{
				Status: http.StatusBadRequest, Code: "invalid_scope",
				Detail: "Field `scopes`: " + quote(scope) + " is not a scope of this integration's provider.",
			})
		}
		scopes = append(scopes, scope)
	}
	return scopes
}

// isScope reports whether s is one scope-token (RFC 6749 section 3.3).
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '"' || r == '\\'
	})
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

// get shows one connection.
func (h *Handler) get(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	c, err := h.cfg.Store.Connection(r.Context(), in.id)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	return h.single(c), nil
}

// The sizes of a page of a list.
const (
	defaultLimit = 50
	maxLimit     = 200
)

// list shows one page of the connections.
func (h *Handler) list(r *http.Request, in *input) (any, *guard.Problem) {
	var f tokenstore.Filter
	f.UserID, _ = in.param("user_id", maxUserID)
	f.Integration, _ = in.param("integration", maxName)
	if status, given := in.param("status", maxName); given {
		f.Status = tokenstore.Status(status)
		if !slices.Contains(statuses, f.Status) {
			in.refuse(invalidRequest("Query parameter `status` is none of INITIATED, ACTIVE, EXPIRED, FAILED, REVOKED."))
		}
	}
	cursor, _ := in.param("cursor", maxCursor)
	limit := in.limit()
	if p := in.done(); p != nil {
		return nil, p
	}
	page, next, err := h.cfg.Store.ListConnections(r.Context(), f, cursor, limit)
	if errors.Is(err, tokenstore.ErrBadCursor) {
		return nil, invalidRequest("Query parameter `cursor` is none that a list gave out.")
	}
	if err != nil {
		return nil, h.storeProblem(err)
	}
	answer := struct {
		Connections []any   `json:"connections"` // connectionView, or damagedView
		NextCursor  *string `json:"next_cursor"` // null at the end
	}{Connections: make([]any, 0, len(page))}
	for _, c := range page {
		if c.Damaged {
			answer.Connections = append(answer.Connections, viewDamaged(c))
			continue
		}
		answer.Connections = append(answer.Connections, h.view(c))
	}
	if next != "" {
		answer.NextCursor = &next
	}
	return answer, nil
}

var statuses = []tokenstore.Status{
	tokenstore.StatusInitiated, tokenstore.StatusActive, tokenstore.StatusExpired,
	tokenstore.StatusFailed, tokenstore.StatusRevoked,
}

// refresh renews the token now.
func (h *Handler) refresh(r *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	refused := h.cfg.Refresher.Refresh(r.Context(), in.id, in.by)
	c, err := h.cfg.Store.Connection(r.Context(), in.id)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	if refused != nil {
		return nil, h.refreshProblem(refused, c)
	}
	h.changed("connection refreshed", c)
	return h.single(c), nil
}

// integrations shows what is configured.
func (h *Handler) integrations(_ *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	type view struct {
		Name        string   `json:"name"`
		Provider    string   `json:"provider"`
		Title       string   `json:"title"`
		Scopes      []string `json:"scopes"`
		CallbackURL string   `json:"callback_url"`
	}
	views := make([]view, 0, len(h.cfg.Integrations))
	for _, name := range slices.Sorted(maps.Keys(h.cfg.Integrations)) {
		i := h.cfg.Integrations[name]
		views = append(views, view{i.Name, i.Provider, i.Title, notNil(i.Scopes), i.CallbackURL})
	}
	return map[string]any{"integrations": views}, nil
}

// changed records a change of a connection.
func (h *Handler) changed(what string, c tokenstore.Connection) {
	h.log.Info(what, zap.String("connection_id", c.ID), zap.String("integration", c.Integration))
}
