package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func engineOf(dir string) *engine {
	var e *engine
	engines.Range(func(key, value any) bool {
		if key == dir {
			e = value.(*engine)
		}
		return true
	})
	return e
}

// IntegrationsInForce returns the names of the integrations that the engine of
// a directory asks now, and whether there is such an engine.
func IntegrationsInForce(dir string) (names string, ok bool) {
	e := engineOf(dir)
	if e == nil {
		return "", false
	}
	in := e.current.Load()
	return strings.Join(slices.Sorted(maps.Keys(in.settings.integrations)), " "), true
}

// EnginesInUse returns how many engines there are.
func EnginesInUse() (n int) {
	engines.Range(func(any, any) bool { n++; return true })
	return n
}

// EngineLogger returns the logger of the engine of a directory.
func EngineLogger(dir string) *zap.Logger { return engineOf(dir).logger }

// Happen writes an event into the audit log of the engine of a directory.
func Happen(ctx context.Context, dir string, e tokenstore.Event) error {
	return engineOf(dir).store.AppendEvents(ctx, e)
}

// UpstreamsOf returns how a provisioned Proxy reaches the providers.
func UpstreamsOf(h caddyhttp.MiddlewareHandler) http.RoundTripper { return h.(*Proxy).upstreams }

// HeaderTimeout returns how long an upstream may take for the head of an answer.
func HeaderTimeout(h caddyhttp.MiddlewareHandler) time.Duration {
	return h.(*Proxy).upstreams.public.ResponseHeaderTimeout
}

// RekeyCommand begins a rekey at url as the command does, and waits for its end
// until nothing has moved for still.
func RekeyCommand(ctx context.Context, url string, still time.Duration) error {
	c := apiClient{url: url}
	if err := c.prepare(); err != nil {
		return err
	}
	_, err := c.rekey(ctx, still)
	return err
}

// PrintList prints connections, given as the API's JSON, as `list` does on a
// terminal of a width; 0: on none.
func PrintList(w io.Writer, width int, color bool, connections ...string) error {
	p := printer{out: w, width: width, color: color}
	var rows [][]cell
	for _, raw := range connections {
		var c cliConnection
		if err := json.Unmarshal([]byte(raw), &c); err != nil {
			return err
		}
		rows = append(rows, c.row())
	}
	return p.table(listColumns...).rows(rows)
}

// Doctor runs the command `lanyard doctor` and returns what it prints.
func Doctor(ctx context.Context, args ...string) (string, error) {
	var out strings.Builder
	cmd := doctorCommand() //nolint:contextcheck // it gets its context below
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true // as finish does
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

// Upstreams returns what says where the connections of a provisioned App lead.
func Upstreams(app caddy.App) func(g *tokenstore.Grant) (up *proxy.Upstream, reason string) {
	return apisOf(app.(*App).settings).of
}

// FewUpstreams is Upstreams, but remembers only so many connections.
func FewUpstreams(app caddy.App, most int) func(g *tokenstore.Grant) (up *proxy.Upstream, reason string) {
	a := apisOf(app.(*App).settings)
	a.most = most
	return a.of
}

// IntegrationOf returns what the API knows of an integration of a provisioned
// App, and where it sends browsers.
func IntegrationOf(app caddy.App, name string) (in api.Integration, authorizeURL string, err error) {
	i := app.(*App).settings.integrations[name]
	authorizeURL, err = i.AuthorizeURL(context.Background(), secret.New("state"), secret.New(strings.Repeat("v", 43)), nil)
	return i.forAPI(), authorizeURL, err
}

// Providers runs the command `lanyard providers` and returns what it prints, and
// what it says beside that.
func Providers(ctx context.Context, args ...string) (out, said string, err error) {
	var result, talk strings.Builder
	cmd := providersCommand() //nolint:contextcheck // it gets its context below
	cmd.SetArgs(args)
	cmd.SetOut(&result)
	cmd.SetErr(&talk)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true // as finish does
	err = cmd.ExecuteContext(ctx)
	return result.String(), talk.String(), err
}

// IntegrationBlock returns the block for the Caddyfile that `lanyard providers` shows.
func IntegrationBlock(name string) string {
	e, _ := provider.Lookup(name)
	return integrationBlock(name, &e)
}

// NextStep returns what an error advises.
func NextStep(err error) string {
	a, _ := errors.AsType[advised](err)
	return a.next
}

// KeepAPIs has n goroutines remember each so many APIs of connections where there
// is room for most. It returns how many are kept, and how many it thinks there are.
func KeepAPIs(most, n, each int) (kept, counted int) {
	a := apis{most: most, bound: new(sync.Map), count: new(atomic.Int64)}
	var wg sync.WaitGroup
	for g := range n {
		wg.Go(func() {
			for i := range each {
				a.keep(fmt.Sprint(g, "-", i), &boundAPI{})
			}
		})
	}
	wg.Wait()
	a.bound.Range(func(any, any) bool { kept++; return true })
	return kept, int(a.count.Load())
}

// CollectorOf returns what shows Prometheus the metrics of a provisioned App.
func CollectorOf(app caddy.App) prometheus.Collector { return app.(*App).collector }

// MetricLines returns the lines of the table of metrics in docs/operations.md.
func MetricLines() (lines []string) {
	for _, m := range allMetrics {
		kind := map[prometheus.ValueType]string{histogram: "histogram", counter: "counter", gauge: "gauge"}[m.kind]
		labels := ""
		for i, l := range m.labels {
			if i > 0 {
				labels += ", "
			}
			labels += "`" + l + "`"
		}
		lines = append(lines, fmt.Sprintf("| `%s` | %s | %s | %s |", m.name, kind, labels, m.help))
	}
	return lines
}
