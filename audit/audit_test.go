package audit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/audit"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

func refusal(from string) tokenstore.Event {
	return tokenstore.Event{
		Type: tokenstore.EventKeyRefused, Actor: tokenstore.Actor{From: from}, Reason: "api",
	}
}

func written(t *testing.T, store *memstore.Store) []tokenstore.Event {
	t.Helper()
	events, _, err := store.ListEvents(t.Context(), tokenstore.EventFilter{}, "", 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestRecordIsWrittenWhenItReturns(t *testing.T) {
	store := memstore.New()
	log := audit.New(store, zap.NewNop())
	defer log.Close()
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	used := tokenstore.Event{
		Type: tokenstore.EventUsed, ConnectionID: "conn_1", Integration: "acme", UserID: "u1",
		Actor: tokenstore.Actor{Kind: tokenstore.ActorClient, Name: "app", From: "192.0.2.1"},
	}
	if err := log.Record(gone, used); err != nil {
		t.Fatalf("Record(caller has hung up) = %v", err)
	}
	got := written(t, store)
	if len(got) != 1 || got[0].At.IsZero() {
		t.Fatalf("events = %+v, want one with its time", got)
	}
	used.Seq, used.At = 1, got[0].At
	if diff := cmp.Diff(used, got[0]); diff != "" {
		t.Errorf("event (-want +got)\n%s", diff)
	}
	store.FailWrites(fmt.Errorf("disk: %w", tokenstore.ErrUnavailable))
	if err := log.Record(t.Context(), used); !errors.Is(err, tokenstore.ErrUnavailable) {
		t.Errorf("Record(store out) = %v, want ErrUnavailable", err)
	}
}

// slowStore takes two seconds for each write.
type slowStore struct{ *memstore.Store }

func (s slowStore) AppendEvents(ctx context.Context, events ...tokenstore.Event) error {
	time.Sleep(2 * time.Second)
	return s.Store.AppendEvents(ctx, events...)
}

// TestAUseWaitsForTheStoreAMoment: a slow store delays no call much, and loses no
// line.
func TestAUseWaitsForTheStoreAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		quick, slow := audit.New(store, zap.NewNop()), audit.New(slowStore{store}, zap.NewNop())
		used := tokenstore.Event{Type: tokenstore.EventUsed, ConnectionID: "conn_1"}
		lost := 0
		quick.Used(t.Context(), used, func() { lost++ })
		if n := len(written(t, store)); n != 1 {
			t.Errorf("%d lines after a use, want 1", n)
		}
		start := time.Now()
		slow.Used(t.Context(), used, func() { lost++ })
		if waited := time.Since(start); waited > time.Second {
			t.Errorf("a call waited %v for a slow store", waited)
		}
		store.FailWrites(tokenstore.ErrFull)
		quick.Used(t.Context(), used, func() { lost++ })
		store.FailWrites(nil)
		quick.Close()
		slow.Close()
		if n := len(written(t, store)); n != 2 {
			t.Errorf("%d lines after Close, want 2", n)
		}
		if lost != 1 {
			t.Errorf("%d lines were told to be lost, want the one that could not be written", lost)
		}
	})
}

