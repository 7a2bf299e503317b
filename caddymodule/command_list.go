package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// cliConnection is a connection as the API shows it, as far as commands use it.
type cliConnection struct {
	ID          string            `json:"id"`
	Integration string            `json:"integration"`
	Provider    string            `json:"provider"`
	UserID      string            `json:"user_id"`
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Params      map[string]string `json:"params"`
	Told        map[string]string `json:"provider_metadata"`
	Status      tokenstore.Status `json:"status"`
	Reason      string            `json:"status_reason"`
	AuthScheme  string            `json:"auth_scheme"`
	Scopes      struct {
		Granted []string `json:"granted"`
		Missing []string `json:"missing"`
	} `json:"scopes"`
	Account *struct {
		ID    string `json:"id"`
		Name  string `json:"name"`
		Email string `json:"email"`
	} `json:"account"`
	CreatedAt             *time.Time `json:"created_at"`
	ConnectedAt           *time.Time `json:"connected_at"`
	LastUsedAt            *time.Time `json:"last_used_at"`
	LastRefreshedAt       *time.Time `json:"last_refreshed_at"`
	AccessTokenExpiresAt  *time.Time `json:"access_token_expires_at"`
	RefreshTokenExpiresAt *time.Time `json:"refresh_token_expires_at"`
	Generation            uint64     `json:"generation"`
	Disabled              bool       `json:"disabled"`
	ConnectURL            string     `json:"connect_url"`
	Error                 string     `json:"error"` // of a record that can't be opened
}

// attention reports whether c serves nobody, or will soon, until somebody does
// something.
func (c *cliConnection) attention() bool {
	switch {
	case c.Error != "":
		return true
	case c.Disabled:
		return false
	case c.Status == tokenstore.StatusActive:
		return c.Reason != ""
	}
	return c.Status == tokenstore.StatusExpired
}

// status says in shape, word and color how c is.
func (c *cliConnection) status() cell {
	words := string(c.Status)
	if c.Reason != "" && c.Status != tokenstore.StatusRevoked {
		words += " " + c.Reason
	}
	switch {
	case c.Error != "":
		return cell{"■ damaged " + clean(c.Error), red}
	case c.Disabled:
		return cell{"○ " + clean(words) + " disabled", faint}
	case c.Status == tokenstore.StatusActive && c.Reason == "":
		return cell{"● " + words, green}
	case c.Status == tokenstore.StatusActive, c.Status == tokenstore.StatusFailed:
		return cell{"◆ " + clean(words), yellow}
	case c.Status == tokenstore.StatusExpired:
		return cell{"■ " + clean(words), red}
	}
	return cell{"○ " + clean(words), faint}
}

// listColumns are the columns of row.
var listColumns = []column{
	{head: "CONNECTION"},
	{head: "INTEGRATION", cut: true},
	{head: "USER", cut: true},
	{head: "STATUS", cut: true},
	{head: "EXPIRES"},
	{head: "LAST REFRESH"},
}

// row is c in a list.
func (c *cliConnection) row() []cell {
	return []cell{
		plain(c.ID), plain(c.Integration), plain(c.UserID), c.status(),
		plain(moment(c.AccessTokenExpiresAt)), plain(moment(c.LastRefreshedAt)),
	}
}

// page is one of a list of connections.
type page struct {
	Connections []json.RawMessage `json:"connections"`
	NextCursor  string            `json:"next_cursor"`
}

// pages calls use with each page of the connections that filter names.
func (c *apiClient) pages(ctx context.Context, filter url.Values, use func([]json.RawMessage) error) error {
	filter = maps.Clone(filter)
	for {
		var got page
		if err := c.ask(ctx, call{path: "/v1/connections?" + filter.Encode()}, &got); err != nil {
			return err
		}
		if err := use(got.Connections); err != nil || got.NextCursor == "" {
			return err
		}
		filter.Set("cursor", got.NextCursor)
	}
}

// command is what the commands that ask the API have.
type command struct {
	client apiClient
	print  printer
}

func (c *command) flags(cmd *cobra.Command) {
	c.client.flags(cmd)
	c.print.flags(cmd)
}

func (c *command) prepare(cmd *cobra.Command) error {
	c.print.prepare(cmd)
	return c.client.prepare()
}

