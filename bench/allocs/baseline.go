package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// modulePath begins the import paths that go test prints.
const modulePath = "github.com/lanyard-proxy/lanyard/"

// better is by how many percent a count may fall before it has to be written
// down: what is won and not written down can be lost unseen.
const better = 10

// name is a benchmark of a package.
type name struct {
	pkg       string // as ./proxy
	benchmark string // as BenchmarkConnection/table
}

func (n name) String() string { return n.pkg + " " + n.benchmark }

// entry is one line of the baseline.
type entry struct {
	name
	allocs    int // -1: not counted yet
	tolerance int // percent by which a count may be off
}

// baseline is the lines of the file: entries, comments and empty ones.
type baseline []line

type line struct {
	text  string // of a line without an entry
	entry *entry
}

// parseBaseline reads lines such as
//
//	./proxy BenchmarkCall 41
//	./tokenstore/badgerstore BenchmarkUpdateConnection 238 ±5%
//
// A count that is not known yet is `?`.
func parseBaseline(text string) (baseline, error) {
	var b baseline
	seen := map[name]bool{}
	for i, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if trimmed := strings.TrimSpace(l); trimmed == "" || trimmed[0] == '#' {
			b = append(b, line{text: l})
			continue
		}
		e, err := parseEntry(l)
		if err == nil && seen[e.name] {
			err = errors.New("it stands here twice")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		seen[e.name] = true
		b = append(b, line{entry: &e})
	}
	if len(seen) == 0 {
		return nil, errors.New("no benchmark is listed")
	}
	return b, nil
}

func parseEntry(l string) (entry, error) {
	fields := strings.Fields(l)
	if len(fields) < 3 || len(fields) > 4 || !strings.HasPrefix(fields[0], "./") || !strings.HasPrefix(fields[1], "Benchmark") {
		return entry{}, errors.New("want ./PACKAGE BENCHMARK ALLOCATIONS [±N%]")
	}
	e := entry{name: name{fields[0], fields[1]}, allocs: -1}
	var err error
	if fields[2] != "?" {
		if e.allocs, err = number(fields[2]); err != nil {
			return entry{}, err
		}
	}
	if len(fields) == 4 {
		percent, ok := strings.CutPrefix(fields[3], "±")
		percent, ok2 := strings.CutSuffix(percent, "%")
		if e.tolerance, err = number(percent); err != nil || !ok || !ok2 {
			return entry{}, fmt.Errorf("%q is no tolerance, as ±5%% is", fields[3])
		}
	}
	return e, nil
}

func number(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", text)
	}
	return int(n), nil
}

func (b baseline) entries() (all []entry) {
	for _, l := range b {
		if l.entry != nil {
			all = append(all, *l.entry)
		}
	}
	return all
}

// missing returns those that were not counted.
func (b baseline) missing(counts map[name]int) (missing []string) {
	for _, e := range b.entries() {
		if _, ok := counts[e.name]; !ok {
			missing = append(missing, e.String())
		}
	}
	return missing
}

// with returns the file's text with these counts, but for those that are off by
// no more than they may be.
func (b baseline) with(counts map[name]int) string {
	var out strings.Builder
	for _, l := range b {
		if l.entry == nil {
			fmt.Fprintln(&out, l.text)
			continue
		}
		e := *l.entry
		if verdict, _ := e.verdict(counts[e.name], true); verdict != "" {
			e.allocs = counts[e.name]
		}
		fmt.Fprintf(&out, "%s %d", e.name, e.allocs)
		if e.tolerance > 0 {
			fmt.Fprintf(&out, " ±%d%%", e.tolerance)
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

// parseBenchmarks reads what go test prints with -bench, -benchmem and -cpu 1. Of
// a benchmark that ran several times it returns the least.
func parseBenchmarks(text string) (map[name]int, error) {
	counts := map[name]int{}
	pkg := ""
	for l := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(l, "pkg: "); ok {
			pkg = "./" + strings.TrimPrefix(strings.TrimSpace(path), modulePath)
			continue
		}
		fields := strings.Fields(l)
		if len(fields) < 3 || !strings.HasPrefix(l, "Benchmark") || fields[len(fields)-1] != "allocs/op" {
			continue
		}
		n, err := number(fields[len(fields)-2])
		if err != nil {
			return nil, fmt.Errorf("reading what go test prints: %q: %w", strings.TrimSpace(l), err)
		}
		at := name{pkg, fields[0]}
		if least, ok := counts[at]; ok {
			n = min(n, least)
		}
		counts[at] = n
	}
	return counts, nil
}

// verdict says what is to be thought of a count, and whether that is wrong.
func (e entry) verdict(now int, counted bool) (text string, wrong bool) {
	slack := e.allocs * e.tolerance / 100
	switch {
	case !counted:
		return "GONE", true
	case e.allocs < 0:
		return "NEW", true
	case now > e.allocs+slack:
		return "WORSE", true
	case now >= e.allocs-slack:
		return "", false
	case (e.allocs-now)*100 > e.allocs*max(better, e.tolerance):
		return "BETTER", true
	}
	return "a little better", false
}

// compare prints all that are listed, and returns an error that says what to do
// where one is worse, much better, new or gone.
func compare(out io.Writer, base baseline, counts map[name]int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "package\tbenchmark\tbefore\tnow\t")
	verdicts := map[string]bool{}
	for _, e := range base.entries() {
		n, counted := counts[e.name]
		verdict, wrong := e.verdict(n, counted)
		if wrong {
			verdicts[verdict] = true
		}
		before, now := strconv.Itoa(e.allocs), strconv.Itoa(n)
		if e.allocs < 0 {
			before = "?"
		}
		if !counted {
			now = "-"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.pkg, e.benchmark, before, now, verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var advice []string
	for _, a := range []struct{ verdict, text string }{
		{"WORSE", "a benchmark allocates more than before: find out why with go test -bench NAME -memprofile FILE -memprofilerate 1"},
		{"GONE", "a benchmark that is listed is gone: take its line out of " + baselinePath},
		{"BETTER", "a benchmark allocates much less: write that down, so that it stays"},
		{"NEW", "a benchmark has no count yet"},
	} {
		if verdicts[a.verdict] {
			advice = append(advice, a.text)
		}
	}
	if len(advice) > 0 {
		return fmt.Errorf("%s\nif that is as it should be: go run ./bench/allocs -w, and tell why in the commit", strings.Join(advice, "\n"))
	}
	return nil
}
