package caddymodule

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

func updateCommand() *cobra.Command {
	var c command
	var name string
	var labels []string
	var disable, enable bool
	cmd := &cobra.Command{
		Use:   "update ID [--name NAME] [--label NAME=VALUE]… [--disable | --enable]",
		Short: "Changes a connection's name or labels, or switches it off or on",
		Long: `
Changes what is given and leaves the rest as it is. --label NAME= takes a label
away. A connection that is switched off serves no calls and is not refreshed, but
keeps its credential.
`,
		Args:              oneConnection,
		ValidArgsFunction: c.completeID,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			given, err := assignments("label", labels)
			change := map[string]any{}
			switch {
			case err != nil:
				return err
			case disable && enable:
				return usage("--disable and --enable can't be together")
			case disable || enable:
				change["disabled"] = disable
			}
			if cmd.Flags().Changed("name") {
				change["name"] = name
			}
			if len(given) > 0 {
				var now cliConnection
				if err := c.client.ask(cmd.Context(), call{path: connectionPath(args[0], "")}, &now); err != nil {
					return err
				}
				change["labels"] = merged(now.Labels, given)
			}
			if len(change) == 0 {
				return usage("nothing to change is given")
			}
			return c.shows(cmd.Context(), call{method: http.MethodPatch, path: connectionPath(args[0], ""), body: change})
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&name, "name", "", "the name for people; empty takes it away")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "a label, NAME=VALUE; may be repeated")
	cmd.Flags().BoolVar(&disable, "disable", false, "switch it off")
	cmd.Flags().BoolVar(&enable, "enable", false, "switch it on")
	return cmd
}

// assignments reads name=value.
func assignments(flag string, list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usage("--%s %q is not NAME=VALUE", flag, s)
		}
		m[name] = value
	}
	return m, nil
}

// merged returns old with what is given, without what is given empty.
func merged(old, given map[string]string) map[string]string {
	m := map[string]string{}
	maps.Copy(m, old)
	maps.Copy(m, given)
	maps.DeleteFunc(m, func(name, value string) bool { _, is := given[name]; return is && value == "" })
	return m
}

func refreshCommand() *cobra.Command {
	var c command
	cmd := &cobra.Command{
		Use:               "refresh ID",
		Short:             "Refreshes a connection's token now",
		Long:              "\nRefreshes a connection's token now, whatever its age. Lanyard does so by itself in time.\n",
		Args:              oneConnection,
		ValidArgsFunction: c.completeID,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			return c.shows(cmd.Context(), call{method: http.MethodPost, path: connectionPath(args[0], "/refresh")})
		},
	}
	c.flags(cmd)
	return cmd
}

// revokedReasons say why nothing was revoked at the provider.
var revokedReasons = map[string]string{
	"nothing_to_revoke":    "it held no credential",
	"no_endpoint":          "the provider has no way to: end it in the provider's own settings",
	"shared_grant":         "it might end another connection of the same user and integration",
	"integration_missing":  "its integration is not configured",
	"invalid_parameter":    "its parameters are not what the integration's URLs need now",
	"provider_unavailable": "the provider failed: end it in the provider's own settings",
	"not_requested":        "as you said",
	"store_corrupt":        "its record can't be opened: end it in the provider's own settings",
}

func revokeCommand() *cobra.Command {
	var c command
	var remove, here bool
	cmd := &cobra.Command{
		Use:   "revoke ID [--delete] [--here-only]",
		Short: "Ends a connection, here and at the provider",
		Long: `
Erases a connection's credential at once, and revokes it at the provider. The
record stays, REVOKED, and can be connected again; with --delete it goes, too.
There is no way back. With --here-only the provider is left alone.
`,
		Args:              oneConnection,
		ValidArgsFunction: c.completeID,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			in := call{method: http.MethodPost, path: connectionPath(args[0], "/revoke")}
			if remove {
				in = call{method: http.MethodDelete, path: connectionPath(args[0], "")}
			}
			if here {
				in.path += "?revoke=false"
			}
			var raw json.RawMessage
			if err := c.client.ask(cmd.Context(), in, &raw); err != nil {
				return err
			}
			if c.print.asJSON {
				return c.print.json(raw)
			}
			return c.revoked(raw, remove)
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&remove, "delete", false, "delete the record, too")
	cmd.Flags().BoolVar(&here, "here-only", false, "leave the provider alone")
	return cmd
}

func (c *command) revoked(raw json.RawMessage, removed bool) error {
	var done struct {
		ID     string `json:"id"`
		There  any    `json:"provider_revoked"` // true, false or "pending"
		Reason string `json:"provider_revoked_reason"`
	}
	if err := json.Unmarshal(raw, &done); err != nil {
		return err
	}
	here := "revoked"
	if removed {
		here = "deleted"
	}
	there := "revoked"
	switch done.There {
	case "pending":
		there = "not confirmed yet: Lanyard goes on trying for a day"
	case false:
		there = "not revoked: " + done.Reason
		if why := revokedReasons[done.Reason]; why != "" {
			there = "not revoked: " + why
		}
	}
	return c.print.pairs([2]string{"connection", done.ID}, [2]string{"here", here}, [2]string{"at the provider", there})
}
