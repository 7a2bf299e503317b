package caddymodule

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/lanyard-proxy/lanyard/provider"
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
//		store badger <dir>
//		keyset <tink_json>
//		api_key <key>
//		client <name> <key>
//		redirect_url <url>
//		completion off
//		integration <name> {
//			provider <name>
//			client_id <id>
//			client_secret <secret>
//			scopes <scopes...>
//			review on
//		}
//		provider <name> {
//			issuer <url>
//			authorize_url <url>
//			token_url <url>
//			revoke_url <url>
//			introspect_url <url>
//			api_url <url>
//			hosts <hosts...>
//			client_auth basic|basic_raw|post|none
//			scopes <scopes...>
//			allow_private
//		}
//	}
//
// api_key, client, redirect_url, integration and provider may be repeated.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()                      // the option's name
	places := map[string]string{} // :: integration → file and line
	err := parseRest(d, options{
		"public_url":   once(&a.PublicURL),
		"store":        a.parseStore,
		"keyset":       once(&a.Keyset),
		"api_key":      repeated(&a.APIKeys),
		"client":       a.parseClient,
		"redirect_url": repeated(&a.RedirectURLs),
		"completion":   oneOf(&a.Completion, "off"),
		"integration": func(d *caddyfile.Dispenser) error {
			place := fmt.Sprintf("%s:%d", d.File(), d.Line())
			if d.NextArg() {
				places[d.Val()] = place
				d.Prev()
			}
			return a.parseIntegration(d)
		},
		"provider": a.parseProvider,
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
	return nil
}

func (a *App) parseStore(d *caddyfile.Dispenser) error {
	if a.Store != nil {
		return twice(d)
	}
	args, err := arguments(d, "badger", "DIRECTORY")
	if err != nil {
		return err
	}
	if args[0] != "badger" {
		return d.WrapErr(unknownEngine(args[0]))
	}
	a.Store = &StoreConfig{Engine: args[0], Dir: args[1]}
	return nil
}

func (a *App) parseClient(d *caddyfile.Dispenser) error {
	args, err := arguments(d, "NAME", "KEY")
	if err != nil {
		return err
	}
	a.Clients = append(a.Clients, ClientConfig{Name: args[0], Key: args[1]})
	return nil
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
		"client_id":     once(&in.ClientID),
		"client_secret": once(&in.ClientSecret),
		"scopes":        list(&in.Scopes),
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

func (a *App) parseProvider(d *caddyfile.Dispenser) error {
	args, err := arguments(d, "NAME")
	if err != nil {
		return err
	}
	if _, ok := a.Providers[args[0]]; ok {
		return d.Errf("a second provider %q", args[0])
	}
	var e provider.Entry
	err = parseBlock(d, options{
		"issuer":         once(&e.Issuer),
		"authorize_url":  once(&e.AuthorizeURL),
		"token_url":      once(&e.TokenURL),
		"revoke_url":     once(&e.RevokeURL),
		"introspect_url": once(&e.IntrospectURL),
		"api_url":        once(&e.APIURL),
		"hosts":          list(&e.Hosts),
		"client_auth":    oneOf(&e.ClientAuth, provider.AuthBasic, provider.AuthBasicRaw, provider.AuthPost, provider.AuthNone),
		"scopes":         list(&e.Scopes),
		"allow_private":  flag(&e.AllowPrivate),
	})
	if err != nil {
		return err
	}
	if a.Providers == nil {
		a.Providers = map[string]provider.Entry{}
	}
	a.Providers[args[0]] = e
	return nil
}

// options are the words of a block, each with what reads its line. A parser
// finds its own word as the dispenser's current token.
type options map[string]func(d *caddyfile.Dispenser) error

// parseRest reads what follows the name, and the arguments that were read,
// of a directive or of the global option.
func parseRest(d *caddyfile.Dispenser, opts options) error {
	name := d.Val()
	if d.NextArg() {
		return d.Errf("unexpected %q after %s", d.Val(), name)
	}
	return parseBlock(d, opts)
}

// parseBlock reads the block that begins on the current line, if there is one.
func parseBlock(d *caddyfile.Dispenser, opts options) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		parse, ok := opts[d.Val()]
		if !ok {
			return unrecognized(d, "option", slices.Collect(maps.Keys(opts)))
		}
		if err := parseOption(d, parse); err != nil {
			return err
		}
	}
	return nil
}

// parseOption reads one option of a block, of which nothing may be left over.
func parseOption(d *caddyfile.Dispenser, parse func(*caddyfile.Dispenser) error) error {
	name := d.Val()
	if err := parse(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("unexpected %q after %s", d.Val(), name)
	}
	if nesting := d.Nesting(); d.NextBlock(nesting) {
		return d.Errf("unexpected block after %s, which takes none", name)
	}
	return nil
}

// unrecognized says that the current token is none of the known words.
func unrecognized(d *caddyfile.Dispenser, what string, known []string) error {
	return d.Errf("unrecognized %s %q: %s", what, d.Val(), hint(d.Val(), known))
}

// hint names the known words, and first the one that was probably meant.
func hint(wrong string, known []string) string {
	if len(known) == 0 {
		return "there is none"
	}
	slices.Sort(known)
	all := "known: " + strings.Join(slices.Compact(known), ", ")
	if near := nearest(wrong, known); near != "" {
		return "did you mean " + near + "? " + all
	}
	return all
}

// arguments reads one argument for each name. None may be empty: an unquoted
// # begins a comment and leaves nothing.
func arguments(d *caddyfile.Dispenser, names ...string) ([]string, error) {
	option := d.Val()
	args := make([]string, 0, len(names))
	for range names {
		if !d.NextArg() || d.Val() == "" {
			return nil, d.Errf("%s needs %s", option, strings.Join(names[len(args):], " and "))
		}
		args = append(args, d.Val())
	}
	return args, nil
}

func twice(d *caddyfile.Dispenser) error { return d.Errf("%s is given twice", d.Val()) }

// once reads an option with one argument that may stand only once.
func once(target *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *target != "" {
			return twice(d)
		}
		args, err := arguments(d, "a value")
		if err != nil {
			return err
		}
		*target = args[0]
		return nil
	}
}

// oneOf reads an option that takes one of a few words.
func oneOf(target *string, words ...string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option := d.Val()
		if err := once(target)(d); err != nil {
			return err
		}
		if !slices.Contains(words, *target) {
			return unrecognized(d, option, words)
		}
		return nil
	}
}

// flag reads an option without arguments.
func flag(target *bool) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *target {
			return twice(d)
		}
		*target = true
		return nil
	}
}

// repeated reads an option with one argument that may stand several times.
func repeated(target *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		args, err := arguments(d, "a value")
		if err != nil {
			return err
		}
		*target = append(*target, args[0])
		return nil
	}
}

// list reads an option with one or more arguments, each of which may hold
// several words. Each word has to pass the checks.
func list(target *[]string, checks ...func(string) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		option := d.Val()
		words := strings.Fields(strings.Join(d.RemainingArgs(), " "))
		if len(words) == 0 {
			return d.Errf("%s needs at least one value", option)
		}
		for _, word := range words {
			for _, check := range checks {
				if err := check(word); err != nil {
					return d.Errf("%s: %w", option, err)
				}
			}
		}
		*target = append(*target, words...)
		return nil
	}
}

// nearest returns the name that is at most two typing mistakes away, or "".
func nearest(name string, names []string) string {
	best, distance := "", min(3, len(name))
	for _, n := range names {
		if d := levenshtein(name, n); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// levenshtein counts the bytes to insert, delete or replace between a and b.
func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
