package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A report is all that was measured.
type report struct {
	head   string // where and with what
	tables []*table
	rounds int
	quick  bool
	took   time.Duration
}

// table returns the figures of a job, nil if it was not done.
func (r *report) table(job string, kind upstreamKind) *table {
	for _, t := range r.tables {
		if t.Job.name == job && t.Upstream == kind {
			return t
		}
	}
	return nil
}

const intro = `Figures are medians of %d rounds, in which the programs take turns. A ratio is to what stock Caddy had in the same round; in brackets, the
lowest and the highest of all rounds. Requests/s and MB/s: above 1 is better; CPU and times: below 1. The client, the upstream and the
program that is measured share the processors.
`

// notes say what was compared with what.
var notes = []string{
	"Every program is asked for 10,000 connections in turn, and the upstream answers only to the token of the connection that is asked for. " +
		"Before it is timed, each program is tried with all of them (uploads: 10, events: 200, which are then used in turn). One answer that is not as it should be ends the run.",
	"*Lanyard* has its store, its keys and 10,000 connections; its key and the connection come in the request.",
	"*Stock Caddy* is `reverse_proxy` with `header_up Authorization` and nothing else set, built like Lanyard from the same version of Caddy. It puts one and the same token on all " +
		"requests, which the upstream takes from it: that is the least it can do. With 10,000 connections it would need a `map`, which it reads from top to bottom for each request.",
	"*Larger pool* is stock Caddy with `keepalive_idle_conns_per_host 1024`, as Lanyard has it; by default Caddy keeps 32, and connects anew for the others.",
	"*nginx* is Debian's, with a `map` of the 10,000 and 1,024 idle connections, buffering switched off for uploads and events. It can't speak HTTP/2 to an upstream. Where it comes near *no proxy*, " +
		"the client and the upstream are the limit.",
	"CPU is what the program itself used, in the kernel too. Memory is read after each turn of a program; of nginx, it is the sum of its processes, with what they share in each.",
}

// markdown returns the report, and whether a bound was missed.
func (r *report) markdown() (text string, missed bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n"+intro, r.head, r.rounds)
	if r.quick {
		b.WriteString("\n**A quick run, to see whether it works: these figures mean nothing.**\n")
	}
	title := ""
	for _, t := range r.tables {
		if t.Job.title != title {
			title = t.Job.title
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", title, t.Job.about)
			t.writeHead(&b)
		}
		t.writeRows(&b)
	}
	r.writeMemory(&b)
	lines, missed := r.bounds()
	b.WriteString("\n### Bounds\n\nLanyard to stock Caddy:\n\n")
	if r.rounds < judgedRounds {
		fmt.Fprintf(&b, "They are not judged: that takes %d rounds.\n\n", judgedRounds)
	}
	b.WriteString(strings.Join(lines, "\n") + "\n\n### Notes\n\n")
	for _, note := range notes {
		b.WriteString("- " + note + "\n")
	}
	fmt.Fprintf(&b, "\n`go run ./bench` took %s.\n", r.took.Round(time.Second))
	return b.String(), missed
}

func (t *table) writeHead(b *strings.Builder) {
	heads, line := "| upstream | program |", "|---|---|"
	for _, c := range t.Job.columns {
		heads, line = heads+" "+c.head+" |", line+"--:|"
		if c.ratio {
			heads, line = heads+" ratio |", line+"--:|"
		}
	}
	b.WriteString(heads + "\n" + line + "\n")
}

func (t *table) writeRows(b *strings.Builder) {
	for _, program := range t.Job.programs {
		if t.row(program) == nil && program != programNginx { // that it can't is worth a line
			continue
		}
		name := program
		if program == programLanyard {
			name = "**" + name + "**"
		}
		fmt.Fprintf(b, "| %s | %s |", t.Upstream, name)
		for _, c := range t.Job.columns {
			b.WriteString(" " + number(spreadOf(t.values(program, c.metric)).Median, c.digits) + " |")
			if c.ratio {
				b.WriteString(" " + t.ratio(program, c.metric) + " |")
			}
		}
		b.WriteString("\n")
	}
}

// ratio returns the cell of a program's ratio to stock Caddy.
func (t *table) ratio(program string, m metric) string {
	s := spreadOf(t.ratios(program, programStock, m))
	switch {
	case program == programStock && !math.IsNaN(s.Median):
		return "1"
	case program == programLanyard && !math.IsNaN(s.Median):
		factor, rest, _ := strings.Cut(times(s), " ")
		return strings.TrimSpace("**" + factor + "** " + rest)
	}
	return times(s)
}

// times writes a ratio and its spread.
func times(s spread) string {
	if math.IsNaN(s.Median) {
		return "–"
	}
	if s.Min == s.Max { // one round
		return fmt.Sprintf("%.2fx", s.Median)
	}
	return fmt.Sprintf("%.2fx (%.2f–%.2f)", s.Median, s.Min, s.Max)
}

// number writes a figure with commas.
func number(v float64, digits int) string {
	if math.IsNaN(v) {
		return "–"
	}
	if v < 0 {
		return "-" + number(-v, digits)
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	whole, _, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// writeMemory writes what the programs took: idle and after the requests, and
// after the job that left most behind.
func (r *report) writeMemory(b *strings.Builder) {
	t := r.table("requests", plain)
	if t == nil {
		return
	}
	b.WriteString("\n### Memory\n\nMB resident, and in brackets what of it no file stands behind.\n\n")
	b.WriteString("| program | idle | after *requests*, plain | the most, and after which job |\n|---|--:|--:|--:|\n")
	for _, program := range t.Job.programs {
		if program == programDirect {
			continue
		}
		_, after := r.mostMemory(program)
		fmt.Fprintf(b, "| %s | %s | %s | %s: %s, %s |\n", program, t.memory(program, metricRSSIdle, metricAnonIdle), t.memory(program, metricRSS, metricAnon),
			after.memory(program, metricRSS, metricAnon), after.Job.name, after.Upstream)
	}
}

func (t *table) memory(program string, rss, anonymous metric) string {
	return fmt.Sprintf("%s (%s)", number(spreadOf(t.values(program, rss)).Median, 0), number(spreadOf(t.values(program, anonymous)).Median, 0))
}

// mostMemory returns the table of the job after which a program had most, nil
// if it took part in none.
func (r *report) mostMemory(program string) (mb float64, after *table) {
	for _, t := range r.tables {
		for _, v := range t.values(program, metricRSS) {
			if v > mb {
				mb, after = v, t
			}
		}
	}
	return mb, after
}
