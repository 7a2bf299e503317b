package provider

import (
	"fmt"
	"time"
)

// How a client proves itself to the token endpoint (`client_auth`).
const (
	AuthBasic    = "basic"     // HTTP Basic, form-encoded first (RFC 6749 section 2.3.1)
	AuthBasicRaw = "basic_raw" // HTTP Basic without that encoding, where a provider breaks on it
	AuthPost     = "post"      // client_id and client_secret in the body
	AuthNone     = "none"      // a public client: client_id in the body
	// AuthOmit says nothing about the client. Only for revocation.
	AuthOmit = "omit"
)

// What becomes of a refresh token when it is redeemed (`refresh.rotation`).
const (
	RotationSingleUse = "single_use" // a new one each time, the old one dead; the default
	RotationGrace     = "grace"      // a new one each time, the old one taken for a while
	RotationNone      = "none"       // it stays the same
)

const (
	lifeNever   = "never"                   // `answer.life never`: access tokens don't end
	forever     = time.Duration(-1)         // lifeNever, parsed
	clientIDVar = "{client_id}"             // in revoke_url
	bodyForm    = "form"                    // revoke.body
	bodyJSON    = "json"                    // revoke.body
	tokenAny    = "any"                     // revoke.token: the refresh token, else the access token
	tokenAccess = "access"                  // revoke.token: always the access token
	maxLife     = 365 * 24 * time.Hour      // of an access token; what is told beyond is capped
	maxRefresh  = 20 * 365 * 24 * time.Hour // of a refresh token

	defaultConcurrency = 16
	maxConcurrency     = 1000
	defaultInterval    = 25 * time.Millisecond
	maxInterval        = time.Minute
)

// Entry describes a provider, in the words of a catalogue file. The same words
// describe a provider of one's own in the configuration.
type Entry struct {
	// The provider's name for people. Default: the API's host.
	Title string `json:"title,omitempty"`
	// The issuer identifier (RFC 8414, RFC 9207). Where authorize_url or
	// token_url is missing, endpoints are discovered from it at first use.
	Issuer string `json:"issuer,omitempty"`
	// The authorization endpoint (RFC 6749 section 3.1).
	AuthorizeURL string `json:"authorize_url,omitempty"`
	// The token endpoint (RFC 6749 section 3.2).
	TokenURL string `json:"token_url,omitempty"`
	// The revocation endpoint (RFC 7009); `{client_id}` stands for the client's.
	RevokeURL string `json:"revoke_url,omitempty"`
	// The introspection endpoint (RFC 7662).
	IntrospectURL string `json:"introspect_url,omitempty"`
	// The device authorization endpoint (RFC 8628).
	DeviceURL string `json:"device_url,omitempty"`
	// The base URL of the API that requests are proxied to. Required.
	APIURL string `json:"api_url,omitempty"`
	// Further hosts that may see the token, with a port where needed. The
	// scheme is api_url's.
	Hosts []string `json:"hosts,omitempty"`
	// The parameters of a connection that stand as {name} in authorize_url,
	// token_url, revoke_url, introspect_url, device_url, api_url, account.url and
	// hosts: in one label of the host or one segment of the path each :: name →
	// form.
	Params map[string]ParamEntry `json:"params,omitempty"`
	// How the client proves itself: `basic`, `basic_raw`, `post` or `none`.
	// Default: what discovery says, else `basic`.
	ClientAuth string `json:"client_auth,omitempty"`
	// The scopes that may be asked for. Default: any.
	Scopes []string `json:"scopes,omitempty"`
	// Whether endpoints and API may be on loopback or private addresses, and
	// on loopback without TLS.
	AllowPrivate bool `json:"allow_private,omitempty"`

	// Where the key of auth scheme API_KEY goes, and what it looks like.
	Key KeyEntry `json:"key,omitzero"`
	// What user name and password of auth scheme BASIC are.
	Basic BasicEntry `json:"basic,omitzero"`
	// What the assertions of auth scheme JWT_BEARER say.
	JWT *JWTEntry `json:"jwt,omitempty"`
	// The request that says whose a credential is.
	Account AccountEntry `json:"account,omitzero"`

	// What scopes allow, in plain words :: scope → text.
	ScopeTexts map[string]string `json:"scope_texts,omitempty"`
	// The authorization request.
	Authorize AuthorizeEntry `json:"authorize,omitzero"`
	// Further parameters of every request for a token, such as `audience` :: name
	// → value.
	TokenParams map[string]string `json:"token_params,omitempty"`
	// The token endpoint's answer.
	Answer AnswerEntry `json:"answer,omitzero"`
	// Refresh tokens.
	Refresh RefreshEntry `json:"refresh,omitzero"`
	// Revocation.
	Revoke RevokeEntry `json:"revoke,omitzero"`
	// Error codes beyond those of RFC 6749.
	Errors ErrorsEntry `json:"errors,omitzero"`

	// Where an operator learns how to register a client.
	DocsURL string `json:"docs_url,omitempty"`
	// Where the facts in this entry come from.
	Sources []string `json:"sources,omitempty"`
	// What in this entry is believed and was not checked.
	Unchecked []string `json:"unchecked,omitempty"`
}