func TestRefusalsAreWrittenWithinABudgetAndCountedBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		log := audit.New(store, zap.NewNop())
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		log.Refused(gone, refusal("192.0.2.1"))
		if got := written(t, store); len(got) != 1 || !got[0].Denied {
			t.Fatalf("events after the first refusal = %+v, want it, denied", got)
		}
		for i := range 999 {
			e := refusal("192.0.2.1")
			e.ConnectionID = fmt.Sprint("conn_", i)
			log.Refused(t.Context(), e)
		}
		if n := len(written(t, store)); n != 100 {
			t.Fatalf("%d lines of 1000 refusals at once, want 100", n)
		}
		log.Refused(t.Context(), refusal("192.0.2.2")) // a neighbour's still gets its line
		time.Sleep(time.Second)
		log.Refused(t.Context(), refusal("192.0.2.1")) // one a second
		log.Refused(t.Context(), refusal("192.0.2.1"))
		if n := len(written(t, store)); n != 102 {
			t.Fatalf("%d lines, want 102", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		all := written(t, store)
		want := refusal("192.0.2.1")
		want.Seq, want.At, want.Denied, want.Count = 103, all[len(all)-1].At, true, 901
		if diff := cmp.Diff(want, all[len(all)-1]); diff != "" {
			t.Errorf("the line that counts (-want +got)\n%s", diff)
		}
		time.Sleep(time.Hour)
		if n := len(written(t, store)); n != 103 {
			t.Errorf("%d lines an hour later, want 103: nothing more happened", n)
		}
		for range 101 {
			log.Refused(t.Context(), refusal("192.0.2.1"))
		}
		log.Close()
		all = written(t, store)
		if last := all[len(all)-1]; len(all) != 204 || last.Count != 1 {
			t.Errorf("after Close %d lines, the last counts %d; want 204 and 1", len(all), last.Count)
		}
	})
}

func TestManySendersStayBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		log := audit.New(store, zap.NewNop())
		const senders = 5000
		for i := range senders {
			log.Refused(t.Context(), refusal(fmt.Sprintf("10.0.%d.%d", i/256, i%256)))
		}
		if n := len(written(t, store)); n > 400 {
			t.Errorf("%d lines at once from many senders, want at most 400", n)
		}
		log.Close()
		all := written(t, store)
		var told uint64
		for _, e := range all {
			told += max(e.Count, 1)
		}
		if told != senders {
			t.Errorf("the lines tell of %d refusals, want %d", told, senders)
		}
		if n := len(all); n > 400+32+1 {
			t.Errorf("%d lines in all", n)
		}
	})
}

func TestOneIPv6NetworkIsOneSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		log := audit.New(store, zap.NewNop())
		defer log.Close()
		for i := range 300 {
			log.Refused(t.Context(), refusal(fmt.Sprintf("2001:db8::%x", i)))
		}
		if n := len(written(t, store)); n != 100 {
			t.Errorf("%d lines for one network, want 100", n)
		}
	})
}

func TestAStoreThatCantWriteRefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		core, logs := observer.New(zap.InfoLevel)
		log := audit.New(store, zap.New(core))
		store.FailWrites(fmt.Errorf("disk: %w", tokenstore.ErrUnavailable))
		for range 50 {
			log.Refused(t.Context(), refusal("192.0.2.1"))
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := logs.Len(); n != 1 {
			t.Errorf("%d lines in the program's log, want one", n)
		}
		store.FailWrites(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		all := written(t, store)
		if len(all) != 1 || all[0].Count != 50 {
			t.Errorf("events = %+v, want one that counts 50", all)
		}
		log.Close()
	})
}

func TestTextsOfRefusalsAreBounded(t *testing.T) {
	store := memstore.New()
	log := audit.New(store, zap.NewNop())
	defer log.Close()
	e := refusal(strings.Repeat("x", 100_000))
	e.ConnectionID = strings.Repeat("é", 100_000)
	log.Refused(t.Context(), e)
	got := written(t, store)[0]
	if n := len(got.ConnectionID) + len(got.Actor.From); n > 1024 || !strings.HasPrefix(got.ConnectionID, "éé") {
		t.Errorf("texts of %d bytes were written", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	store := memstore.New()
	log := audit.New(store, zap.NewNop())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				log.Refused(t.Context(), refusal("192.0.2.1"))
			}
		})
	}
	wg.Wait()
	log.Close()
	var told uint64
	for _, e := range written(t, store) {
		told += max(e.Count, 1)
	}
	if told != 800 {
		t.Errorf("the lines tell of %d refusals, want 800", told)
	}
}
