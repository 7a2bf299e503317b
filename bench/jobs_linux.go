package main

import "strings"

// The paths of the upstream; the number of a connection follows.
const (
	pathSmall  = "/small/"
	pathBig    = "/big/"
	pathUpload = "/upload/"
	pathSSE    = "/sse/"
)

// The programs, as the tables name them.
const (
	programLanyard = "Lanyard"
	programStock   = "stock Caddy"
	programTuned   = "stock Caddy, larger pool"
	programNginx   = "nginx"
	programDirect  = "no proxy"
)

// upstreamName is in the upstream's certificate.
const upstreamName = "localhost"

// An upstreamKind is how a proxy speaks to the upstream.
type upstreamKind string

const (
	plain    upstreamKind = "plain"
	tlsHTTP1 upstreamKind = "TLS, HTTP/1.1"
	tlsHTTP2 upstreamKind = "TLS, HTTP/2"
)

func (k upstreamKind) scheme() string {
	if k == plain {
		return "http"
	}
	return "https"
}

// A metric is something measured.
type metric string

const (
	metricRate     metric = "rate"
	metricCPU      metric = "CPU" // per 100,000 requests, or per GB
	metricP50      metric = "p50"
	metricP99      metric = "p99"
	metricAdded    metric = "added p50"
	metricRSSIdle  metric = "RSS idle"
	metricAnonIdle metric = "anonymous idle"
	metricRSS      metric = "RSS"
	metricAnon     metric = "anonymous"
)

// A column is a metric in a table.
type column struct {
	metric metric
	head   string
	digits int
	ratio  bool // followed by the ratio to stock Caddy
}

// A job is what is done with each program in turns.
type job struct {
	name, title string
	about       string // what is done, for the reader of the table
	prefix      string // the path that is asked for
	upstreams   []upstreamKind
	programs    []string
	columns     []column
	h2c         bool // the client speaks HTTP/2 without TLS
	run         runner
}

var (
	everyUpstream = []upstreamKind{plain, tlsHTTP1, tlsHTTP2}
	bodyColumns   = []column{
		{metric: metricRate, head: "MB/s", ratio: true},
		{metric: metricCPU, head: "CPU-s per GB", digits: 2, ratio: true},
	}
)

const latencyFigures = "Microseconds from when a request was due until its answer had been read; *added* is what the median is above that without a proxy."

var (
	latencyPrograms = []string{programLanyard, programStock, programNginx, programDirect}
	latencyColumns  = []column{
		{metric: metricP50, head: "median"},
		{metric: metricP99, head: "99th percentile"},
		{metric: metricAdded, head: "added", ratio: true},
	}
)

// jobs are what can be measured, in the order of the report.
var jobs = []*job{
	{
		name: "requests", prefix: pathSmall, title: "Requests", upstreams: everyUpstream, run: runSmall,
		about:    "GET with 5 headers and an answer of 999 bytes, 64 at a time (`wrk -t2 -c64`).",
		programs: []string{programLanyard, programStock, programTuned, programNginx, programDirect},
		columns: []column{
			{metric: metricRate, head: "requests/s", ratio: true},
			{metric: metricCPU, head: "CPU-s per 100,000", digits: 1, ratio: true},
		},
	},
	{
		name: "h2c", prefix: pathSmall, title: "Clients that speak HTTP/2", upstreams: []upstreamKind{plain}, h2c: true, run: runH2C,
		about:    "The same over HTTP/2 without TLS to the proxy: 8 client connections with 8 requests at a time each (`h2load`), all for one connection of Lanyard's.",
		programs: []string{programLanyard, programStock, programNginx},
		columns: []column{
			{metric: metricRate, head: "requests/s", ratio: true},
			{metric: metricCPU, head: "CPU-s per 100,000", digits: 1, ratio: true},
		},
	},
	{
		name: "latency", prefix: pathSmall, title: "Latency, 4,000 requests a second", upstreams: []upstreamKind{plain}, run: latencyAt(highRate),
		about:    "The same request 4,000 times a second, whether or not the last one was answered. That is about a third of what stock Caddy can do on two processors. " + latencyFigures,
		programs: latencyPrograms, columns: latencyColumns,
	},
	{
		name: "latency1000", prefix: pathSmall, title: "Latency, 1,000 requests a second", upstreams: everyUpstream, run: latencyAt(lowRate),
		about: "Here each program sleeps before every request, and most of what it adds is how long the machine takes to wake it, which is the same for all " +
			"that are made of the same server. " + latencyFigures,
		programs: latencyPrograms, columns: latencyColumns,
	},
	{
		name: "download", prefix: pathBig, title: "1 MB down", upstreams: everyUpstream, run: runDownload,
		about:    "GET with an answer of 1 MiB, 8 at a time.",
		programs: []string{programLanyard, programStock, programNginx}, columns: bodyColumns,
	},
	{
		name: "upload", prefix: pathUpload, title: "10 MB up", upstreams: everyUpstream, run: runUpload,
		about:    "POST with a body of 10 MiB, 4 at a time.",
		programs: []string{programLanyard, programStock, programNginx}, columns: bodyColumns,
	},
	{
		name: "sse", prefix: pathSSE, title: "Server-sent events", upstreams: everyUpstream, run: runSSE,
		about:    "Microseconds from the request to the first byte of the first event, one stream at a time.",
		programs: []string{programLanyard, programStock, programNginx},
		columns:  []column{{metric: metricP50, head: "median", ratio: true}, {metric: metricP99, head: "99th percentile"}},
	},
}

// own reports whether this program is the upstream, not nginx.
func (j *job) own() bool { return j.prefix == pathUpload || j.prefix == pathSSE }

// takesPart reports whether a program can do a job with such an upstream.
func takesPart(program string, j *job, kind upstreamKind) bool {
	switch {
	case kind != tlsHTTP2:
		return true
	case program == programNginx: // its proxy_pass speaks HTTP/1 only
		return false
	case program == programTuned: // one connection has all requests
		return false
	case program == programDirect: // wrk speaks HTTP/1 only
		return strings.HasPrefix(j.name, "latency")
	}
	return true
}
