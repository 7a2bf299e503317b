package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Credentials makes credentials of what is given, instead of a consent, and
// knows whose they are.
type Credentials interface {
	// Credential makes a live token of what was given, by Field.Name, and tries
	// it once where there is a way to. Errors: tokenstore.ErrCredentialInvalid,
	// ErrCredentialRefused, a *tokenstore.RefusalError, ErrNotSent,
	// ErrOutcomeUnknown, and as with Account ErrAccountNeeded. They hold no secret.
	Credential(ctx context.Context, given map[string]secret.String) (tokenstore.Token, tokenstore.Account, error)
	// Account returns whose t is. Errors: errors.ErrUnsupported where there is no
	// way to ask, tokenstore.ErrCredentialRefused where t is not taken, and those
	// of a provider that does not answer; beside them tokenstore.ErrAccountNeeded
	// where t is of no use without. It adds to t.Metadata what the provider tells.
	Account(ctx context.Context, t *tokenstore.Token) (tokenstore.Account, error)
}

// Devices begins flows on devices without a browser (RFC 8628).
type Devices interface {
	// BeginDevice asks the provider for a code with which c is connected, and goes on
	// asking what has become of it. The error is errors.ErrUnsupported where the
	// provider has no such flow, or one of Credentials'.
	BeginDevice(ctx context.Context, c tokenstore.Connection, scopes []string) (tokenstore.Device, error)
}

const (
	// maxSecret bounds a value of a credential, in characters: the key of a
	// service account comes in a JSON file of some 3 KB.
	maxSecret = 64 << 10
	// providerTimeout bounds what is asked of a provider within a request.
	providerTimeout = 20 * time.Second
	// providerRetry is when to try again what no provider answered: a guess.
	providerRetry = 10 * time.Second
	// maxRetry caps what a provider asks for, as everywhere.
	maxRetry = 15 * time.Minute
)

// The reasons of events of connections that no flow made or changed.
const (
	reasonCredentials = "credentials"
	reasonImported    = "imported"
	reasonDisabled    = "disabled"
	reasonEnabled     = "enabled"
)

// credentials takes the field `credentials`, nil if it is not there.
func (in *input) credentials(integration Integration) map[string]secret.String {
	raw, there := in.body["credentials"]
	delete(in.body, "credentials")
	if !there {
		return nil
	}
	members, p := object(raw, "Field `credentials`")
	if p != nil {
		in.refuse(p)
		return nil
	}
	if integration.scheme() == tokenstore.AuthOAuth2 {
		in.refuse(invalidRequest("Field `credentials`: the integration's auth scheme is OAUTH2, whose credentials come from its provider. `import` takes those that you have."))
		return nil
	}
	given := map[string]secret.String{}
	for _, f := range integration.Fields {
		raw, there := members[f.Name]
		value, ok := str(raw)
		delete(members, f.Name)
		if !there && f.Optional {
			continue
		}
		if !ok || value == "" && !f.Optional {
			in.refuse(invalidRequest("Field `credentials`: `%s` is required, a string.", f.Name))
		}
		if len(value) > maxSecret {
			in.refuse(invalidRequest("Field `credentials`: `%s` has more than %d bytes.", f.Name, maxSecret))
		}
		given[f.Name] = secret.New(value)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		in.refuse(invalidRequest("Field `credentials`: %s is not known for %s.", quote(name), integration.scheme()))
	}
	return given
}

// made is a credential that was made of what was given.
type made struct {
	token   tokenstore.Token
	account tokenstore.Account
}

// credential makes a live credential of what was given.
func (h *Handler) credential(
	ctx context.Context, integration Integration, params map[string]string, given map[string]secret.String,
) (made, *guard.Problem) {
	if integration.Credentials == nil {
		return made{}, invalidRequest("The integration takes no credentials by the API.")
	}
	source, err := integration.Credentials(params)
	if err != nil {
		return made{}, &guard.Problem{
			Status: http.StatusBadRequest, Code: tokenstore.ReasonInvalidParameter, Detail: "Field `params`: " + err.Error() + ".",
		}
	}
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	t, account, err := source.Credential(ctx, given)
	if err != nil {
		return made{}, h.sourceProblem(err, integration.Name)
	}
	return made{t, account}, nil
}

