package provider

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Words of jwt and basic.
const (
	jwtClientID  = "client_id"
	jwtGiven     = "given"
	jwtIssuer    = "issuer"
	jwtOptional  = "optional"
	jwtClaim     = "claim"
	jwtParam     = "param"
	jwtNone      = "none"   // jwt.scope
	jwtBearer    = "bearer" // jwt.carry
	passwordNone = "none"

	assertionRedirectHost = "redirect_host" // client_assertion.issuer
)

// Names of what credentials consist of.
const (
	fieldAPIKey   = "api_key"
	fieldUsername = "username"
	fieldPassword = "password"
	fieldToken    = "token"
	fieldKey      = "key"
	fieldKeyID    = "key_id"
	fieldIssuer   = "issuer"
	fieldSubject  = "subject"
)

// DefaultScheme returns the auth scheme of an integration that names none: the
// first that the entry describes, empty if it describes none.
func (e *Entry) DefaultScheme() string {
	switch {
	case e.AuthorizeURL != "" || e.Issuer != "":
		return tokenstore.AuthOAuth2
	case e.Key != (KeyEntry{}):
		return tokenstore.AuthAPIKey
	case e.Basic != (BasicEntry{}):
		return tokenstore.AuthBasic
	case e.JWT != nil:
		return tokenstore.AuthJWTBearer
	case e.TokenURL != "":
		return tokenstore.AuthClientCredentials
	}
	return ""
}

// Schemes returns the auth schemes that integrations of this provider can have,
// in the order of tokenstore.AuthSchemes.
func (e *Entry) Schemes() []string {
	var all []string
	for _, scheme := range tokenstore.AuthSchemes {
		if e.fits(scheme) == nil {
			all = append(all, scheme)
		}
	}
	return all
}

// fits returns why an integration of this provider can't have the scheme, or nil.
// A token or a password may be put on the requests to any API.
func (e *Entry) fits(scheme string) error {
	endpoint := e.TokenURL != "" || e.Issuer != ""
	switch scheme {
	case tokenstore.AuthOAuth2:
		if e.Issuer == "" && (e.AuthorizeURL == "" || e.TokenURL == "") {
			return errNoEndpoints
		}
	case tokenstore.AuthClientCredentials:
		if !endpoint {
			return errors.New("the endpoint is missing: give token_url, or issuer")
		}
	case tokenstore.AuthJWTBearer:
		if e.JWT == nil || !endpoint {
			return errors.New("auth_scheme JWT_BEARER needs jwt, and token_url or issuer, in its provider")
		}
	case tokenstore.AuthAPIKey:
		if e.Key == (KeyEntry{}) {
			return errors.New("auth_scheme API_KEY needs key in its provider: the header or query parameter that carries it")
		}
	case tokenstore.AuthBasic, tokenstore.AuthBearerToken:
	default:
		return fmt.Errorf("auth_scheme %q is not one of %s", scheme, strings.Join(tokenstore.AuthSchemes, ", "))
	}
	return nil
}

// OptionError is what is wrong with one option of an integration. New's errors
// wrap it where there is one such.
type OptionError struct {
	// Option is the option's name, such as `client_secret`; `param NAME` of a
	// connection parameter.
	Option string
	Err    error
}

func (e *OptionError) Error() string { return e.Err.Error() }

func (e *OptionError) Unwrap() error { return e.Err }

// check returns what is wrong with a configuration that has this scheme.
func (cfg *Config) check(scheme string) error {
	e := &cfg.Entry
	wrong := func(option, text string) error { return &OptionError{option, errors.New(text)} }
	if scheme == "" {
		return fmt.Errorf("%w; or say which auth_scheme the API takes", errNoEndpoints)
	}
	if err := e.fits(scheme); err != nil {
		return &OptionError{"auth_scheme", err}
	}
	client := cfg.ClientID != "" || !cfg.ClientSecret.IsZero()
	switch scheme {
	case tokenstore.AuthOAuth2, tokenstore.AuthClientCredentials:
		if cfg.ClientID == "" {
			return wrong("client_id", "client_id is missing")
		}
	case tokenstore.AuthJWTBearer:
		if cfg.ClientID == "" && (cmp.Or(e.JWT.Issuer, jwtClientID) == jwtClientID || client) {
			return wrong("client_id", "client_id is missing")
		}
	default:
		switch named := e.clientInKey(); {
		case named && cfg.ClientID == "":
			return wrong("client_id", "client_id is missing: requests with the credential name it")
		case client && !named:
			return wrong("client_id", "client_id and client_secret do not go with auth_scheme "+scheme)
		case len(cfg.Scopes) > 0:
			return wrong("scopes", "scopes do not go with auth_scheme "+scheme)
		}
	}
	switch {
	case scheme == tokenstore.AuthClientCredentials && cfg.ClientSecret.IsZero():
		// RFC 6749 section 4.4: "The client credentials grant type MUST only be
		// used by confidential clients."
		return wrong("client_secret", "client_secret is missing: auth_scheme OAUTH2_CLIENT_CREDENTIALS has nothing else to present")
	case scheme == tokenstore.AuthOAuth2 && cfg.RedirectURI == "":
		return wrong("redirect_uri", "the redirect URI is missing")
	case e.ClientAuth == AuthNone && !cfg.ClientSecret.IsZero():
		return wrong("client_secret", "client_auth none does not go with a client_secret")
	case cfg.ClientSecret.IsZero() && e.needsSecret(scheme):
		return wrong("client_secret", "client_secret is missing: the provider's requests need it")
	case !cfg.ClientSecret.IsZero() && e.ClientAuth == AuthPrivateKeyJWT:
		if err := checkClientKey(cfg.ClientSecret); err != nil {
			return &OptionError{"client_secret", fmt.Errorf("client_auth private_key_jwt: the client_secret %w", err)}
		}
	}
	return nil
}

