package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// databaseURL is the environment variable that says where the database is: a
// flag would show the password to everybody on the machine.
const databaseURL = "DATABASE_URL"

func migrateCommand() *cobra.Command {
	m := migration{}
	var keysetName string
	var undo bool
	cmd := &cobra.Command{
		Use:   "migrate (--to postgres | --to badger) [--keyset FILE] [--url URL] [--data DIR]",
		Short: "Moves the store of a running Lanyard to PostgreSQL, or back",
		Long: `
Moves everything that Lanyard keeps from the store in a directory to a PostgreSQL
database, or from there to a directory. The environment variable DATABASE_URL says
where the database is.

	DATABASE_URL=postgres://… caddy lanyard migrate --to postgres
	DATABASE_URL=postgres://… caddy lanyard migrate --to badger --data DIR --keyset FILE

To PostgreSQL: the old Lanyard goes on running. From the beginning of the move on
it takes no writes: valid tokens are served, nothing is connected, changed or
renewed. To Badger: all Lanyards on the database go on running in the same way.

What was moved is read back and compared. Then the old store is marked, so that it
does not open again, and the command says what to do next. If anything goes wrong,
or the command is interrupted, the old store takes writes again within a minute,
and the command can be run again.

With --undo, a store that was moved away opens again: the one in --data, or that in
DATABASE_URL. Never do that while the new one is in use: each of the two would
spend the refresh tokens of the other.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m.print.prepare(cmd)
			m.dsn = secret.New(os.Getenv(databaseURL))
			var err error
			if undo {
				return m.undo(cmd.Context(), cmd.Flags().Changed("data"))
			}
			if m.to != "postgres" && m.to != "badger" {
				return usage("--to is postgres or badger")
			}
			if m.dsn.IsZero() {
				return advise(errors.New(databaseURL+" is not set"), "set it to the database's URL: postgres://user:password@host:5432/database")
			}
			if m.dir, err = dataDir(m.client.dir); err != nil {
				return err
			}
			if m.keys, err = readKeyset(m.dir, keysetName); err != nil {
				return err
			}
			if m.to == "badger" {
				return m.toBadger(cmd.Context())
			}
			if err := m.client.prepare(); err != nil {
				return err
			}
			return m.toPostgres(cmd.Context())
		},
	}
	m.client.flags(cmd)
	m.print.flags(cmd)
	cmd.Flags().StringVar(&m.to, "to", "", "where to: postgres, or badger, which makes a store in --data")
	cmd.Flags().StringVar(&keysetName, "keyset", "", "the keyset's file (default: "+keysetFile+" in the data directory)")
	cmd.Flags().BoolVar(&undo, "undo", false, "let a store that was moved away open again")
	return cmd
}

// migration is one run of the command.
type migration struct {
	client apiClient
	print  printer
	to     string
	dir    string
	dsn    secret.String
	keys   *keyset
}

// place is where a store is, without a secret.
func (m *migration) place(ctx context.Context) string {
	d, err := pgstore.Describe(ctx, m.dsn)
	if err != nil {
		return "PostgreSQL"
	}
	return "PostgreSQL at " + d.Place
}

// frozen is how the API tells of a freeze.
type frozen struct {
	State   string `json:"state"`
	ID      string `json:"id"`
	MovedTo string `json:"moved_to"`
}

func (m *migration) freeze(ctx context.Context, body map[string]string) (now frozen, err error) {
	if body == nil {
		body = map[string]string{}
	}
	err = m.client.ask(ctx, call{method: "POST", path: "/v1/freeze", body: body}, &now)
	return now, err
}

// toPostgres moves the store of a running Lanyard.
func (m *migration) toPostgres(ctx context.Context) (err error) {
	to := m.place(ctx)
	now, err := m.freeze(ctx, nil)
	if r, ok := errors.AsType[*refusal](err); ok && r.Code == "store_moved" {
		return m.finishMove(ctx, to, err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.thawOld(ctx))
		}
	}()
	m.print.say("Lanyard takes no writes from now on.")
	ctx, gone := m.keepFrozen(ctx, func(ctx context.Context) error {
		_, err := m.freeze(ctx, map[string]string{"id": now.ID})
		return err
	})
	defer gone()
	file, err := m.fetch(ctx, now.ID)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	defer func() { _ = file.Close() }()
	records, err := badgerstore.ReadExport(file, m.keys)
	if err != nil {
		return err
	}
	n, err := m.load(records, func(check checker) error {
		return pgstore.Load(ctx, m.dsn, pgstore.Config{Codec: m.keys}, m.showing("written", records), check)
	})
	if err != nil {
		return emptyFirst(err, "the database has a store already: give another database, or drop its tables lanyard_*")
	}
	if _, err := m.freeze(ctx, map[string]string{"id": now.ID, "moved_to": to}); err != nil {
		return errors.Join(err, pgstore.DropLoad(context.WithoutCancel(ctx), m.dsn))
	}
	gone()
	return m.finish(context.WithoutCancel(ctx), n, to)
}

// finishMove puts what was moved in force, where that alone was left.
func (m *migration) finishMove(ctx context.Context, to string, moved error) error {
	var now frozen
	if err := m.client.ask(ctx, call{path: "/v1/freeze"}, &now); err != nil {
		return err
	}
	loading, err := pgstore.Loading(ctx, m.dsn)
	if err != nil || !loading || now.MovedTo != to {
		return errors.Join(moved, err)
	}
	return m.finish(ctx, tokenstore.Counts{}, to)
}

func (m *migration) finish(ctx context.Context, n tokenstore.Counts, to string) error {
	if err := pgstore.EndLoad(ctx, m.dsn); err != nil {
		return advise(fmt.Errorf("everything is in the database, but not in force yet: %w", err), "run the command again")
	}
	return m.report(n, to, "Stop the old Lanyard, which goes on serving valid tokens until then. Put this in the place of its option `store`,\n"+
		"with `keyset`, `api_key` and the keys of the clients as they are now, and start it:\n\n\tstore postgres {env."+databaseURL+"}\n")
}

// thawOld lets the old Lanyard write again. It would do so by itself in a minute.
func (m *migration) thawOld(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWait)
	defer cancel()
	if err := m.client.ask(ctx, call{method: "DELETE", path: "/v1/freeze"}, new(frozen)); err != nil {
		return fmt.Errorf("the old Lanyard takes writes again in a minute only: %w", err)
	}
	m.print.say("Nothing was moved, and the old Lanyard takes writes again.")
	return nil
}

// fetch reads everything from the frozen store into a file, sealed.
func (m *migration) fetch(ctx context.Context, id string) (_ *os.File, err error) {
	res, err := m.client.send(ctx, call{path: "/v1/freeze/records?id=" + id})
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	file, err := os.CreateTemp("", "lanyard-migrate-*")
	if err != nil {
		return nil, err
	}
	show := newProgress()
	defer show.end()
	written := int64(0)
	for buf := make([]byte, 256<<10); ; {
		n, err := res.Body.Read(buf)
		if _, werr := file.Write(buf[:n]); werr != nil {
			err = werr
		}
		written += int64(n)
		show.show("%d MB read", written>>20)
		if err != nil && !isEOF(err) {
			return nil, errors.Join(fmt.Errorf("reading the old store: %w", err), file.Close(), os.Remove(file.Name()))
		}
		if err != nil {
			return file, nil
		}
	}
}

const (
	// keepEvery is how often a frozen store is told to stay so: for a minute each.
	keepEvery = 15 * time.Second
	// endingWait is how long requests that are under way at any Lanyard are waited
	// for, and noticeWait how long all of them have to learn that the move has begun.
	endingWait = 90 * time.Second
	noticeWait = 6 * time.Second
)

// keepFrozen keeps a store frozen until gone is called. The context ends when that
// fails: what was read may be old then.
func (*migration) keepFrozen(ctx context.Context, keep func(context.Context) error) (_ context.Context, gone func()) {
	ctx, end := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(keepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := keep(ctx); err != nil && ctx.Err() == nil {
				end(fmt.Errorf("the old store is not frozen any more: %w", err))
				return
			}
		}
	}()
	return ctx, func() {
		end(nil)
		<-over
	}
}

type checker = func(iter.Seq2[tokenstore.Record, error]) error

// load has records loaded and compared with what is there then.
func (m *migration) load(records iter.Seq2[tokenstore.Record, error], into func(check checker) error) (n tokenstore.Counts, err error) {
	err = into(func(got iter.Seq2[tokenstore.Record, error]) error {
		show := newProgress()
		defer show.end()
		n = tokenstore.Counts{}
		return tokenstore.CompareRecords(records, got, func(r tokenstore.Record) {
			n.Add(r)
			show.show("%d records compared", n.All())
		})
	})
	return n, err
}

// showing shows how many records have come by.
func (*migration) showing(what string, records iter.Seq2[tokenstore.Record, error]) iter.Seq2[tokenstore.Record, error] {
	return func(yield func(tokenstore.Record, error) bool) {
		show := newProgress()
		defer show.end()
		n := 0
		for r, err := range records {
			n++
			show.show("%d records %s", n, what)
			if !yield(r, err) {
				return
			}
		}
	}
}

func emptyFirst(err error, next string) error {
	if errors.Is(err, tokenstore.ErrNotEmpty) {
		return advise(err, next)
	}
	return err
}

// report says what was moved, and what to do now.
func (m *migration) report(n tokenstore.Counts, to, next string) error {
	if m.print.asJSON {
		text, err := json.Marshal(map[string]any{"moved": n, "to": to})
		if err != nil {
			return err
		}
		return m.print.json(text)
	}
	_, err := fmt.Fprintf(m.print.out, "Moved to %s, read back and compared: %d connections, %d events, %d flows, %d notes, and the IDs of %d deleted.\n"+
		"The old store is marked and does not open again.\n\n%s", to, n.Connections, n.Events, n.Flows, n.Notes, n.Deleted, next)
	return err
}

// undo lets a store that was moved away open again.
func (m *migration) undo(ctx context.Context, data bool) (err error) {
	var from, what string
	switch {
	case data || m.dsn.IsZero():
		if what, err = dataDir(m.client.dir); err == nil {
			var keys *keyset
			if keys, err = readKeyset(what, ""); err == nil {
				from, err = badgerstore.Unmove(what, badgerstore.RestoreConfig{Codec: keys})
			}
		}
	default:
		what = m.place(ctx)
		from, err = pgstore.Unmove(ctx, m.dsn)
	}
	if err != nil {
		return err
	}
	if from == "" {
		return fmt.Errorf("the store in %s was not moved", what)
	}
	_, err = fmt.Fprintf(m.print.out, "The store in %s opens again. It was moved to %s: nothing must use that one any more.\n", what, cmp.Or(from, "nowhere"))
	return err
}

// shownDir is a directory as the Caddyfile has it.
func shownDir(dir string) string { return filepath.ToSlash(dir) }
