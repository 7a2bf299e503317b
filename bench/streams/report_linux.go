package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/bench/internal/machine"
)

// report is what is printed.
type report struct {
	text    strings.Builder // all of it
	kinds   []kind
	columns []*column
	rows    []string // in the order they came
	ok      int
	missed  []string
	title   string
}

// column is what one program did in the case under way.
type column struct {
	r     *report
	kind  kind
	cells map[string]string // :: row → text
}

func (r *report) head(ctx context.Context, limit int) {
	r.print(machine.Describe(ctx) + fmt.Sprintf(" · open files: at most %d for each process\n", limit))
}

func (r *report) print(text string) {
	r.text.WriteString(text)
	_, _ = os.Stdout.WriteString(text)
}

func (r *report) begin(c one, n int) {
	r.columns, r.rows = nil, nil
	for _, k := range r.kinds {
		r.columns = append(r.columns, &column{r: r, kind: k, cells: map[string]string{}})
	}
	r.title = fmt.Sprintf("%d %s", n, c.title)
}

func (r *report) column(i int) *column { return r.columns[i] }

func (r *report) end() {
	var b strings.Builder
	b.WriteString("\n| " + r.title + " |")
	for _, c := range r.columns {
		b.WriteString(" " + c.kind.name + " |")
	}
	b.WriteString("\n|-|" + strings.Repeat("-|", len(r.columns)) + "\n")
	for _, row := range r.rows {
		b.WriteString("| " + row + " |")
		for _, c := range r.columns {
			b.WriteString(" " + c.cells[row] + " |")
		}
		b.WriteString("\n")
	}
	r.print(b.String())
}

func (r *report) verdict(took time.Duration) error {
	r.print(fmt.Sprintf("\nGates: %d ok, %d missed. It took %v.\n", r.ok, len(r.missed), took.Round(time.Second)))
	for _, m := range r.missed {
		r.print("- missed: " + m + "\n")
	}
	if len(r.missed) > 0 {
		return errMissed
	}
	return nil
}

func (c *column) figure(row, text string) {
	if !slices.Contains(c.r.rows, row) {
		c.r.rows = append(c.r.rows, row)
	}
	c.cells[row] = text
}

// gate is a figure that must be so for Lanyard.
func (c *column) gate(row string, ok bool, text string) {
	verdict := "yes"
	if !ok {
		verdict = "NO"
	}
	c.figure(row, verdict+": "+text)
	switch {
	case !c.kind.lanyard:
	case ok:
		c.r.ok++
	default:
		c.r.missed = append(c.r.missed, c.r.title+": "+row+": "+text)
	}
}

// lossless is the gate that no stream was lost.
func (c *column) lossless(when string, s *streams) {
	lost, first := s.losses()
	c.gate("none lost, "+when, lost == 0, detail(fmt.Sprintf("%d of %d lost", lost, len(s.all)), first))
}

func detail(text string, err error) string {
	if err == nil {
		return text
	}
	return text + " (" + strings.ReplaceAll(err.Error(), "\n", "; ") + ")"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func mib(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// quantiles sorts.
func quantiles(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	at := func(q float64) string {
		return fmt.Sprintf("%.1f", float64(all[int(q*float64(len(all)-1))].Microseconds())/1000)
	}
	return at(0.5) + " / " + at(0.99) + " / " + at(1) + " ms"
}
