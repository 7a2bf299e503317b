package connect

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Provider is what the flow needs of one authorization server and our client
// there. Its errors hold no secret.
type Provider interface {
	// Scheme returns one of tokenstore.AuthSchemes.
	Scheme() string
	// AuthorizeURL returns the address to which the browser is sent (RFC 6749
	// section 4.1.1).
	AuthorizeURL(ctx context.Context, state, codeVerifier secret.String, scopes []string) (string, error)
	// CodeParam returns the parameter of the authorization response that carries
	// the code. It needs no parameters of connections.
	CodeParam() string
	// Callback returns what is kept of the query of an authorization response with
	// a code: the connection parameters that it tells, by name. The error says that
	// the response is not the provider's, or not of its form.
	Callback(rawQuery string) (map[string]string, error)
	// Exchange redeems a code with exactly one request and returns the answer
	// unread, with what Callback returned in it. The error wraps
	// tokenstore.ErrNotSent or ErrOutcomeUnknown.
	Exchange(ctx context.Context, code, codeVerifier secret.String, callback map[string]string) (tokenstore.Answer, error)
	// Parse reads such an answer. The error is a *tokenstore.RefusalError or
	// wraps tokenstore.ErrOutcomeUnknown.
	Parse(a tokenstore.Answer, prev tokenstore.Token, askedScopes []string) (tokenstore.Token, error)
	// Issuer returns the issuer identifier, empty if not known, and whether the
	// server promises to send it with every answer (RFC 9207 section 3).
	Issuer(ctx context.Context) (issuer string, required bool, err error)
	// Denied reports whether the authorization error code, as the provider
	// spells it, says that the user declined.
	Denied(code string) bool
	// ScopeText returns what a scope allows in plain words, empty if unknown.
	ScopeText(scope string) string
	// Account asks whose account t is of, and adds what the answer tells to
	// t.Metadata. The error wraps errors.ErrUnsupported where there is no request
	// for it, and tokenstore.ErrAccountNeeded where t is of no use without.
	Account(ctx context.Context, t *tokenstore.Token) (tokenstore.Account, error)
	Keys
	Devices
}

// Keys is how credentials are made that no authorization endpoint gives out.
type Keys interface {
	// Fields returns what a credential consists of; none where the integration's
	// own client is enough.
	Fields() []tokenstore.Field
	// ParamFields returns the connection parameters.
	ParamFields() []tokenstore.Field
	// Credential makes a live token of what was given, by Field.Name, and tries
	// it where that can be done. The error wraps tokenstore.ErrCredentialInvalid,
	// ErrCredentialRefused, ErrNotSent or ErrOutcomeUnknown, or is a
	// *tokenstore.RefusalError.
	Credential(ctx context.Context, given map[string]secret.String) (tokenstore.Token, tokenstore.Account, error)
}

// Devices is how a device without a browser connects (RFC 8628).
type Devices interface {
	// Device asks for a device code. The error wraps errors.ErrUnsupported where
	// there is no endpoint for it.
	Device(ctx context.Context, scopes []string) (tokenstore.Device, error)
	// PollDevice makes one token request with a device code and returns the
	// answer unread, to be read by Parse. The error wraps tokenstore.ErrNotSent
	// or ErrOutcomeUnknown.
	PollDevice(ctx context.Context, code secret.String) (tokenstore.Answer, error)
}

// Integration is one registered client at one provider.
type Integration struct {
	// Name is the integration's name, as in {public_url}/callback/{name}.
	Name string
	// Title is the provider's name as people know it. Default: Name.
	Title string
	// ProviderName is the catalogue's name of the provider.
	ProviderName string
	// Provider speaks to the authorization server.
	Provider Provider
	// For returns the Provider for connections with these parameters, or an
	// error that names what is missing or wrong and holds no value. Nil: there
	// are no parameters, and Provider is for all.
	For func(params map[string]string) (Provider, error)
	// Scopes are asked for when a link names none.
	Scopes []string
	// DeclaredScopes are the scopes that may be asked for. Empty: any may.
	DeclaredScopes []string
	// Review shows the review page before the browser leaves.
	Review bool
}

// integration returns the integration with this name, or the only one for no
// name.
func (h *Handler) integration(name string) (Integration, bool) {
	if name == "" && len(h.cfg.Integrations) == 1 {
		for only := range h.cfg.Integrations {
			name = only
		}
	}
	in, ok := h.cfg.Integrations[name]
	in.Name = name
	if in.Title == "" {
		in.Title = name
	}
	return in, ok
}

// bind gives the integration the Provider for connections with these
// parameters. They are checked each time they are used: between then and now
// stand a link, a store and a configuration.
func (in *Integration) bind(params map[string]string) error {
	switch {
	case in.For != nil:
		p, err := in.For(params)
		in.Provider = p
		return err
	case len(params) > 0:
		return errors.New("the integration has no connection parameters")
	}
	return nil
}

// missing returns the connection parameters that are not among these, none if all
// of them have defaults: people who only want to connect are not asked for what a
// link could have said.
func (in *Integration) missing(params map[string]string) []tokenstore.Field {
	var fields []tokenstore.Field
	if in.For == nil || in.Provider == nil {
		return nil
	}
	required := false
	for _, f := range in.Provider.ParamFields() {
		if _, ok := params[f.Name]; !ok {
			fields, required = append(fields, f), required || !f.Optional
		}
	}
	if !required {
		return nil
	}
	return fields
}

// accepts returns why a link can't have these parameters, or nil: they are the
// integration's, or some of them, and the user can be asked for the rest.
func (in *Integration) accepts(params map[string]string) error {
	missing := in.missing(params)
	if len(missing) == 0 {
		bound := *in
		return bound.bind(params)
	}
	declared := in.Provider.ParamFields()
	if len(params)+len(missing) != len(declared) {
		return errors.New("there is a connection parameter that the provider does not have")
	}
	for _, f := range declared {
		if value, ok := params[f.Name]; ok && !fits(f, value) {
			return fmt.Errorf("connection parameter %s is not of its form", f.Name)
		}
	}
	return nil
}

// fits reports whether value has the field's form.
func fits(f tokenstore.Field, value string) bool {
	if f.Pattern == "" {
		return true
	}
	form, err := regexp.Compile("^(?:" + f.Pattern + ")$")
	return err == nil && form.MatchString(value)
}