// AuthorizeEntry describes the authorization request.
type AuthorizeEntry struct {
	// Further parameters :: name → value.
	Params map[string]string `json:"params,omitempty"`
	// What stands between scopes. Default: a space.
	ScopeSeparator string `json:"scope_separator,omitempty"`
	// Why the provider breaks on PKCE (RFC 7636). Default: PKCE is used.
	PKCEOff string `json:"pkce_off,omitempty"`
}

// KeyEntry describes an API key: the header or the query parameter that carries
// it, and where people find it.
type KeyEntry struct {
	// The request header.
	Header string `json:"header,omitempty"`
	// What stands before the key in the header, its space included: `Bearer `.
	Prefix string `json:"prefix,omitempty"`
	// The query parameter, instead of a header.
	Query string `json:"query,omitempty"`
	// The whole key's form, a regular expression (Go's). Default: any.
	Pattern string `json:"pattern,omitempty"`
	// What it is called, for people. Default: API key.
	Title string `json:"title,omitempty"`
	// Where people find theirs.
	HelpURL string `json:"help_url,omitempty"`
}

// BasicEntry describes what is a user name and a password (RFC 7617) at this
// provider.
type BasicEntry struct {
	// What the user name is called, for people.
	Username string `json:"username,omitempty"`
	// What the password is called, for people; `none`: there is no password, and
	// it is empty.
	Password string `json:"password,omitempty"`
	// Where people find theirs.
	HelpURL string `json:"help_url,omitempty"`
}

// JWTEntry describes assertions for access tokens (RFC 7523 section 3). `aud`
// is the token endpoint, unless it says otherwise.
type JWTEntry struct {
	// Who `iss` is: `client_id`, or `given` with the key, as in a service
	// account's file. Default: `client_id`.
	Issuer string `json:"issuer,omitempty"`
	// Who `sub` is: the `issuer`, or `given` with the key, or `optional`: left out
	// where it is not given. Default: `issuer`.
	Subject string `json:"subject,omitempty"`
	// `given`: the key's ID is given with it, and stands in `kid`.
	KeyID string `json:"key_id,omitempty"`
	// What `aud` says. Default: the token endpoint.
	Audience string `json:"audience,omitempty"`
	// The life of an assertion, 1 hour at most. Default: `5m`.
	Life string `json:"life,omitempty"`
	// Where the scopes stand: in a `claim` of the assertion, or in a `param` of the
	// request (RFC 7521 section 4.1). Default: `param`.
	Scope string `json:"scope,omitempty"`
}

