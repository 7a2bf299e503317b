package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/build"
	"github.com/lanyard-proxy/lanyard/bench/internal/document"
)

// options are what the flags say.
type options struct {
	upstream                  string
	caddy, stock              string
	compare                   bool
	only                      string
	idle, busy, slow          int
	hold, every, during, wait time.Duration
	output                    string
}

func main() {
	var o options
	flag.StringVar(&o.upstream, "upstream", "", "be the upstream at this address (the program starts itself with it)")
	flag.StringVar(&o.caddy, "caddy", "", "the program to measure; built by ./xcaddy.sh if empty")
	flag.StringVar(&o.stock, "stock", "", "stock Caddy for -compare; built if empty")
	flag.BoolVar(&o.compare, "compare", false, "measure stock Caddy's reverse_proxy, too")
	flag.StringVar(&o.only, "only", "", "cases to run, by name, with commas: "+strings.Join(caseNames(), ", "))
	flag.IntVar(&o.idle, "n", 10000, "idle streams")
	flag.IntVar(&o.busy, "busy", 1000, "busy streams")
	flag.IntVar(&o.slow, "slow", 5000, "slow calls")
	flag.DurationVar(&o.hold, "hold", 10*time.Second, "how long idle streams are watched")
	flag.DurationVar(&o.every, "beat", 5*time.Second, "between two messages of an idle stream")
	flag.DurationVar(&o.during, "during", 12*time.Second, "how long busy streams last")
	flag.DurationVar(&o.wait, "wait", 10*time.Second, "how long a slow call takes")
	begin, end := document.Marks("streams")
	flag.StringVar(&o.output, "o", "", "write the report to this `file` too: in a Markdown file that exists, between "+begin+" and "+end)
	flag.Parse()
	if o.upstream != "" {
		fatal(serveUpstream(o.upstream))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fatal(run(ctx, o))
}

func fatal(err error) {
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "streams:", err)
		os.Exit(1)
	}
}

var errMissed = errors.New("a gate was missed")

func run(ctx context.Context, o options) error {
	start := time.Now()
	dir, err := os.MkdirTemp("", "lanyard-streams")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	kinds, err := programs(ctx, o, dir)
	if err != nil {
		return err
	}
	limit, err := openFiles()
	if err != nil {
		return err
	}
	r := report{kinds: kinds}
	r.head(ctx, limit)
	host := 2 // 127.0.0.2 and on
	for _, c := range cases {
		if o.only != "" && !strings.Contains(","+o.only+",", ","+c.name+",") {
			continue
		}
		n := min(c.count(o), (limit-spareFiles)/c.files)
		r.begin(c, n)
		for i, k := range kinds {
			begun := time.Now()
			own := filepath.Join(dir, fmt.Sprint(host))
			if err := os.Mkdir(own, 0o700); err != nil {
				return err
			}
			p, err := startProxy(ctx, k, own, fmt.Sprintf("127.0.0.%d", host))
			if err != nil {
				return err
			}
			host++
			err = c.run(ctx, p, n, o, r.column(i))
			if err = errors.Join(err, p.stop()); err != nil {
				return fmt.Errorf("%s, %s: %w", c.name, k.name, err)
			}
			_, _ = fmt.Fprintf(os.Stderr, "%s, %s: %v\n", c.name, k.name, time.Since(begun).Round(time.Second))
		}
		r.end()
	}
	missed := r.verdict(time.Since(start))
	return errors.Join(missed, document.Put(o.output, "streams", r.text.String()))
}

// spareFiles are what a program has open besides its streams.
const spareFiles = 500

// openFiles raises the limit of open files as far as it goes, for the programs
// that are started, too, and returns it.
func openFiles() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	return int(min(l.Cur, 1<<30)), nil
}

// programs returns what is measured, built where no path was given.
func programs(ctx context.Context, o options, dir string) (kinds []kind, err error) {
	if o.caddy == "" {
		if o.caddy, err = build.Lanyard(ctx); err != nil {
			return nil, err
		}
	}
	kinds = []kind{{name: "Lanyard", bin: o.caddy, config: lanyardConfig, lanyard: true}}
	if !o.compare {
		return kinds, nil
	}
	if o.stock == "" {
		if o.stock, err = build.Stock(ctx, dir); err != nil {
			return nil, err
		}
	}
	return append(kinds, kind{name: "stock Caddy", bin: o.stock, config: stockConfig}), nil
}
