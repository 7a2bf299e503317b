package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// scraped are the series of Lanyard's own at one time: name with labels, as
// Prometheus is shown them.
type scraped map[string]float64

// scrape reads the metrics as Prometheus does.
func (w *world) scrape() scraped {
	w.t.Helper()
	status, text, err := w.admin(w.ctx(), "/metrics")
	if err != nil || status != http.StatusOK {
		w.t.Fatalf("metrics: HTTP %d, %v", status, err)
	}
	s := scraped{}
	for line := range strings.Lines(string(text)) {
		i := strings.LastIndexByte(line, ' ') // label values may have spaces
		if !strings.HasPrefix(line, "lanyard_") {
			continue
		}
		name, value := line[:i], strings.TrimSpace(line[i+1:])
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			w.t.Errorf("%q: %v", line, err)
		}
		if _, twice := s[name]; twice {
			w.t.Errorf("%s is there twice", name)
		}
		s[name] = v
	}
	return s
}

// wants checks values.
func (s scraped) wants(want map[string]float64) error {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got, ok := s[name]; !ok || got != want[name] {
			return fmt.Errorf("%s is %v (there: %t), want %v", name, got, ok, want[name])
		}
	}
	return nil
}

var (
	usedMetric = regexp.MustCompile(`\b(lanyard_[a-z_]+)(\{[^}]*\})?`)
	usedLabel  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	usedBy     = regexp.MustCompile(`\bby \(([a-z_, ]*)\)`)
	labelOf    = regexp.MustCompile(`([a-z_]+)="`)
)

