package api

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Provider is what is shown of a provider that an integration may be of.
type Provider struct {
	Name        string
	Title       string // for people
	Own         bool   // of the configuration, not of the catalogue
	AuthSchemes []string
	Scopes      []Scope // that may be asked for; none: any
	APIURL      string  // with the places of connection parameters: {name}
	Hosts       []string
	Params      []tokenstore.Field
	DocsURL     string   // may be empty
	Notes       []string // what an operator or a developer has to know, a sentence each
	Unchecked   []string // what is believed of it and was not checked
}

// Scope is a scope, and what it allows in plain words, which may be empty.
type Scope struct {
	Name string
	Text string
}

type catalogueView struct {
	Name        string      `json:"name"`
	Title       string      `json:"title"`
	Source      string      `json:"source"` // catalogue or configuration
	AuthSchemes []string    `json:"auth_schemes"`
	Scopes      []scopeView `json:"scopes"`
	APIURL      string      `json:"api_url"`
	Hosts       []string    `json:"hosts"`
	Params      []fieldView `json:"params"`
	DocsURL     *string     `json:"docs_url"`
	Notes       []string    `json:"notes"`
	Unchecked   []string    `json:"unchecked"`
}

type scopeView struct {
	Scope string `json:"scope"`
	Text  string `json:"text"`
}

// fieldView is a value that somebody has to give.
type fieldView struct {
	Name     string `json:"name"`
	Title    string `json:"title"`
	Pattern  string `json:"pattern"`
	HelpURL  string `json:"help_url"`
	Secret   bool   `json:"secret"`
	Optional bool   `json:"optional"`
}

type integrationView struct {
	Name        string      `json:"name"`
	Provider    string      `json:"provider"`
	Title       string      `json:"title"`
	AuthScheme  string      `json:"auth_scheme"`
	Scopes      []string    `json:"scopes"`
	Fields      []fieldView `json:"fields"`
	Params      []fieldView `json:"params"`
	CallbackURL string      `json:"callback_url"` // empty where nothing calls back
}

// providers shows the catalogue, and the providers of the configuration.
func (h *Handler) providers(_ *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	views := make([]catalogueView, 0, len(h.cfg.Providers))
	for _, p := range h.cfg.Providers {
		views = append(views, p.view())
	}
	return map[string]any{"providers": views}, nil
}

// MarshalJSON shows a provider as GET /v1/providers does.
func (p Provider) MarshalJSON() ([]byte, error) { return json.Marshal(p.view()) }

func (p Provider) view() catalogueView {
	v := catalogueView{
		Name: p.Name, Title: p.Title, Source: "catalogue", AuthSchemes: notNil(p.AuthSchemes), Scopes: []scopeView{},
		APIURL: p.APIURL, Hosts: notNil(p.Hosts), Params: viewFields(p.Params),
		Notes: notNil(p.Notes), Unchecked: notNil(p.Unchecked),
	}
	if p.Own {
		v.Source = "configuration"
	}
	for _, s := range p.Scopes {
		v.Scopes = append(v.Scopes, scopeView{s.Name, s.Text})
	}
	if p.DocsURL != "" {
		v.DocsURL = &p.DocsURL
	}
	return v
}

// integrations shows what is configured.
func (h *Handler) integrations(_ *http.Request, in *input) (any, *guard.Problem) {
	if p := in.done(); p != nil {
		return nil, p
	}
	views := make([]integrationView, 0, len(h.cfg.Integrations))
	for _, name := range slices.Sorted(maps.Keys(h.cfg.Integrations)) {
		i := h.cfg.Integrations[name]
		v := integrationView{
			Name: i.Name, Provider: i.Provider, Title: i.Title, AuthScheme: i.scheme(), Scopes: notNil(i.Scopes),
			Fields: viewFields(i.Fields), Params: viewFields(i.ParamFields),
		}
		if i.scheme() == tokenstore.AuthOAuth2 {
			v.CallbackURL = i.CallbackURL
		}
		views = append(views, v)
	}
	return map[string]any{"integrations": views}, nil
}

func viewFields(fields []tokenstore.Field) []fieldView {
	views := make([]fieldView, 0, len(fields))
	for _, f := range fields {
		views = append(views, fieldView{f.Name, f.Title, f.Pattern, f.HelpURL, f.Secret, f.Optional})
	}
	return views
}
