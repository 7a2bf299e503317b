package caddymodule

import (
	"cmp"
	"maps"
	"sync"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// integration is an IntegrationConfig with the provider it speaks to.
type integration struct {
	*provider.Provider
	name         string
	providerName string
	redirectURI  string
	scopes       []string
	review       bool
}

func (i *integration) forConnect() connect.Integration {
	return connect.Integration{
		Name: i.name, Title: i.Title(), ProviderName: i.providerName, Provider: i,
		For:    func(params map[string]string) (connect.Provider, error) { return i.For(params) },
		Scopes: i.scopes, DeclaredScopes: i.DeclaredScopes(), Review: i.review,
	}
}

func (i *integration) forAPI() api.Integration {
	header, _, _ := i.Inject()
	return api.Integration{
		Name: i.name, Provider: i.providerName, Title: i.Title(), Scopes: i.scopes,
		DeclaredScopes: i.DeclaredScopes(), CallbackURL: i.redirectURI, CredentialHeader: header,
		Scheme: i.Scheme(), Fields: i.Fields(), ParamFields: i.ParamFields(),
		Credentials: func(params map[string]string) (api.Credentials, error) { return i.For(params) },
		CheckParams: func(params map[string]string) error {
			_, err := i.For(params)
			return err
		},
	}
}

// maxAPIs bounds the APIs of connections with parameters that are remembered.
const maxAPIs = 10_000

// apis knows where the connections of each integration lead.
type apis struct {
	integrations map[string]*integration
	fixed        map[string]*proxy.Upstream // :: integration without parameters → its API

	mu    *sync.RWMutex
	bound map[string]boundAPI // guarded by mu :: connection ID → its API
}

// boundAPI is the API of connections of an integration with these parameters.
type boundAPI struct {
	upstream *proxy.Upstream
	params   map[string]string
}

func apisOf(s *settings) apis {
	a := apis{
		integrations: s.integrations, fixed: map[string]*proxy.Upstream{},
		mu: new(sync.RWMutex), bound: map[string]boundAPI{},
	}
	for name, i := range s.integrations {
		if p, err := i.For(nil); err == nil {
			a.fixed[name] = upstreamOf(name, p)
		}
	}
	return a
}

func upstreamOf(name string, p *provider.Provider) *proxy.Upstream {
	header, prefix, query := p.Inject()
	return &proxy.Upstream{
		Integration: name, API: p.API(), Hosts: p.Hosts(), Header: header, Prefix: prefix, Query: query, Scopes: p.DeclaredScopes(),
	}
}

// of implements proxy.Config.Upstream.
func (a apis) of(g *tokenstore.Grant) (up *proxy.Upstream, reason string) {
	i, ok := a.integrations[g.Integration]
	switch {
	case !ok:
		return nil, tokenstore.ReasonIntegrationMissing
	case cmp.Or(g.AuthScheme, tokenstore.AuthOAuth2) != i.Scheme():
		return nil, tokenstore.ReasonSchemeChanged
	}
	if up := a.fixed[g.Integration]; up != nil && len(g.Params) == 0 {
		return up, ""
	}
	a.mu.RLock()
	known, ok := a.bound[g.ConnectionID]
	a.mu.RUnlock()
	if ok && known.upstream.Integration == g.Integration && maps.Equal(known.params, g.Params) {
		return known.upstream, ""
	}
	p, err := i.For(g.Params)
	if err != nil {
		return nil, tokenstore.ReasonInvalidParameter
	}
	up = upstreamOf(g.Integration, p)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.bound) >= maxAPIs {
		clear(a.bound)
	}
	a.bound[g.ConnectionID] = boundAPI{up, maps.Clone(g.Params)}
	return up, ""
}

// close ends what the providers keep.
func (s *settings) close() {
	for _, i := range s.integrations {
		i.Close()
	}
}
