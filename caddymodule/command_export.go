package caddymodule

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// exporter writes the tokens of a backup in clear.
type exporter struct {
	print      printer
	dir        string
	backup     string
	keyset     string
	out        string
	recipients []string
	passphrase string // the name of a file, or -
	plain      bool
}

func exportCommand() *cobra.Command {
	var e exporter
	cmd := &cobra.Command{
		Use:   "export --backup FILE --out FILE|- (--recipient AGE… | --passphrase-file FILE | --plain) [--keyset FILE]",
		Short: "Writes all connections with their tokens, to move away",
		Long: `
Writes the connections of a backup with their tokens, as JSON lines that "caddy
lanyard import" takes, and other programs can read. It works without a running
Lanyard, from a backup and the keyset that sealed it.

The file opens every account in it. It is encrypted with age (age-encryption.org)
for the recipients, or with a passphrase, and opened by "age -d"; --plain leaves
that away. Once something else uses the tokens, this Lanyard must not any more:
stop it, since a refresh token that two redeem is revoked by many providers.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e.print.prepare(cmd)
			return e.run(cmd)
		},
	}
	dataFlag(cmd, &e.dir)
	f := cmd.Flags()
	f.StringVar(&e.backup, "backup", "", "the backup (caddy lanyard backup FILE)")
	f.StringVar(&e.keyset, "keyset", "", "the keyset's file (default: "+keysetFile+" in the data directory)")
	f.StringVar(&e.out, "out", "", "the file to make; - is the standard output")
	f.StringArrayVar(&e.recipients, "recipient", nil, "encrypt for this age recipient (age1…); may be repeated")
	f.StringVar(&e.passphrase, "passphrase-file", "", "encrypt with the passphrase in this file; - is the standard input")
	f.BoolVar(&e.plain, "plain", false, "don't encrypt")
	return cmd
}

func (e *exporter) run(cmd *cobra.Command) error {
	if e.backup == "" || e.out == "" {
		return usage("--backup and --out are needed")
	}
	ways := 0
	for _, chosen := range []bool{len(e.recipients) > 0, e.passphrase != "", e.plain} {
		if chosen {
			ways++
		}
	}
	if ways != 1 {
		return usage("say how to encrypt it: one of --recipient, --passphrase-file and --plain")
	}
	to, err := e.readRecipients(cmd)
	if err != nil {
		return err
	}
	dir, err := dataDir(e.dir)
	if err != nil {
		return err
	}
	ks, err := readKeyset(dir, e.keyset)
	if err != nil {
		return err
	}
	in, err := os.Open(e.backup)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if e.out == "-" {
		return e.export(in, ks, to, e.print.out)
	}
	return e.exportTo(in, ks, to, e.out)
}

func (e *exporter) readRecipients(cmd *cobra.Command) ([]age.Recipient, error) {
	var to []age.Recipient
	for _, s := range e.recipients {
		r, err := age.ParseX25519Recipient(s)
		if err != nil {
			return nil, usage("--recipient %q is no age recipient (age1…)", s)
		}
		to = append(to, r)
	}
	if e.passphrase != "" {
		text, err := readSecretFile(cmd, e.passphrase)
		if err != nil {
			return nil, err
		}
		r, err := age.NewScryptRecipient(text)
		if err != nil {
			return nil, usage("--passphrase-file: it is empty")
		}
		to = append(to, r)
	}
	return to, nil
}

// exportTo makes the file name, whole or not at all, for its owner alone, and
// never over one that is there.
func (e *exporter) exportTo(in io.ReadSeeker, ks *keyset, to []age.Recipient, name string) error {
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return advise(fmt.Errorf("%s is there already", name), "give another name with --out")
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if err = e.export(in, ks, to, tmp); err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = placeFile(tmp.Name(), name)
	}
	return err
}

func (e *exporter) export(in io.ReadSeeker, ks *keyset, to []age.Recipient, w io.Writer) (err error) {
	if len(to) > 0 {
		sealed, err := age.Encrypt(w, to...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sealed.Close()) }()
		w = sealed
	}
	buffered := bufio.NewWriter(w)
	written := exported{left: map[string][]string{}}
	taken, err := badgerstore.ReadBackup(in, ks, func(c tokenstore.Connection) error { return written.add(buffered, &c) })
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return err
	}
	e.report(&written, taken)
	return nil
}

// exported counts what went out.
type exported struct {
	byIntegration map[string]int
	n             int
	left          map[string][]string // why → IDs
}

// add writes one connection, or notes why not.
func (x *exported) add(w io.Writer, c *tokenstore.Connection) error {
	why := ""
	switch {
	case c.Damaged:
		why = "damaged"
	case c.Intent != nil:
		why = "in the middle of a refresh, so that their refresh tokens may be spent (take another backup)"
	case c.Token.AccessToken.IsZero() && c.Token.RefreshToken.IsZero():
		why = "without a token (" + string(c.Status) + ")"
	}
	if why != "" {
		x.left[why] = append(x.left[why], c.ID)
		return nil
	}
	line, err := seal.ImportLine(c)
	if err != nil {
		return fmt.Errorf("%s: %w", c.ID, err)
	}
	x.n++
	if x.byIntegration == nil {
		x.byIntegration = map[string]int{}
	}
	x.byIntegration[c.Integration]++
	_, err = w.Write(append(line, '\n'))
	return err
}

// report says what is in the file, and what is not.
func (e *exporter) report(x *exported, taken time.Time) {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(x.byIntegration)) {
		parts = append(parts, fmt.Sprintf("%s %s", thousands(x.byIntegration[name]), clean(name)))
	}
	how := "encrypted"
	if e.plain {
		how = "IN CLEAR: whoever reads it can use every account in it"
	}
	e.print.say("%s connections with their tokens, as of the backup of %s, %s.", thousands(x.n), taken.Format(time.RFC3339), how)
	if len(parts) > 0 {
		e.print.say("In it: %s.", strings.Join(parts, ", "))
	}
	for _, why := range slices.Sorted(maps.Keys(x.left)) {
		ids := x.left[why]
		more := ""
		if len(ids) > 5 {
			ids, more = ids[:5], " …"
		}
		e.print.say("Left out: %s %s: %s%s", thousands(len(x.left[why])), why, strings.Join(ids, " "), more)
	}
	e.print.say("Refresh tokens that were rotated since that backup are spent. Stop this Lanyard before something else uses them.")
}
