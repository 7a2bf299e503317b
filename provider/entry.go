package provider

// How a client proves itself to the token endpoint (`client_auth`).
const (
	AuthBasic    = "basic"     // HTTP Basic, form-encoded first (RFC 6749 section 2.3.1)
	AuthBasicRaw = "basic_raw" // HTTP Basic without that encoding, where a provider breaks on it
	AuthBasicID  = "basic_id"  // HTTP Basic as basic, and the client_id in the body, too
	AuthPost     = "post"      // client_id and client_secret in the body
	// AuthBasicSecret is HTTP Basic with the client_secret for the user name and
	// no password: Stripe, whose secret key says whose it is.
	AuthBasicSecret = "basic_secret"
	// AuthPrivateKeyJWT is an assertion that the client signs (RFC 7523 section
	// 2.2); the client_secret is its private key, PEM.
	AuthPrivateKeyJWT = "private_key_jwt"
	AuthNone          = "none" // a public client: client_id in the body
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
	clientIDVar = "{client_id}"   // in revoke_url
	tokenVar    = "{token}"       // in revoke_url
	bodyForm    = "form"          // in the body, form-encoded
	bodyJSON    = "json"          // in the body, one JSON object of texts
	bodyQuery   = "query"         // in the URL's query
	bodyNone    = "none"          // nowhere: revoke.body alone
	withAccess  = "access_token"  // refresh.with
	withRefresh = "refresh_token" // refresh.with
	tokenAny    = "any"           // revoke.token: the refresh token, else the access token
	tokenAccess = "access"        // revoke.token: always the access token
	tokenNone   = "none"          // revoke.token: none
)

// Entry describes a provider, in the words of a catalogue file. The same words
// describe a provider of one's own in the configuration.
type Entry struct {
	// Where editors find the language's JSON schema. Lanyard does not look at it.
	Schema string `json:"$schema,omitempty"`
	// The provider's name for people. Default: the API's host.
	Title string `json:"title,omitempty"`
	// The issuer identifier (RFC 8414, RFC 9207). Where authorize_url or
	// token_url is missing, endpoints are discovered from it at first use.
	Issuer string `json:"issuer,omitempty"`
	// The authorization endpoint (RFC 6749 section 3.1). It may end in a fragment
	// that begins with `/`, of a page that reads its parameters there.
	AuthorizeURL string `json:"authorize_url,omitempty"`
	// The token endpoint (RFC 6749 section 3.2).
	TokenURL string `json:"token_url,omitempty"`
	// The revocation endpoint (RFC 7009); `{client_id}` stands for the client's,
	// and `{token}`, a whole segment of the path, for the token.
	RevokeURL string `json:"revoke_url,omitempty"`
	// The introspection endpoint (RFC 7662).
	IntrospectURL string `json:"introspect_url,omitempty"`
	// The device authorization endpoint (RFC 8628).
	DeviceURL string `json:"device_url,omitempty"`
	// The base URL of the API that requests are proxied to. Default: the origin of
	// issuer. Required without one.
	APIURL string `json:"api_url,omitempty"`
	// Further hosts that may see the token, with a port where needed. The
	// scheme is api_url's.
	Hosts []string `json:"hosts,omitempty"`
	// The parameters of a connection: what has to be known of an account before
	// its URLs are, and what is kept of what the provider tells :: name → form.
	// `{name}` is the place of one in authorize_url, token_url, refresh.url,
	// exchange.url, revoke_url, introspect_url, device_url, api_url, account.url
	// and hosts: in one label of the host or one segment of the path each, or
	// where it is a whole host in its place; and in the values of parameters and
	// headers.
	Params map[string]ParamEntry `json:"params,omitempty"`
	// How the client proves itself to the token endpoint: `basic`, `basic_id`,
	// `basic_raw`, `basic_secret`, `post`, `private_key_jwt` or `none`. Default: what discovery
	// says, else `basic`.
	ClientAuth string `json:"client_auth,omitempty"`
	// What the assertions of client_auth private_key_jwt say.
	ClientAssertion ClientAssertionEntry `json:"client_assertion,omitzero"`
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
	// What requests to the API carry.
	Inject InjectEntry `json:"inject,omitzero"`
	// The request that says whose a credential is.
	Account AccountEntry `json:"account,omitzero"`

	// What scopes allow, in plain words :: scope → text.
	ScopeTexts map[string]string `json:"scope_texts,omitempty"`
	// The authorization request.
	Authorize AuthorizeEntry `json:"authorize,omitzero"`
	// The authorization response.
	Callback CallbackEntry `json:"callback,omitzero"`
	// Requests for a token, to token_url.
	Token RequestEntry `json:"token,omitzero"`
	// A second request for a token, which makes one that lasts of the one that the
	// code brought. It is made at once, as a first refresh.
	Exchange *ExchangeEntry `json:"exchange,omitempty"`
	// The token endpoint's answer.
	Answer AnswerEntry `json:"answer,omitzero"`
	// Refresh tokens, and the request that redeems one.
	Refresh RefreshEntry `json:"refresh,omitzero"`
	// Revocation.
	Revoke RevokeEntry `json:"revoke,omitzero"`
	// Error codes beyond those of RFC 6749.
	Errors ErrorsEntry `json:"errors,omitzero"`

	// What an operator or a developer has to know of this provider, a sentence
	// each.
	Notes []string `json:"notes,omitempty"`
	// Where an operator learns how to register a client.
	DocsURL string `json:"docs_url,omitempty"`
	// Where the facts in this entry come from.
	Sources []string `json:"sources,omitempty"`
	// What in this entry is believed and was not checked.
	Unchecked []string `json:"unchecked,omitempty"`
}

