package revoke_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// process is one of several on a store. Once it is dead it changes nothing there.
type process struct {
	memstore.Shared
	dead, cut atomic.Bool // cut: from the leases alone
}

var errGone = errors.New("gone")

func (p *process) RenewLease(ctx context.Context, name, owner string, life time.Duration) error {
	if p.dead.Load() || p.cut.Load() {
		return errGone
	}
	return p.Shared.RenewLease(ctx, name, owner, life)
}

func (p *process) DropLease(ctx context.Context, name, owner string) error {
	if p.dead.Load() || p.cut.Load() {
		return errGone
	}
	return p.Shared.DropLease(ctx, name, owner)
}

func (p *process) TakeLease(ctx context.Context, name, owner string, life time.Duration) error {
	if p.dead.Load() {
		return errGone
	}
	return p.Shared.TakeLease(ctx, name, owner, life)
}

func (p *process) DeleteNote(ctx context.Context, id string) error {
	if p.dead.Load() {
		return errGone
	}
	return p.Shared.DeleteNote(ctx, id)
}

// twoSidecars returns two on one store, each with a provider of its own.
func twoSidecars(t *testing.T) (one, two *bench, first *process) {
	t.Helper()
	mem := memstore.New()
	first = &process{Shared: memstore.Shared{Store: mem}}
	one = &bench{t: t, store: mem, provider: &fakeProvider{}}
	one.start(first)
	two = &bench{t: t, store: mem, provider: &fakeProvider{}}
	two.start(&process{Shared: memstore.Shared{Store: mem}})
	return one, two, first
}

// recovers takes up what is there, as the engine does twice a minute.
func (b *bench) recovers() {
	b.t.Helper()
	if err := b.Recover(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// TestRevocationsOfALiveSidecar: what one sidecar has to make is left to it by
// the others while it lives.
func TestRevocationsOfALiveSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, _ := twoSidecars(t)
		one.provider.answer(errDown)
		one.revoke(one.put(active("a")).ID)
		for range 10 {
			time.Sleep(30 * time.Second)
			two.recovers()
			one.recovers()
		}
		two.wantLedger("")
		one.provider.answer(nil)
		time.Sleep(time.Hour)
		if one.notes() != 0 {
			t.Error("its note is left")
		}
	})
}

// TestRevocationsOfADeadSidecar: what a sidecar that was killed had to make is
// made by one of the others within a minute, and if that one dies too by the next.
func TestRevocationsOfADeadSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, first := twoSidecars(t)
		one.provider.answer(errDown)
		one.revoke(one.put(active("a")).ID)
		first.dead.Store(true)
		two.recovers()
		two.wantLedger("")
		time.Sleep(20 * time.Second)
		two.provider.answer(errDown)
		two.recovers()
		synctest.Wait()
		two.wantLedger("at-a")
		// The one that has taken it up ends.
		three := &bench{t: t, store: two.store, provider: &fakeProvider{}}
		three.start(memstore.Shared{Store: two.store})
		three.recovers()
		synctest.Wait()
		three.wantLedger("")
		two.Close()
		three.recovers()
		synctest.Wait()
		three.wantLedger("at-a")
		if two.notes() != 0 {
			t.Error("its note is left")
		}
	})
}

// TestRevocationsOfALostRun: a sidecar whose lease has ended, since it stood still
// or was cut off, leaves what it had noted to whoever takes it up, and goes on
// under another name.
func TestRevocationsOfALostRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, first := twoSidecars(t)
		one.provider.answer(errDown)
		one.revoke(one.put(active("a")).ID)
		first.cut.Store(true)
		time.Sleep(20 * time.Second)
		two.recovers()
		synctest.Wait()
		two.wantLedger("at-a")
		tried := one.provider.ledger()
		first.cut.Store(false)
		one.recovers()
		time.Sleep(time.Hour)
		one.wantLedger(tried)
		// What it notes now is its own.
		one.revoke(one.put(active("b"), user("u2")).ID)
		two.recovers()
		synctest.Wait()
		two.wantLedger("at-a")
	})
}

// TestLate: what a renewal brings after another sidecar has revoked the
// connection is revoked, but not what is a connection's.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, _ := twoSidecars(t)
		c := one.put(active("a"))
		two.provider.single = true // else siblings would be spared anyway
		token := tokenstore.Token{AccessToken: secret.New("at-late")}
		two.Late(c, token) // another has stored it
		synctest.Wait()
		two.wantLedger("")
		one.revoke(c.ID)
		two.Late(c, token)
		synctest.Wait()
		two.wantLedger("at-late")
		one.provider.answer(errDown)
		two.provider.answer(errDown)
		d := one.put(active("d"), user("u2"))
		if _, _, err := one.Delete(t.Context(), d.ID, tokenstore.Actor{}, false); err != nil {
			t.Fatal(err)
		}
		two.Late(d, token)
		synctest.Wait()
		if two.notes() != 1 {
			t.Errorf("%d notes", two.notes())
		}
	})
}
