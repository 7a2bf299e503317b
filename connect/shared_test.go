package connect_test

import (
	"context"
	"maps"
	"net/url"
	"slices"
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
	dead atomic.Bool
}

func (p *process) gone() error {
	if p.dead.Load() {
		return tokenstore.ErrUnavailable
	}
	return nil
}

func (p *process) TakeLease(ctx context.Context, name, owner string, life time.Duration) error {
	if err := p.gone(); err != nil {
		return err
	}
	return p.Shared.TakeLease(ctx, name, owner, life)
}

func (p *process) RenewLease(ctx context.Context, name, owner string, life time.Duration) error {
	if err := p.gone(); err != nil {
		return err
	}
	return p.Shared.RenewLease(ctx, name, owner, life)
}

func (p *process) DropLease(ctx context.Context, name, owner string) error {
	if err := p.gone(); err != nil {
		return err
	}
	return p.Shared.DropLease(ctx, name, owner)
}

func (p *process) UpdateFlow(ctx context.Context, id string, change func(*tokenstore.Flow) error) (tokenstore.Flow, error) {
	if err := p.gone(); err != nil {
		return tokenstore.Flow{}, err
	}
	return p.Shared.UpdateFlow(ctx, id, change)
}

func (p *process) UpdateConnection(ctx context.Context, id string, change func(*tokenstore.Connection) error) (tokenstore.Connection, error) {
	if err := p.gone(); err != nil {
		return tokenstore.Connection{}, err
	}
	return p.Shared.UpdateConnection(ctx, id, change)
}

func (p *process) DeleteNote(ctx context.Context, id string) error {
	if err := p.gone(); err != nil {
		return err
	}
	return p.Shared.DeleteNote(ctx, id)
}

// twoSidecars returns two benches on one store, made as newBench makes them.
func twoSidecars(t *testing.T, change ...func(*bench)) (one, two *bench) {
	t.Helper()
	mem := memstore.New()
	on := func(b *bench) { b.mem, b.store = mem, &process{Shared: memstore.Shared{Store: mem}} }
	return newBench(t, append(change, on)...), newBench(t, append(change, on)...)
}

func (b *bench) kill() { b.store.(*process).dead.Store(true) }

// keepRecovering recovers as the engine does on a shared store, until the bench
// is closed.
func (b *bench) keepRecovering() {
	b.t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if err := b.h.Recover(context.Background()); err != nil {
				b.t.Error(err)
			}
			select {
			case <-stop:
				return
			case <-time.After(30 * time.Second):
			}
		}
	}()
	b.t.Cleanup(func() {
		close(stop)
		<-done
		_ = b.h.Close(context.Background())
	})
}

// at returns the browser before another sidecar.
func (br *browser) at(b *bench) *browser { return &browser{b, br.jar} }

// TestCallbackAtAnotherSidecar: a flow ends wherever its browser comes to, with
// what was posted, too.
func TestCallbackAtAnotherSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := twoSidecars(t)
		br := one.browser()
		state := br.open(one.link())
		wantApp(t, br.at(two).callback(state), "")
		wantPage(t, br.callback(state), 400, "state_used")
		if one.p.exchanged()+two.p.exchanged() != 1 {
			t.Errorf("%d and %d exchanges", one.p.exchanged(), two.p.exchanged())
		}
		_ = two.h.Close(t.Context())
	})
}

// TestStartBesideAnExchange: a sidecar that starts does not end the exchange that
// is under way at another one, however long that takes.
func TestStartBesideAnExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := twoSidecars(t)
		br := one.browser()
		state := br.open(one.link())
		one.p.exchange = func(context.Context) (tokenstore.Answer, error) {
			time.Sleep(2 * time.Minute) // past the first life of its lease
			return tokenstore.Answer{Status: 200, Body: secret.New("t")}, nil
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			wantApp(t, br.callback(state), "")
		}()
		time.Sleep(time.Second)
		two.keepRecovering()
		<-answered
		if got := one.flow(state); got.Outcome != "connected" || len(one.p.revoked) > 0 {
			t.Errorf("flow %+v, revoked %v", got, one.p.revoked)
		}
		_ = one.h.Close(t.Context())
	})
}

