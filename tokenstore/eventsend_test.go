package tokenstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

func TestEventsEnd(t *testing.T) {
	s := memstore.New()
	for n := range uint64(70) {
		got, err := tokenstore.EventsEnd(t.Context(), s)
		if want := tokenstore.EventCursor(n); err != nil || got != want {
			t.Fatalf("EventsEnd() of %d events = %q, %v; want %q", n, got, err, want)
		}
		if err := s.AppendEvents(t.Context(), tokenstore.Event{Type: tokenstore.EventActive}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tokenstore.EventsEnd(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("EventsEnd() of a store that fails: %v", err)
	}
}
