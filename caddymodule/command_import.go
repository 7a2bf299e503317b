package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxLine is how long a line of an import may be.
const maxLine = 1 << 20

func importCommand() *cobra.Command {
	var c command
	var noVerify, dryRun bool
	cmd := &cobra.Command{
		Use:   "import FILE|- [--dry-run] [--no-verify]",
		Short: "Stores tokens that you have already",
		Long: `
Stores connections from JSON lines: an object each, with integration, user_id and
access_token, refresh_token or credentials, as docs/api.md says; what "caddy lanyard
export" writes is that, too. Each is verified by one refresh, which may spend
the refresh token that is in the file.

With an "id" in each line the command can be run again: nothing is stored twice.
--dry-run checks the lines by themselves and sends none. If a line fails the others
are stored, and the exit code is 1.
`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				in = f
			}
			if dryRun {
				return c.tryImport(cmd.Context(), in)
			}
			path := "/v1/connections/import"
			if noVerify {
				path += "?verify=false"
			}
			return c.importLines(cmd.Context(), path, in)
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&noVerify, "no-verify", false, "don't try the tokens at the provider")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the lines, and send none")
	return cmd
}

// importResult is the result of one line.
type importResult struct {
	Line     int               `json:"line"`
	ID       string            `json:"id,omitzero"`
	Status   tokenstore.Status `json:"status,omitzero"`
	Verified *bool             `json:"verified"`
	Error    *importError      `json:"error,omitzero"`
}

type importError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// importTable prints the results that somebody has to look at.
type importTable struct {
	c                                    *command
	table                                *table
	stored, verified, unverified, failed int
	refused                              int // stored, and EXPIRED
}

func (c *command) importTable() *importTable {
	return &importTable{c: c, table: c.print.table(
		column{head: "LINE", min: 6}, column{head: "CONNECTION", min: idWidth}, column{head: "RESULT", cut: true, min: 24}, column{head: "WHY", cut: true},
	)}
}

// add counts a result, and prints it if it went wrong. raw is its JSON.
func (t *importTable) add(r importResult, raw json.RawMessage) error {
	row := []cell{plain(strconv.Itoa(r.Line)), plain(r.ID)}
	switch {
	case r.Error != nil:
		t.failed++
		row = append(row, cell{"■ " + clean(r.Error.Code), red}, plain(r.Error.Detail))
	case r.Verified != nil && !*r.Verified:
		t.stored++
		t.refused++
		row = append(row, cell{"◆ " + clean(string(r.Status)), yellow}, plain("the provider refused it: the user must connect again"))
	default:
		t.stored++
		if r.Verified != nil {
			t.verified++
		} else {
			t.unverified++
		}
	}
	switch {
	case t.c.print.asJSON:
		return t.c.print.json(raw)
	case len(row) == 4:
		return t.table.rows([][]cell{row})
	}
	return nil
}

// end says how it went.
func (t *importTable) end(verb string) error {
	t.c.print.say("%s %s: %s verified, %s not tried, %s refused by the provider. %s failed.", thousands(t.stored), verb,
		thousands(t.verified), thousands(t.unverified), thousands(t.refused), thousands(t.failed))
	return t.failure()
}

func (t *importTable) failure() error {
	if t.failed > 0 {
		return advise(fmt.Errorf("%s lines failed", thousands(t.failed)), "mend those lines and run it again with them alone, or with an `id` in every line with all")
	}
	return nil
}

func (c *command) importLines(ctx context.Context, path string, in io.Reader) error {
	res, err := c.client.send(ctx, call{method: http.MethodPost, path: path, lines: in})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	out := c.importTable()
	show := newProgress()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r importResult
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return errors.New("Lanyard's answer can't be read") //nolint:staticcheck // a name
		}
		show.end()
		if err := out.add(r, lines.Bytes()); err != nil {
			return err
		}
		show.show("%s stored, %s failed", thousands(out.stored), thousands(out.failed))
	}
	show.end()
	if err := lines.Err(); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		return advise(fmt.Errorf("after %s lines: %w", thousands(out.stored+out.failed), err), "with an `id` in every line it can be run again: nothing is stored twice")
	}
	return out.end("stored")
}

// importFields are what a line may have.
var importFields = []string{
	"integration", "user_id", "name", "labels", "params", "metadata", "auth_scheme", "access_token", "refresh_token",
	"expires_at", "scopes", "credentials", "id", "disabled",
}

// tryImport checks what can be known without storing anything.
func (c *command) tryImport(ctx context.Context, in io.Reader) error {
	var got integrations
	if err := c.client.ask(ctx, call{path: "/v1/integrations"}, &got); err != nil {
		return err
	}
	schemes := map[string]string{} // of the integrations
	for _, raw := range got.Integrations {
		var one cliIntegration
		if err := json.Unmarshal(raw, &one); err != nil {
			return err
		}
		schemes[one.Name] = one.AuthScheme
	}
	out := c.importTable()
	seen := map[string]int{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine+1)
	n := 0
	for lines.Scan() {
		n++
		if len(lines.Bytes()) == 0 {
			continue
		}
		r := importResult{Line: n}
		if detail := checkLine(lines.Bytes(), schemes, seen, &r); detail != "" {
			r.Error = &importError{Code: "invalid_request", Detail: detail}
		}
		raw, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := out.add(r, raw); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	c.print.say("%s lines look good, %s don't. Nothing was sent.", thousands(out.stored), thousands(out.failed))
	return out.failure()
}

// checkLine says what is wrong with a line; it repeats no value that may be
// secret. seen has the IDs of the lines before.
func checkLine(line []byte, schemes map[string]string, seen map[string]int, r *importResult) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil {
		return "The line is not a JSON object."
	}
	for name := range fields {
		if !slices.Contains(importFields, name) {
			return fmt.Sprintf("Field %q is not known here.", name)
		}
	}
	text := func(name string) (s string) { _ = json.Unmarshal(fields[name], &s); return s }
	has := func(name string) bool { _, ok := fields[name]; return ok }
	integration := text("integration")
	if integration == "" && len(schemes) == 1 {
		for integration = range schemes {
			break
		}
	}
	scheme, known := schemes[integration]
	if r.ID = text("id"); r.ID != "" {
		if before, twice := seen[r.ID]; twice {
			return fmt.Sprintf("Its `id` is that of line %d.", before)
		}
		seen[r.ID] = r.Line
	}
	switch {
	case !known:
		return fmt.Sprintf("There is no integration %q.", integration)
	case has("id") && !tokenstore.IsID(r.ID):
		return "Field `id` is not conn_ and 1 to 64 letters and digits."
	case has("auth_scheme") && text("auth_scheme") != scheme:
		return "Field `auth_scheme`: the integration's is " + scheme + "."
	case scheme == tokenstore.AuthOAuth2 && text("access_token") == "" && text("refresh_token") == "":
		return "Field `access_token` or `refresh_token` is required."
	case scheme != tokenstore.AuthOAuth2 && scheme != tokenstore.AuthClientCredentials && !has("credentials"):
		return "Field `credentials` is required: the integration's auth scheme is " + scheme + "."
	}
	return ""
}