// TestExchangeOfADeadSidecar: what was under way at a sidecar that was killed is
// ended by another within a minute: as failed, or with the answer that it had.
func TestExchangeOfADeadSidecar(t *testing.T) {
	for _, answered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			one, two := twoSidecars(t)
			br := one.browser()
			state := br.open(one.link())
			one.p.exchange = func(context.Context) (tokenstore.Answer, error) {
				if !answered {
					one.kill()
				}
				return tokenstore.Answer{Status: 200, Body: secret.New("t")}, nil
			}
			one.p.parsing = one.kill
			br.callback(state)
			two.keepRecovering()
			time.Sleep(25 * time.Second)
			if got := two.flow(state); got.Stage != tokenstore.FlowTaken {
				t.Errorf("after 25 seconds, while the lease lasts, the flow is %+v", got)
			}
			time.Sleep(36 * time.Second)
			want := map[bool]string{false: "source_error", true: "connected"}[answered]
			if got := two.flow(state); got.Outcome != want || one.p.exchanged()+two.p.exchanged() != 1 {
				t.Errorf("flow %+v, want %s", got, want)
			}
			_ = one.h.Close(t.Context())
		})
	}
}

// countPolls returns how often the provider was polled.
func (b *bench) countPolls() *atomic.Int32 {
	n, poll := new(atomic.Int32), b.p.poll
	b.p.poll = func() (tokenstore.Answer, error) {
		n.Add(1)
		return poll()
	}
	return n
}

// TestDeviceOfSeveralSidecars: one of them asks the provider, and when it is
// killed another.
func TestDeviceOfSeveralSidecars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := func(b *bench) {
			b.p.device = tokenstore.Device{
				Code: secret.New("device-canary"), UserCode: "WDJB-MJHT", VerificationURI: "https://idp.example/device", Life: 900, Interval: 5,
			}
		}
		one, two := twoSidecars(t, device)
		pending := slices.Repeat([]string{"authorization_pending"}, 100)
		one.p.answers(pending...)
		then := two.p.answers(pending[:12]...)
		polled, polledThen := one.countPolls(), two.countPolls()
		c := one.begun()
		if _, err := one.h.BeginDevice(t.Context(), c, nil); err != nil {
			t.Fatal(err)
		}
		two.keepRecovering()
		time.Sleep(51 * time.Second)
		if polled.Load() != 10 || polledThen.Load() != 0 {
			t.Errorf("polled %d times and, by the other, %d", polled.Load(), polledThen.Load())
		}
		one.kill()
		time.Sleep(time.Minute)
		if polledThen.Load() < 1 {
			t.Error("not taken up within a minute")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := two.connection(c.ID); got.Status != tokenstore.StatusActive || len(*then) != 13 {
			t.Errorf("connection is %s after polls at %v", got.Status, *then)
		}
		two.wantNoNotes()
		_ = one.h.Close(t.Context())
	})
}

// TestKeySentToTwoSidecars: of a form that is sent twice, to two of them, one is
// worked on after the other, and one credential is made.
func TestKeySentToTwoSidecars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := twoSidecars(t, withKeys)
		slow := func(map[string]string) (tokenstore.Token, tokenstore.Account, error) {
			time.Sleep(10 * time.Second)
			return tokenstore.Token{AccessToken: secret.New("k")}, tokenstore.Account{}, nil
		}
		one.p.credential, two.p.credential = slow, slow
		br := one.browser()
		f := br.form(br.get(one.link()), 200)
		again := form{&browser{two, maps.Clone(br.jar)}, f.action, url.Values{"state": f.values["state"]}}
		first := make(chan struct{})
		go func() {
			defer close(first)
			wantOnward(t, f.send("api_key", goodKey), "")
		}()
		time.Sleep(time.Second)
		wantPage(t, again.send("api_key", goodKey), 400, "state_used")
		<-first
		if one.p.tried()+two.p.tried() != 1 {
			t.Errorf("tried %d and %d times", one.p.tried(), two.p.tried())
		}
		_ = one.h.Close(t.Context())
	})
}

// listed is a store in which something happens after the taken flows were listed.
type listed struct {
	memstore.Shared
	then func()
}

func (s *listed) TakenFlows(ctx context.Context) ([]tokenstore.Flow, error) {
	flows, err := s.Shared.TakenFlows(ctx)
	s.then()
	return flows, err
}

// TestAnswerBetweenListAndLease: what a flow has got since it was listed counts.
func TestAnswerBetweenListAndLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memstore.New()
		s := &listed{Shared: memstore.Shared{Store: mem}}
		b := newBench(t, func(b *bench) { b.mem, b.store = mem, s })
		state := b.browser().open(b.link())
		change := func(change func(*tokenstore.Flow) error) {
			if _, err := mem.UpdateFlow(t.Context(), secretHash(state), change); err != nil {
				t.Fatal(err)
			}
		}
		change((*tokenstore.Flow).Take)
		s.then = func() {
			s.then = func() {}
			change(func(f *tokenstore.Flow) error {
				f.Answer = &tokenstore.Answer{Status: 200, Body: secret.New("t")}
				return nil
			})
		}
		if err := b.h.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.flow(state); got.Outcome != "connected" {
			t.Errorf("flow %+v", got)
		}
		_ = b.h.Close(t.Context())
	})
}