// RequestEntry describes a request for a token. What the language of OAuth calls
// `client_id` is written so in rename and drop, whatever the provider calls it.
type RequestEntry struct {
	// The HTTP method: `POST` or `GET`. Default: `POST`.
	Method string `json:"method,omitempty"`
	// Where its parameters stand: `form`, `json` or `query`. Default: `form`, and
	// `query` of a GET. What is `json` in token is at device_url and
	// introspect_url, too.
	Body string `json:"body,omitempty"`
	// Further parameters, and `grant_type` where it is another :: name → value,
	// which may have `{name}` of a connection parameter.
	Params map[string]string `json:"params,omitempty"`
	// What the provider calls parameters :: name in RFC 6749 → name there. What
	// token says of client_id and client_secret holds at its other endpoints, too.
	Rename map[string]string `json:"rename,omitempty"`
	// Parameters that are left out, such as `grant_type`.
	Drop []string `json:"drop,omitempty"`
	// Request headers :: name → value, which may have `{client_id}` and the
	// `{name}` of a connection parameter, and `{uuid}`, a new one each time. Those
	// of token hold at device_url and introspect_url, too.
	Headers map[string]string `json:"headers,omitempty"`
}

// ExchangeEntry describes the second request for a token. What it does not say
// is as at token_url; the token is sent as refresh.with says.
type ExchangeEntry struct {
	// Its URL. Default: token_url.
	URL string `json:"url,omitempty"`
	RequestEntry
}

// AuthorizeEntry describes the authorization request.
type AuthorizeEntry struct {
	// Further parameters :: name → value, which may have `{name}` of a connection
	// parameter, and `{uuid}`, a new one each time.
	Params map[string]string `json:"params,omitempty"`
	// What the provider calls parameters :: name in RFC 6749 → name there.
	Rename map[string]string `json:"rename,omitempty"`
	// Parameters that are left out, such as `response_type`. Not `state`.
	Drop []string `json:"drop,omitempty"`
	// What stands behind the query, without its `#`.
	Fragment string `json:"fragment,omitempty"`
	// What stands between scopes. Default: a space.
	ScopeSeparator string `json:"scope_separator,omitempty"`
	// Why the provider breaks on PKCE (RFC 7636). Default: PKCE is used.
	PKCEOff string `json:"pkce_off,omitempty"`
}

