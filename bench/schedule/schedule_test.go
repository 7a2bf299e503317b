package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var small = plan{n: 100_000, rate: 10, daily: 0.5, headroom: 3}

func smallGroups(t *testing.T) []group {
	t.Helper()
	groups, err := small.groups()
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

// outcomeOf runs one of the scenarios at a hundred thousand.
func outcomeOf(t *testing.T, name string, headroom float64) outcome {
	t.Helper()
	for _, s := range scenarios(small.headroom) {
		if s.name == name && s.headroom == headroom {
			return simulate(smallGroups(t), s)
		}
	}
	t.Fatalf("there is no scenario %q", name)
	return outcome{}
}

func TestSteadyStateIsEven(t *testing.T) {
	o := outcomeOf(t, "steady", 0)
	if mean := float64(sum(o.done)) / float64(o.span); mean < 9.5 || mean > 10.5 {
		t.Errorf("%.1f refreshes a second, want the rate, 10", mean)
	}
	if peak := o.busiestMinute(); peak > 14 || o.late > 0 {
		t.Errorf("busiest minute %.1f a second, %d late; want little more than the mean, and none", peak, o.late)
	}
}

// What was issued at once is renewed at other times, and those move apart.
func TestIssuedAtOnce(t *testing.T) {
	o := outcomeOf(t, "all issued in one second", 0)
	g := tokenstore.Grant{Token: tokenstore.Token{IssuedAt: epoch, ExpiresAt: epoch.Add(time.Hour)}}
	soft := second(g.Token.SoftAt())
	window := 0 // seconds in which the first renewals of tokens of an hour begin
	for _, n := range o.done[soft-200 : soft] {
		if n > 0 {
			window++
		}
	}
	if window < 140 || o.late > 0 {
		t.Errorf("tokens of an hour are renewed in %d different seconds, %d late; want 140 or more, and none", window, o.late)
	}
	if most := slices.Max(o.done[soft-200 : soft]); most > 150 {
		t.Errorf("%d refreshes in one second, want fewer: they are spread", most)
	}
}

// After ten minutes nobody is late who need not be: a token that is renewed five
// minutes before its end, or more, has ended if the outage took longer than that.
func TestOutage(t *testing.T) {
	free := outcomeOf(t, "database out for 10 min", 0)
	if free.waiting > 0 || free.latest > outage-refreshMargin(t) {
		t.Errorf("%d wait at the end, the latest by %d s", free.waiting, free.latest)
	}
	paced := outcomeOf(t, "database out for 10 min", small.headroom)
	if paced.waiting > 0 || paced.late < free.late {
		t.Errorf("with a pace %d wait at the end and %d are late; without one, %d", paced.waiting, paced.late, free.late)
	}
	for at, n := range paced.done {
		if at >= paced.outFrom && at < paced.outTill && n > 0 {
			t.Fatalf("a renewal in second %d, in the outage", at)
		}
	}
	down := outcomeOf(t, "all token endpoints out for 10 min", 0)
	if n := sum(down.done[down.outTill : down.outTill+int(refresh.LongestDown/time.Second)]); n > 0 {
		t.Errorf("%d renewals before the endpoint was looked at", n)
	}
}

// refreshMargin is how many seconds at least lie between the time at which a
// token of half an hour or more is renewed and its hard margin.
func refreshMargin(t *testing.T) int {
	t.Helper()
	token := tokenstore.Token{IssuedAt: epoch, ExpiresAt: epoch.Add(30 * time.Minute)}
	return second(token.HardAt()) - second(token.SoftAt())
}

func TestPaceIsKept(t *testing.T) {
	o := outcomeOf(t, "all issued in one second", small.headroom)
	if most := slices.Max(o.done); float64(most) > small.headroom*10+10 {
		t.Errorf("%d in one second, at a pace of %.0f together", most, small.headroom*10)
	}
}

func TestKeepAlive(t *testing.T) {
	for _, k := range keepAlive(200_000) {
		// Renewed after 0.8 of the life on the average.
		want := float64(k.n) / (0.8 * k.life.Seconds())
		if k.mean < 0.9*want || k.mean > 1.1*want || k.day > 1.5*k.mean {
			t.Errorf("life %s: %.5f a second, in the busiest day %.5f; want %.5f", k.life, k.mean, k.day, want)
		}
		if k.atOnce > 6*k.mean {
			t.Errorf("life %s: %.5f a second where all was issued at once", k.life, k.atOnce)
		}
	}
}

func TestReport(t *testing.T) {
	var b strings.Builder
	if err := small.run(&b, io.Discard); err != nil {
		t.Fatal(err)
	}
	columns := 0
	for line := range strings.Lines(b.String()) {
		n := strings.Count(line, "|")
		if columns > 0 && n > 0 && n != columns {
			t.Errorf("%d bars instead of %d: %s", n, columns, line)
		}
		columns = n
	}
	for _, wrong := range []plan{{}, {n: 1000}, {n: 1000, rate: 1, daily: 2, headroom: 1}, {n: 1000, rate: 1}} {
		if wrong.run(io.Discard, io.Discard) == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}

func TestNamesAreIDs(t *testing.T) {
	if id := nameOf(7); !tokenstore.IsID(id) || len(id) != len(tokenstore.NewID()) {
		t.Errorf("%q is not like an ID", id)
	}
}
