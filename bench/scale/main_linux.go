//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/build"
	"github.com/lanyard-proxy/lanyard/bench/internal/document"
)

// spare is what has to stay free on the disk.
const spare = 8 << 30

// figures are what was measured at one size.
type figures struct {
	sample
	filled time.Duration
	inProcess
	program
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1) //nolint:gocritic // stopped already
	}
}

func run(ctx context.Context) (ok bool, err error) {
	sizes := flag.String("n", "1000,1000000,10000000", "`sizes` to measure, the smallest first")
	dir := flag.String("dir", "", "`directory` for the stores; default: one for temporary files")
	keep := flag.Bool("keep", false, "leave the stores in -dir, and take one that is there already")
	bytes := flag.Int("tokens", 1000, "`bytes` of a connection's two tokens together")
	path := flag.String("lanyard", "", "`path` of the program; default: ./xcaddy.sh builds it")
	begin, end := document.Marks("scale")
	output := flag.String("o", "", "write the report to this `file` too: in a Markdown file that exists, between "+begin+" and "+end)
	flag.Parse()
	began := time.Now()
	if *keep && *dir == "" {
		return false, errors.New("-keep needs -dir")
	}
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "lanyard-scale-"); err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*dir)) }()
	}
	var all []figures
	for field := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 100 {
			return false, fmt.Errorf("-n %s: a size is a number, at least 100", field)
		}
		all = append(all, figures{sample: sample{n: n, seed: 1, bytes: *bytes}})
	}
	logs, err := os.MkdirTemp("", "lanyard-scale-logs-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(logs)) }()
	if *path == "" {
		if *path, err = build.Lanyard(ctx); err != nil {
			return false, err
		}
	}
	for i := range all {
		if err := all[i].measure(ctx, *dir, *keep, *path, logs); err != nil {
			return false, fmt.Errorf("%d connections: %w", all[i].n, err)
		}
	}
	var report strings.Builder
	printTable(ctx, &report, all)
	ok = printGates(&report, all)
	_, _ = fmt.Fprintf(&report, "\nIt took %v.\n", time.Since(began).Round(time.Second))
	_, err = os.Stdout.WriteString(report.String())
	return ok, errors.Join(err, document.Put(*output, "scale", report.String()))
}

// measure makes a store, or takes the one that is there, and measures it. The
// program comes first: what is measured in this process leaves traces in the
// store.
func (f *figures) measure(ctx context.Context, below string, keep bool, path, logs string) (err error) {
	dir := filepath.Join(below, strconv.Itoa(f.n))
	if _, there := os.Stat(filepath.Join(dir, madeFile)); keep && there == nil {
		if err := f.take(dir); err != nil {
			return err
		}
	} else if err := f.make(dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if !keep {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if f.program, err = measureProgram(ctx, path, dir, logs, f.sample); err != nil {
		return fmt.Errorf("the program: %w", err)
	}
	f.inProcess, err = measureStore(ctx, dir, f.sample)
	return err
}

// madeFile is made in a store that is whole. Its time is that of the sample, and
// it says how long it took to fill the store.
const madeFile = "scale-made"

// take takes the store in dir as it is.
func (f *figures) take(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, madeFile))
	if err == nil {
		f.filled, err = time.ParseDuration(string(text))
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(dir, madeFile))
	if err != nil {
		return err
	}
	if f.at = info.ModTime().UTC(); time.Since(f.at) > 24*time.Hour {
		return fmt.Errorf("the store in %s is older than a day, so that its tokens are soon due: remove it", dir)
	}
	return nil
}

func (f *figures) make(dir string) error {
	f.at = time.Now().UTC().Truncate(time.Second)
	var fs syscall.Statfs_t
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	// What a million took, with what is sorted meanwhile.
	if need := int64(f.n)*int64(f.bytes*11/10+2700) + spare; int64(fs.Bavail)*fs.Bsize < need {
		return fmt.Errorf("%d GB of disk are needed, with %d to spare", need>>30, spare>>30)
	}
	began := time.Now()
	if err := fill(dir, f.sample, os.Stderr); err != nil {
		return err
	}
	f.filled = time.Since(began)
	store, err := openStore(dir) // the first opening reads it whole, those after it do not
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		return err
	}
	made := filepath.Join(dir, madeFile)
	if err := os.WriteFile(made, []byte(f.filled.String()), 0o600); err != nil {
		return err
	}
	return os.Chtimes(made, f.at, f.at)
}
