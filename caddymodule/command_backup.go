package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

func backupCommand() *cobra.Command {
	var client apiClient
	cmd := &cobra.Command{
		Use:   "backup [--url URL] [--data DIR] FILE|-",
		Short: "Takes a backup of a running Lanyard",
		Long: `
Writes a backup of everything in the store of a running Lanyard to FILE, or to
the standard output. It is sealed with the store's keyset, which is not in it:
without the keyset the backup is worth nothing, so keep a copy of that elsewhere.
A store in PostgreSQL is backed up by the database's own tools instead.

The API key is taken from LANYARD_API_KEY, or from its file in the data directory.
`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := client.prepare(); err != nil {
				return err
			}
			ctx := cmd.Context()
			if args[0] == "-" {
				_, err := client.backup(ctx, cmd.OutOrStdout())
				return err
			}
			n, err := client.backupTo(ctx, args[0])
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes\n", args[0], n)
			}
			return err
		},
	}
	client.flags(cmd)
	return cmd
}

// backup copies a backup to w.
func (c *apiClient) backup(ctx context.Context, w io.Writer) (int64, error) {
	res, err := c.send(ctx, call{path: "/v1/backup"})
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	show := newProgress()
	defer show.end()
	n, err := io.Copy(w, &countingReader{in: res.Body, seen: func(n int64) { show.show("%d MiB", n>>20) }})
	if err != nil {
		return n, fmt.Errorf("the backup was cut off: %w", err)
	}
	return n, nil
}

type countingReader struct {
	in   io.Reader
	n    int64
	seen func(n int64)
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	r.n += int64(n)
	r.seen(r.n)
	return n, err
}

// backupTo makes the file name, whole or not at all, and never over one that is
// there.
func (c *apiClient) backupTo(ctx context.Context, name string) (n int64, err error) {
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s is there already", name)
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*") // 0600
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if n, err = c.backup(ctx, tmp); err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = placeFile(tmp.Name(), name)
	}
	return n, err
}

// placeFile gives a finished file its name, which nothing has.
func placeFile(tmp, name string) error {
	err := os.Link(tmp, name) // unlike Rename it refuses to replace
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = os.Rename(tmp, name) // a file system without hard links
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func restoreCommand() *cobra.Command {
	var dir, keysetName string
	var replace, acceptLoss bool
	cmd := &cobra.Command{
		Use:   "restore [--data DIR] [--keyset FILE] FILE [--replace] | --accept-loss",
		Short: "Makes the store from a backup, with Lanyard stopped",
		Long: `
Makes the store in the data directory from a backup. (A database is restored by its
own tools.) Lanyard must be stopped. The
backup is read and checked to its end first; if anything fails, the store is what
it was. With --replace a store that is there is replaced: its files are kept in
the data directory as badger-replaced-TIME until you remove them, and what was
deleted or revoked in it stays so.

Refresh tokens that were rotated since the backup are spent. Nobody can know which:
each connection is tried when its access token ends, and those become EXPIRED with
the reason restored_stale.

With --accept-loss and no FILE, the store is made from what can be read of itself,
and what is lost is listed.
`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if acceptLoss == (len(args) == 1) || acceptLoss && replace {
				return usage("give either the FILE of a backup, or --accept-loss")
			}
			dir, err := dataDir(dir)
			if err != nil {
				return err
			}
			cfg := badgerstore.RestoreConfig{Replace: replace, LockWait: time.Second}
			if cfg.Codec, err = readKeyset(dir, keysetName); err != nil {
				return err
			}
			if keysetName != "" { // that store may be sealed with what is in the data directory
				if own, err := readKeyset(dir, ""); err == nil {
					cfg.Own = own
				}
			}
			var done badgerstore.Restored
			if acceptLoss {
				done, err = badgerstore.AcceptLoss(dir, cfg)
			} else {
				done, err = restoreFile(dir, args[0], cfg)
			}
			if errors.Is(err, badgerstore.ErrStoreExists) {
				err = fmt.Errorf("%w: --replace", err)
			}
			if err != nil {
				return err
			}
			return reportRestored(cmd.OutOrStdout(), dir, done)
		},
	}
	dataFlag(cmd, &dir)
	cmd.Flags().StringVar(&keysetName, "keyset", "", "the keyset's file (default: "+keysetFile+" in the data directory)")
	cmd.Flags().BoolVar(&replace, "replace", false, "replace the store that is there")
	cmd.Flags().BoolVar(&acceptLoss, "accept-loss", false, "restore the store from what can be read of itself")
	return cmd
}

func restoreFile(dir, name string, cfg badgerstore.RestoreConfig) (badgerstore.Restored, error) {
	f, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return badgerstore.Restored{}, err
	}
	defer func() { _ = f.Close() }()
	return badgerstore.Restore(dir, f, cfg)
}

// readKeyset reads the keyset from a file, by default the data directory's own.
func readKeyset(dir, name string) (*keyset, error) {
	if name == "" {
		name = filepath.Join(dir, keysetFile)
	}
	text, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("the store's keyset (--keyset names its file): %w", err)
	}
	ks, err := parseKeyset(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return ks, nil
}

func reportRestored(w io.Writer, dir string, done badgerstore.Restored) error {
	var b strings.Builder
	if done.CreatedAt.IsZero() {
		fmt.Fprintf(&b, "The store in %s was restored from what could be read of it.\n", dir)
	} else {
		fmt.Fprintf(&b, "The store in %s was restored from a backup of %s.\n", dir, done.CreatedAt.Format(time.RFC3339))
	}
	fmt.Fprintf(&b, "%d connections, %d of them unproven: their refresh tokens may be spent, which shows at their next refresh.\n", done.Connections, done.Unproven)
	if done.Deleted > 0 {
		fmt.Fprintf(&b, "%d left out: deleted since.\n", done.Deleted)
	}
	if done.Revoked > 0 {
		fmt.Fprintf(&b, "%d revoked since, and revoked again here.\n", done.Revoked)
	}
	for _, id := range done.Damaged {
		fmt.Fprintf(&b, "lost: %s, its record is damaged\n", id)
	}
	if done.Unnamed > 0 {
		fmt.Fprintf(&b, "lost: %d records of which no ID is known\n", done.Unnamed)
	}
	if done.LostEvents > 0 {
		fmt.Fprintf(&b, "lost: %d events of the audit log, which shows where\n", done.LostEvents)
	}
	if done.Unread != nil {
		fmt.Fprintf(&b, "The store that was there could not be read whole, so that what was deleted or revoked in it may be back: %v\n", done.Unread)
	}
	if done.Kept != "" {
		fmt.Fprintf(&b, "The files of the store that was there are in %s: remove them when you don't need them any more.\n", done.Kept)
	}
	if done.Unfinished != nil {
		fmt.Fprintf(&b, "The restored store is in force, but not everything after that went well (the next start tries again): %v\n", done.Unfinished)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
