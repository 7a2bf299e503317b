package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// printer writes what a command has found: tables and words for people, the
// API's own JSON for programs, an object a line.
type printer struct {
	asJSON  bool
	noColor bool
	out     io.Writer
	talk    io.Writer // what is no result
	width   int       // of the terminal; 0: there is none
	color   bool
}

func (p *printer) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.asJSON, "json", false, "print JSON: the API's objects, one a line")
	cmd.Flags().BoolVar(&p.noColor, "no-color", false, "print without colors (as NO_COLOR does)")
}

func (p *printer) prepare(cmd *cobra.Command) {
	p.out, p.talk = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if f, ok := p.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.width, _, _ = term.GetSize(int(f.Fd()))
		p.color = !p.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
}

// json prints a value of the API's in one line.
func (p *printer) json(value json.RawMessage) error {
	var line bytes.Buffer
	if err := json.Compact(&line, value); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err := p.out.Write(line.Bytes())
	return err
}

// say tells people what is no result. Its arguments that are texts are cleaned.
func (p *printer) say(format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = clean(s)
		}
	}
	_, _ = fmt.Fprintf(p.talk, format+"\n", args...)
}

// clean takes out of a text what a terminal would obey.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// cleanLines is clean for a text of several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// style is how a cell looks on a terminal that has colors.
type style string

const (
	normal style = ""
	faint  style = "2"
	green  style = "32"
	yellow style = "33"
	red    style = "31"
)

// cell is one of a table. The zero value is shown as –.
type cell struct {
	text  string
	style style
}

func plain(s string) cell { return cell{text: clean(s)} }

// column is one of a table.
type column struct {
	head string
	cut  bool // it may be shortened where the terminal is narrow
	min  int  // how wide it is at least: for tables that come row by row
}

// idWidth is that of the ID of a connection that Lanyard has named.
const idWidth = 31

// minCut is the least that a shortened column has.
const minCut = 8

// table prints rows as they come, some at a time. Its columns grow if they must.
type table struct {
	p       *printer
	columns []column
	widths  []int
	begun   bool
}

func (p *printer) table(columns ...column) *table {
	t := &table{p: p, columns: columns, widths: make([]int, len(columns))}
	for i, c := range columns {
		t.widths[i] = max(c.min, utf8.RuneCountInString(c.head))
	}
	return t
}

// rows prints rows.
func (t *table) rows(rows [][]cell) error {
	for _, row := range rows {
		for i, c := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.shown()))
		}
	}
	widths := t.fit()
	var b strings.Builder
	if !t.begun && len(rows) > 0 {
		t.begun = true
		heads := make([]cell, len(t.columns))
		for i, c := range t.columns {
			heads[i] = cell{c.head, faint}
		}
		t.line(&b, widths, heads)
	}
	for _, row := range rows {
		t.line(&b, widths, row)
	}
	_, err := io.WriteString(t.p.out, b.String())
	return err
}

// fit returns the widths with what may be cut shortened to the terminal.
func (t *table) fit() []int {
	widths := append([]int(nil), t.widths...)
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for t.p.width > 0 && total > t.p.width {
		widest := -1
		for i, c := range t.columns {
			if c.cut && widths[i] > minCut && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
		total--
	}
	return widths
}

func (c cell) shown() string {
	if c.text == "" {
		return "–"
	}
	return c.text
}

func (t *table) line(b *strings.Builder, widths []int, row []cell) {
	for i, c := range row {
		text := c.shown()
		if n := utf8.RuneCountInString(text); n > widths[i] {
			text = string([]rune(text)[:widths[i]-1]) + "…"
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+2)
		if i == len(row)-1 {
			pad = "\n"
		}
		b.WriteString(t.p.paint(text, c.style) + pad)
	}
}

func (p *printer) paint(text string, s style) string {
	if !p.color || s == normal {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// pairs prints names and their values, one pair a line.
func (p *printer) pairs(list ...[2]string) error {
	width := 0
	for _, pair := range list {
		width = max(width, utf8.RuneCountInString(pair[0]))
	}
	var b strings.Builder
	for _, pair := range list {
		if pair[1] == "" {
			continue
		}
		fmt.Fprintf(&b, "%s  %s\n", p.paint(pair[0]+strings.Repeat(" ", width-utf8.RuneCountInString(pair[0])), faint), clean(pair[1]))
	}
	_, err := io.WriteString(p.out, b.String())
	return err
}

// moment says when t is, as seen from now, and nothing where it is not known.
func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	d := time.Until(*t)
	if d >= 0 {
		return "in " + span(d)
	}
	return span(-d) + " ago"
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= time.Minute {
		d = d.Round(time.Minute)
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/day)
}

// progress shows on a terminal how far something is, in one line that changes.
type progress struct {
	out  io.Writer // nil where there is no terminal
	last time.Time
}

func newProgress() *progress {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return &progress{}
	}
	return &progress{out: os.Stderr}
}

func (p *progress) show(format string, args ...any) {
	if p.out != nil && time.Since(p.last) > 200*time.Millisecond {
		p.last = time.Now()
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K"+format, args...)
	}
}

// end clears the line.
func (p *progress) end() {
	if p.out != nil {
		_, _ = io.WriteString(p.out, "\r\x1b[K")
	}
}
