package main

import (
	"fmt"
	"math"
)

// judgedRounds is how many rounds it takes for a median that a bound is judged by.
const judgedRounds = 5

// maxMemory is what Lanyard may take under load with all connections, in MB.
const maxMemory = 100

// A gate is a bound on the ratio of Lanyard's figure to stock Caddy's, as the
// median of all rounds.
type gate struct {
	job      string
	upstream upstreamKind
	metric   metric
	what     string
	least    bool // at least limit, else at most
	limit    float64
}

var gates = []gate{
	{"requests", plain, metricRate, "requests/s, plain upstream", true, 1.4},
	{"requests", plain, metricCPU, "CPU per request, plain upstream", false, 0.70},
	{"requests", tlsHTTP1, metricRate, "requests/s, TLS upstream over HTTP/1.1", true, 2.0},
	{"requests", tlsHTTP2, metricRate, "requests/s, TLS upstream over HTTP/2", true, 1.3},
	{"latency", plain, metricAdded, "added latency, median, 4,000 requests a second, plain upstream", false, 0.75},
	{"latency1000", plain, metricAdded, "added latency, median, 1,000 requests a second, plain upstream", false, 0.75},
	{"download", plain, metricRate, "1 MB down, plain upstream", true, 0.95},
	{"download", tlsHTTP1, metricRate, "1 MB down, TLS upstream over HTTP/1.1", true, 0.95},
	{"download", tlsHTTP2, metricRate, "1 MB down, TLS upstream over HTTP/2", true, 0.95},
	{"upload", plain, metricRate, "10 MB up, plain upstream", true, 0.95},
	{"upload", tlsHTTP1, metricRate, "10 MB up, TLS upstream over HTTP/1.1", true, 0.95},
	{"upload", tlsHTTP2, metricRate, "10 MB up, TLS upstream over HTTP/2", true, 0.95},
	// as fast as 0.95x means 1/0.95 of the time
	{"sse", plain, metricP50, "time to the first event, plain upstream", false, 1.05},
	{"sse", tlsHTTP1, metricP50, "time to the first event, TLS upstream over HTTP/1.1", false, 1.05},
	{"sse", tlsHTTP2, metricP50, "time to the first event, TLS upstream over HTTP/2", false, 1.05},
}

// bounds returns a line for each bound, and whether one was missed. What was
// not measured is not missed, nor is anything in fewer than judgedRounds.
func (r *report) bounds() (lines []string, missed bool) {
	for _, g := range gates {
		s := spread{Median: math.NaN()}
		if t := r.table(g.job, g.upstream); t != nil {
			s = spreadOf(t.ratios(programLanyard, programStock, g.metric))
		}
		line, bad := g.judge(s, r.rounds)
		lines, missed = append(lines, line), missed || bad
	}
	largest := r.loadedMemory()
	verdict, bad := verdictOn(largest <= maxMemory, r.rounds)
	missed = missed || bad
	if largest == 0 {
		return append(lines, "- not measured: memory"), missed
	}
	return append(lines, fmt.Sprintf("- %s: memory after *requests* with %s connections: %.0f MB; at most %d MB",
		verdict, number(connections, 0), largest, maxMemory)), missed
}

// loadedMemory returns the most that Lanyard had after the requests to any kind
// of upstream, in MB. What it has after other jobs depends on how many requests
// the machine lets pile up.
func (r *report) loadedMemory() float64 {
	var largest float64
	for _, kind := range everyUpstream {
		if t := r.table("requests", kind); t != nil {
			for _, mb := range t.values(programLanyard, metricRSS) {
				largest = max(largest, mb)
			}
		}
	}
	return largest
}

func (g gate) judge(s spread, rounds int) (line string, missed bool) {
	if math.IsNaN(s.Median) {
		return "- not measured: " + g.what, false
	}
	bound, held := "at least", s.Median >= g.limit
	if !g.least {
		bound, held = "at most", s.Median <= g.limit
	}
	verdict, missed := verdictOn(held, rounds)
	return fmt.Sprintf("- %s: %s: %s; %s %.2fx", verdict, g.what, times(s), bound, g.limit), missed
}

// verdictOn says whether a bound held, if there were rounds enough.
func verdictOn(held bool, rounds int) (verdict string, missed bool) {
	switch {
	case rounds < judgedRounds:
		return "not judged", false
	case held:
		return "ok", false
	default:
		return "**missed**", true
	}
}