// AccountEntry describes the request that says whose a credential is: a GET with
// the credential on it. It is also what a key is tried with when it is entered.
type AccountEntry struct {
	// The URL, on the host of api_url or issuer, or on one of hosts.
	URL string `json:"url,omitempty"`
	// Where the answer has what identifies the account for good: a path with
	// dots. Default: it does not say, and only tells a good key from a bad one.
	ID string `json:"id,omitempty"`
	// Where it has the name for people.
	Name string `json:"name,omitempty"`
	// Where it has the email address.
	Email string `json:"email,omitempty"`
	// Of these scopes one has to be granted, else nothing is asked. Default:
	// any will do.
	Scopes []string `json:"scopes,omitempty"`
}

// AnswerEntry describes the token endpoint's answer.
type AnswerEntry struct {
	// Where a field stands if not at the top under its own name :: field →
	// path with dots, such as `authed_user.access_token`.
	Paths map[string]string `json:"paths,omitempty"`
	// What token_type may say beside `bearer`, in lower case, where it means
	// the same, such as `bot`.
	TokenTypes []string `json:"token_types,omitempty"`
	// The life of an access token where the answer does not tell it: a
	// duration such as `2h`, or `never`. Default: unknown.
	Life string `json:"life,omitempty"`
	// What else of the answer is kept with the token: paths with dots.
	Metadata []string `json:"metadata,omitempty"`
}

// RefreshEntry describes refresh tokens.
type RefreshEntry struct {
	// What becomes of a redeemed refresh token: `single_use`, `grace` or
	// `none`. Default: `single_use`.
	Rotation string `json:"rotation,omitempty"`
	// The life of a refresh token where the answer does not tell it, such as
	// `720h`. Default: unknown.
	Life string `json:"life,omitempty"`
	// Whether a refresh has to name its scopes.
	SendScope bool `json:"send_scope,omitempty"`
	// How many refreshes may be under way at the same time. Default: 16.
	Concurrency int `json:"concurrency,omitempty"`
	// The least time between the beginnings of two refreshes, of whatever
	// connections, such as `100ms`. Requests don't leave quite as evenly as they
	// begin: allow a tenth more than the provider asks for. Default: `25ms`,
	// which is 40 a second.
	Interval string `json:"interval,omitempty"`
}

// RevokeEntry describes revocation where it differs from RFC 7009.
type RevokeEntry struct {
	// The HTTP method: `POST` or `DELETE`. Default: `POST`.
	Method string `json:"method,omitempty"`
	// How the client proves itself; `omit` leaves it out. Default: as at the
	// token endpoint.
	ClientAuth string `json:"client_auth,omitempty"`
	// The body: `form` or `json`. Default: `form`.
	Body string `json:"body,omitempty"`
	// Which token is sent: `any` (the refresh token, else the access token)
	// or `access`. Default: `any`.
	Token string `json:"token,omitempty"`
	// The parameter that carries it. Default: `token`, with token_type_hint
	// beside it.
	Param string `json:"param,omitempty"`
	// Whether revoking one token leaves the account's other grants alive.
	Single bool `json:"single,omitempty"`
}

// ErrorsEntry lists error codes beyond those of RFC 6749.
type ErrorsEntry struct {
	// The code or refresh token is dead, as invalid_grant says.
	Dead []string `json:"dead,omitempty"`
	// Our client is refused, as invalid_client says.
	Client []string `json:"client,omitempty"`
	// The user said no, as access_denied says at the callback.
	Denied []string `json:"denied,omitempty"`
}

// parseLife reads a life: empty is zero, lifeNever is forever.
func parseLife(s string) (time.Duration, error) {
	switch s {
	case "":
		return 0, nil
	case lifeNever:
		return forever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second {
		return 0, fmt.Errorf("%q is neither a duration such as 2h nor %s", s, lifeNever)
	}
	return d, nil
}

// interval reads refresh.interval.
func (e *RefreshEntry) interval() (time.Duration, error) {
	if e.Interval == "" {
		return defaultInterval, nil
	}
	d, err := time.ParseDuration(e.Interval)
	if err != nil || d < 0 || d > maxInterval {
		return 0, fmt.Errorf("%q is not a duration from 0s to 1m", e.Interval)
	}
	return d, nil
}
