// Package spans tells OpenTelemetry what Lanyard does for a request that is being
// traced, which is one whose context carries a span, as Caddy's `tracing` puts it
// there. For any other request it costs one look into the context.
//
// A span says of which integration it is, how it ended, and which generation of
// the token came of it. It never holds a secret, a URL, nor a connection's or a
// user's ID.
package spans

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracer is the name of the instrumentation.
const tracer = "github.com/lanyard-proxy/lanyard"

// The names of the spans.
const (
	Call    = "lanyard.call"    // a request to a provider's API, to the head of its answer
	Connect = "lanyard.connect" // the exchange of what a connect flow brought for a credential
	Refresh = "lanyard.refresh" // the renewal of a token
)

// Span is one that has begun. The zero Span is that of a request which is not
// traced: its methods do nothing.
type Span struct{ span trace.Span }

// Start begins a span below the one that ctx carries.
func Start(ctx context.Context, name, integration string) Span {
	above := trace.SpanFromContext(ctx)
	if !above.IsRecording() {
		return Span{}
	}
	_, span := above.TracerProvider().Tracer(tracer).Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("lanyard.integration", integration)))
	return Span{span}
}

// Origin is the request that has something begin which outlives it.
type Origin struct{ span trace.Span }

// From returns the request that ctx is of. The zero Origin is one that is not
// traced.
func From(ctx context.Context) Origin {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return Origin{span}
	}
	return Origin{}
}

// Start begins a span of its own trace that is linked to the request's.
func (o Origin) Start(name, integration string) Span {
	if o.span == nil {
		return Span{}
	}
	_, span := o.span.TracerProvider().Tracer(tracer).Start(context.Background(), name, trace.WithNewRoot(),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(trace.Link{SpanContext: o.span.SpanContext()}),
		trace.WithAttributes(attribute.String("lanyard.integration", integration)))
	return Span{span}
}

// Status says what status the other side has answered with.
func (s Span) Status(status int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
}

// Generation says which generation of the token came of it.
func (s Span) Generation(n uint64) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int64("lanyard.generation", int64(n))) //nolint:gosec // never that many
	}
}

// End ends the span with its outcome, one of a few words.
func (s Span) End(outcome string, failed bool) {
	if s.span == nil {
		return
	}
	s.span.SetAttributes(attribute.String("lanyard.outcome", outcome))
	if failed {
		s.span.SetStatus(codes.Error, outcome)
	}
	s.span.End()
}
