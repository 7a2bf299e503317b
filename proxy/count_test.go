package proxy_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// answers is a transport that answers with statuses, one after the other; 0 is an
// upstream that can't be reached.
type answers []int

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	status := (*a)[0]
	*a = (*a)[1:]
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("x")), Request: r}, nil
}

// TestCallsAreCountedAndTraced: each call is counted once, by what came of it, and
// one that went upstream has a span, which names nobody.
func TestCallsAreCountedAndTraced(t *testing.T) {
	set := metrics.NewSet()
	set.Know("acme")
	api, err := url.Parse("https://api.test")
	if err != nil {
		t.Fatal(err)
	}
	up := &proxy.Upstream{Integration: "acme", API: api, Header: "Authorization", Prefix: "Bearer "}
	grants := newGrants()
	upstream := &answers{200, 401, 204, 503, 0, 302}
	cfg := proxy.Config{
		Grants: grants, Clients: []proxy.Client{{Key: guard.Key{Name: "app", Value: secret.New(clientKey)}}},
		Upstream:  func(*tokenstore.Grant) (*proxy.Upstream, string) { return up, "" },
		Transport: upstream, Metrics: set,
	}
	h, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := proxy.NewTransport(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rec := tracetest.NewSpanRecorder()
	tracer := trace.NewTracerProvider(trace.WithSpanProcessor(rec)).Tracer("test")
	request := func(id string) *http.Request {
		ctx, _ := tracer.Start(t.Context(), "request")
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/user?secret=query", nil)
		r.Header.Set("Lanyard-Key", clientKey)
		r.Header.Set("Connection-Id", id)
		return r
	}
	for _, id := range []string{connID, connID, connID, connID, otherID} { // 200, 401 and then 204, 503, none, refused
		h.ServeHTTP(httptest.NewRecorder(), request(id))
	}
	out := request(connID)
	out.URL = api.JoinPath("user")
	res, err := rt.RoundTrip(out)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()

	want := map[string]uint64{"2xx": 2, "3xx": 1, "5xx": 1, "upstream_unreachable": 1}
	if diff := cmp.Diff(want, some(set.Of("acme").Calls)); diff != "" {
		t.Errorf("calls (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(map[string]uint64{"connection_not_found": 1}, some(set.Of(metrics.Other).Calls)); diff != "" {
		t.Errorf("calls of no integration (-want +got)\n%s", diff)
	}
	if n, _, _ := set.Of("acme").Added.Read(); n != 5 {
		t.Errorf("%d calls went upstream, want 5", n)
	}
	var spans []string
	for _, s := range rec.Ended() {
		text := s.Name()
		for _, a := range s.Attributes() {
			text += " " + string(a.Key) + "=" + a.Value.String()
		}
		spans = append(spans, text)
		if !s.Parent().IsValid() {
			t.Errorf("%s is below no request", text)
		}
	}
	const of = "lanyard.call lanyard.integration=acme "
	wantSpans := []string{
		of + "http.response.status_code=200 lanyard.generation=1 lanyard.outcome=2xx",
		of + "http.response.status_code=204 lanyard.generation=2 lanyard.outcome=2xx",
		of + "http.response.status_code=503 lanyard.generation=2 lanyard.outcome=5xx",
		of + "lanyard.generation=2 lanyard.outcome=upstream_unreachable",
		of + "http.response.status_code=302 lanyard.generation=2 lanyard.outcome=3xx",
	}
	if diff := cmp.Diff(wantSpans, spans); diff != "" {
		t.Errorf("spans (-want +got)\n%s", diff)
	}
}

// some returns what there were any of.
func some(c *metrics.Counts) map[string]uint64 {
	all := maps.Collect(c.All())
	maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	return all
}
