package refresh_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestDeadRefreshToken(t *testing.T) {
	t.Run("access token over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{parse: invalidGrant()}}
			time.Sleep(tokenLife)
			for range 3 {
				if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
					t.Fatalf("Token() = %v, want ErrReconnect", err)
				}
			}
			r.wantCalls("rt-0")
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
			if c := r.connection(); !c.Token.AccessToken.IsZero() || !c.Token.RefreshToken.IsZero() {
				t.Error("the dead tokens are still kept")
			}
		})
	})
	t.Run("access token serves to its end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{parse: invalidGrant()}}
			time.Sleep(tokenLife - 2*time.Minute)
			r.wantToken("at-0")
			synctest.Wait()
			r.wantStatus(tokenstore.StatusActive, tokenstore.ReasonInvalidGrant)
			time.Sleep(2*time.Minute - time.Second)
			r.wantToken("at-0")
			time.Sleep(time.Second)
			if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("after its end: %v, want ErrReconnect", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
			r.wantCalls("rt-0")
		})
	})
	t.Run("access token refused too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{parse: invalidGrant()}}
			if _, err := r.Renew(t.Context(), r.id, 1); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("Renew() = %v, want ErrReconnect", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
		})
	})
	t.Run("found out by an operator, then refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			if _, err := r.Renew(t.Context(), r.id, 1); err != nil {
				t.Fatal(err)
			}
			r.prov.mu.Lock()
			r.prov.script = []step{{parse: invalidGrant()}}
			r.prov.mu.Unlock()
			if err := r.Refresh(t.Context(), r.id, operator); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Fatalf("Refresh() = %v, want ErrReconnect", err)
			}
			if _, err := r.Renew(t.Context(), r.id, 2); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("Renew() within a minute = %v, want ErrReconnect: nobody has to be asked", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
		})
	})
	t.Run("there was none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokenstore.Connection) { c.Token.RefreshToken = secret.String{} })
			if _, err := r.Renew(t.Context(), r.id, 1); !errors.Is(err, tokenstore.ErrNotRenewed) {
				t.Errorf("Renew() = %v, want ErrNotRenewed", err)
			}
			time.Sleep(tokenLife - time.Second)
			r.wantToken("at-0")
			time.Sleep(time.Second)
			if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("Token() = %v, want ErrReconnect", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonNoRefreshToken)
		})
	})
}

func TestUnknownOutcome(t *testing.T) {
	t.Run("waits for the hard margin, then works", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{sendErr: unknown()}}
			time.Sleep(tokenLife - 4*time.Minute)
			for range 23 {
				r.wantToken("at-0")
				time.Sleep(10 * time.Second)
			}
			r.wantCalls("rt-0")
			r.wantToken("at-new-2")
			r.wantCalls("rt-0", "rt-0")
			r.wantStatus(tokenstore.StatusActive, "")
			if c := r.connection(); c.Intent != nil {
				t.Error("the intent is still open")
			}
		})
	})
	t.Run("is tried again at once where there is a grace window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.grace = true
			r.prov.script = []step{{sendErr: unknown()}}
			time.Sleep(tokenLife - 4*time.Minute)
			r.wantToken("at-0")
			time.Sleep(2 * time.Second)
			r.wantToken("at-0")
			synctest.Wait()
			r.wantToken("at-new-2")
		})
	})
	t.Run("then dead is interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{sendErr: unknown()}, {parse: invalidGrant()}}
			time.Sleep(tokenLife)
			if _, err := r.token(t.Context()); err == nil {
				t.Fatal("a token after an unknown outcome")
			}
			r.wantStatus(tokenstore.StatusActive, "")
			time.Sleep(2 * time.Second)
			if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrReconnect) {
				t.Errorf("Token() = %v, want ErrReconnect", err)
			}
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonRefreshInterrupted)
		})
	})
	t.Run("a refused access token does not wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{sendErr: unknown()}}
			time.Sleep(tokenLife - 4*time.Minute)
			r.wantToken("at-0")
			time.Sleep(5 * time.Second)
			if g, err := r.Renew(t.Context(), r.id, 1); err != nil || g.Token.Generation != 2 {
				t.Errorf("Renew() = %+v, %v; want generation 2", g, err)
			}
		})
	})
}

func TestIntentAndAnswerAreStoredFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{hook: func(p *provider, rt string) {
			c, err := p.store.Connection(context.Background(), r.id)
			if err != nil || c.Intent == nil || c.Intent.RefreshTokenHash != secret.New(rt).Hash() {
				t.Errorf("while the request is under way: intent %+v, %v", c.Intent, err)
			}
		}}}
		time.Sleep(tokenLife)
		r.wantToken("at-new-1")
		if c := r.connection(); c.Intent != nil || c.Token.RefreshToken.Reveal() != "rt-new-1" || c.LastRefreshedAt.IsZero() {
			t.Errorf("stored: intent %v, generation %d", c.Intent, c.Token.Generation)
		}
	})
}

func TestNoIntentNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.wantToken("at-0")
		r.store.FailWrites(tokenstore.ErrUnavailable)
		time.Sleep(tokenLife)
		if _, err := r.token(t.Context()); !errors.Is(err, tokenstore.ErrUnavailable) {
			t.Errorf("Token() = %v, want the store's error", err)
		}
		r.wantCalls()
		r.store.FailWrites(nil)
		time.Sleep(2 * time.Second)
		r.wantToken("at-new-1")
	})
}

func TestAnswerThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{hook: func(*provider, string) { r.store.FailWrites(tokenstore.ErrUnavailable) }}}
		time.Sleep(tokenLife)
		for range 50 { // served from memory, the one exception
			r.wantToken("at-new-1")
			time.Sleep(time.Minute)
		}
		if r.Unsaved() != 1 {
			t.Errorf("Unsaved() = %d, want 1", r.Unsaved())
		}
		if _, err := r.Renew(t.Context(), r.id, 2); err == nil {
			t.Error("Renew() of the unstored token brought one: the provider was asked without an intent")
		}
		time.Sleep(30 * time.Minute) // it is over now, and nobody may ask for the next one
		r.wantCalls("rt-0")

		r.store.FailWrites(nil)
		time.Sleep(2 * time.Minute)
		if c := r.connection(); c.Token.RefreshToken.Reveal() != "rt-new-1" || r.Unsaved() != 0 {
			t.Errorf("once the store can write: generation %d, unsaved %d", c.Token.Generation, r.Unsaved())
		}
		r.wantToken("at-new-2")
		r.wantCalls("rt-0", "rt-new-1")
	})
	t.Run("nor its no", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.prov.script = []step{{parse: invalidGrant(), hook: func(*provider, string) { r.store.FailWrites(tokenstore.ErrUnavailable) }}, {parse: invalidGrant()}}
			time.Sleep(tokenLife)
			if _, err := r.token(t.Context()); err == nil {
				t.Error("a token from a refusal")
			}
			r.wantStatus(tokenstore.StatusActive, "")
			r.store.FailWrites(nil)
			time.Sleep(2 * time.Minute)
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonInvalidGrant)
			r.wantCalls("rt-0")
		})
	})
}

func TestRecover(t *testing.T) {
	t.Run("an answer that was kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokenstore.Connection) {
				c.Intent = &tokenstore.Intent{
					RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, StartedAt: time.Now(), Deadline: time.Now().Add(20 * time.Second),
					Answer: &tokenstore.Answer{Status: 200, SentAt: time.Now(), ReceivedAt: time.Now(), Body: secret.New("77")},
				}
			})
			if err := r.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			r.wantCalls()
			r.wantToken("at-new-77")
		})
	})
	t.Run("no answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokenstore.Connection) {
				c.Intent = &tokenstore.Intent{RefreshTokenHash: c.Token.RefreshToken.Hash(), Generation: 1, StartedAt: time.Now(), Deadline: time.Now().Add(20 * time.Second)}
			})
			r.prov.script = []step{{parse: invalidGrant()}}
			time.Sleep(tokenLife)
			if err := r.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			r.wantCalls("rt-0")
			r.wantStatus(tokenstore.StatusExpired, tokenstore.ReasonRefreshInterrupted)
		})
	})
}
