package caddymodule

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// cliEvent is an event as the API shows it.
type cliEvent struct {
	At           *time.Time `json:"at"`
	Type         string     `json:"type"`
	ConnectionID string     `json:"connection_id"`
	Integration  string     `json:"integration"`
	UserID       string     `json:"user_id"`
	Actor        struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
		From string `json:"from"`
	} `json:"actor"`
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

func eventsCommand() *cobra.Command {
	var c command
	var connection string
	var last int
	var follow bool
	cmd := &cobra.Command{
		Use:   "events [--connection ID] [--last N] [--follow]",
		Short: "Shows what happened: the audit log",
		Long: `
Shows the last events of the audit log, the newest at the end. With --follow it goes
on with what happens, over restarts of Lanyard, until it is interrupted.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.prepare(cmd); err != nil {
				return err
			}
			return c.events(cmd.Context(), connection, last, follow)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&connection, "connection", "", "those of this connection")
	cmd.Flags().IntVar(&last, "last", 50, "how many; 0: all")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with what happens")
	_ = cmd.RegisterFlagCompletionFunc("connection", c.completeIDs)
	return cmd
}

func (c *command) events(ctx context.Context, connection string, last int, follow bool) error {
	filter := url.Values{}
	if connection != "" {
		filter.Set("connection_id", connection)
	}
	out := c.eventTable()
	cursor, err := c.pastEvents(ctx, filter, last, out)
	if err == nil && follow {
		err = c.followEvents(ctx, filter, cursor, out)
	}
	return err
}

func (c *command) eventTable() *table {
	return c.print.table(
		column{head: "TIME", min: len(time.DateTime)}, column{head: "EVENT", min: 24}, column{head: "CONNECTION", min: idWidth}, column{head: "INTEGRATION", cut: true},
		column{head: "USER", cut: true}, column{head: "BY", cut: true}, column{head: "REASON", cut: true},
	)
}

// pastEvents prints the last events that there are, or all, and returns the cursor
// after them, empty if there is none.
func (c *command) pastEvents(ctx context.Context, filter url.Values, last int, out *table) (cursor string, err error) {
	read := c.lastEvents
	if last <= 0 {
		read = c.allEvents
	}
	list, err := read(ctx, filter, last)
	if err != nil || len(list) == 0 {
		return "", err
	}
	var newest struct{ ID string }
	if err := json.Unmarshal(list[len(list)-1], &newest); err != nil {
		return "", err
	}
	return newest.ID, c.printEvents(out, list)
}

// maxPage is how many events the API shows at once.
const maxPage = 200

// lastEvents returns the last n events, the newest at the end.
func (c *command) lastEvents(ctx context.Context, filter url.Values, n int) ([]json.RawMessage, error) {
	query := maps.Clone(filter)
	query.Set("order", "newest")
	var list []json.RawMessage
	for more := true; more && len(list) < n; {
		query.Set("limit", strconv.Itoa(min(n-len(list), maxPage)))
		var page struct {
			Events     []json.RawMessage `json:"events"`
			NextCursor string            `json:"next_cursor"` // null at the log's beginning
		}
		if err := c.client.ask(ctx, call{path: "/v1/events?" + query.Encode()}, &page); err != nil {
			return nil, err
		}
		list = append(list, page.Events...)
		query.Set("cursor", page.NextCursor)
		more = page.NextCursor != ""
	}
	slices.Reverse(list)
	return list, nil
}

// allEvents returns all events that there are.
func (c *command) allEvents(ctx context.Context, filter url.Values, _ int) ([]json.RawMessage, error) {
	res, err := c.client.send(ctx, call{
		path: "/v1/events?" + filter.Encode(), header: map[string]string{"Accept": "application/jsonl"},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	var list []json.RawMessage
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		list = append(list, json.RawMessage(strings.Clone(lines.Text())))
	}
	return list, lines.Err()
}

func (c *command) printEvents(out *table, list []json.RawMessage) error {
	var rows [][]cell
	for _, raw := range list {
		if c.print.asJSON {
			if err := c.print.json(raw); err != nil {
				return err
			}
			continue
		}
		var e cliEvent
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		what := cell{"● " + clean(e.Type), normal}
		if !e.Allowed {
			what = cell{"■ " + clean(e.Type), red}
		}
		when := ""
		if e.At != nil {
			when = e.At.Local().Format(time.DateTime)
		}
		by := strings.TrimSpace(e.Actor.Kind + " " + e.Actor.Name)
		if e.Actor.Name == "" {
			by = strings.TrimSpace(e.Actor.Kind + " " + e.Actor.From)
		}
		rows = append(rows, []cell{plain(when), what, plain(e.ConnectionID), plain(e.Integration), plain(e.UserID), plain(by), plain(e.Reason)})
	}
	return out.rows(rows)
}

// followPause is how long a stream that ended is left before the next.
const followPause = time.Second

// followEvents prints what happens until ctx ends. A stream that ends, as at a
// restart of Lanyard, is opened again where it was.
func (c *command) followEvents(ctx context.Context, filter url.Values, cursor string, out *table) error {
	away := false
	for ctx.Err() == nil {
		err := c.stream(ctx, filter, &cursor, func() {
			if away {
				c.print.say("Lanyard is back.")
			}
			away = false
		}, out)
		switch {
		case ctx.Err() != nil: // interrupted: that is its end
		case isRefusedForGood(err):
			return err
		case err != nil && !away:
			c.print.say("Lanyard is away, trying again …")
			away = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(followPause):
		}
	}
	return nil
}

// isRefusedForGood reports whether asking again would not help.
func isRefusedForGood(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.Status < 500
}

// stream prints the events of one stream (docs/api.md), and moves the cursor.
func (c *command) stream(ctx context.Context, filter url.Values, cursor *string, opened func(), out *table) error {
	header := map[string]string{"Accept": "text/event-stream"}
	if *cursor != "" {
		header["Last-Event-ID"] = *cursor
	}
	res, err := c.client.send(ctx, call{path: "/v1/events?" + filter.Encode(), header: header})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	opened()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxLine)
	id := ""
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			id = value
			if *cursor == "" { // before the first event: where the stream began
				*cursor = id
			}
		case "data":
			if err := c.printEvents(out, []json.RawMessage{json.RawMessage(value)}); err != nil {
				return err
			}
			*cursor = id
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// healthWait is how long an answer may take: twice as long as Lanyard takes at
// most to find out that it is not ready.
const healthWait = 10 * time.Second

func healthCommand() *cobra.Command {
	var c command
	var live, ready bool
	cmd := &cobra.Command{
		Use:   "health [--url URL] [--ready | --live]",
		Short: "Asks whether Lanyard runs and can serve",
		Long: `
Asks a running Lanyard whether it can serve (--ready, the default: its store can be
written, and nothing waits to be stored), or whether it runs at all (--live, which
does not depend on the store). It prints "ok" and exits with 0 if so; else it exits
with 1, after 10 seconds at most. No key is needed, so that it can be the health
check of a container that has no shell:

	HEALTHCHECK CMD ["/caddy", "lanyard", "health", "--live"]
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if live && ready {
				return usage("--ready and --live can't be together")
			}
			if err := c.prepare(cmd); err != nil {
				return err
			}
			c.client.http.Timeout = healthWait
			path := "/v1/health/ready"
			if live {
				path = "/v1/health/live"
			}
			var raw json.RawMessage
			if err := c.client.ask(cmd.Context(), call{path: path, keyless: true}, &raw); err != nil {
				return err
			}
			if c.print.asJSON {
				return c.print.json(raw)
			}
			_, err := io.WriteString(c.print.out, "ok\n")
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&live, "live", false, "ask whether it runs")
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it can serve")
	return cmd
}
