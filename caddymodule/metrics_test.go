package caddymodule_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-proxy/lanyard/caddymodule"
)

// series returns what a configuration shows Prometheus: name and labels → value,
// or the count of a histogram.
func series(t *testing.T, in *instance) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(caddymodule.CollectorOf(in.app))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

const openProxy = `{"open": true}`

// TestMetricsSurviveReloads: each configuration has a registry of its own, and the
// counts are the engine's.
func TestMetricsSurviveReloads(t *testing.T) {
	dir := t.TempDir()
	proxy := map[string]string{"lanyard_proxy": openProxy}
	first := started(t, config(dir, github), proxy)
	call := func(in *instance) {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/user", nil)
		r.Header.Set("Connection-Id", "conn_none")
		in.serve("lanyard_proxy", r)
	}
	const refused = "lanyard_calls_total other key_required"
	call(first)
	call(first)
	if n := series(t, first)[refused]; n != 2 {
		t.Fatalf("%v calls are counted: %v", n, series(t, first))
	}
	second := started(t, config(dir, github), proxy)
	call(second)
	for name, in := range map[string]*instance{"old": first, "new": second} {
		if n := series(t, in)[refused]; n != 3 {
			t.Errorf("the %s configuration shows %v calls, want 3", name, n)
		}
	}
	first.end()
	if left := series(t, first); len(left) > 0 {
		t.Errorf("a configuration that has gone shows %v", left)
	}
	call(second)
	if n := series(t, second)[refused]; n != 4 {
		t.Errorf("%v calls are counted, want 4", n)
	}
	second.end()
	third := started(t, config(dir, github), proxy)
	if n := series(t, third)[refused]; n != 0 {
		t.Errorf("another engine begins with %v", n)
	}
}

// TestMetricsAreBounded: what a caller makes up becomes no series.
func TestMetricsAreBounded(t *testing.T) {
	in := started(t, config(t.TempDir(), github), map[string]string{"lanyard_proxy": openProxy})
	count := func() int {
		n := 0
		for name := range series(t, in) {
			if strings.HasPrefix(name, "lanyard_calls_total") {
				n++
			}
		}
		return n
	}
	call := func(i int) {
		r := httptest.NewRequest(http.MethodGet, fmt.Sprintf("http://localhost/made-up-%d/%d?x=%d", i, i, i), nil)
		r.RemoteAddr = "127.0.0.1:1234"
		r.Header.Set("Connection-Id", fmt.Sprintf("conn_%d", i))
		r.Header.Set("User-Id", fmt.Sprintf("made-up-%d", i))
		in.serve("lanyard_proxy", r)
	}
	call(0)
	before := count()
	for i := range 10_000 {
		call(i)
	}
	if after := count(); after != before {
		t.Errorf("there were %d series, and are %d", before, after)
	}
}

func TestMetricsAreDocumented(t *testing.T) {
	doc := read(t, "../docs/operations.md")
	table := doc[strings.Index(doc, "\n## Metrics\n"):strings.Index(doc, "\n## Alerts\n")]
	var want []string
	for _, line := range caddymodule.MetricLines() {
		want = append(want, line)
		if !strings.Contains(table, line+"\n") {
			t.Errorf("docs/operations.md lacks the line\n%s", line)
		}
	}
	for line := range strings.Lines(table) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "| `lanyard_") && !slices.Contains(want, line) {
			t.Errorf("docs/operations.md has a metric that there is not:\n%s", line)
		}
	}
}
