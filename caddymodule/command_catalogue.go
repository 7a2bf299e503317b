package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/internal/nearest"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// cliField is a value that somebody gives.
type cliField struct {
	Name     string `json:"name"`
	Optional bool   `json:"optional"`
}

func fieldNames(fields []cliField) string {
	var names []string
	for _, f := range fields {
		if f.Optional {
			f.Name = "[" + f.Name + "]"
		}
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

type integrations struct {
	Integrations []json.RawMessage `json:"integrations"`
}

// cliIntegration is an integration as the API shows it.
type cliIntegration struct {
	Name        string     `json:"name"`
	Provider    string     `json:"provider"`
	Title       string     `json:"title"`
	AuthScheme  string     `json:"auth_scheme"`
	Scopes      []string   `json:"scopes"`
	Fields      []cliField `json:"fields"`
	Params      []cliField `json:"params"`
	CallbackURL string     `json:"callback_url"`
}

func integrationsCommand() *cobra.Command {
	var c command
	cmd := &cobra.Command{
		Use:   "integrations",
		Short: "Lists the integrations, and what to register at their providers",
		Long: `
Lists the configured integrations: what their credentials consist of, their
connection parameters, and the redirect URI that has to be registered, exactly so,
at the provider.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			var got integrations
			if err := c.client.ask(cmd.Context(), call{path: "/v1/integrations"}, &got); err != nil {
				return err
			}
			out := c.print.table(
				column{head: "INTEGRATION"}, column{head: "PROVIDER", cut: true}, column{head: "SCHEME"},
				column{head: "CREDENTIALS", cut: true}, column{head: "PARAMS", cut: true}, column{head: "REDIRECT URI"},
			)
			var rows [][]cell
			for _, raw := range got.Integrations {
				if c.print.asJSON {
					if err := c.print.json(raw); err != nil {
						return err
					}
					continue
				}
				var one cliIntegration
				if err := json.Unmarshal(raw, &one); err != nil {
					return err
				}
				rows = append(rows, []cell{
					plain(one.Name), plain(one.Provider), plain(one.AuthScheme),
					plain(fieldNames(one.Fields)), plain(fieldNames(one.Params)), plain(one.CallbackURL),
				})
			}
			if len(got.Integrations) == 0 {
				c.print.say("No integrations: add one to the `lanyard` block (caddy lanyard providers shows of what).")
			}
			return out.rows(rows)
		},
	}
	c.flags(cmd)
	return cmd
}

// cliProvider is a provider as the API shows it.
type cliProvider struct {
	Name        string   `json:"name"`
	Title       string   `json:"title"`
	Source      string   `json:"source"`
	AuthSchemes []string `json:"auth_schemes"`
	Scopes      []struct {
		Scope string `json:"scope"`
		Text  string `json:"text"`
	} `json:"scopes"`
	APIURL    string     `json:"api_url"`
	Hosts     []string   `json:"hosts"`
	Params    []cliField `json:"params"`
	DocsURL   string     `json:"docs_url"`
	Notes     []string   `json:"notes"`
	Unchecked []string   `json:"unchecked"`

	raw json.RawMessage
}

// catalogue is what is known of providers.
type catalogue struct {
	all []cliProvider
	app *App // whose configuration knows the entries; nil: Lanyard's own are not known here
}

// entry returns the entry of a provider, if it is known here.
func (k *catalogue) entry(p *cliProvider) (provider.Entry, bool) {
	if k.app == nil && p.Source != "catalogue" {
		return provider.Entry{}, false
	}
	e, err := cmp.Or(k.app, &App{}).entry(p.Name)
	return e, err == nil
}

func (k *catalogue) add(raw json.RawMessage) error {
	p := cliProvider{raw: raw}
	err := json.Unmarshal(raw, &p)
	k.all = append(k.all, p)
	return err
}

func (k *catalogue) names() []string {
	var names []string
	for i := range k.all {
		names = append(names, k.all[i].Name)
	}
	return names
}

// catalogueOf returns the providers of a configuration.
func catalogueOf(app *App) (*catalogue, error) {
	k := &catalogue{app: app}
	for _, p := range app.providers() {
		raw, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		if err := k.add(raw); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// catalogue returns the providers of the configuration in file, else those that
// Lanyard knows, else those that are built in.
func (c *command) catalogue(ctx context.Context, file string) (*catalogue, error) {
	if file != "" {
		d := doctor{file: file}
		if err := d.load(); err != nil {
			return nil, err
		}
		if d.app == nil {
			return nil, advise(fmt.Errorf("%s can't be read", file), "caddy lanyard doctor --config "+file+" says why")
		}
		return catalogueOf(d.app)
	}
	var got struct {
		Providers []json.RawMessage `json:"providers"`
	}
	ctx, cancel := context.WithTimeout(ctx, catalogueWait)
	defer cancel()
	if err := c.client.ask(ctx, call{path: "/v1/providers"}, &got); err != nil {
		if c.client.named {
			return nil, err
		}
		c.print.say("Lanyard was not asked, so what its configuration adds is not among these.")
		return catalogueOf(&App{})
	}
	k := new(catalogue)
	for _, raw := range got.Providers {
		if err := k.add(raw); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// catalogueWait is how long Lanyard may take to say what it knows.
const catalogueWait = 10 * time.Second

func providersCommand() *cobra.Command {
	var c command
	var scheme, file string
	cmd := &cobra.Command{
		Use:   "providers [NAME | WORD…] [--scheme SCHEME] [--config FILE]",
		Short: "Lists the providers that integrations can be of, and explains them",
		Long: `
Lists the catalogue and the providers of the configuration: those whose names have
all of the words, and with --scheme those that have words of their own for it (BASIC,
BEARER_TOKEN and OAUTH2_CLIENT_CREDENTIALS go with nearly any). Of one whose
name is given it says what to register there, how its tokens behave, what its
connections need to know, and a block for the Caddyfile.

It needs no Lanyard that runs: what is built in is known without one, and with
--config what that configuration adds.
`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: c.completeProvider,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			scheme = strings.ToUpper(scheme)
			if scheme != "" && !slices.Contains(tokenstore.AuthSchemes, scheme) {
				return usage("--scheme %q is not one of %s", scheme, strings.Join(tokenstore.AuthSchemes, ", "))
			}
			k, err := c.catalogue(cmd.Context(), file)
			if err != nil {
				return err
			}
			if len(args) == 1 && scheme == "" {
				if i := slices.Index(k.names(), args[0]); i >= 0 {
					return c.explain(k, &k.all[i])
				}
			}
			return c.listProviders(k, args, scheme)
		},
	}
	cmd.Flags().StringVar(&scheme, "scheme", "", "those that have this auth scheme: "+strings.Join(tokenstore.AuthSchemes, ", "))
	cmd.Flags().StringVarP(&file, "config", "c", "", "a configuration whose providers are to be known, too")
	c.flags(cmd)
	return cmd
}

// listProviders lists those whose names have all the words.
func (c *command) listProviders(k *catalogue, words []string, scheme string) error {
	out := c.print.table(
		column{head: "PROVIDER"}, column{head: "TITLE", cut: true}, column{head: "SCHEMES", cut: true},
		column{head: "REFRESH TOKENS", cut: true}, column{head: "REVOCATION"}, column{head: "SOURCE"},
	)
	var rows [][]cell
	for i := range k.all {
		p := &k.all[i]
		e, known := k.entry(p)
		schemes := p.AuthSchemes
		if known {
			schemes = e.Described()
		}
		if !hasWords(p, words) || scheme != "" && !slices.Contains(schemes, scheme) {
			continue
		}
		if c.print.asJSON {
			if err := c.print.json(p.raw); err != nil {
				return err
			}
		}
		rows = append(rows, []cell{
			plain(p.Name), plain(p.Title), plain(strings.Join(schemes, " ")),
			plain(e.SummarizeRefresh()), plain(e.SummarizeRevocation()), plain(p.Source),
		})
	}
	if len(rows) == 0 && len(words) > 0 {
		err := fmt.Errorf("there is no provider %q", strings.Join(words, " "))
		if near := nearest.Word(words[0], k.names()); near != "" {
			return advise(err, "caddy lanyard providers "+near)
		}
		return advise(err, "caddy lanyard providers lists them; a `provider` block adds one")
	}
	if len(rows) == 0 {
		c.print.say("No provider has words of its own for %s.", scheme)
	}
	if c.print.asJSON {
		return nil
	}
	return out.rows(rows)
}

// hasWords reports whether the provider's name or title has all the words.
func hasWords(p *cliProvider, words []string) bool {
	text := strings.ToLower(p.Name + " " + p.Title)
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, strings.ToLower(word)) })
}
