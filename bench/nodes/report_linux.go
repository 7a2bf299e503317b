package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A report is all that was measured.
type report struct {
	head   string      // where and with what
	rounds [][]figures // for each of sizes, one of each round
	took   time.Duration
}

// lines are the table's.
var lines = []struct {
	name   string
	of     func(f figures) float64
	digits int
}{
	{"proxied calls a second", func(f figures) float64 { return f.calls }, 0},
	{"processor time of 100,000 calls, all Lanyards together, s", func(f figures) float64 { return f.callCPU }, 1},
	{"refreshes a second", func(f figures) float64 { return f.refreshes }, 0},
	{"processor time of 1,000 refreshes: Lanyards, s", func(f figures) float64 { return f.refreshCPU }, 2},
	{"… and PostgreSQL, s", func(f figures) float64 { return f.databaseCPU }, 2},
	{"write-ahead log of a refresh, KB", func(f figures) float64 { return f.wal / 1000 }, 1},
	{"memory of each, its 10,000 connections used, MB", func(f figures) float64 { return f.memory / 1e6 }, 0},
}

const notes = `%d rounds, in which one and three take turns: the median, and in brackets the lowest and the highest. **All of it shares
the machine**: the Lanyards, PostgreSQL, the provider (nginx) and the clients. So what a second brings is no sum of three
machines, and what counts is the processor time: calls grow with the machines, and so do refreshes until the database is full.

- Calls: wrk, %d connections, over 10,000 imported connections in turn. Each was called once at each Lanyard before; the API
  answers only to its own token.
- Refreshes: %d workers, each with connections of its own, by ` + "`POST /v1/connections/{id}/refresh`" + `; processor time includes that
  request. Tokens of 1,000 bytes together. The provider takes everything, without TLS; its pace is ` + "`refresh { interval 0s }`" + `
  instead of 40 a second, with 16 at a time at each Lanyard, as by default.
- PostgreSQL syncs what it commits. Each Lanyard has 8 connections to it. There is no checkpoint meanwhile; the log has the
  full page images of the first writes after the last one.
- Deletions: %d, from the answer until each of the others refuses a call for what it had in memory. These, and the idle
  Lanyards, in the first round alone.

` + "`go run ./bench/nodes`" + ` took %s.
`

func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString(r.head + "\n\n| |")
	for _, n := range sizes {
		fmt.Fprintf(&b, " Lanyards: %d |", n)
	}
	b.WriteString("\n|-|" + strings.Repeat("-:|", len(sizes)) + "\n")
	for _, line := range lines {
		b.WriteString("| " + line.name + " |")
		for _, rounds := range r.rounds {
			values := make([]float64, len(rounds))
			for i, f := range rounds {
				values[i] = line.of(f)
			}
			b.WriteString(" " + spread(values, line.digits) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("| transactions a second of each, while idle |")
	for _, rounds := range r.rounds {
		b.WriteString(" " + number(rounds[0].commits, 1) + " |")
	}
	b.WriteString("\n| a deletion is seen by the others after, ms: median, and at most |")
	for _, rounds := range r.rounds {
		b.WriteString(" " + medianAndMost(rounds[0].seen) + " |")
	}
	fmt.Fprintf(&b, "\n\n"+notes, len(r.rounds[0]), callers, refreshers, deletions, r.took.Round(time.Second))
	return b.String()
}

// spread writes the median, and between what the values lie.
func spread(values []float64, digits int) string {
	s := slices.Sorted(slices.Values(values))
	median := (s[(len(s)-1)/2] + s[len(s)/2]) / 2
	text := number(median, digits)
	if low, high := number(s[0], digits), number(s[len(s)-1], digits); low != high {
		text += " (" + low + "–" + high + ")"
	}
	return text
}

func medianAndMost(times []time.Duration) string {
	if len(times) == 0 {
		return "–"
	}
	slices.Sort(times)
	return fmt.Sprintf("%d, %d", times[len(times)/2].Milliseconds(), times[len(times)-1].Milliseconds())
}

// number writes a positive figure with commas.
func number(v float64, digits int) string {
	text := strconv.FormatFloat(v, 'f', digits, 64)
	whole, _, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
