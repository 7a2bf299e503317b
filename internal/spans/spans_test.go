package spans_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/lanyard-proxy/lanyard/internal/spans"
)

func TestSpans(t *testing.T) {
	rec := tracetest.NewSpanRecorder()
	ctx, request := trace.NewTracerProvider(trace.WithSpanProcessor(rec)).Tracer("test").Start(t.Context(), "request")
	call := spans.Start(ctx, spans.Call, "acme")
	call.Status(502)
	call.End("5xx", true)
	renewal := spans.From(ctx).Start(spans.Refresh, "acme")
	request.End()
	renewal.Generation(7)
	renewal.End("ok", false)

	type seen struct {
		Name, Status  string
		Below, Linked bool // to the request
		Attributes    map[string]string
	}
	var got []seen
	for _, s := range rec.Ended() {
		one := seen{Name: s.Name(), Status: s.Status().Code.String(), Attributes: map[string]string{}}
		one.Below = s.Parent().SpanID() == request.SpanContext().SpanID() && s.Parent().TraceID() == request.SpanContext().TraceID()
		for _, l := range s.Links() {
			one.Linked = one.Linked || l.SpanContext.Equal(request.SpanContext())
		}
		for _, a := range s.Attributes() {
			one.Attributes[string(a.Key)] = a.Value.String()
		}
		got = append(got, one)
	}
	want := []seen{
		{"lanyard.call", "Error", true, false, map[string]string{
			"lanyard.integration": "acme", "lanyard.outcome": "5xx", "http.response.status_code": "502",
		}},
		{"request", "Unset", false, false, map[string]string{}},
		{"lanyard.refresh", "Unset", false, true, map[string]string{
			"lanyard.integration": "acme", "lanyard.outcome": "ok", "lanyard.generation": "7",
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNotTracedCostsNothing(t *testing.T) {
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() {
		s := spans.Start(ctx, spans.Call, "acme")
		s.Status(200)
		s.End("2xx", false)
		s = spans.From(ctx).Start(spans.Refresh, "acme")
		s.Generation(1)
		s.End("ok", false)
	}); n != 0 {
		t.Errorf("a request that is not traced allocates %v times", n)
	}
}