// CallbackEntry describes the authorization response.
type CallbackEntry struct {
	// The parameter that carries the code. Default: `code`.
	Code string `json:"code,omitempty"`
	// The parameter that says which scopes were granted, where the token
	// endpoint's answer does not.
	Scope string `json:"scope,omitempty"`
	// The parameter that carries an HMAC-SHA256 in hex of all others, sorted, with
	// the client's secret for its key. A response without the right one is
	// refused.
	HMAC string `json:"hmac,omitempty"`
}

// ClientAssertionEntry describes the assertions by which a client proves itself
// (RFC 7523 section 2.2). `sub` is the client_id.
type ClientAssertionEntry struct {
	// Who `iss` is: `client_id`, or `redirect_host`, the host of the redirect URI.
	// Default: `client_id`.
	Issuer string `json:"issuer,omitempty"`
	// What `aud` says. Default: the token endpoint.
	Audience string `json:"audience,omitempty"`
}

// InjectEntry describes what requests to the API carry. Auth schemes API_KEY and
// BASIC have the credential elsewhere, and the same further headers.
type InjectEntry struct {
	// The request header that carries the token. Default: `Authorization`.
	Header string `json:"header,omitempty"`
	// What stands before the token there, its space included; `none`: nothing.
	// Default: `Bearer ` in Authorization, nothing in another header.
	Prefix string `json:"prefix,omitempty"`
	// The query parameter that carries the token, instead of a header.
	Query string `json:"query,omitempty"`
	// Further headers :: name → value. Such a value stands for a request that
	// brings none of its own; one with `{client_id}`, `{client_secret}` or the
	// `{name}` of a connection parameter in it stands always. `{uuid}` is a new
	// one each time.
	Headers map[string]string `json:"headers,omitempty"`
	// Further query parameters :: name → value, as in headers, but without
	// `{client_secret}`.
	Params map[string]string `json:"params,omitempty"`
}

// KeyEntry describes an API key: the header or the query parameter that carries
// it, and where people find it.
type KeyEntry struct {
	// The request header.
	Header string `json:"header,omitempty"`
	// What stands before the key in the header, its space included: `Bearer `.
	// It may have `{client_id}`.
	Prefix string `json:"prefix,omitempty"`
	// What stands behind the key in the header.
	Suffix string `json:"suffix,omitempty"`
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
	// What `aud` says; it may have `{name}` of a connection parameter. Default: the
	// token endpoint.
	Audience string `json:"audience,omitempty"`
	// The life of an assertion, 1 hour at most. Default: `5m`.
	Life string `json:"life,omitempty"`
	// Where the scopes stand: in a `claim` of the assertion, or in a `param` of the
	// request (RFC 7521 section 4.1), or `none`. Default: `param`.
	Scope string `json:"scope,omitempty"`
	// Where the assertion stands: in a `param` of the request, or in its header as
	// a `bearer` token, and the request has no parameters. Default: `param`.
	Carry string `json:"carry,omitempty"`
}

