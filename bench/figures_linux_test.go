package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSpread(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		values []float64
		want   spread
	}{
		{nil, spread{nan, nan, nan}},
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{3, 1, 2}, spread{2, 1, 3}},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, spreadOf(tt.values), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("spreadOf(%v): -want +got\n%s", tt.values, diff)
		}
	}
}

func TestPercentile(t *testing.T) {
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 2, 0.75: 3, 0.99: 4, 1: 4} {
		if got := percentile([]time.Duration{4, 2, 3, 1}, q); got != want {
			t.Errorf("percentile(1 to 4, %v) = %d, want %d", q, got, want)
		}
	}
}

// A slow round slows down both: its ratio is as good as another's.
func TestRatiosAreOfTheSameRound(t *testing.T) {
	tab := &table{Rows: []row{
		{programLanyard, []figures{{metricRate: 150}, {metricRate: 15}, {metricRate: 160}}},
		{programStock, []figures{{metricRate: 100}, {metricRate: 10}, {metricRate: 100}}},
	}}
	if diff := cmp.Diff([]float64{1.5, 1.5, 1.6}, tab.ratios(programLanyard, programStock, metricRate)); diff != "" {
		t.Errorf("ratios: -want +got\n%s", diff)
	}
	if got := tab.ratios(programLanyard, programNginx, metricRate); len(got) > 0 {
		t.Errorf("ratios to a program that took no part = %v, want none", got)
	}
}

func TestTurns(t *testing.T) {
	var got [][]int
	for round := range 4 {
		got = append(got, turns(3, round))
	}
	if diff := cmp.Diff([][]int{{0, 1, 2}, {1, 0, 2}, {2, 0, 1}, {0, 2, 1}}, got); diff != "" {
		t.Errorf("turns: -want +got\n%s", diff)
	}
}

func TestAddOverDirect(t *testing.T) {
	tab := &table{Rows: []row{
		{programLanyard, []figures{{metricP50: 300}, {metricP50: 350}}},
		{programStock, []figures{{metricP50: 400}, {metricP50: 500}}},
		{programDirect, []figures{{metricP50: 200}, {metricP50: 250}}},
	}}
	tab.addOverDirect()
	if diff := cmp.Diff([]float64{0.5, 0.4}, tab.ratios(programLanyard, programStock, metricAdded)); diff != "" {
		t.Errorf("ratios of what is added: -want +got\n%s", diff)
	}
	tab.Rows[1].Rounds[1][metricAdded] = -10 // a ratio to it would hold any bound
	if got := tab.ratios(programLanyard, programStock, metricAdded); len(got) > 0 {
		t.Errorf("ratios to less than nothing = %v, want none", got)
	}
	if got := tab.values(programDirect, metricAdded); len(got) > 0 {
		t.Errorf("the direct way adds %v, want nothing", got)
	}
}

func TestGate(t *testing.T) {
	least := gate{what: "speed", least: true, limit: 1.4}
	most := gate{what: "cost", limit: 0.7}
	tests := []struct {
		gate   gate
		rounds int
		median float64
		missed bool
		want   string
	}{
		{least, 5, 1.4, false, "- ok: speed: 1.40x (1.00–2.00); at least 1.40x"},
		{least, 5, 1.39, true, "- **missed**: speed: 1.39x (1.00–2.00); at least 1.40x"},
		{most, 5, 0.7, false, "- ok: cost: 0.70x (1.00–2.00); at most 0.70x"},
		{most, 5, 0.71, true, "- **missed**: cost: 0.71x (1.00–2.00); at most 0.70x"},
		{most, 5, math.NaN(), false, "- not measured: cost"},
		{least, 4, 1.39, false, "- not judged: speed: 1.39x (1.00–2.00); at least 1.40x"},
	}
	for _, tt := range tests {
		got, missed := tt.gate.judge(spread{tt.median, 1, 2}, tt.rounds)
		if got != tt.want || missed != tt.missed {
			t.Errorf("judge(%v) = %q, %v; want %q, %v", tt.median, got, missed, tt.want, tt.missed)
		}
	}
}

// What belongs to a bound has to be in a table, or it would count as not
// measured for good.
func TestReportJudgesAllBounds(t *testing.T) {
	r := &report{head: "here", rounds: judgedRounds}
	for _, g := range gates {
		if r.table(g.job, g.upstream) != nil {
			continue
		}
		j := &job{name: g.job, title: g.job, programs: []string{programLanyard, programStock}}
		r.tables = append(r.tables, &table{Job: j, Upstream: g.upstream, Rows: []row{
			{programLanyard, []figures{{metricRate: 20, metricCPU: 1, metricAdded: 1, metricP50: 1, metricRSS: 100}}},
			{programStock, []figures{{metricRate: 10, metricCPU: 2, metricAdded: 2, metricP50: 1, metricRSS: 50}}},
		}})
	}
	text, missed := r.markdown()
	if missed || strings.Contains(text, "not measured") {
		t.Errorf("missed = %v, want false and all measured:\n%s", missed, text)
	}
	r.tables[0].Rows[0].Rounds[0][metricRSS] = maxMemory + 1
	if text, missed := r.markdown(); !missed {
		t.Errorf("with too much memory, missed = false, want true:\n%s", text)
	}
	r.rounds--
	if text, missed := r.markdown(); missed || !strings.Contains(text, "They are not judged") || !strings.Contains(text, "- not judged: memory") {
		t.Errorf("in %d rounds, missed = %v, want false and that nothing is judged:\n%s", r.rounds, missed, text)
	}
}

func TestNumber(t *testing.T) {
	for want, got := range map[string]string{
		"–": number(math.NaN(), 1), "0": number(0, 0), "999": number(999, 0), "1,000": number(999.6, 0),
		"12,345.7": number(12345.67, 1), "1,234,567": number(1234567, 0), "-428": number(-428, 0), "-1,428": number(-1428, 0),
	} {
		if got != want {
			t.Errorf("number = %q, want %q", got, want)
		}
	}
}
