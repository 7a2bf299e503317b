package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/internal/demo"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "lanyard",
		Usage: "<command>",
		Short: "Looks after Lanyard's connections and keys",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args = noCommand
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			cmd.AddCommand(
				demoCommand(),
				listCommand(), showCommand(), connectCommand(), updateCommand(), refreshCommand(), revokeCommand(),
				importCommand(), exportCommand(), providersCommand(), integrationsCommand(), eventsCommand(), healthCommand(), doctorCommand(),
				keygenCommand(), rekeyCommand(), backupCommand(), restoreCommand(), migrateCommand(),
			)
			finish(cmd)
		},
	})
}

// noCommand refuses a mistyped command.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("there is no command %q: did you mean %s?", args[0], near[0])
	}
	return fmt.Errorf("there is no command %q", args[0])
}

func demoCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "demo [--yes]",
		Short: "Walks through Lanyard's job with a pretend provider",
		Long: `
Starts Lanyard, a pretend provider and a pretend app on free loopback ports with
a temporary store, and walks through the whole job: connect, call, the token
expires, call again, revoke at the provider, call, reconnect. No account and no
network is needed, and nothing is left behind.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if yes {
				demoAccessLife = 3 * time.Second // nobody needs time to read
			}
			return runDemo(cmd.Context(), demo.Options{Out: cmd.OutOrStdout(), In: cmd.InOrStdin(), Yes: yes})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "approve by itself, check each step, and end")
	return cmd
}

// runDemo runs Caddy in this process with the demo's configuration, and walks.
func runDemo(ctx context.Context, o demo.Options) (err error) {
	dir, err := os.MkdirTemp("", "lanyard-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ports, err := freePorts()
	if err != nil {
		return err
	}
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(demo.Caddyfile(ports, dir)), nil)
	if err != nil {
		return err
	}
	var cfg caddy.Config
	if err := json.Unmarshal(adapted, &cfg); err != nil {
		return err
	}
	// Nothing of a Caddy that this user runs otherwise may be touched.
	cfg.Admin = &caddy.AdminConfig{Disabled: true, Config: &caddy.ConfigSettings{Persist: new(bool)}}
	cfg.StorageRaw = caddyconfig.JSONModuleObject(map[string]string{"root": filepath.Join(dir, "caddy")}, "module", "file_system", nil)
	if err := os.Setenv("XDG_DATA_HOME", filepath.Join(dir, "data")); err != nil {
		return err
	}
	for _, l := range cfg.Logging.Logs {
		l.Level = "ERROR"
	}
	if err := caddy.Run(&cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, caddy.Stop()) }()
	demoCfg := demo.Config{Provider: demoProvider()}
	ports.URLs(&demoCfg)
	if err := readDemoKeys(&demoCfg, dir); err != nil {
		return err
	}
	return demo.Run(ctx, demoCfg, o)
}

// freePorts finds ports on loopback that nobody listens on.
func freePorts() (demo.Ports, error) {
	var p demo.Ports
	for _, port := range []*int{&p.Proxy, &p.Connect, &p.Provider, &p.App} {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
		if err != nil {
			return p, err
		}
		defer func() { _ = l.Close() }() // all at the end, so that each is another
		*port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}
