package caddymodule

import (
	"cmp"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// integration is an IntegrationConfig with the provider it speaks to.
type integration struct {
	*provider.Provider
	name         string
	providerName string
	callbackURL  string // where the browser comes back to
	clientSecret secret.String
	scopes       []string
	review       bool
	told         bool // what requests to the API carry, or where they go, is told by the provider
}

func (i *integration) forConnect() connect.Integration {
	return connect.Integration{
		Name: i.name, Title: i.Title(), ProviderName: i.providerName, Provider: i,
		For:    func(params map[string]string) (connect.Provider, error) { return i.For(params) },
		Scopes: i.scopes, DeclaredScopes: i.DeclaredScopes(), Review: i.review,
	}
}

func (i *integration) forAPI() api.Integration {
	return api.Integration{
		Name: i.name, Provider: i.providerName, Title: i.Title(), Scopes: i.scopes,
		DeclaredScopes: i.DeclaredScopes(), CallbackURL: i.callbackURL, CredentialHeader: i.Inject().Header,
		Scheme: i.Scheme(), RenewsItself: i.RenewsItself(), Fields: i.Fields(), ParamFields: i.ParamFields(),
		Credentials: func(params map[string]string) (api.Credentials, error) { return i.For(params) },
		CheckParams: func(params map[string]string) error {
			_, err := i.For(params)
			return err
		},
		CheckToken: i.checkToken(),
	}
}

// checkToken returns what says why a connection's API is not known, nil where it
// always is.
func (i *integration) checkToken() func(params map[string]string, t *tokenstore.Token) error {
	if !i.told {
		return nil
	}
	return func(params map[string]string, t *tokenstore.Token) error {
		p, err := i.For(params)
		if err == nil {
			_, err = p.With(t)
		}
		return err
	}
}

// maxAPIs bounds the APIs of connections with parameters that are remembered.
const maxAPIs = 10_000

// apis knows where the connections of each integration lead. Who asks takes no
// lock.
type apis struct {
	integrations map[string]*integration
	fixed        map[string]*proxy.Upstream // :: integration with nothing to fill in → its API

	most  int           // in bound, about
	bound *sync.Map     // :: connection ID → *boundAPI
	count *atomic.Int64 // of bound
}

// boundAPI is the API of connections of an integration with these parameters,
// given and told.
type boundAPI struct {
	upstream     *proxy.Upstream
	params, told map[string]string
}

func apisOf(s *settings) apis {
	a := apis{
		integrations: s.integrations, fixed: map[string]*proxy.Upstream{}, most: maxAPIs,
		bound: new(sync.Map), count: new(atomic.Int64),
	}
	for name, i := range s.integrations {
		if p, err := i.For(nil); err == nil && !i.told {
			a.fixed[name] = i.upstream(p)
		}
	}
	return a
}

// upstream returns where connections lead that p is bound to. What needs a
// value that is not known is left to the app.
func (i *integration) upstream(p *provider.Provider) *proxy.Upstream {
	in := p.Inject()
	up := &proxy.Upstream{
		Integration: i.name, API: p.API(), Hosts: p.Hosts(), Header: in.Header, Prefix: in.Prefix, Suffix: in.Suffix, Query: in.Query,
		Scopes: p.DeclaredScopes(),
	}
	for _, h := range in.Headers {
		if !h.Value.IsZero() {
			up.Headers, up.ClientSecret = append(up.Headers, proxy.InjectedHeader(h)), i.clientSecret
		}
	}
	for _, q := range in.Params {
		if q.Value != "" {
			up.Params = append(up.Params, proxy.InjectedParam(q))
		}
	}
	return up
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
	if found, ok := a.bound.Load(g.ConnectionID); ok {
		known := found.(*boundAPI)
		if known.upstream.Integration == g.Integration && maps.Equal(known.params, g.Params) && maps.Equal(known.told, g.Token.Metadata) {
			return known.upstream, ""
		}
	}
	p, err := i.For(g.Params)
	if err != nil {
		return nil, tokenstore.ReasonInvalidParameter
	}
	if p, err = p.With(&g.Token); err != nil {
		return nil, tokenstore.ReasonAPIUnknown
	}
	up = i.upstream(p)
	a.keep(g.ConnectionID, &boundAPI{up, maps.Clone(g.Params), maps.Clone(g.Token.Metadata)})
	return up, ""
}

// keep remembers where a connection leads. Where there is no room, others are
// forgotten until there is: they are made again when they are wanted.
func (a apis) keep(id string, api *boundAPI) {
	if _, known := a.bound.Swap(id, api); known || int(a.count.Add(1)) <= a.most {
		return
	}
	a.bound.Range(func(victim, _ any) bool {
		if victim == id {
			return true
		}
		if _, gone := a.bound.LoadAndDelete(victim); gone {
			a.count.Add(-1)
		}
		return int(a.count.Load()) > a.most // others may forget the same one
	})
}

// close ends what the providers keep.
func (s *settings) close() {
	for _, i := range s.integrations {
		i.Close()
	}
}
