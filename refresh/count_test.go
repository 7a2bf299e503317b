package refresh_test

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// counted is a rig whose renewals are counted.
func counted(t *testing.T, change ...func(*tokenstore.Connection)) (*rig, *metrics.Integration) {
	t.Helper()
	r := newRig(t, change...)
	set := metrics.NewSet()
	set.Know("acme")
	r.Refresher = refresh.New(refresh.Config{
		Store: r.store, Logger: zap.NewNop(), Metrics: set,
		Provider: func(string, map[string]string) (refresh.Provider, bool) { return r.prov, true },
	})
	ref := r.Refresher
	t.Cleanup(func() { _ = ref.Close(t.Context()) })
	return r, set.Of("acme")
}

// TestRenewalsAreCounted: each request for a token counts once, by what came of it.
func TestRenewalsAreCounted(t *testing.T) {
	refused := &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow, Code: "slow_down", Status: 429}
	client := &tokenstore.RefusalError{Kind: tokenstore.RefusedClient, Code: "invalid_client", Status: 401}
	for want, does := range map[string]step{
		metrics.RefreshOK:      {},
		metrics.RefreshDead:    {parse: invalidGrant()},
		metrics.RefreshRefused: {parse: refused},
		metrics.RefreshClient:  {parse: client},
		metrics.RefreshNotSent: {sendErr: fmt.Errorf("no route: %w", tokenstore.ErrNotSent)},
		metrics.RefreshUnknown: {sendErr: unknown()},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, counts := counted(t)
				r.prov.delay, r.prov.script = 300*time.Millisecond, []step{does}
				_ = r.Refresh(t.Context(), r.id, operator) // its outcome is what is counted
				synctest.Wait()
				got := maps.Collect(counts.Refreshes.All())
				maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
				if diff := cmp.Diff(map[string]uint64{want: 1}, got); diff != "" {
					t.Error(diff)
				}
				if n, sum, _ := counts.RefreshTime.Read(); n != 1 || sum < 300*time.Millisecond {
					t.Errorf("the provider was asked %d times, for %v", n, sum)
				}
				if n := counts.Waiters.Load(); n != 0 {
					t.Errorf("%d waited for another's", n)
				}
			})
		})
	}
}

// TestWaitersAreCounted: of those who wait for one renewal, one began it.
func TestWaitersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, counts := counted(t)
		r.prov.delay = time.Second
		time.Sleep(tokenLife + time.Minute)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, err := r.token(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := counts.Waiters.Load(); n != 9 {
			t.Errorf("%d waited for another's renewal, want 9", n)
		}
	})
}

// TestRenewalsAreTraced: a renewal outlives the request that had it begin, so it has
// a trace of its own, linked to that. One without a request has none.
func TestRenewalsAreTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := counted(t)
		rec := tracetest.NewSpanRecorder()
		ctx, request := trace.NewTracerProvider(trace.WithSpanProcessor(rec)).Tracer("test").Start(t.Context(), "request")
		if err := r.Refresh(ctx, r.id, operator); err != nil {
			t.Fatal(err)
		}
		if err := r.Refresh(t.Context(), r.id, operator); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ended := rec.Ended()
		if len(ended) != 1 || ended[0].Name() != "lanyard.refresh" {
			t.Fatalf("%d spans have ended, want one", len(ended))
		}
		s := ended[0]
		if s.Parent().IsValid() || len(s.Links()) != 1 || !s.Links()[0].SpanContext.Equal(request.SpanContext()) {
			t.Errorf("the span is below %v, linked to %v", s.Parent(), s.Links())
		}
		got := map[string]string{}
		for _, a := range s.Attributes() {
			got[string(a.Key)] = a.Value.String()
		}
		want := map[string]string{"lanyard.integration": "acme", "lanyard.outcome": "ok", "lanyard.generation": "2"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestEndings: what nothing can renew is told of before it ends.
func TestEndings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := counted(t, func(c *tokenstore.Connection) { c.LoseRefreshToken(tokenstore.ReasonInvalidGrant) })
		if all := r.Endings(24 * time.Hour); len(all) > 0 {
			t.Errorf("nothing is in memory, and %v ends", all)
		}
		end := time.Now().Add(tokenLife)
		r.wantToken("at-0")
		for within, soon := range map[time.Duration]int{24 * time.Hour: 1, time.Minute: 0} {
			if got := r.Endings(within)["acme"]; !got.Next.Equal(end) || got.Soon != soon {
				t.Errorf("within %v: %+v, want %d, the next at %v", within, got, soon, end)
			}
		}
		time.Sleep(2 * tokenLife)
		if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
			t.Errorf("Token() error = %v", err)
		}
		if all := r.Endings(24 * time.Hour); len(all) > 0 {
			t.Errorf("it has ended, and %v does", all)
		}
	})
}