// AccountEntry describes the request that says whose a credential is, with the
// credential on it as on any request to the API. It is also what a key is tried
// with when it is entered.
type AccountEntry struct {
	// The URL, on the host of api_url or issuer, or on one of hosts. Default: the
	// userinfo endpoint where one is discovered, with `sub`, `name`, `email`.
	URL string `json:"url,omitempty"`
	// The HTTP method: `GET` or `POST`. Default: `GET`.
	Method string `json:"method,omitempty"`
	// The body of a POST: JSON as it is sent.
	Body string `json:"body,omitempty"`
	// Where the answer has what identifies the account for good: a path, or the
	// `{name}` of a connection parameter, if that does. Default: it does not say,
	// and only tells a good key from a bad one.
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
//
// A path has dots between names of objects; a number is an item of a list, and
// `[name=value]` the first item that has this value there:
// `accounts.[is_default=true].base_uri`.
type AnswerEntry struct {
	// Where a field stands if not at the top under its own name :: field →
	// path. If an answer to a refresh has no access token there, all of it is read
	// at the top. Fields are those of RFC 6749 section 5, `refresh_expires_in`,
	// `expires_at` (seconds since 1970, or RFC 3339) and `error`.
	Paths map[string]string `json:"paths,omitempty"`
	// What every good answer says, of which an error says another :: path → value.
	// For providers whose errors come with status 200.
	Success map[string]string `json:"success,omitempty"`
	// What token_type may say beside `bearer`, in lower case, where it means
	// the same, such as `bot`.
	TokenTypes []string `json:"token_types,omitempty"`
	// The life of an access token where the answer does not tell it: a
	// duration such as `2h`, or `never`. Default: unknown.
	Life string `json:"life,omitempty"`
}

// RefreshEntry describes refresh tokens, and where redeeming one differs from
// other requests for a token: what it does not say is as at token_url.
type RefreshEntry struct {
	// Where they are redeemed. Default: token_url.
	URL string `json:"url,omitempty"`
	RequestEntry
	// What is redeemed: the `refresh_token`, or the `access_token`, where it is
	// renewed with itself. Default: `refresh_token`.
	With string `json:"with,omitempty"`
	// What becomes of a redeemed refresh token: `single_use`, `grace` or
	// `none`. Default: `single_use`.
	Rotation string `json:"rotation,omitempty"`
	// The life of a refresh token where the answer does not tell it, such as
	// `720h`. Default: unknown.
	Life string `json:"life,omitempty"`
	// How long before an access token's end it may be renewed, at most, such as
	// `30s`. Default: a fifth of its life, 5 minutes at most.
	Margin string `json:"margin,omitempty"`
	// How long an access token is left alone after it was issued, whatever the
	// API says of it, such as `1m`. Default: not at all.
	Pause string `json:"pause,omitempty"`
	// Of these scopes one has to be asked for, else there is no refresh token.
	Scopes []string `json:"scopes,omitempty"`
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
	// The HTTP method: `POST`, `DELETE` or `GET`. Default: `POST`.
	Method string `json:"method,omitempty"`
	// How the client proves itself; `omit` leaves it out. Default: as at the
	// token endpoint.
	ClientAuth string `json:"client_auth,omitempty"`
	// Where the parameters stand: `form`, `json`, `query`, or `none`: there are
	// none, not even the token. Default: `form`, and `query` of a GET.
	Body string `json:"body,omitempty"`
	// Which token is sent: `any` (the refresh token, else the access token),
	// `access`, or `none`: params say what is revoked. Default: `any`.
	Token string `json:"token,omitempty"`
	// The parameter that carries it. Default: `token`, with token_type_hint
	// beside it.
	Param string `json:"param,omitempty"`
	// Further parameters :: name → value, as in token.params.
	Params map[string]string `json:"params,omitempty"`
	// Request headers :: name → value, as in token.headers; it may have
	// `{client_secret}`.
	Headers map[string]string `json:"headers,omitempty"`
	// Whether the request is one to the API, with the access token on it as on
	// any other, and no parameter with a token.
	Inject bool `json:"inject,omitempty"`
	// Whether revoking one token leaves the account's other grants alive.
	Single bool `json:"single,omitempty"`
}

// ErrorsEntry lists error codes beyond those of RFC 6749, in lower case, or whole
// texts where a provider has no codes.
type ErrorsEntry struct {
	// The code or refresh token is dead, as invalid_grant says.
	Dead []string `json:"dead,omitempty"`
	// Our client is refused, as invalid_client says.
	Client []string `json:"client,omitempty"`
	// The user said no, as access_denied says at the callback.
	Denied []string `json:"denied,omitempty"`
}
