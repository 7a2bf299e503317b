//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/machine"
)

// rows are the lines of the table.
var rows = []struct {
	name string
	cell func(f *figures) string
}{
	{"bytes of tokens in each", func(f *figures) string { return fmt.Sprint(f.bytes) }},
	{"filled as `caddy lanyard migrate` does, and read once", func(f *figures) string {
		return fmt.Sprintf("%v, %.0f/s", f.filled.Round(time.Second/10), float64(f.n)/f.filled.Seconds())
	}},
	{"disk", func(f *figures) string { return megabytes(f.disk) }},
	{"disk for each connection", func(f *figures) string { return fmt.Sprintf("%.1f kB", float64(f.disk)/float64(f.n)/1000) }},
	{"opening the store", func(f *figures) string { return short(f.opening) }},
	{"start of the program to its first proxied call and to ready, with nothing of the store in memory", func(f *figures) string { return short(f.cold) }},
	{"… when it was started before: to the first call", func(f *figures) string { return short(f.firstCall) }},
	{"… to ready", func(f *figures) string { return short(f.ready) }},
	{"its end", func(f *figures) string { return short(f.stop) }},
	{"memory after its start (RSS)", func(f *figures) string { return megabytes(f.started.RSS) }},
	{"… of that its own (anonymous)", func(f *figures) string { return megabytes(f.started.Anon) }},
	{"memory after all calls (RSS, with the store's files mapped)", func(f *figures) string { return megabytes(f.called.RSS) }},
	{"… of that its own (anonymous)", func(f *figures) string { return megabytes(f.called.Anon) }},
	{"first proxied call with a connection, which is written to the audit log: CPU", func(f *figures) string { return short(f.once.cpu) }},
	{"… median / p99, 16 at a time", func(f *figures) string { return median(f.once.took) }},
	{"proxied call, 1,000 connections in turn: CPU", func(f *figures) string { return short(f.hot.cpu) }},
	{"… median / p99, 16 at a time", func(f *figures) string { return median(f.hot.took) }},
	{"API: list of one user, median / p99", func(f *figures) string { return median(f.list) }},
	{"lookup in the store just opened, median / p99", func(f *figures) string { return median(f.first) }},
	{"lookup in the store, of 100,000 in use, median / p99", func(f *figures) string { return median(f.warm) }},
	{"… mean", func(f *figures) string { return short(f.warm.mean()) }},
	{"lookup in memory, mean", func(f *figures) string { return short(f.cached) }},
	{"a connection in memory (50,000 at most)", func(f *figures) string { return fmt.Sprintf("%d bytes", f.entry) }},
	{"list of one of 1,000 users, median / p99", func(f *figures) string { return median(f.byUser) }},
	{"50 of 500 with a label, median / p99", func(f *figures) string { return median(f.byLabel) }},
	{"newest of a user at an integration, median / p99", func(f *figures) string { return median(f.newest) }},
	{"refresh schedule: a look with nothing due", func(f *figures) string { return short(f.idleLook) }},
	{"… with one in a hundred due", func(f *figures) string { return fmt.Sprintf("%s for %d", short(f.dueLook), f.due) }},
	{"… and to read each of them", func(f *figures) string { return short(f.dueWalk) }},
	{"durable writes, 1 writer", rate(func(f *figures) float64 { return f.one })},
	{"durable writes, 128 writers", rate(func(f *figures) float64 { return f.many })},
	{"… of a Badger that syncs a transaction for each", rate(func(f *figures) float64 { return f.yardstick })},
}

func rate(of func(f *figures) float64) func(f *figures) string {
	return func(f *figures) string { return fmt.Sprintf("%.0f/s", of(f)) }
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

func median(t times) string { return short(t.of(0.5)) + " / " + short(t.of(0.99)) }

// short is d with three digits.
func short(d time.Duration) string {
	unit := time.Nanosecond
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

func printTable(ctx context.Context, w io.Writer, all []figures) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	p("%s\n\n| connections |", machine.Describe(ctx))
	for i := range all {
		p(" %d |", all[i].n)
	}
	p("\n|-|%s\n", strings.Repeat("-|", len(all)))
	for _, row := range rows {
		p("| %s |", row.name)
		for i := range all {
			p(" %s |", row.cell(&all[i]))
		}
		p("\n")
	}
}

// The limits that have to hold.
const (
	flat        = 2.0             // times what it costs at the smallest size
	startLimit  = 2 * time.Second // at most at a million
	memoryLimit = 250e6           // bytes, at a million
	writesLeast = 10.0            // times one transaction each
	million     = 1_000_000
)

// printGates says which limits hold, and reports whether all do.
func printGates(w io.Writer, all []figures) bool {
	held := true
	gate := func(ok bool, format string, args ...any) {
		word := "ok"
		if !ok {
			word, held = "**missed**", false
		}
		_, _ = fmt.Fprintf(w, "- %s: %s\n", word, fmt.Sprintf(format, args...))
	}
	_, _ = fmt.Fprintln(w)
	least := &all[0]
	for i := range all {
		f := &all[i]
		if i > 0 {
			for _, c := range []struct {
				name      string
				now, then time.Duration
			}{
				{"a lookup in the store", f.warm.of(0.5), least.warm.of(0.5)},
				{"the first proxied call with a connection, in CPU", f.once.cpu, least.once.cpu},
				{"a proxied call of 1,000 in turn, in CPU", f.hot.cpu, least.hot.cpu},
				{"a list of one user", f.byUser.of(0.5), least.byUser.of(0.5)},
				{"a list of one user, through the API", f.list.of(0.5), least.list.of(0.5)},
				{"a list by label", f.byLabel.of(0.5), least.byLabel.of(0.5)},
			} {
				times := float64(c.now) / float64(c.then)
				gate(times <= flat, "%s at %d costs %.2f times what it does at %d, at most %.0f", c.name, f.n, times, least.n, flat)
			}
		}
		if f.n <= million {
			longest := max(f.cold, f.firstCall, f.ready)
			gate(longest < startLimit, "start at %d takes %s at most, under %v", f.n, short(longest), startLimit)
			gate(f.started.RSS <= memoryLimit, "after it %s are resident, files and all, at most %s", megabytes(f.started.RSS), megabytes(memoryLimit))
			gate(f.called.Anon <= memoryLimit, "after all calls there are %s but for the store's files, at most %s", megabytes(f.called.Anon), megabytes(memoryLimit))
		}
		gate(f.many >= writesLeast*f.yardstick, "durable writes by 128 at %d are %.1f times one transaction each, at least %.0f", f.n, f.many/f.yardstick, writesLeast)
	}
	return held
}
