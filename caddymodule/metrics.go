package caddymodule

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// metric is one that Prometheus is shown.
type metric struct {
	name   string
	kind   prometheus.ValueType // 0: histogram
	help   string
	labels []string
	desc   *prometheus.Desc
}

// allMetrics are all that there are. docs/operations.md has them, too.
var allMetrics []*metric

func newMetric(name string, kind prometheus.ValueType, help string, labels ...string) *metric {
	m := &metric{"lanyard_" + name, kind, help, labels, prometheus.NewDesc("lanyard_"+name, help, labels, nil)}
	allMetrics = append(allMetrics, m)
	return m
}

const (
	histogram = prometheus.ValueType(0)
	counter   = prometheus.CounterValue
	gauge     = prometheus.GaugeValue
)

var (
	metricCalls       = newMetric("calls_total", counter, "Proxied calls, by the class of the upstream's status or the code of Lanyard's own answer.", "integration", "outcome")
	metricAdded       = newMetric("call_added_seconds", histogram, "What a proxied call waited for Lanyard, a refresh included, before it went upstream.", "integration")
	metricRefreshes   = newMetric("refreshes_total", counter, "Requests for a new token, by what came of them.", "integration", "result")
	metricRefreshTime = newMetric("refresh_duration_seconds", histogram, "How long token endpoints took for their answers.", "integration")
	metricWaiters     = newMetric("refresh_waiters_total", counter, "Calls that waited for a refresh which another one had begun.", "integration")
	metricFlows       = newMetric("flows_total", counter, "Connect flows that ended, by outcome.", "integration", "outcome")
	metricWebhooks    = newMetric("webhooks_total", counter, "Requests to webhook endpoints, and events given up, by what came of them.", "result")
	metricConnections = newMetric("connections", gauge, "Connections by status.", "integration", "status")
	metricCountedAt   = newMetric("connections_counted_timestamp_seconds", gauge, "When the connections were last counted.")
	metricEndingSoon  = newMetric("connections_ending_soon", gauge, "Connections used of late whose token ends within 24 hours, and that nothing can renew.", "integration")
	metricNextEnd     = newMetric("soonest_expiry_timestamp_seconds", gauge, "When the next of the tokens used of late ends that nothing can renew.", "integration")
	metricUnsaved     = newMetric("unsaved_answers", gauge, "Token answers in memory that the store could not write yet.")
	metricStoreUp     = newMetric("store_up", gauge, "Whether the store has answered within the last 15 seconds.")
	metricStoreSize   = newMetric("store_size_bytes", gauge, "What the store takes of its disk, or of its database.")
	metricStoreFree   = newMetric("store_free_bytes", gauge, "What is free on the store's disk.")
	metricStoreNeeds  = newMetric("store_reserved_bytes", gauge, "Where less than this is free, no account can be connected.")
	metricPool        = newMetric("database_connections", gauge, "Connections to the database.", "state")
	metricPoolMax     = newMetric("database_connections_max", gauge, "How many connections to the database there may be.")
)

// collector shows a configuration's registry what its engine has counted. Caddy
// makes a registry for each configuration; the engine and its counts outlive
// them.
type collector struct {
	settings *settings
	engine   atomic.Pointer[engine] // while it is held
}

// Describe implements prometheus.Collector.
func (*collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range allMetrics {
		to <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	e := c.engine.Load()
	if e == nil { // not started, or over
		return
	}
	integrations := slices.AppendSeq([]string{metrics.Other}, maps.Keys(c.settings.integrations))
	slices.Sort(integrations)
	for _, name := range slices.Compact(integrations) {
		collectIntegration(to, name, e.metrics.Of(name))
	}
	for result, n := range e.metrics.Webhooks.All() {
		metricWebhooks.send(to, float64(n), result)
	}
	metricUnsaved.send(to, float64(e.refresher.Unsaved()))
	up := 0.0
	if time.Since(time.Unix(0, e.storeSeen.Load())) < storeGone {
		up = 1
	}
	metricStoreUp.send(to, up)
	if p, ok := e.store.(tokenstore.Pooler); ok {
		pool := p.Pool()
		metricPool.send(to, float64(pool.InUse), "in_use")
		metricPool.send(to, float64(pool.Idle), "idle")
		metricPoolMax.send(to, float64(pool.Max))
	}
	if taken := e.census.Load(); taken != nil {
		taken.collect(to)
	}
}

func collectIntegration(to chan<- prometheus.Metric, name string, i *metrics.Integration) {
	for outcome, n := range i.Calls.All() {
		if n > 0 || len(outcome) == len("2xx") { // few of the others ever come
			metricCalls.send(to, float64(n), name, outcome)
		}
	}
	for result, n := range i.Refreshes.All() {
		metricRefreshes.send(to, float64(n), name, result)
	}
	for outcome, n := range i.Flows.All() {
		metricFlows.send(to, float64(n), name, outcome)
	}
	metricWaiters.send(to, float64(i.Waiters.Load()), name)
	metricAdded.sendAll(to, i.Added, name)
	metricRefreshTime.sendAll(to, i.RefreshTime, name)
}

func (m *metric) send(to chan<- prometheus.Metric, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

func (m *metric) sendAll(to chan<- prometheus.Metric, h *metrics.Histogram, labels ...string) {
	count, sum, within := h.Read()
	buckets := make(map[float64]uint64, len(within))
	for bound, n := range within {
		buckets[bound.Seconds()] = n
	}
	to <- prometheus.MustNewConstHistogram(m.desc, count, sum.Seconds(), buckets, labels...)
}
