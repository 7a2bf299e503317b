package proxy

import (
	"net/url"

	"github.com/lanyard-proxy/lanyard/secret"
)

// Upstream is where the connections of one integration lead, and how their
// token is put on a request.
type Upstream struct {
	Integration string
	// API is the provider's api_url.
	API *url.URL
	// Hosts are the further hosts that may see the token, as host or
	// host:port, under API's scheme.
	Hosts []string
	// Header carries the token, between Prefix and Suffix: "Authorization" and
	// "Bearer ".
	Header, Prefix, Suffix string
	// Query is the name of the query parameter that carries the token. Empty:
	// Header does.
	Query string
	// Headers and Params are what else a request carries.
	Headers []InjectedHeader
	Params  []InjectedParam
	// ClientSecret is masked where the token is. Zero: there is none, or no header
	// but the token's.
	ClientSecret secret.String
	// Scopes are those that may be asked for. Empty: any.
	Scopes []string
}

// InjectedHeader is a header beside the one with the token.
type InjectedHeader struct {
	Name  string
	Value secret.String // it may have the client's secret
	// Always puts it in the place of the app's own. Else it stands for a request
	// that brings none.
	Always bool
	UUID   bool // {uuid} in Value stands for a new one each time
}

// InjectedParam is a query parameter beside the one with the token.
type InjectedParam struct {
	Name, Value  string
	Always, UUID bool // as with InjectedHeader
}