// queries returns the PromQL of what is deployed beside Lanyard.
func queries(t *testing.T) (all []string) {
	t.Helper()
	dashboard, err := os.ReadFile("../../deploy/grafana/lanyard-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if expr, ok := v["expr"].(string); ok {
				all = append(all, expr)
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	var parsed any
	if err := json.Unmarshal(dashboard, &parsed); err != nil {
		t.Fatal(err)
	}
	walk(parsed)
	alerts, err := os.ReadFile("../../deploy/prometheus/lanyard-alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(alerts)) {
		if _, expr, ok := strings.Cut(line, " expr: "); ok {
			all = append(all, strings.TrimSpace(expr))
		}
	}
	if len(all) < 30 {
		t.Fatalf("there are %d queries", len(all))
	}
	return all
}

// wantQueriesAnswered checks that all that the dashboard and the alerts name is in
// a scrape: metrics, labels and their values.
func wantQueriesAnswered(t *testing.T, s scraped) {
	t.Helper()
	labels := map[string]map[string]bool{} // :: metric → its labels
	for series := range s {
		name, rest, _ := strings.Cut(series, "{")
		if labels[name] == nil {
			labels[name] = map[string]bool{"instance": true, "job": true} // Prometheus's own
		}
		for _, m := range labelOf.FindAllStringSubmatch(rest, -1) {
			labels[name][m[1]] = true
		}
	}
	// What comes with a database alone. Its test is where there is one.
	labels["lanyard_database_connections"] = map[string]bool{"state": true, "instance": true}
	labels["lanyard_database_connections_max"] = map[string]bool{"instance": true}
	words := slices.Concat(metrics.CallOutcomes, metrics.RefreshResults, metrics.FlowOutcomes, metrics.WebhookResults, []string{"in_use", "idle"})
	for _, status := range tokenstore.Statuses {
		words = append(words, string(status))
	}
	for _, q := range queries(t) {
		var by []string
		for _, m := range usedBy.FindAllStringSubmatch(q, -1) {
			by = append(by, strings.Split(m[1], ", ")...)
		}
		for _, m := range usedMetric.FindAllStringSubmatch(q, -1) {
			has, ok := labels[m[1]]
			if !ok {
				t.Errorf("no scrape has %s: %s", m[1], q)
				continue
			}
			for _, l := range usedLabel.FindAllStringSubmatch(m[2], -1) {
				if !has[l[1]] {
					t.Errorf("%s has no label %s: %s", m[1], l[1], q)
				}
				for word := range strings.SplitSeq(l[2], "|") {
					if !strings.HasPrefix(word, "$") && !slices.Contains(words, word) {
						t.Errorf("%s never has %s=%q: %s", m[1], l[1], word, q)
					}
				}
			}
			for _, l := range by {
				if !has[l] {
					t.Errorf("%s has no label %s: %s", m[1], l, q)
				}
			}
		}
	}
}

// TestMetrics goes through a script and counts along.
func TestMetrics(t *testing.T) {
	hooks := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(hooks.Close)
	w := newWorld(t, func(w *world, _ *fakeprovider.Config) {
		w.site.Extra = fmt.Sprintf("webhook %s/hooks {\n secret %s\n events connection.revoked\n}", hooks.URL, webhookSecret)
	})
	id := w.connect("u1")
	browser := newBrowser(t)
	denied, err := fakeprovider.Deny(t.Context(), browser, w.open(browser, w.begin("u2").ConnectURL))
	if err != nil {
		t.Fatal(err)
	}
	w.finish(browser, denied)
	w.fake.Faults.Token(fakeprovider.Field("refresh_token", nil))
	ending := w.connect("u3")
	revoked := w.connect("u4")
	dead := w.connect("u5")
	w.api(http.MethodPost, "/v1/connections/"+revoked+"/revoke", nil, nil)
	for _, call := range []string{id, id, id, ending} {
		w.wantWorks(call)
	}
	w.call("conn_nobodys", "/me")
	w.call(revoked, "/me")
	w.mustRefresh(&member{id: id, told: 1})
	w.fake.Faults.Token(fakeprovider.InvalidGrant().OnRefresh())
	w.api(http.MethodPost, "/v1/connections/"+dead+"/refresh", nil, nil)

	want := map[string]float64{
		`lanyard_calls_total{integration="fake",outcome="2xx"}`:                   4,
		`lanyard_calls_total{integration="fake",outcome="5xx"}`:                   0,
		`lanyard_calls_total{integration="fake",outcome="reconnect_required"}`:    1,
		`lanyard_calls_total{integration="other",outcome="connection_not_found"}`: 1,
		`lanyard_call_added_seconds_count{integration="fake"}`:                    4,
		`lanyard_refreshes_total{integration="fake",result="ok"}`:                 1,
		`lanyard_refreshes_total{integration="fake",result="dead"}`:               1,
		`lanyard_refreshes_total{integration="fake",result="unknown"}`:            0,
		`lanyard_refresh_duration_seconds_count{integration="fake"}`:              2,
		`lanyard_flows_total{integration="fake",outcome="connected"}`:             4,
		`lanyard_flows_total{integration="fake",outcome="user_denied"}`:           1,
		`lanyard_webhooks_total{result="taken"}`:                                  1,
		`lanyard_connections{integration="fake",status="ACTIVE"}`:                 3,
		`lanyard_connections{integration="fake",status="FAILED"}`:                 1,
		`lanyard_connections{integration="fake",status="REVOKED"}`:                1,
		`lanyard_connections_ending_soon{integration="fake"}`:                     2, // without a refresh token, and with a dead one
		`lanyard_unsaved_answers`:                                                 0,
		`lanyard_store_up`:                                                        1,
		`lanyard_refresh_waiters_total{integration="fake"}`:                       0,
	}
	w.eventually("all is counted", func() error { return w.scrape().wants(want) })
	wantQueriesAnswered(t, w.scrape())

	w.in(t, "A153 no metric has a label that strangers choose", func(t *testing.T) {
		before := w.scrape()
		w.knock(10_000)
		after := w.scrape()
		if fresh := len(after) - len(before); fresh > 2 { // the codes that the answers have
			t.Errorf("made-up names have brought %d more series", fresh)
		}
		for series := range after {
			if strings.Contains(series, "made-up") || strings.Contains(series, "conn_") || strings.Contains(series, "u1") {
				t.Errorf("there is %s", series)
			}
		}
		if n := after[`lanyard_calls_total{integration="other",outcome="connection_not_found"}`]; n < 1000 {
			t.Errorf("%v of the calls were counted", n)
		}
	})
	w.in(t, "metrics survive reloads", func(t *testing.T) {
		before := w.scrape()
		for range 3 {
			if err := w.reload(); err != nil {
				t.Fatal(err)
			}
		}
		after := w.scrape()
		for series, n := range before {
			name, _, _ := strings.Cut(series, "{")
			if got, ok := after[series]; !ok || strings.HasSuffix(name, "_total") && got < n {
				t.Errorf("%s was %v and is %v (there: %t) after reloads", series, n, got, ok)
			}
		}
		delete(want, `lanyard_calls_total{integration="other",outcome="connection_not_found"}`)
		if err := after.wants(want); err != nil {
			t.Error(err)
		}
	})
}

// knock makes calls with n names that there are not.
func (w *world) knock(n int) {
	w.t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for part := range 8 {
		all.Go(func() {
			for i := part; i < n; i += 8 {
				req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.proxyURL(fmt.Sprintf("/made-up/%d?made-up=%d", i, i)), nil)
				if err != nil {
					w.t.Error(err)
					return
				}
				req.Header.Set("Authorization", fmt.Sprintf("Bearer %s.conn_madeup%d", w.clientKey, i))
				req.Header.Set(fmt.Sprint("Made-Up-", i), "made-up")
				if i%10 == 0 {
					req.Header.Set("User-Id", fmt.Sprint("made-up-", i))
				}
				res, err := client.Do(req)
				if err != nil {
					w.t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	all.Wait()
}

var alertName = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)

// TestAlertsHaveRunbooks: whoever is called finds what to do; and where Prometheus
// is installed, its own tool reads the rules.
func TestAlertsHaveRunbooks(t *testing.T) {
	alerts, err := os.ReadFile("../../deploy/prometheus/lanyard-alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range alertName.FindAllSubmatch(alerts, -1) {
		if !strings.Contains(string(doc), "| `"+string(m[1])+"` |") {
			t.Errorf("docs/operations.md has no line for %s", m[1])
		}
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", "../../deploy/prometheus/lanyard-alerts.yml").CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	}
}
