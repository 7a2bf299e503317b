package refresh_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// faultyStore takes its time, counts what is read, and fails the updates that
// it is told to.
type faultyStore struct {
	*memstore.Store
	read, write time.Duration      // what it takes
	fails       func(nth int) bool // the nth update, from 1 on; may be nil

	reads   atomic.Int64
	updates atomic.Int64
}

func (s *faultyStore) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	s.reads.Add(1)
	time.Sleep(s.read)
	return s.Store.Connection(ctx, id)
}

func (s *faultyStore) UpdateConnection(
	ctx context.Context, id string, change func(*tokenstore.Connection) error,
) (tokenstore.Connection, error) {
	nth := int(s.updates.Add(1))
	time.Sleep(s.write)
	if s.fails != nil && s.fails(nth) {
		return tokenstore.Connection{}, tokenstore.ErrUnavailable
	}
	return s.Store.UpdateConnection(ctx, id, change)
}

func isUnavailable(err error) bool {
	_, ok := errors.AsType[*tokenstore.UnavailableError](err)
	return ok
}

// A token whose answer is stored serves, though the token itself can't be.
func TestTokenThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, -time.Minute, newEndpoint())
		var mended atomic.Bool
		f.over(&faultyStore{Store: f.store, fails: func(nth int) bool { return nth > 2 && !mended.Load() }}, nil)
		time.AfterFunc(time.Minute, func() { mended.Store(true) })
		start := time.Now()
		for range 10 {
			if err := f.call(f.ids[0]); err != nil {
				t.Errorf("the new token is in hand, and a call failed: %v", err)
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); d > 12*time.Second {
			t.Errorf("the calls waited for the store: %s", d)
		}
		time.Sleep(time.Minute)
		c, err := f.store.Connection(t.Context(), f.ids[0])
		if err != nil || c.Token.Generation != 2 || c.Intent != nil || f.end.requests() != 1 {
			t.Errorf("soon after the store can write: generation %d, intent %v, %d requests, %v",
				c.Token.Generation, c.Intent, f.end.requests(), err)
		}
	})
}

// A token that can't be stored serves to its end, and no longer.
func TestUnstoredTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.delay = time.Second
		f := newFleet(t, 1, -time.Minute, end)
		go func() { _ = f.call(f.ids[0]) }()
		time.Sleep(end.delay / 2)
		f.store.FailWrites(tokenstore.ErrUnavailable)
		time.Sleep(end.delay)
		if err := f.call(f.ids[0]); err != nil {
			t.Errorf("call: %v", err)
		}
		time.Sleep(2 * tokenLife)
		if err := f.call(f.ids[0]); !isUnavailable(err) {
			t.Errorf("call after its end: %v, want an *UnavailableError", err)
		}
		f.store.FailWrites(nil)
		time.Sleep(10 * time.Second)
		if err := f.call(f.ids[0]); err != nil {
			t.Errorf("call once the store can write: %v", err)
		}
	})
}

// After an unknown outcome the refresh token is not sent again while the access
// token serves, though the store could not note the outcome.
func TestUnknownOutcomeThatCannotBeNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := &faultyStore{Store: r.store, fails: func(nth int) bool { return nth == 2 }}
		r.Refresher = refresh.New(refresh.Config{
			Store: s, Logger: zap.NewNop(), Provider: func(string, map[string]string) (refresh.Provider, bool) { return r.prov, true },
		})
		r.prov.script = []step{{sendErr: unknown()}}
		time.Sleep(tokenLife - 4*time.Minute)
		for range 3 * 60 {
			r.wantToken("at-0")
			r.resolve()
			time.Sleep(time.Second)
		}
		r.wantCalls("rt-0")
		time.Sleep(time.Minute)
		r.wantToken("at-new-2")
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Who revokes a connection while its renewed token waits to be stored gets that
// token, too: it is in nobody else's hands.
func TestRevokedBeforeTheTokenIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, -time.Minute, newEndpoint())
		f.over(&faultyStore{Store: f.store, fails: func(nth int) bool { return nth == 3 }}, nil)
		if err := f.call(f.ids[0]); err != nil {
			t.Fatal(err)
		}
		late := f.Late(f.ids[0])
		if late == nil {
			t.Fatal("Late() = nil with a token that is not stored yet")
		}
		_, err := f.Store().UpdateConnection(t.Context(), f.ids[0], func(c *tokenstore.Connection) error { c.Revoke(); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if tok, came := late(t.Context()); !came || tok.RefreshToken.Reveal() != "rt-0+" {
			t.Errorf("late token = %v, %s; want rt-0+", came, tok.RefreshToken.Reveal())
		}
	})
}

// A store that can write again shortly before Close's patience ends loses no
// answer: each is tried once more.
func TestCloseTriesTheStoreOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := newEndpoint()
		end.interval, end.delay = 0, time.Second
		end.concurrency = 100
		f := newFleet(t, 100, -time.Minute, end)
		var wg sync.WaitGroup
		for _, id := range f.ids {
			wg.Go(func() { _ = f.call(id) })
		}
		time.Sleep(end.delay / 2)
		f.store.FailWrites(tokenstore.ErrFull)
		time.AfterFunc(24*time.Second, func() { f.store.FailWrites(nil) })
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		_ = f.Close(ctx)
		wg.Wait()
		lost := 0
		for _, id := range f.ids {
			c, err := f.store.Connection(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if c.Token.Generation == 1 && (c.Intent == nil || c.Intent.Answer == nil) {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%d of %d answers lost, with a store that could write in the last second", lost, len(f.ids))
		}
	})
}

// A call whose token an API has refused, while the outcome of a renewal is open
// that the run before had begun, is told to come again: it takes no turn after
// turn until the time of the next try.
func TestRefusedWhileAnOutcomeIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, 4*time.Minute, newEndpoint()) // in the soft margin: the token is due
		s := &faultyStore{Store: f.store}
		f.over(s, nil)
		_, err := f.store.UpdateConnection(t.Context(), f.ids[0], func(c *tokenstore.Connection) error {
			c.Intent = &tokenstore.Intent{
				RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, Unknown: 4,
				StartedAt: time.Now(), Deadline: c.Token.HardAt(),
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = f.Renew(t.Context(), f.ids[0], 1)
		if n := s.reads.Load(); n > 3 {
			t.Errorf("Renew() = %v, %d reads of the store in %s", err, n, time.Since(start))
		}
	})
}