func listCommand() *cobra.Command {
	var c command
	var user, integration, status string
	var labels []string
	var attention bool
	cmd := &cobra.Command{
		Use:   "list [--user ID] [--integration NAME] [--status STATUS] [--label NAME=VALUE]… [--attention]",
		Short: "Lists the connections",
		Long: `
Lists the connections, the oldest first. Filters together mean "and".

	●  works    ◆  works, but not for long, or was never connected
	■  the user has to connect again    ○  waiting, revoked or switched off

With --attention it lists those that need somebody: EXPIRED, not renewable, not
configured or damaged. Then the exit code is 4 if there are any, and 0 if none.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			filter := url.Values{"limit": {"200"}, "label": labels}
			for name, value := range map[string]string{"user_id": user, "integration": integration, "status": strings.ToUpper(status)} {
				if value != "" {
					filter.Set(name, value)
				}
			}
			return c.list(cmd.Context(), filter, attention)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&user, "user", "", "those of this user")
	cmd.Flags().StringVar(&integration, "integration", "", "those of this integration")
	cmd.Flags().StringVar(&status, "status", "", "ACTIVE, EXPIRED, INITIATED, FAILED or REVOKED")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "those with this label, NAME=VALUE; may be repeated")
	cmd.Flags().BoolVar(&attention, "attention", false, "those that need somebody; exit code 4 if there are any")
	_ = cmd.RegisterFlagCompletionFunc("integration", c.completeIntegrations)
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"ACTIVE", "EXPIRED", "INITIATED", "FAILED", "REVOKED"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *command) list(ctx context.Context, filter url.Values, attention bool) error {
	out := c.print.table(listColumns...)
	all, shown := 0, 0
	var first string // that needs a new connect
	err := c.client.pages(ctx, filter, func(connections []json.RawMessage) error {
		var rows [][]cell
		for _, raw := range connections {
			var one cliConnection
			if err := json.Unmarshal(raw, &one); err != nil {
				return err
			}
			all++
			if attention && !one.attention() {
				continue
			}
			shown++
			if first == "" && one.Status == tokenstore.StatusExpired {
				first = one.ID
			}
			if c.print.asJSON {
				if err := c.print.json(raw); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, one.row())
		}
		return out.rows(rows)
	})
	if err != nil {
		return err
	}
	switch {
	case attention:
		c.print.say("%s of %s need attention.", thousands(shown), thousands(all))
		if first != "" {
			c.print.say("Send the user a link:  caddy lanyard connect --connection %s", first)
		}
		if shown > 0 {
			return errAttention
		}
	case shown == 0:
		c.print.say("No connections.")
	}
	return nil
}

// thousands writes n with commas.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func showCommand() *cobra.Command {
	var c command
	cmd := &cobra.Command{
		Use:               "show ID",
		Short:             "Shows a connection",
		Long:              "\nShows a connection, and where connecting again would help, a link for it.\n",
		Args:              oneConnection,
		ValidArgsFunction: c.completeID,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			return c.shows(cmd.Context(), call{path: connectionPath(args[0], "")})
		},
	}
	c.flags(cmd)
	return cmd
}

// connectionPath is the path of a connection, or of something to do to it.
// oneConnection takes the ID of a connection as a command's only argument. One
// that is empty, as of a variable that is not set, would make another path.
func oneConnection(cmd *cobra.Command, args []string) error {
	if err := cobra.ExactArgs(1)(cmd, args); err != nil {
		return err
	}
	return checkConnectionID(args[0])
}

func checkConnectionID(id string) error {
	if !tokenstore.IsID(id) {
		return fmt.Errorf("%q is not the ID of a connection: those begin with conn_", id)
	}
	return nil
}

func connectionPath(id, do string) string {
	return "/v1/connections/" + url.PathEscape(id) + do
}

// shows makes a request that is answered with a connection, and shows that.
func (c *command) shows(ctx context.Context, in call) error {
	var raw json.RawMessage
	if err := c.client.ask(ctx, in, &raw); err != nil {
		return err
	}
	return c.show(raw)
}

func (c *command) show(raw json.RawMessage) error {
	if c.print.asJSON {
		return c.print.json(raw)
	}
	var one cliConnection
	if err := json.Unmarshal(raw, &one); err != nil {
		return err
	}
	p := &c.print
	status := one.status()
	account := ""
	if a := one.Account; a != nil {
		account = strings.Join(slices.DeleteFunc([]string{a.Name, a.Email, a.ID}, func(s string) bool { return s == "" }), ", ")
	}
	err := p.pairs(
		[2]string{"connection", one.ID},
		[2]string{"status", status.text},
		[2]string{"name", one.Name},
		[2]string{"user", one.UserID},
		[2]string{"integration", fmt.Sprintf("%s (%s, %s)", one.Integration, one.Provider, one.AuthScheme)},
		[2]string{"account", account},
		[2]string{"scopes", strings.Join(one.Scopes.Granted, " ")},
		[2]string{"scopes missing", strings.Join(one.Scopes.Missing, " ")},
		[2]string{"labels", named(one.Labels)},
		[2]string{"params", named(one.Params)},
		[2]string{"told by provider", named(one.Told)},
		[2]string{"created", moment(one.CreatedAt)},
		[2]string{"connected", moment(one.ConnectedAt)},
		[2]string{"last used", moment(one.LastUsedAt)},
		[2]string{"last refresh", moment(one.LastRefreshedAt)},
		[2]string{"token expires", moment(one.AccessTokenExpiresAt)},
		[2]string{"refresh token expires", moment(one.RefreshTokenExpiresAt)},
		[2]string{"generation", strconv.FormatUint(one.Generation, 10)},
		[2]string{"connect link", one.ConnectURL},
	)
	return err
}

// named writes a map as name=value, sorted.
func named(m map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, name+"="+m[name])
	}
	return strings.Join(list, " ")
}
