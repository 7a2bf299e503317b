package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/build"
	"github.com/lanyard-proxy/lanyard/bench/internal/document"
	"github.com/lanyard-proxy/lanyard/bench/internal/machine"
)

// sizes are how many Lanyards there are, in the order of the table's columns.
var sizes = []int{1, 3}

// options are the flags.
type options struct {
	rounds  int
	lanyard string
	output  string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "`how many` times each number of Lanyards is measured")
	flag.StringVar(&o.lanyard, "lanyard", "", "measure this Caddy with Lanyard, a `file`, instead of what ./xcaddy.sh builds")
	begin, end := document.Marks("measured")
	flag.StringVar(&o.output, "o", "", "put the table into this Markdown `file`, between "+begin+" and "+end)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	if ctx.Err() != nil {
		err = context.Cause(ctx) // what broke for it is nobody's fault
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodes:", err)
		os.Exit(1)
	}
}

// run does it all.
func run(ctx context.Context, o options) (err error) {
	began := time.Now()
	if o.rounds < 1 {
		return fmt.Errorf("-rounds %d: at least one", o.rounds)
	}
	dir, err := os.MkdirTemp("", "lanyard-nodes-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL, another user, has its directory below
		return err
	}
	b := &bench{dir: dir}
	defer b.stop()
	if err := b.prepare(ctx, o.lanyard); err != nil {
		return err
	}
	r := report{rounds: make([][]figures, len(sizes))}
	for round := range o.rounds {
		for i := range sizes {
			if round%2 == 1 { // each comes first in turn
				i = len(sizes) - 1 - i
			}
			progress("round %d of %d: Lanyards: %d", round+1, o.rounds, sizes[i])
			f, err := b.measure(ctx, sizes[i], round == 0)
			if err != nil {
				return fmt.Errorf("with %d Lanyards: %w", sizes[i], err)
			}
			r.rounds[i] = append(r.rounds[i], f)
		}
	}
	version, err := b.database.query(ctx, "show server_version")
	if err != nil {
		return err
	}
	version, _, _ = strings.Cut(version, " ") // the rest is its packager's
	r.head = machine.Describe(ctx) + " · PostgreSQL " + version
	r.took = time.Since(began)
	text := r.markdown()
	if _, err := os.Stdout.WriteString(text); err != nil {
		return err
	}
	return document.Put(o.output, "measured", text)
}

// bench is one run of this program.
type bench struct {
	dir      string
	lanyard  string // the program
	database *database
	provider *provider
	samples  []connection
}

// prepare builds and starts what all rounds need.
func (b *bench) prepare(ctx context.Context, given string) (err error) {
	for program, debian := range map[string]string{"nginx": "nginx-light", "wrk": "wrk", "psql": "postgresql-client"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("to be installed first (Debian's name): %s", debian)
		}
	}
	if given != "" {
		b.lanyard, err = filepath.Abs(given)
	} else {
		progress("building Lanyard")
		b.lanyard, err = build.Lanyard(ctx)
	}
	if err != nil {
		return err
	}
	progress("starting PostgreSQL")
	if b.database, err = startDatabase(ctx, filepath.Join(b.dir, "postgres")); err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	b.samples = newSamples(called + deletions + refreshed)
	if b.provider, err = startProvider(ctx, b.dir, b.samples); err != nil {
		return fmt.Errorf("the provider: %w", err)
	}
	progress("importing %d connections", len(b.samples))
	return b.fill(ctx)
}

// stop stops what runs.
func (b *bench) stop() {
	if b.provider != nil {
		_ = b.provider.child.Stop()
	}
	if b.database != nil {
		_ = b.database.child.Stop()
	}
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
