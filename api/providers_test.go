package api_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestIntegrations(t *testing.T) {
	b := newBench(t, withSource(&fakeSource{}), func(c *api.Config) {
		delete(c.Integrations, "shop")
		delete(c.Integrations, "machine")
		gl := c.Integrations["gl"]
		gl.ParamFields = []tokenstore.Field{{Name: "shop", Title: "Shop", Pattern: "^a$"}}
		c.Integrations["gl"] = gl
	})
	none := []any{}
	want := map[string]any{"integrations": []any{
		map[string]any{
			"name": "github", "provider": "github", "title": "GitHub", "auth_scheme": "OAUTH2", "scopes": []any{"read:user"},
			"fields": none, "params": none, "callback_url": "https://connect.example.com/callback/github",
		},
		map[string]any{
			"name": "gl", "provider": "gitlab", "title": "GitLab", "auth_scheme": "OAUTH2", "scopes": none, "fields": none,
			"params": []any{map[string]any{
				"name": "shop", "title": "Shop", "pattern": "^a$", "help_url": "", "secret": false, "optional": false,
			}},
			"callback_url": "",
		},
		map[string]any{
			"name": "mail", "provider": "mailer", "title": "Mailer", "auth_scheme": "API_KEY", "scopes": none,
			"fields": []any{map[string]any{
				"name": "api_key", "title": "API key", "pattern": "^key-.*$", "help_url": "", "secret": true, "optional": false,
			}},
			"params": none, "callback_url": "",
		},
	}}
	if d := cmp.Diff(want, b.do("GET", "/v1/integrations", "").json); d != "" {
		t.Errorf("integrations (-want +got):\n%s", d)
	}
}

func TestProviders(t *testing.T) {
	b := newBench(t, func(c *api.Config) {
		c.Providers = []api.Provider{
			{
				Name: "acme", Title: "Acme", Own: true, AuthSchemes: []string{"OAUTH2", "BASIC"}, APIURL: "https://{shop}.acme.example",
				Hosts: []string{"up.acme.example"}, Params: []tokenstore.Field{{Name: "shop"}},
				Scopes: []api.Scope{{Name: "read", Text: "Read things"}}, DocsURL: "https://acme.example/docs",
				Notes: []string{"Ask for offline."}, Unchecked: []string{"the life"},
			},
			{Name: "plain", Title: "Plain", APIURL: "https://api.plain.example"},
		}
	})
	want := map[string]any{"providers": []any{
		map[string]any{
			"name": "acme", "title": "Acme", "source": "configuration", "auth_schemes": []any{"OAUTH2", "BASIC"},
			"scopes": []any{map[string]any{"scope": "read", "text": "Read things"}}, "api_url": "https://{shop}.acme.example",
			"hosts": []any{"up.acme.example"}, "docs_url": "https://acme.example/docs",
			"notes": []any{"Ask for offline."}, "unchecked": []any{"the life"},
			"params": []any{map[string]any{
				"name": "shop", "title": "", "pattern": "", "help_url": "", "secret": false, "optional": false,
			}},
		},
		map[string]any{
			"name": "plain", "title": "Plain", "source": "catalogue", "auth_schemes": []any{}, "scopes": []any{},
			"api_url": "https://api.plain.example", "hosts": []any{}, "params": []any{}, "docs_url": nil,
			"notes": []any{}, "unchecked": []any{},
		},
	}}
	if d := cmp.Diff(want, b.do("GET", "/v1/providers", "").json); d != "" {
		t.Errorf("providers (-want +got):\n%s", d)
	}
	b.wants(b.do("GET", "/v1/providers?limit=1", ""), 400, "invalid_request")
}
