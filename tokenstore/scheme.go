package tokenstore

import (
	"errors"

	"github.com/lanyard-proxy/lanyard/secret"
)

// The auth schemes of connections: how the credential came, and how it is
// renewed. An integration has one of them.
const (
	// AuthOAuth2: the user's consent in the browser, or on another device
	// (RFC 6749 section 4.1, RFC 8628).
	AuthOAuth2 = "OAUTH2"
	// AuthClientCredentials: the integration's own client, without a user
	// (RFC 6749 section 4.4).
	AuthClientCredentials = "OAUTH2_CLIENT_CREDENTIALS" //nolint:gosec // G101: a word
	// AuthAPIKey: a key, in the header or query parameter that the provider says.
	AuthAPIKey = "API_KEY"
	// AuthBasic: a user name and a password (RFC 7617).
	AuthBasic = "BASIC"
	// AuthBearerToken: a token that was made at the provider by hand (RFC 6750).
	AuthBearerToken = "BEARER_TOKEN"
	// AuthJWTBearer: a private key that signs assertions, as of a service account
	// (RFC 7523).
	AuthJWTBearer = "JWT_BEARER"
)

// AuthSchemes are all auth schemes.
var AuthSchemes = []string{AuthOAuth2, AuthClientCredentials, AuthAPIKey, AuthBasic, AuthBearerToken, AuthJWTBearer}

// ClientCredentials stands in Token.RefreshToken where the integration's own
// client renews the access token and there is nothing else to present.
var ClientCredentials = secret.New("client_credentials")

// Errors of making a credential of what was given.
var (
	// ErrCredentialInvalid: a value is missing, or not of its form. The text says
	// which one, never the value, and may be shown.
	ErrCredentialInvalid = errors.New("credentials are not valid")
	// ErrCredentialRefused: the provider was tried, and does not take it.
	ErrCredentialRefused = errors.New("provider refused the credentials")
	// ErrAccountNeeded: the provider was not told where the account's API is, so
	// that the credential can't be used.
	ErrAccountNeeded = errors.New("the account's API is not known")
)

// Account is the account behind a connection, as its provider names it. The
// zero value: it is not known.
type Account struct {
	ID    string // stable at the provider
	Name  string // for people, may be empty
	Email string // may be empty
}

// SameAs reports whether a and b may be the same account: those that are not
// known may be any.
func (a Account) SameAs(b Account) bool { return a.ID == "" || b.ID == "" || a.ID == b.ID }

// Field is a value that somebody gives on a page or by the API: one of a
// credential, or a connection parameter.
type Field struct {
	Name    string // as in JSON: api_key, username, password, token, key, or the parameter's
	Title   string // for people, in English; empty: the page has words for Name
	Pattern string // the whole value's form, a regular expression (Go's); empty: any
	HelpURL string // where people find the value; may be empty
	Secret  bool

	Optional bool   // it may be left out, or empty
	Default  string // what it is then; empty: nothing, or nobody knows
}

// Device is what a device authorization endpoint answered (RFC 8628 section
// 3.2).
type Device struct {
	Code                    secret.String // device_code
	UserCode                string
	VerificationURI         string
	VerificationURIComplete string // with the user code in it; may be empty
	Life                    int    // seconds, from the answer on
	Interval                int    // seconds between two polls, at least
}
