// Package dialect plays providers as they are: each demands what it documents,
// under its own names and at its own hosts, answers in its own form, and keeps
// books of what it gave. Tests lead a program's connections here (failpoint
// dial) and take each entry of the catalogue through its life.
//
// A Dialect is written by hand for the providers whose quirks the language of
// the catalogue was made for: from their documentation, never from the entry,
// so that a wrong entry fails. Others are generated from the entry, which tries
// the program and not the entry.
package dialect

// Bodies of a request.
const (
	bodyForm  = "form"
	bodyQuery = "query" // in the query, and no body
	bodyJSON  = "json"
	bodyNone  = "none"
)

// Dialect is how one provider speaks.
//
// Texts have words in them. In what is demanded `$client`, `$secret` and
// `$redirect` are the registered client's; `$code`, `$verifier`, `$refresh`,
// `$access` and `$token` (either) are what the provider gave or was shown
// before; `$scopes`, `$state`, `$challenge`, `$uuid` are of their form, and
// `$any` is anything but nothing. In answers `$access`, `$refresh`, `$code`,
// `$state`, `$scopes`, `$life` (seconds), `$expires_at` (RFC 3339), `$account`,
// `$name` and `$email` are those of the grant. `$offline_scopes` are scopes with
// offline_access among them, `$granted` those without it, `$comma_scopes` and
// `$list_scopes` the same scopes with commas, and as items of a list.
type Dialect struct {
	Name string
	// ByHand says that it was written from the provider's documentation.
	ByHand bool
	// Params are the connection's parameters as whoever connects gives them.
	Params map[string]string
	// Told are the connection's parameters as the provider tells them.
	Told map[string]string
	// AccountForm is the form of what identifies an account, a regular
	// expression. Empty: any.
	AccountForm string
	// ScopeSeparator stands between scopes. Default: a space.
	ScopeSeparator string

	// Authorize is the page where the user consents; its Answer is the query of
	// the authorization response.
	Authorize Request
	// HMAC is the parameter of the authorization response that has the
	// HMAC-SHA256 of the others.
	HMAC string
	// Code redeems an authorization code, Refresh what renews a token, Mint asks
	// for a token without a user. Exchange makes a lasting token of the one that
	// the code brought. Revoke ends a grant; one without URL: nothing does.
	Code, Refresh, Exchange, Mint, Revoke Request
	// Account says whose a token is. Without URL: nothing does.
	Account Request
	// Call is any request to the API. Its URL is the API's base.
	Call Request

	// Dead is the answer to a code or a refresh token that is over, Client the one
	// to a client that is not the registered one or asks in the wrong way.
	Dead, Client Fault
	// Busy, where it has a status, is the answer to each grant's first refresh,
	// which changes nothing.
	Busy Fault

	// Rotates says that a refresh brings a new refresh token; Reusable that the
	// one before is taken for a while, else it ends the grant.
	Rotates, Reusable bool
	// Pause says that a token that was issued just now may not be renewed again,
	// whatever the API says of it.
	Pause bool
	// Most is how many refreshes a grant may have, and Over the answer to more;
	// zero: any number.
	Most int
	Over Fault
	// Early, where it has a status, is the answer to a refresh more than half a
	// minute before the end of the access token.
	Early Fault
	// Life is that of an access token, in seconds. Default: an hour.
	Life int
}

// Request is a request that a provider takes.
type Request struct {
	Method string // default: POST
	URL    string // whole, without its query; the page's may have a fragment
	Body   string // form, json, query, none. Default: form, and query of a GET
	// Params have to be there, each with such a value; an empty one must not be.
	Params map[string]string
	// Headers have to be there; HTTP Basic as it is before its encoding.
	Headers map[string]string
	// JSON is the whole body, where it has no parameters.
	JSON string
	// Answer is the body of the answer to a right one. One that is no JSON
	// object is a form.
	Answer string
	Status int // of that answer. Default: 200
}

// Fault is an answer that says no.
type Fault struct {
	Status int
	Body   string
}

// Account is whose a grant is.
type Account struct{ ID, Name, Email string }

// requests returns what the dialect takes, by what it is for.
func (d *Dialect) requests() map[string]*Request {
	all := map[string]*Request{
		"authorize": &d.Authorize, "code": &d.Code, "refresh": &d.Refresh, "exchange": &d.Exchange,
		"mint": &d.Mint, "revoke": &d.Revoke, "account": &d.Account, "call": &d.Call,
	}
	for kind, r := range all {
		if r.URL == "" {
			delete(all, kind)
		}
	}
	return all
}

// words names, for each kind of request, what of an entry describes its parts.
var words = map[string]struct{ url, method, body, params, headers string }{
	"authorize": {"authorize_url", "authorize_url", "authorize_url", "authorize.params, authorize.rename, authorize.drop, authorize.scope_separator or authorize.pkce_off", ""},
	"code":      {"token_url", "token.method", "token.body", "token.params, token.rename, token.drop or client_auth", "token.headers or client_auth"},
	"refresh":   {"refresh.url or token_url", "refresh.method", "refresh.body", "refresh.params, refresh.rename, refresh.drop, refresh.with, refresh.send_scope or client_auth", "refresh.headers or client_auth"},
	"exchange":  {"exchange.url", "exchange.method", "exchange.body", "exchange.params, exchange.rename, exchange.drop or client_auth", "exchange.headers or client_auth"},
	"mint":      {"token_url", "token.method", "token.body", "token.params, jwt or client_auth", "token.headers, jwt.carry or client_auth"},
	"revoke":    {"revoke_url", "revoke.method", "revoke.body", "revoke.param, revoke.params, revoke.token or revoke.client_auth", "revoke.headers, revoke.inject or revoke.client_auth"},
	"account":   {"account.url", "account.method", "account.body", "inject.query or inject.params", "inject.header, inject.prefix or inject.headers"},
	"call":      {"api_url or hosts", "", "", "inject.query, inject.params or key.query", "inject.header, inject.prefix, inject.headers or key"},
}
