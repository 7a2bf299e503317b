// Command allocs runs the benchmarks that are listed in bench/allocs.txt and
// compares how often they allocate with what is written there. Times differ from
// machine to machine and from run to run; these counts do not, so that CI can
// tell what a change costs.
//
//	go run ./bench/allocs      compares; ends with 1 if a benchmark allocates more, or is gone
//	go run ./bench/allocs -w   writes what it counts
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

const (
	// baselinePath is seen from the module's root.
	baselinePath = "bench/allocs.txt"
	// times is how many operations each benchmark does: enough that what only the
	// first ones cost, such as filling a pool, is less than one allocation of each.
	times = "500x"
	// rounds is how often that is done. The least counts: what runs beside it, as
	// Badger's housekeeping does, only ever adds.
	rounds = "5"
	// limit bounds the run, compiling included.
	limit = 10 * time.Minute
)

func main() {
	write := flag.Bool("w", false, "write the counts to "+baselinePath)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, *write)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "allocs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, write bool) error {
	text, err := os.ReadFile(baselinePath)
	if err != nil {
		return fmt.Errorf("reading the baseline (allocs runs in the module's root): %w", err)
	}
	base, err := parseBaseline(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", baselinePath, err)
	}
	counts, err := measure(ctx, base)
	if err != nil {
		return err
	}
	if write {
		if missing := base.missing(counts); len(missing) > 0 {
			return fmt.Errorf("there is no benchmark %s", strings.Join(missing, ", "))
		}
		return os.WriteFile(baselinePath, []byte(base.with(counts)), 0o644)
	}
	return compare(out, base, counts)
}

// measure runs the benchmarks. Their names count in all the packages: one of
// another package that is named alike is run and not looked at.
func measure(ctx context.Context, base baseline) (map[name]int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var packages, functions []string
	for _, e := range base.entries() {
		function, _, _ := strings.Cut(e.benchmark, "/")
		packages, functions = append(packages, e.pkg), append(functions, function)
	}
	slices.Sort(packages)
	slices.Sort(functions)
	args := []string{
		"test", "-trimpath", "-tags", "nobadger,nomysql,nopgx", "-run", "^$",
		"-bench", "^(" + strings.Join(slices.Compact(functions), "|") + ")$",
		"-benchmem", "-benchtime", times, "-count", rounds, "-cpu", "1",
	}
	cmd := exec.CommandContext(ctx, "go", append(args, slices.Compact(packages)...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go test: %w\n%s", err, stdout.Bytes())
	}
	return parseBenchmarks(stdout.String())
}
