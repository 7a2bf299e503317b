package caddymodule

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	completionWait = 2 * time.Second // somebody has pressed a key
	completions    = 200             // are enough to choose from
)

// completeID completes the only argument of a command, the ID of a connection.
func (c *command) completeID(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeIDs(cmd, args, begun)
}

// completeIDs completes the ID of a connection, as far as it finds any in the
// time that there is.
func (c *command) completeIDs(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	var found []string
	c.completeBy(cmd, func(ctx context.Context) error {
		return c.client.pages(ctx, url.Values{"limit": {"200"}}, func(connections []json.RawMessage) error {
			for _, raw := range connections {
				var one cliConnection
				if json.Unmarshal(raw, &one) == nil && strings.HasPrefix(one.ID, begun) {
					found = append(found, cobra.CompletionWithDesc(one.ID, clean(one.Integration+" "+one.UserID+" "+string(one.Status))))
				}
			}
			if len(found) >= completions {
				return io.EOF
			}
			return nil
		})
	})
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (c *command) completeIntegrations(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	var got integrations
	var found []string
	if c.completeFrom(cmd, "/v1/integrations", &got) {
		for _, raw := range got.Integrations {
			var one cliIntegration
			if json.Unmarshal(raw, &one) == nil && strings.HasPrefix(one.Name, begun) {
				found = append(found, cobra.CompletionWithDesc(one.Name, clean(one.Title)))
			}
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (c *command) completeProvider(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	var got struct {
		Providers []cliProvider `json:"providers"`
	}
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if !c.completeFrom(cmd, "/v1/providers", &got) {
		for _, p := range new(App).providers() { // those that are built in
			got.Providers = append(got.Providers, cliProvider{Name: p.Name, Title: p.Title})
		}
	}
	var found []string
	for _, one := range got.Providers {
		if strings.HasPrefix(one.Name, begun) {
			found = append(found, cobra.CompletionWithDesc(one.Name, clean(one.Title)))
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeFrom asks the API for what is at path.
func (c *command) completeFrom(cmd *cobra.Command, path string, answer any) bool {
	return c.completeBy(cmd, func(ctx context.Context) error { return c.client.ask(ctx, call{path: path}, answer) })
}

// completeBy asks the API in the little time that there is. What goes wrong is
// kept from a command line that somebody is writing.
func (c *command) completeBy(cmd *cobra.Command, ask func(context.Context) error) bool {
	if c.client.prepare() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(cmdContext(cmd), completionWait)
	defer cancel()
	return ask(ctx) == nil
}

func cmdContext(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