// beginActive stores c with the credential that was given: ACTIVE at once.
func (h *Handler) beginActive(
	ctx context.Context, in *input, c tokenstore.Connection, integration Integration, given map[string]secret.String,
) (any, *guard.Problem) {
	got, p := h.credential(ctx, integration, c.Params, given)
	if p != nil {
		return nil, p
	}
	got.into(&c, integration, in.by, reasonCredentials)
	c, err := h.cfg.Store.CreateConnection(ctx, c)
	if err != nil {
		return nil, h.storeProblem(err)
	}
	h.changed("connection made of credentials", c)
	return h.single(c), nil
}

// into makes the credential c's live one.
func (m made) into(c *tokenstore.Connection, integration Integration, by tokenstore.Actor, reason string) {
	if c.Staged != nil {
		c.Happened(tokenstore.Event{Type: tokenstore.EventDropped, Actor: by, Reason: tokenstore.ReasonReplaced})
	}
	asked := c.RequestedScopes
	if integration.scheme() != tokenstore.AuthOAuth2 {
		asked = integration.ownScopes()
	}
	c.Activate(m.token, asked, time.Now().UTC())
	c.AuthScheme = integration.scheme()
	if m.account != (tokenstore.Account{}) {
		c.Account = m.account
	}
	c.Happened(tokenstore.Event{Type: tokenstore.EventActive, Actor: by, Reason: reason})
}

// errAccountMismatch ends the update of a connection whose new credential is
// another account's.
var errAccountMismatch = errors.New("the credential is another account's")

// reconnect gives c, which exists, the credential that was given.
func (h *Handler) reconnect(
	ctx context.Context, in *input, c tokenstore.Connection, integration Integration, given map[string]secret.String,
) (any, *guard.Problem) {
	got, p := h.credential(ctx, integration, c.Params, given)
	if p != nil {
		return nil, p
	}
	c, err := h.cfg.Store.UpdateConnection(ctx, c.ID, func(c *tokenstore.Connection) error {
		if !c.Account.SameAs(got.account) {
			return errAccountMismatch
		}
		got.into(c, integration, in.by, reasonCredentials)
		return nil
	})
	if errors.Is(err, errAccountMismatch) {
		return nil, &guard.Problem{
			Status: http.StatusConflict, Code: "account_mismatch",
			Detail: "These credentials are another account's than the connection's. It is as it was; begin a new connection for that account.",
		}
	}
	if err != nil {
		return nil, h.storeProblem(err)
	}
	h.changed("connection given new credentials", c)
	return h.single(c), nil
}

// deviceView is the answer to begin and connect with `device`.
type deviceView struct {
	ID     string            `json:"id"`
	Status tokenstore.Status `json:"status"`
	Device deviceCode        `json:"device"`
}

// deviceCode is what the user needs to connect on another device. The
// device_code itself stays here.
type deviceCode struct {
	UserCode                string     `json:"user_code"`
	VerificationURI         string     `json:"verification_uri"`
	VerificationURIComplete string     `json:"verification_uri_complete,omitempty"`
	ExpiresAt               *time.Time `json:"expires_at"`
	Interval                int        `json:"interval"` // seconds; how often asking for the status makes sense
}

// deviceTime is how long a connection waits for its device flow: longer than
// codes live. The flow itself ends it earlier.
const deviceTime = time.Hour

// beginDevice stores c and begins its flow. It is not left behind where the
// flow can't begin.
func (h *Handler) beginDevice(
	ctx context.Context, in *input, c tokenstore.Connection, before *tokenstore.Connection,
) (any, *guard.Problem) {
	switch {
	case before != nil && before.Status == tokenstore.StatusActive: // its user was quicker than this request
		return h.single(*before), nil
	case before != nil:
		c = *before
	default:
		c.InitiatedUntil = time.Now().Add(deviceTime).UTC()
		c.Happened(tokenstore.Event{Type: tokenstore.EventBegun, Actor: in.by})
		var err error
		if c, err = h.cfg.Store.CreateConnection(ctx, c); err != nil {
			return nil, h.storeProblem(err)
		}
	}
	answer, p := h.device(ctx, c, c.RequestedScopes)
	if p == nil {
		h.changed("connection begun", c)
		return answer, nil
	}
	if before != nil {
		return nil, p // the code that was given out before may connect it yet
	}
	_, err := h.cfg.Store.DeleteConnection(ctx, c.ID,
		tokenstore.Event{Type: tokenstore.EventDeleted, Actor: in.by, Reason: p.Code})
	if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		h.log.Warn("connection left behind", zap.String("connection_id", c.ID), zap.Error(err)) // it ends by itself
	}
	in.once.spoilt = true
	return nil, p
}

