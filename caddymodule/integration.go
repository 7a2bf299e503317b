package caddymodule

import (
	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/proxy"
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

func (i *integration) forProxy() *proxy.Upstream {
	header, prefix := i.Inject()
	return &proxy.Upstream{Integration: i.name, API: i.API(), Hosts: i.Hosts(), Header: header, Prefix: prefix}
}

func (i *integration) forConnect() connect.Integration {
	return connect.Integration{
		Name: i.name, Title: i.Title(), ProviderName: i.providerName, Provider: i,
		Scopes: i.scopes, DeclaredScopes: i.DeclaredScopes(), Review: i.review,
	}
}

func (i *integration) forAPI() api.Integration {
	header, _ := i.Inject()
	return api.Integration{
		Name: i.name, Provider: i.providerName, Title: i.Title(), Scopes: i.scopes,
		DeclaredScopes: i.DeclaredScopes(), CallbackURL: i.redirectURI, CredentialHeader: header, Revoker: i,
	}
}

// close ends what the providers keep.
func (s *settings) close() {
	for _, i := range s.integrations {
		i.Close()
	}
}
