package caddymodule

import (
	"cmp"
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/provider"
)

// providers returns all that an integration may be of, by name: the catalogue's,
// and the configuration's own in the place of those with the same name.
func (a *App) providers() []api.Provider {
	names := slices.AppendSeq(provider.Names(), maps.Keys(a.Providers))
	slices.Sort(names)
	r := &resolver{repl: caddy.NewReplacer()} // what it can't resolve stays as it is written
	var all []api.Provider
	for _, name := range slices.Compact(names) {
		e, err := a.entry(name)
		if err != nil {
			continue // there is one with each name
		}
		_, own := a.Providers[name]
		shown := e
		if r.err = nil; own {
			shown = r.entry(e)
		}
		if r.err != nil {
			shown = e
		}
		p := api.Provider{
			Name: name, Title: cmp.Or(shown.Title, name), Own: own, AuthSchemes: shown.Schemes(), APIURL: shown.APIURL,
			Hosts: shown.Hosts, Params: shown.ParamFields(), DocsURL: shown.DocsURL, Notes: shown.Notes, Unchecked: shown.Unchecked,
		}
		for _, scope := range shown.Scopes {
			p.Scopes = append(p.Scopes, api.Scope{Name: scope, Text: shown.ScopeTexts[scope]})
		}
		all = append(all, p)
	}
	return all
}
