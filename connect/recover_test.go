package connect_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestRecover(t *testing.T) {
	take := func(b *bench, c *tokenstore.Connection) string {
		b.t.Helper()
		var change []func(*connect.Params)
		if c != nil {
			change = append(change, onConnection(*c))
		}
		state := b.browser().open(b.link(change...))
		_, err := b.store.UpdateFlow(b.t.Context(), secret.New(state).Hash(), func(f *tokenstore.Flow) error { return f.Take() })
		if err != nil {
			b.t.Fatal(err)
		}
		return state
	}
	answer := func(b *bench, state string) {
		_, err := b.store.UpdateFlow(b.t.Context(), secret.New(state).Hash(), func(f *tokenstore.Flow) error {
			f.Answer = &tokenstore.Answer{Status: 200, Body: secret.New("recovered")}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	b := newBench(t)
	c := b.begun()
	unanswered, unansweredBegun := take(b, nil), take(b, &c)
	answered := take(b, nil)
	answer(b, answered)
	written := take(b, nil) // the crash came between the connection and the end of the flow
	answer(b, written)
	f := b.flow(written)
	b.create(tokenstore.Connection{ID: f.ConnectionID, Status: tokenstore.StatusInitiated, LastFlow: f.ID, Name: "as written"})

	for range 2 { // a second time changes nothing
		if err := b.h.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, state := range []string{unanswered, unansweredBegun} {
			if got := b.flow(state); got.Outcome != "source_error" {
				t.Errorf("flow without an answer is %+v", got)
			}
		}
		if got := b.connection(c.ID); got.Status != tokenstore.StatusFailed || got.StatusReason != "source_error" {
			t.Errorf("begun connection is %s %s", got.Status, got.StatusReason)
		}
		got := b.connection(b.flow(answered).ConnectionID)
		if got.Staged == nil || got.Staged.Token.AccessToken.Reveal() != "recovered" || got.Revision != 1 {
			t.Errorf("connection of the answered flow is %+v", got)
		}
		if got := b.connection(f.ConnectionID); got.Revision != 1 || got.Name != "as written" || b.flow(written).Outcome != "connected" {
			t.Errorf("connection that was written is %+v", got)
		}
	}
	if b.p.exchanged() != 0 {
		t.Errorf("%d exchanges, want none", b.p.exchanged())
	}
	wantPage(t, b.browser().callback(unanswered), 400, "state_used")

	// An answer that says no, and one of an integration that is gone.
	refused := take(b, nil)
	answer(b, refused)
	b.p.parseErr = &tokenstore.RefusalError{Kind: tokenstore.RefusedGrant}
	if err := b.h.Recover(t.Context()); err != nil || b.flow(refused).Outcome != "source_error" {
		t.Errorf("Recover() = %v, flow %+v", err, b.flow(refused))
	}
	gone := take(b, nil)
	answer(b, gone)
	b.cfg.Integrations = nil
	b.remake()
	if err := b.h.Recover(t.Context()); err != nil || b.flow(gone).Answer == nil {
		t.Errorf("Recover() = %v, flow %+v: want it kept", err, b.flow(gone))
	}
}

// TestRecoverBesideCallbacks: what is under way is not interrupted.
func TestRecoverBesideCallbacks(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	state := br.open(b.link())
	name, value := br.cookie()
	b.p.exchange = func(ctx context.Context) (tokenstore.Answer, error) {
		second := b.browser()
		second.jar[name] = value
		wantPage(t, second.callback(state), 400, "state_used")
		return tokenstore.Answer{Status: 200, Body: secret.New("t")}, b.h.Recover(ctx)
	}
	wantApp(t, br.callback(state), "")
	if c := b.connections(); len(c) != 1 || c[0].Staged == nil {
		t.Errorf("connections = %+v", c)
	}
}

// lateStore runs a function after it has listed the taken flows.
type lateStore struct {
	tokenstore.Store
	then func()
}

func (s lateStore) TakenFlows(ctx context.Context) ([]tokenstore.Flow, error) {
	flows, err := s.Store.TakenFlows(ctx)
	s.then()
	return flows, err
}

// TestRecoverComesLate: the first outcome of a flow stands.
func TestRecoverComesLate(t *testing.T) {
	b := newBench(t)
	state := b.browser().open(b.link())
	id := secretHash(state)
	change := func(f func(*tokenstore.Flow)) {
		if _, err := b.mem.UpdateFlow(t.Context(), id, func(fl *tokenstore.Flow) error { f(fl); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	change(func(f *tokenstore.Flow) { f.Stage = tokenstore.FlowTaken })
	b.store = lateStore{b.mem, func() { change(func(f *tokenstore.Flow) { f.Finish("connected") }) }}
	b.remake()
	if err := b.h.Recover(t.Context()); err != nil || b.flow(state).Outcome != "connected" {
		t.Errorf("Recover() = %v, flow %+v", err, b.flow(state))
	}
}

func TestLapse(t *testing.T) {
	staged := func(until time.Duration) *tokenstore.Staged {
		return &tokenstore.Staged{Token: live("staged"), Until: time.Now().Add(until)}
	}
	initiated, active := tokenstore.StatusInitiated, tokenstore.StatusActive
	tests := []struct {
		name   string
		c      tokenstore.Connection
		status tokenstore.Status
		reason string
		left   bool // the staged credential stays
		revoke bool
	}{
		{name: "unclaimed", c: tokenstore.Connection{Status: initiated, Staged: staged(-time.Second)}, status: "FAILED", reason: "timeout", revoke: true},
		{name: "not due", c: tokenstore.Connection{Status: initiated, Staged: staged(time.Minute)}, status: "INITIATED", left: true},
		{name: "never connected", c: tokenstore.Connection{Status: initiated, InitiatedUntil: time.Now().Add(-time.Second)}, status: "FAILED", reason: "timeout"},
		{name: "not yet connected", c: tokenstore.Connection{Status: initiated, InitiatedUntil: time.Now().Add(time.Minute)}, status: "INITIATED"},
		{name: "waits for completion past the link's end", c: tokenstore.Connection{
			Status: initiated, InitiatedUntil: time.Now().Add(-time.Second), Staged: staged(time.Minute),
		}, status: "INITIATED", left: true},
		{name: "live beside it", c: tokenstore.Connection{Status: active, Token: live("live"), Staged: staged(-time.Second)}, status: "ACTIVE", revoke: true},
		{name: "nothing waits", c: tokenstore.Connection{Status: active, Token: live("live")}, status: "ACTIVE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			c := b.create(tt.c)
			for range 2 {
				if err := b.h.Lapse(t.Context(), c.ID); err != nil {
					t.Fatal(err)
				}
			}
			got := b.connection(c.ID)
			if got.Status != tt.status || got.StatusReason != tt.reason || (got.Staged != nil) != tt.left {
				t.Errorf("connection is %+v", got)
			}
			if revoked := len(b.p.revoked) == 1; revoked != tt.revoke || len(b.p.revoked) > 1 {
				t.Errorf("revoked %v", b.p.revoked)
			}
			if got.Token.AccessToken.Reveal() != tt.c.Token.AccessToken.Reveal() {
				t.Error("live credential changed")
			}
		})
	}
	if err := newBench(t).h.Lapse(t.Context(), tokenstore.NewID()); err != nil {
		t.Errorf("Lapse() of an unknown connection = %v", err)
	}
}

// Two programs may end the same flow for a moment, during reloads. What one of
// them made a connection of, the other does not revoke.
func TestRecoverSparesALiveCredential(t *testing.T) {
	b := newBench(t, noCompletion)
	state := b.browser().open(b.link())
	f, err := b.store.UpdateFlow(t.Context(), secretHash(state), func(f *tokenstore.Flow) error {
		f.Answer = &tokenstore.Answer{Status: 200, Body: secret.New("recovered"), ReceivedAt: time.Now()}
		return f.Take()
	})
	if err != nil {
		t.Fatal(err)
	}
	b.p.account = func() (tokenstore.Account, error) { // the other one is through meanwhile
		b.create(tokenstore.Connection{ID: f.ConnectionID, Status: tokenstore.StatusActive, Token: live("recovered"), LastFlow: f.ID})
		return tokenstore.Account{}, needed(tokenstore.ErrCredentialRefused)
	}
	if err := b.h.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.p.revoked) != 0 || b.connection(f.ConnectionID).Status != tokenstore.StatusActive {
		t.Errorf("revoked %v", b.p.revoked)
	}
}

// What an interrupted flow brought does not take the place of what the user has
// connected since: the app has that one's completion code.
func TestRecoverSparesANewerCredential(t *testing.T) {
	b := newBench(t)
	state := b.browser().open(b.link())
	f, err := b.store.UpdateFlow(t.Context(), secretHash(state), func(f *tokenstore.Flow) error {
		f.Answer = &tokenstore.Answer{Status: 200, Body: secret.New("recovered"), ReceivedAt: time.Now().Add(-time.Minute)}
		return f.Take()
	})
	if err != nil {
		t.Fatal(err)
	}
	b.create(tokenstore.Connection{ID: f.ConnectionID, Status: tokenstore.StatusInitiated, Staged: &tokenstore.Staged{
		Token: live("newer"), FlowID: "newer", CodeHash: "hash", Until: time.Now().Add(tokenstore.CompletionLife),
	}})
	if err := b.h.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := b.connection(f.ConnectionID).Staged; st == nil || st.FlowID != "newer" {
		t.Errorf("staged is %+v", st)
	}
	if len(b.p.revoked) != 1 {
		t.Errorf("revoked %v, want what the interrupted flow brought", b.p.revoked)
	}
}

// Just after boot the network may not be up. What the code brought is not thrown
// away for it, and comes in once the account can be asked for: by this Handler,
// or by the one that follows it. What will not pass ends the flow as ever.
func TestRecoverWaitsForTheAccount(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		down    time.Duration // how long the trouble lasts
		again   bool          // a connection with a known account is connected again
		reload  bool
		outcome string
	}{
		"needed":             {err: needed(tokenstore.ErrNotSent), down: 10 * time.Minute, outcome: "connected"},
		"limited":            {err: needed(&tokenstore.RefusalError{Kind: tokenstore.RefusedForNow}), down: time.Minute, outcome: "connected"},
		"whose it is":        {err: tokenstore.ErrOutcomeUnknown, down: time.Minute, again: true, outcome: "connected"},
		"across a reload":    {err: needed(tokenstore.ErrNotSent), down: 10 * time.Minute, reload: true, outcome: "connected"},
		"refused":            {err: needed(tokenstore.ErrCredentialRefused), down: time.Minute, outcome: "source_error"},
		"longer than a flow": {err: needed(tokenstore.ErrNotSent), down: 100 * time.Hour, outcome: "source_error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, noCompletion)
				var change []func(*connect.Params)
				if tt.again {
					change = append(change, onConnection(b.create(tokenstore.Connection{Status: tokenstore.StatusActive, Token: live("old"), Account: ada})))
				}
				state := b.browser().open(b.link(change...))
				began := time.Now()
				_, err := b.store.UpdateFlow(t.Context(), secretHash(state), func(f *tokenstore.Flow) error {
					f.Answer = &tokenstore.Answer{Status: 200, Body: secret.New("recovered"), ReceivedAt: began.Add(-time.Minute)}
					return f.Take()
				})
				if err != nil {
					t.Fatal(err)
				}
				b.p.account = func() (tokenstore.Account, error) {
					if time.Since(began) < tt.down {
						return tokenstore.Account{}, tt.err
					}
					return ada, nil
				}
				if err := b.h.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				if held := tt.outcome == "connected"; held && (b.flow(state).Answer == nil || len(b.p.revoked) != 0) {
					t.Errorf("after the first try: flow %+v, revoked %v", b.flow(state), b.p.revoked)
				}
				if tt.reload {
					if err := b.h.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					b.remake()
					if err := b.h.Resume(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				// A flow is kept for 24 hours and 10 minutes, and is ended before that.
				time.Sleep(min(tt.down+2*time.Minute, 24*time.Hour+9*time.Minute+30*time.Second))
				synctest.Wait()
				f := b.flow(state)
				if f.Outcome != tt.outcome {
					t.Fatalf("flow %+v", f)
				}
				if tt.outcome != "connected" {
					if len(b.p.revoked) != 1 || len(b.connections()) != 0 {
						t.Errorf("revoked %v, connections %+v", b.p.revoked, b.connections())
					}
				} else if c := b.connection(f.ConnectionID); c.Token.AccessToken.Reveal() != "recovered" || len(b.p.revoked) != 0 {
					t.Errorf("connection %+v, revoked %v", c, b.p.revoked)
				}
				if err := b.h.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
