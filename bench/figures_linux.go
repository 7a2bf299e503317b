package main

import (
	"cmp"
	"math"
	"slices"
)

// figures are what one run of one program gave, by metric.
type figures map[metric]float64

// A table has the figures of one job with one kind of upstream.
type table struct {
	Job      *job
	Upstream upstreamKind
	Rows     []row
}

// A row has the figures of one program, one for each round.
type row struct {
	Program string
	Rounds  []figures
}

// A spread is a median, and between what the values lie. It is all NaN where
// there are none.
type spread struct{ Median, Min, Max float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	median := s[mid]
	if len(s)%2 == 0 {
		median = (s[mid-1] + s[mid]) / 2
	}
	return spread{median, s[0], s[len(s)-1]}
}

// row returns the row of a program, nil if there is none.
func (t *table) row(program string) *row {
	i := slices.IndexFunc(t.Rows, func(r row) bool { return r.Program == program })
	if i < 0 {
		return nil
	}
	return &t.Rows[i]
}

// values returns what a program had in each round. It is empty if it has no
// such metric.
func (t *table) values(program string, m metric) []float64 {
	r := t.row(program)
	if r == nil {
		return nil
	}
	var values []float64
	for _, f := range r.Rounds {
		if v, ok := f[m]; ok {
			values = append(values, v)
		}
	}
	return values
}

// ratios returns a program's figures divided by those of another in the same
// round: what disturbs a machine for a while disturbs both. It is empty where
// the other had nothing to divide by, as what is added may be in a round that
// went wrong.
func (t *table) ratios(program, base string, m metric) []float64 {
	own, other := t.values(program, m), t.values(base, m)
	var ratios []float64
	for i := range min(len(own), len(other)) {
		if other[i] <= 0 {
			return nil
		}
		ratios = append(ratios, own[i]/other[i])
	}
	return ratios
}

// addOverDirect notes for each round how much longer than the direct way the
// others took.
func (t *table) addOverDirect() {
	direct := t.values(programDirect, metricP50)
	for _, r := range t.Rows {
		for i, f := range r.Rounds {
			if r.Program != programDirect && i < len(direct) {
				f[metricAdded] = f[metricP50] - direct[i]
			}
		}
	}
}

// percentile returns the value that the share q of all, 0 to 1, does not
// exceed. It sorts them.
func percentile[T cmp.Ordered](values []T, q float64) T {
	slices.Sort(values)
	i := int(math.Ceil(q*float64(len(values)))) - 1
	return values[max(0, min(i, len(values)-1))]
}
