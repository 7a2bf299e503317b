package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// connectCmd begins connections.
type connectCmd struct {
	command
	integration, user, connection string
	redirect, state, name         string
	credentials                   string // the name of a file, or -
	scopes, labels, params        []string
	device                        bool
}

func connectCommand() *cobra.Command {
	var c connectCmd
	cmd := &cobra.Command{
		Use:   "connect [--integration NAME] [--user ID] [--connection ID] [--device | --credentials-file FILE]",
		Short: "Prints a link by which a user connects, or connects here",
		Long: `
Begins a connection and prints the link by which its user connects; it lives 15
minutes. With --connection the link is for one that exists: to connect it again,
or with --scopes to ask for more.

With --device it asks the provider for a code, shows that and where to enter it,
and waits until it was (RFC 8628): for machines without a browser.

With --credentials-file the connection is ACTIVE at once: the file, or with - the
standard input, has the key, or a JSON object of what "caddy lanyard integrations"
lists under CREDENTIALS. An integration whose own client is the credential needs
no file.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.device && c.credentials != "" {
				return usage("--device and --credentials-file can't be together")
			}
			if err := c.prepare(cmd); err != nil {
				return err
			}
			if cmd.Flags().Changed("connection") {
				if err := checkConnectionID(c.connection); err != nil {
					return usage("--connection: %w", err)
				}
			}
			in, err := c.body(cmd)
			if err != nil {
				return err
			}
			return c.connect(cmd.Context(), in)
		},
	}
	c.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&c.integration, "integration", "", "the integration (default: the only one)")
	f.StringVar(&c.user, "user", "", "your ID of the user (default: default)")
	f.StringVar(&c.connection, "connection", "", "the ID of the connection to connect again")
	f.StringVar(&c.redirect, "redirect-url", "", "where the browser returns (default: the first that is configured)")
	f.StringVar(&c.state, "state", "", "comes back to the redirect URL as it is")
	f.StringVar(&c.name, "name", "", "a name for people")
	f.StringSliceVar(&c.scopes, "scopes", nil, "the scopes, separated by commas (default: the integration's)")
	f.StringArrayVar(&c.labels, "label", nil, "a label, NAME=VALUE; may be repeated")
	f.StringArrayVar(&c.params, "param", nil, "a connection parameter, NAME=VALUE; may be repeated")
	f.BoolVar(&c.device, "device", false, "ask for a code to enter on another device, and wait")
	f.StringVar(&c.credentials, "credentials-file", "", "a file with the credentials; - is the standard input")
	_ = cmd.RegisterFlagCompletionFunc("integration", c.completeIntegrations)
	_ = cmd.RegisterFlagCompletionFunc("connection", c.completeIDs)
	return cmd
}

// path is where the request goes.
func (c *connectCmd) path() string {
	if c.connection != "" {
		return connectionPath(c.connection, "/connect")
	}
	return "/v1/connections"
}

// body returns the request that the flags describe.
func (c *connectCmd) body(cmd *cobra.Command) (map[string]any, error) {
	in := map[string]any{}
	for name, value := range map[string]string{
		"integration": c.integration, "user_id": c.user, "name": c.name, "redirect_url": c.redirect, "state": c.state,
	} {
		if value != "" {
			in[name] = value
		}
	}
	for flag, list := range map[string][]string{"label": c.labels, "param": c.params} {
		m, err := assignments(flag, list)
		if err != nil {
			return nil, err
		}
		if len(m) > 0 {
			in[flag+"s"] = m
		}
	}
	if c.connection != "" {
		for _, name := range []string{"integration", "user_id", "name", "labels", "params"} {
			if _, given := in[name]; given {
				return nil, usage("--connection keeps its own integration, user, name, labels and params: leave them out")
			}
		}
	}
	if len(c.scopes) > 0 {
		in["scopes"] = c.scopes
	}
	if c.device {
		in["device"] = true
	}
	if c.credentials != "" {
		given, err := c.readCredentials(cmd)
		if err != nil {
			return nil, err
		}
		in["credentials"] = given
	}
	return in, nil
}

// readCredentials reads the credentials as the integration names them.
func (c *connectCmd) readCredentials(cmd *cobra.Command) (map[string]string, error) {
	text, err := readSecretFile(cmd, c.credentials)
	if err != nil {
		return nil, err
	}
	one, err := c.chosen(cmd.Context())
	if err != nil {
		return nil, err
	}
	if len(one.Fields) == 0 {
		return nil, advise(fmt.Errorf("integration %s (%s) takes no credentials", one.Name, one.AuthScheme), "the same command without --credentials-file")
	}
	var given map[string]string
	isField := func(name string) bool {
		return slices.ContainsFunc(one.Fields, func(f cliField) bool { return f.Name == name })
	}
	if json.Unmarshal([]byte(text), &given) == nil {
		all := len(given) > 0
		for name := range given {
			all = all && isField(name)
		}
		if all {
			return given, nil
		}
	}
	needed := slices.DeleteFunc(slices.Clone(one.Fields), func(f cliField) bool { return f.Optional })
	if len(needed) != 1 {
		return nil, advise(fmt.Errorf("the credentials are no JSON object of %s", fieldNames(one.Fields)),
			"caddy lanyard integrations shows what they consist of")
	}
	return map[string]string{needed[0].Name: text}, nil
}

// readSecretFile reads a file, or the standard input, without the line's end.
func readSecretFile(cmd *cobra.Command, name string) (string, error) {
	in := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // the operator names the file
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// chosen returns the integration that the flags name.
func (c *connectCmd) chosen(ctx context.Context) (cliIntegration, error) {
	name := c.integration
	if c.connection != "" {
		var now cliConnection
		if err := c.client.ask(ctx, call{path: connectionPath(c.connection, "")}, &now); err != nil {
			return cliIntegration{}, err
		}
		name = now.Integration
	}
	var got integrations
	if err := c.client.ask(ctx, call{path: "/v1/integrations"}, &got); err != nil {
		return cliIntegration{}, err
	}
	for _, raw := range got.Integrations {
		var one cliIntegration
		if err := json.Unmarshal(raw, &one); err != nil {
			return cliIntegration{}, err
		}
		if one.Name == name || name == "" && len(got.Integrations) == 1 {
			return one, nil
		}
	}
	return cliIntegration{}, advise(fmt.Errorf("there is no integration %q", name), "caddy lanyard integrations lists them")
}

// begun is what beginning a connection is answered with.
type begun struct {
	ID         string            `json:"id"`
	Status     tokenstore.Status `json:"status"`
	ConnectURL string            `json:"connect_url"`
	ExpiresAt  *time.Time        `json:"expires_at"`
	Device     *struct {
		UserCode  string    `json:"user_code"`
		URI       string    `json:"verification_uri"`
		WholeURI  string    `json:"verification_uri_complete"`
		ExpiresAt time.Time `json:"expires_at"`
		Interval  int       `json:"interval"` // seconds
	} `json:"device"`
}

func (c *connectCmd) connect(ctx context.Context, in map[string]any) error {
	var before cliConnection
	if c.device && c.connection != "" {
		if err := c.client.ask(ctx, call{path: connectionPath(c.connection, "")}, &before); err != nil {
			return err
		}
	}
	var raw json.RawMessage
	if err := c.client.ask(ctx, call{method: http.MethodPost, path: c.path(), body: in}, &raw); err != nil {
		return err
	}
	var got begun
	if err := json.Unmarshal(raw, &got); err != nil {
		return err
	}
	if got.Device == nil && got.ExpiresAt == nil { // the whole connection
		return c.show(raw)
	}
	if c.print.asJSON {
		if err := c.print.json(raw); err != nil {
			return err
		}
	}
	if got.Device != nil {
		return c.waitForDevice(ctx, got, before.Generation)
	}
	if c.print.asJSON {
		return nil
	}
	c.print.say("Connection %s. The user opens this link, which ends %s:", got.ID, moment(got.ExpiresAt))
	_, err := fmt.Fprintln(c.print.out, clean(got.ConnectURL))
	return err
}

// deviceGrace is how long after the code's end the provider's last answer may
// still be on its way.
const deviceGrace = 15 * time.Second

// waitForDevice shows the code and waits until somebody has entered it.
func (c *connectCmd) waitForDevice(ctx context.Context, got begun, generation uint64) error {
	d := got.Device
	if !c.print.asJSON {
		c.print.say("Connection %s. Open, on any device:\n\n    %s\n\nand enter this code:\n\n    %s\n", got.ID, d.URI, d.UserCode)
		if d.WholeURI != "" {
			c.print.say("Or open, with the code in it:\n\n    %s\n", clean(d.WholeURI))
		}
		c.print.say("Waiting (^C to leave; the code ends %s) …", moment(&d.ExpiresAt))
	}
	tick := time.NewTicker(time.Duration(max(d.Interval, 1)) * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return advise(fmt.Errorf("interrupted; the code goes on being good until %s", d.ExpiresAt.Format(time.TimeOnly)), "caddy lanyard show "+got.ID)
		case <-tick.C:
		}
		var raw json.RawMessage
		var now cliConnection
		if err := c.client.ask(ctx, call{path: connectionPath(got.ID, "")}, &raw); err != nil {
			if ctx.Err() != nil {
				continue
			}
			return err
		}
		if err := json.Unmarshal(raw, &now); err != nil {
			return err
		}
		switch {
		case now.Status == tokenstore.StatusActive && now.Generation > generation:
			return c.show(raw)
		case now.Status == tokenstore.StatusFailed && got.Status == tokenstore.StatusInitiated:
			return advise(fmt.Errorf("not connected: %s", now.Reason), "the same command again, for another code")
		case time.Now().After(d.ExpiresAt.Add(deviceGrace)):
			return advise(errors.New("nobody entered the code in time, or said no"), "the same command again, for another code")
		}
	}
}
