package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is everything that was found.
type report struct {
	plan
	groups   []group
	outcomes []outcome
	kept     []kept
}

func (r report) print(w io.Writer) error {
	var b strings.Builder
	n, daily := used(r.groups), r.onceADay(r.groups)
	fmt.Fprintf(&b, "%s connections: %s in constant use, %s called once a day, %s that nobody calls.\n\n",
		count(r.n), count(n), count(daily), count(r.n-n-daily))
	r.printGroups(&b)
	r.printOutcomes(&b)
	r.printCourse(&b)
	r.printKept(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r report) printGroups(b *strings.Builder) {
	b.WriteString("| Provider | Token's life | In use | Renewed every | A second | One sidecar's pace | Sidecars for it |\n|-|-|-|-|-|-|-|\n")
	for _, g := range r.groups {
		rate := float64(g.n) / g.cycle
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s/s | %s |\n", g.name, short(g.life), count(g.n),
			short(time.Duration(g.cycle)*time.Second), figure(rate), figure(g.pace), count(int(math.Ceil(rate*r.headroom/g.pace))))
	}
	daily := r.onceADay(r.groups)
	fmt.Fprintf(b, "| called once a day | any shorter | %s | 24 h | %s | | |\n\n", count(daily), figure(float64(daily)/day.Seconds()))
}

func (r report) printOutcomes(b *strings.Builder) {
	b.WriteString("| What happens | Providers take | Mean/s | Busiest second | Busiest minute, /s | To the mean | Late | Of them ended | Latest by | Caught up after |\n" +
		"|-|-|-|-|-|-|-|-|-|-|\n")
	for _, o := range r.outcomes {
		mean := float64(sum(o.done)) / float64(o.span)
		minute := o.busiestMinute()
		takes := "anything"
		if o.headroom > 0 {
			takes = fmt.Sprintf("%.1f times the mean", o.headroom)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %.1f | %s | %s | %s | %s |\n", o.name, takes, figure(mean),
			count(slices.Max(o.done)), figure(minute), minute/r.steady(), o.part(o.late), o.part(o.ended), seconds(o.latest), o.caught())
	}
	b.WriteByte('\n')
}

// steady is how many a second the connections in use need on the average.
func (r report) steady() (rate float64) {
	for _, g := range r.groups {
		rate += float64(g.n) / g.cycle
	}
	return max(rate, 1e-9)
}

// part says how many renewals, and of all of them how many that is.
func (o outcome) part(n int) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%s (%.1f %%)", count(n), 100*float64(n)/float64(max(sum(o.done), 1)))
}

// caught says when the last renewal began past its soft margin, from the end of the outage or the
// beginning.
func (o outcome) caught() string {
	switch {
	case o.waiting > 0:
		return fmt.Sprintf("not yet: %s wait", count(o.waiting))
	case o.caughtUp <= o.outTill:
		return "at once"
	}
	return seconds(o.caughtUp - o.outTill)
}

func (o outcome) busiestMinute() float64 {
	best := 0
	for minute := range slices.Chunk(o.done, 60) {
		best = max(best, sum(minute))
	}
	return float64(best) / 60
}

// printCourse shows where everything was issued at once, in steps of 5 minutes.
func (r report) printCourse(b *strings.Builder) {
	b.WriteString("All issued in one second: refreshes a second in each 5 minutes.\n\n| Minutes | Providers take anything | ")
	fmt.Fprintf(b, "%.1f times the mean |\n|-|-|-|\n", r.headroom)
	var courses [][]int
	for _, o := range r.outcomes {
		if o.atOnce {
			courses = append(courses, o.done)
		}
	}
	const step = 300
	for from := 0; from < len(courses[0]); from += step {
		fmt.Fprintf(b, "| %d to %d |", from/60, (from+step)/60)
		for _, done := range courses {
			fmt.Fprintf(b, " %s |", figure(float64(sum(done[from:from+step]))/step))
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
}

func (r report) printKept(b *strings.Builder) {
	b.WriteString("| Life of the refresh token | Connections that nobody calls | Mean/s over a year | Busiest day, /s | Busiest day where all was issued at once, /s |\n|-|-|-|-|-|\n")
	for _, k := range r.kept {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", short(k.life), count(k.n), figure(k.mean), figure(k.day), figure(k.atOnce))
	}
}

func sum(list []int) (n int) {
	for _, m := range list {
		n += m
	}
	return n
}

// count writes a number with its thousands apart.
func count(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// figure writes a number with as many digits as tell something.
func figure(f float64) string {
	switch {
	case f >= 100:
		return count(int(math.Round(f)))
	case f >= 10:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 2, 64)
}

func seconds(n int) string { return short(time.Duration(n) * time.Second) }

// short writes a duration in one unit, or two.
func short(d time.Duration) string {
	switch {
	case d >= day && d%day == 0:
		return fmt.Sprintf("%d d", d/day)
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%d s", d/time.Second)
}
