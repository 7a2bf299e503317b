package caddymodule

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
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

type providers struct {
	Providers []json.RawMessage `json:"providers"`
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
	APIURL  string     `json:"api_url"`
	Hosts   []string   `json:"hosts"`
	Params  []cliField `json:"params"`
	DocsURL string     `json:"docs_url"`
}

func providersCommand() *cobra.Command {
	var c command
	cmd := &cobra.Command{
		Use:               "providers [NAME]",
		Short:             "Lists the providers that integrations can be of",
		Long:              "\nLists the catalogue and the providers of the configuration, or shows one of them with its scopes.\n",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeProvider,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			var got providers
			if err := c.client.ask(cmd.Context(), call{path: "/v1/providers"}, &got); err != nil {
				return err
			}
			if len(args) == 1 {
				return c.provider(got.Providers, args[0])
			}
			out := c.print.table(column{head: "PROVIDER"}, column{head: "TITLE", cut: true}, column{head: "SCHEMES", cut: true}, column{head: "SOURCE"})
			var rows [][]cell
			for _, raw := range got.Providers {
				if c.print.asJSON {
					if err := c.print.json(raw); err != nil {
						return err
					}
					continue
				}
				var one cliProvider
				if err := json.Unmarshal(raw, &one); err != nil {
					return err
				}
				rows = append(rows, []cell{plain(one.Name), plain(one.Title), plain(strings.Join(one.AuthSchemes, " ")), plain(one.Source)})
			}
			return out.rows(rows)
		},
	}
	c.flags(cmd)
	return cmd
}

// provider shows one of list.
func (c *command) provider(list []json.RawMessage, name string) error {
	var names []string
	for _, raw := range list {
		var one cliProvider
		if err := json.Unmarshal(raw, &one); err != nil {
			return err
		}
		names = append(names, one.Name)
		if one.Name != name {
			continue
		}
		if c.print.asJSON {
			return c.print.json(raw)
		}
		err := c.print.pairs(
			[2]string{"provider", one.Name}, [2]string{"title", one.Title}, [2]string{"source", one.Source},
			[2]string{"schemes", strings.Join(one.AuthSchemes, " ")}, [2]string{"API", one.APIURL},
			[2]string{"further hosts", strings.Join(one.Hosts, " ")}, [2]string{"params", fieldNames(one.Params)},
			[2]string{"register a client", one.DocsURL},
		)
		if err != nil || len(one.Scopes) == 0 {
			return err
		}
		out := c.print.table(column{head: "SCOPE"}, column{head: "MEANING", cut: true})
		var rows [][]cell
		for _, s := range one.Scopes {
			rows = append(rows, []cell{plain(s.Scope), plain(s.Text)})
		}
		_, _ = fmt.Fprintln(c.print.out)
		return out.rows(rows)
	}
	err := fmt.Errorf("there is no provider %q", name)
	if near := nearest(name, names); near != "" {
		return advise(err, "caddy lanyard providers "+near)
	}
	return advise(err, "caddy lanyard providers lists them; a `provider` block adds one")
}