// device begins the flow that connects c on another device.
func (h *Handler) device(ctx context.Context, c tokenstore.Connection, scopes []string) (any, *guard.Problem) {
	unsupported := &guard.Problem{
		Status: http.StatusBadRequest, Code: "device_unsupported",
		Detail: "The provider has no device flow. Begin with a link.",
	}
	if h.cfg.Devices == nil {
		return nil, unsupported
	}
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	d, err := h.cfg.Devices.BeginDevice(ctx, c, scopes)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, unsupported
	case errors.Is(err, tokenstore.ErrUnavailable), errors.Is(err, tokenstore.ErrFull):
		return nil, h.storeProblem(err)
	case err != nil:
		return nil, h.sourceProblem(err, c.Integration)
	}
	ends := time.Now().Add(time.Duration(d.Life) * time.Second).Truncate(time.Second)
	return deviceView{c.ID, c.Status, deviceCode{
		UserCode: d.UserCode, VerificationURI: d.VerificationURI, VerificationURIComplete: d.VerificationURIComplete,
		ExpiresAt: instant(ends), Interval: d.Interval,
	}}, nil
}

// sourceProblem turns an error of making a credential into an answer.
func (h *Handler) sourceProblem(err error, integration string) *guard.Problem {
	refused, isRefusal := errors.AsType[*tokenstore.RefusalError](err)
	switch {
	case errors.Is(err, tokenstore.ErrCredentialInvalid):
		return &guard.Problem{
			Status: http.StatusBadRequest, Code: "credentials_invalid", Detail: "Field `credentials`: " + err.Error() + ".",
		}
	case errors.Is(err, tokenstore.ErrCredentialRefused), isRefusal && refused.Kind == tokenstore.RefusedGrant:
		return &guard.Problem{
			Status: http.StatusUnprocessableEntity, Code: "credentials_refused",
			Detail: "The provider was tried, and does not take these credentials. Nothing was stored.",
		}
	case errors.Is(err, tokenstore.ErrAccountNeeded) && !errors.Is(err, tokenstore.ErrNotSent) && !errors.Is(err, tokenstore.ErrOutcomeUnknown):
		return &guard.Problem{
			Status: http.StatusUnprocessableEntity, Code: tokenstore.ReasonAPIUnknown,
			Detail: "The provider does not tell where this account's API is, and without that the credentials are of no use. Nothing was stored.",
		}
	case isRefusal && refused.Kind == tokenstore.RefusedScope:
		return &guard.Problem{
			Status: http.StatusBadRequest, Code: "invalid_scope", Detail: "The provider refused the scopes.",
		}
	case isRefusal && refused.Kind == tokenstore.RefusedClient:
		h.log.Error("provider refused the integration's client", zap.String("integration", integration),
			zap.String("error_code", refused.Code), zap.Int("status", refused.Status))
		return &guard.Problem{
			Status: http.StatusBadGateway, Code: "integration_misconfigured",
			Detail: "The provider refuses the integration's client. Its client_id and client_secret have to be looked at.",
		}
	}
	after := providerRetry
	if isRefusal && refused.RetryAfter > 0 {
		after = refused.RetryAfter
	}
	if un, ok := errors.AsType[*tokenstore.UnreadableError](err); ok && un.RetryAfter > 0 {
		after = un.RetryAfter
	}
	h.log.Warn("provider did not answer", zap.String("integration", integration), zap.Error(err))
	return &guard.Problem{
		Status: http.StatusServiceUnavailable, Code: "source_unavailable",
		Detail:     "The provider did not answer. Nothing was stored; it may work later.",
		RetryAfter: min(max(after, time.Second), maxRetry),
	}
}
