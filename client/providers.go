package client

import (
	"context"
	"net/http"
)

// Field is a value that somebody has to give.
type Field struct {
	Name     string `json:"name"`
	Title    string `json:"title"`    // for people
	Pattern  string `json:"pattern"`  // the whole value's form, a regular expression; empty: any
	HelpURL  string `json:"help_url"` // where people find it; may be empty
	Secret   bool   `json:"secret"`
	Optional bool   `json:"optional"`
}

// Integration is one of the configuration's: a client of the app's at a provider.
type Integration struct {
	Name       string   `json:"name"`
	Provider   string   `json:"provider"`
	Title      string   `json:"title"`       // for people
	AuthScheme string   `json:"auth_scheme"` // OAUTH2, API_KEY, …
	Scopes     []string `json:"scopes"`      // asked for where nobody names any
	Fields     []Field  `json:"fields"`      // what its credentials consist of
	Params     []Field  `json:"params"`      // its connection parameters
	// CallbackURL is the redirect URI to register at the provider.
	CallbackURL string `json:"callback_url"`
}

// Scope is a scope, and what it allows in plain words, which may be empty.
type Scope struct {
	Scope string `json:"scope"`
	Text  string `json:"text"`
}

// Provider is one of the catalogue's, or of the configuration's own.
type Provider struct {
	Name        string   `json:"name"`
	Title       string   `json:"title"`  // for people
	Source      string   `json:"source"` // catalogue or configuration
	AuthSchemes []string `json:"auth_schemes"`
	Scopes      []Scope  `json:"scopes"`  // that may be asked for; none: any
	APIURL      string   `json:"api_url"` // with the places of connection parameters: {name}
	Hosts       []string `json:"hosts"`   // further hosts of its API
	Params      []Field  `json:"params"`
	DocsURL     string   `json:"docs_url"`  // may be empty
	Notes       []string `json:"notes"`     // what has to be known of it, a sentence each
	Unchecked   []string `json:"unchecked"` // what is believed of it and was not checked
}

// Integrations returns what is configured.
func (c *Client) Integrations(ctx context.Context) ([]Integration, error) {
	var got struct {
		Integrations []Integration `json:"integrations"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/integrations"}, &got)
	return got.Integrations, err
}

// Providers returns what integrations may be of.
func (c *Client) Providers(ctx context.Context) ([]Provider, error) {
	var got struct {
		Providers []Provider `json:"providers"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/providers"}, &got)
	return got.Providers, err
}
