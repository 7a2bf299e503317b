package caddymodule

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func init() { httpcaddyfile.RegisterGlobalOption("lanyard", parseGlobal) }

func parseGlobal(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next()
		return nil, d.Err("a second `lanyard` block: there is one for all sites; put these options into the first")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "lanyard", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from the global options. Syntax:
//
//	lanyard {
//		public_url <url>
//		store badger <dir> | postgres <url>
//		keyset <tink_json>
//		api_key <key>
//		client <name> <key> {
//			integrations <names...>
//			users <ids...>
//			methods <methods...>
//			paths <patterns...>
//		}
//		redirect_url <url>
//		completion off
//		integration <name> {
//			provider <name>
//			auth_scheme OAUTH2|OAUTH2_CLIENT_CREDENTIALS|API_KEY|BASIC|BEARER_TOKEN|JWT_BEARER
//			client_id <id>
//			client_secret <secret>
//			scopes <scopes...>
//			param <name> <value>
//			redirect_uri <value>
//			review on
//		}
//		provider <name> {
//			<words of a catalogue file: see parseProvider>
//		}
//		brand {
//			name <name>
//			logo <file>
//			accent <color>
//			home|help|privacy|terms <url>
//		}
//		webhook <url> {
//			secret <secret>
//			events <types...>
//		}
//	}
//
// api_key, client, redirect_url, integration, provider and webhook may be repeated.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()                      // the option's name
	places := map[string]string{} // :: integration → file and line
	var clients []string          // the files and lines of a.Clients
	err := parseRest(d, options{
		"public_url": once(&a.PublicURL),
		"store":      a.parseStore,
		"keyset":     once(&a.Keyset),
		"api_key":    repeated(&a.APIKeys),
		"client": func(d *caddyfile.Dispenser) error {
			clients = append(clients, fmt.Sprintf("%s:%d", d.File(), d.Line()))
			return a.parseClient(d)
		},
		"redirect_url": repeated(&a.RedirectURLs),
		"completion":   oneOf(&a.Completion, "off"),
		"brand":        a.parseBrand,
		"integration": func(d *caddyfile.Dispenser) error {
			place := fmt.Sprintf("%s:%d", d.File(), d.Line())
			if d.NextArg() {
				places[d.Val()] = place
				d.Prev()
			}
			return a.parseIntegration(d)
		},
		"provider": a.parseProvider,
		"webhook":  a.parseWebhook,
	})
	if err != nil {
		return err
	}
	// A provider may be described below the integrations that name it.
	for _, name := range slices.Sorted(maps.Keys(a.Integrations)) {
		if _, err := a.entry(cmp.Or(a.Integrations[name].Provider, name)); err != nil {
			return fmt.Errorf("integration %s: %w, at %s", name, err, places[name])
		}
	}
	for i, c := range a.Clients {
		if err := a.hasIntegrations(c.Integrations); err != nil {
			return fmt.Errorf("client %s: %w, at %s", c.Name, err, clients[i])
		}
	}
	return nil
}

func (a *App) parseStore(d *caddyfile.Dispenser) error {
	if a.Store != nil {
		return twice(d)
	}
	engine, err := arguments(d, "badger or postgres")
	if err != nil {
		return err
	}
	var place []string
	a.Store = &StoreConfig{Engine: engine[0]}
	switch engine[0] {
	case engineBadger:
		if place, err = arguments(d, "DIRECTORY"); err == nil {
			a.Store.Dir = place[0]
		}
	case enginePostgres:
		if place, err = arguments(d, "URL"); err == nil {
			a.Store.URL = place[0]
		}
	default:
		err = d.WrapErr(unknownEngine(engine[0]))
	}
	return err
}

func (a *App) parseClient(d *caddyfile.Dispenser) error {
	args, err := arguments(d, "NAME", "KEY")
	if err != nil {
		return err
	}
	c := ClientConfig{Name: args[0], Key: args[1]}
	err = parseBlock(d, options{
		"integrations": limit(&c.Integrations, checkNotEmpty),
		"users":        limit(&c.Users, checkNotEmpty),
		"methods":      limit(&c.Methods, proxy.CheckMethod),
		"paths":        limit(&c.Paths, proxy.CheckPattern),
	})
	a.Clients = append(a.Clients, c)
	return err
}

func (a *App) parseIntegration(d *caddyfile.Dispenser) error {
	args, err := arguments(d, "NAME")
	if err != nil {
		return err
	}
	if a.Integrations[args[0]] != nil {
		return d.Errf("a second integration %q", args[0])
	}
	var review string
	in := new(IntegrationConfig)
	err = parseBlock(d, options{
		"provider":      once(&in.Provider),
		"auth_scheme":   oneOf(&in.AuthScheme, tokenstore.AuthSchemes...),
		"client_id":     once(&in.ClientID),
		"client_secret": once(&in.ClientSecret),
		"scopes":        list(&in.Scopes),
		"param":         pairs(&in.Params, "NAME", "VALUE"),
		"redirect_uri":  once(&in.RedirectURI),
		"review":        oneOf(&review, "on"),
	})
	if err != nil {
		return err
	}
	in.Review = review == "on"
	if a.Integrations == nil {
		a.Integrations = map[string]*IntegrationConfig{}
	}
	a.Integrations[args[0]] = in
	return nil
}