// WantsClient reports whether an integration of this provider with an auth
// scheme needs a client_id, and whether it has a client_secret usually.
func (e *Entry) WantsClient(scheme string) (id, secret bool) {
	switch scheme {
	case tokenstore.AuthOAuth2, tokenstore.AuthClientCredentials:
		return true, e.ClientAuth != AuthNone
	case tokenstore.AuthJWTBearer:
		secret = e.needsSecret(scheme)
		return secret || e.JWT != nil && cmp.Or(e.JWT.Issuer, jwtClientID) == jwtClientID, secret
	}
	return e.clientInKey(), e.needsSecret(scheme)
}

// Scheme returns the auth scheme of the integration's connections, one of
// tokenstore.AuthSchemes.
func (p *Provider) Scheme() string { return p.scheme }

// asks reports whether the scheme has a token endpoint to ask.
func (p *Provider) asks() bool { return asks(p.scheme) }

func asks(scheme string) bool {
	return scheme == tokenstore.AuthOAuth2 || scheme == tokenstore.AuthClientCredentials || scheme == tokenstore.AuthJWTBearer
}

// Fields returns what a credential of this scheme consists of, as it is given on
// a page or by the API. None for OAUTH2 and OAUTH2_CLIENT_CREDENTIALS.
func (p *Provider) Fields() []tokenstore.Field {
	e := &p.entry
	switch p.scheme {
	case tokenstore.AuthAPIKey:
		return []tokenstore.Field{{Name: fieldAPIKey, Title: e.Key.Title, Pattern: e.Key.Pattern, HelpURL: e.Key.HelpURL, Secret: true}}
	case tokenstore.AuthBearerToken:
		return []tokenstore.Field{{Name: fieldToken, Secret: true}}
	case tokenstore.AuthBasic:
		fields := []tokenstore.Field{{Name: fieldUsername, Title: e.Basic.Username, HelpURL: e.Basic.HelpURL}}
		if e.Basic.Password != passwordNone {
			return append(fields, tokenstore.Field{Name: fieldPassword, Title: e.Basic.Password, Secret: true})
		}
		fields[0].Secret = true // it is all there is
		return fields
	case tokenstore.AuthJWTBearer:
		fields := []tokenstore.Field{{Name: fieldKey, Secret: true}}
		if e.JWT.KeyID == jwtGiven {
			fields = append(fields, tokenstore.Field{Name: fieldKeyID, Optional: true})
		}
		if e.JWT.Issuer == jwtGiven {
			fields = append(fields, tokenstore.Field{Name: fieldIssuer, Optional: true})
		}
		switch e.JWT.Subject {
		case jwtGiven:
			return append(fields, tokenstore.Field{Name: fieldSubject})
		case jwtOptional:
			return append(fields, tokenstore.Field{Name: fieldSubject, Optional: true})
		}
		return fields
	}
	return nil
}

// ParamFields returns the connection parameters that people are asked for, by
// name. What the integration's configuration fixes is none of them.
func (p *Provider) ParamFields() []tokenstore.Field {
	var fields []tokenstore.Field
	for _, name := range p.params.names() {
		if _, fixed := p.fixed[name]; !fixed && p.params.declared[name].asked() {
			fields = append(fields, p.template.Params[name].field(name))
		}
	}
	return fields
}

// ParamFields returns the connection parameters of the entry that people are
// asked for, by name, where they connect in the browser.
func (e *Entry) ParamFields() []tokenstore.Field {
	var fields []tokenstore.Field
	for _, name := range slices.Sorted(maps.Keys(e.Params)) {
		if p := e.Params[name]; p.From == "" && !p.Configured() {
			fields = append(fields, p.field(name))
		}
	}
	return fields
}

func (e ParamEntry) field(name string) tokenstore.Field {
	f := tokenstore.Field{Name: name, Title: e.Title, Pattern: e.Pattern, Optional: e.Default != "", Default: e.Default}
	if whole := e.Host || len(e.Domains) > 0; f.Pattern == "" && !whole && e.From == "" {
		f.Pattern = defaultPattern
	}
	return f
}
