package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/seal"
)

func keygenCommand() *cobra.Command {
	var change keysetChange
	var out string
	cmd := &cobra.Command{
		Use:   "keygen [--add FILE | --next FILE | --promote FILE | --drop-old FILE] [--out FILE]",
		Short: "Prints a new keyset for the option `keyset`, or a changed one",
		Long: `
Prints a new keyset, Tink's JSON, for the option "keyset". It seals everything
in the store, and nothing opens the store without it: keep a copy elsewhere.

	caddy lanyard keygen --out lanyard-keys.json

To change the key of a keyset that you configured, add a new one, put the keyset
that this prints in the old one's place, reload, and run "caddy lanyard rekey".
Then drop the old one in the same way.

	caddy lanyard keygen --add lanyard-keys.json --out new-keys.json
	caddy lanyard keygen --drop-old lanyard-keys.json --out new-keys.json

Where several Lanyards share a database, each has to have the new key before one of
them seals with it. Instead of --add, use --next and give the result to all; then
--promote, and give that to all.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if change.several() {
				return usage("--add, --next, --promote and --drop-old can't be together")
			}
			keys, err := change.text()
			if err != nil {
				return err
			}
			if out == "" {
				_, err = cmd.OutOrStdout().Write(keys)
				return err
			}
			err = writeFile(out, keys, placeFile)
			if errors.Is(err, fs.ErrExist) {
				err = advise(err, "name a file that does not exist yet, or move that one away")
			}
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write it to this file, which must not exist yet and nobody else can read (default: print it)")
	cmd.Flags().StringVar(&change.add, "add", "", "print the keyset in this file with a new key, which seals from then on")
	cmd.Flags().StringVar(&change.next, "next", "", "print the keyset in this file with a new key, which does not seal yet")
	cmd.Flags().StringVar(&change.promote, "promote", "", "print the keyset in this file with its newest key as the one that seals")
	cmd.Flags().StringVar(&change.dropOld, "drop-old", "", "print the keyset in this file with the key alone that seals")
	return cmd
}

// keysetChange names the file of the keyset that is changed, in one of its fields.
type keysetChange struct{ add, next, promote, dropOld string }

func (c keysetChange) several() bool {
	n := 0
	for _, name := range []string{c.add, c.next, c.promote, c.dropOld} {
		if name != "" {
			n++
		}
	}
	return n > 1
}

// text returns the changed keyset, a new one if none is to be changed.
func (c keysetChange) text() ([]byte, error) {
	name, change := c.add, seal.AddPrimary
	switch {
	case c.next != "":
		name, change = c.next, seal.AddNext
	case c.promote != "":
		name, change = c.promote, seal.Promote
	case c.dropOld != "":
		name, change = c.dropOld, seal.DropOld
	case c.add == "":
		return seal.Generate()
	}
	text, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	if text, err = change(text); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return text, nil
}

func rekeyCommand() *cobra.Command {
	var client apiClient
	cmd := &cobra.Command{
		Use:   "rekey [--url URL] [--data DIR]",
		Short: "Seals everything in a running Lanyard's store with a new key",
		Long: `
Seals everything in the store of a running Lanyard with the keyset's primary key.
Where Lanyard made the keyset itself (lanyard-keys.json in the data directory), it
makes a new primary key first, and drops the old ones at the end. Where you have
configured one, give it a new primary key before: "caddy lanyard keygen --add".

It goes on in Lanyard if this command is interrupted, and after a restart.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := client.prepare(); err != nil {
				return err
			}
			now, err := client.rekey(cmd.Context(), rekeyStill)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), rekeyed(now))
			return err
		},
	}
	client.flags(cmd)
	return cmd
}

// rekeyStill is how long the command waits while no record is sealed: Lanyard
// tries again every 5 seconds.
const rekeyStill = time.Minute

// rekey begins, and waits until it is through, or nothing has moved for still.
func (c *apiClient) rekey(ctx context.Context, still time.Duration) (now api.Rekeying, err error) {
	if err := c.ask(ctx, call{method: http.MethodPost, path: "/v1/rekey"}, &now); err != nil {
		return now, err
	}
	show := newProgress()
	defer show.end()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for moved, last := time.Now(), now; now.State == "running"; {
		if now.Done != last.Done || now.Total != last.Total {
			moved, last = time.Now(), now
		}
		if time.Since(moved) >= still {
			return now, stuck(now, still)
		}
		if now.Error == "" {
			show.show("%d of %d records", now.Done, now.Total)
		} else {
			show.show("%d of %d records: %s", now.Done, now.Total, now.Error)
		}
		select {
		case <-ctx.Done():
			return now, errors.New("it goes on in Lanyard; run the command again to see how far it is")
		case <-tick.C:
		}
		if err := c.ask(ctx, call{path: "/v1/rekey"}, &now); err != nil {
			return now, err
		}
	}
	return now, nil
}

func stuck(now api.Rekeying, still time.Duration) error {
	why := now.Error
	if why == "" {
		why = "Lanyard doesn't say why"
	}
	return fmt.Errorf("nothing was sealed for %s, and %d of %d records are; Lanyard goes on trying: %s", still, now.Done, now.Total, why)
}

func rekeyed(now api.Rekeying) string {
	switch {
	case now.State == "idle":
		return "Nothing to do: everything is sealed with the keyset's primary key.\n" +
			"Give the keyset a new one first (caddy lanyard keygen --add FILE), and reload.\n"
	case now.Damaged > 0:
		return fmt.Sprintf("%d records are sealed with the primary key; %d are damaged and can't be: the log names them.\n", now.Done, now.Damaged)
	default:
		return fmt.Sprintf("%d records are sealed with the primary key, and nothing with another one.\n", now.Done)
	}
}
