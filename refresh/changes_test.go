package refresh_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// What somebody else does to a connection.
func reconnect(c *tokenstore.Connection) {
	c.Activate(tokenstore.Token{
		AccessToken: secret.New("at-re"), RefreshToken: secret.New("rt-re"),
		IssuedAt: time.Now(), ExpiresAt: time.Now().Add(tokenLife),
	}, nil, time.Now())
}
func revoke(c *tokenstore.Connection)  { c.Revoke() }
func disable(c *tokenstore.Connection) { c.Disabled = true }

// change does it, or deletes the connection if f is nil.
func (r *rig) change(f func(*tokenstore.Connection)) {
	r.t.Helper()
	var err error
	if f == nil {
		_, err = r.Store().DeleteConnection(context.Background(), r.id)
	} else {
		_, err = r.Store().UpdateConnection(context.Background(), r.id, func(c *tokenstore.Connection) error { f(c); return nil })
	}
	if err != nil {
		r.t.Error(err)
	}
}

// A call that waits for a refresh gets what the connection has become
// meanwhile, whatever comes of the refresh.
func TestChangedWhileRefreshing(t *testing.T) {
	changes := []struct {
		name   string
		change func(*tokenstore.Connection)
		want   error // nil: the token of the reconnect
	}{
		{"reconnected", reconnect, nil},
		{"revoked", revoke, tokenstore.ErrReconnect},
		{"deleted", nil, tokenstore.ErrNotFound},
	}
	outcomes := map[string]step{
		"token":   {},
		"unknown": {sendErr: unknown()},
		"refused": {parse: &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow, Status: 429}},
		"dead":    {parse: invalidGrant()},
	}
	for _, tt := range changes {
		for outcome, s := range outcomes {
			t.Run(tt.name+", "+outcome, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					s.hook = func(*provider, string) { r.change(tt.change) }
					r.prov.script = []step{s}
					time.Sleep(tokenLife)
					g, err := r.token(t.Context())
					if tt.want == nil {
						if err != nil || g.Token.AccessToken.Reveal() != "at-re" {
							t.Errorf("Token() = %+v, %v; want the reconnect's token", g, err)
						}
						return
					}
					if _, later := errors.AsType[*tokenstore.UnavailableError](err); later || !errors.Is(err, tt.want) {
						t.Errorf("Token() = %v, want %v and nothing to wait for", err, tt.want)
					}
				})
			})
		}
	}
}

// A connection that is disabled while a call waits is not served, neither with
// the new token nor with the rest of the old one.
func TestDisabledWhileRefreshing(t *testing.T) {
	for outcome, s := range map[string]step{"token": {}, "unknown": {sendErr: unknown()}} {
		t.Run(outcome, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				s.hook = func(*provider, string) { r.change(disable) }
				r.prov.script = []step{s}
				time.Sleep(tokenLife - 5*time.Second)
				if g, err := r.token(t.Context()); err == nil {
					t.Errorf("Token() = %+v, want an error", g)
				}
			})
		})
	}
}

// stepped is a store that does something before its nth update.
type stepped struct {
	*memstore.Store
	n, at  int
	before func()
}

func (s *stepped) UpdateConnection(
	ctx context.Context, id string, change func(*tokenstore.Connection) error,
) (tokenstore.Connection, error) {
	if s.n++; s.n == s.at {
		s.before()
	}
	return s.Store.UpdateConnection(ctx, id, change)
}

// Intent, answer, then the expiry: a reconnect between the last two is not
// taken for a failure.
func TestReconnectedBeforeExpiryIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{parse: invalidGrant()}}
		st := &stepped{Store: r.store, at: 3, before: func() {
			_, err := r.store.UpdateConnection(t.Context(), r.id, func(c *tokenstore.Connection) error { reconnect(c); return nil })
			if err != nil {
				t.Error(err)
			}
		}}
		ref := refresh.New(refresh.Config{Store: st, Logger: zap.NewNop(), Provider: func(string, map[string]string) (refresh.Provider, bool) { return r.prov, true }})
		defer func() { _ = ref.Close(t.Context()) }()
		time.Sleep(tokenLife)
		g, err := ref.Find(t.Context(), r.id)
		if err != nil {
			t.Fatal(err)
		}
		if g, err = ref.Token(t.Context(), g); err != nil || g.Token.AccessToken.Reveal() != "at-re" {
			t.Errorf("Token() = %+v, %v; want the reconnect's token", g, err)
		}
	})
}

// A 401 for a token that was replaced long ago is no reason to send one that
// can't be used.
func TestRenewLooksAtTheNewerToken(t *testing.T) {
	tests := []struct {
		name   string
		change func(*tokenstore.Connection) // may be nil
		age    time.Duration                // of the newer token
		want   error                        // nil: a token of generation gen
		gen    uint64
	}{
		{"valid", nil, 0, nil, 2},
		{"over", nil, 2 * tokenLife, nil, 3},
		{"revoked", revoke, 0, tokenstore.ErrReconnect, 0},
		{"dead", func(c *tokenstore.Connection) { c.Expire(tokenstore.ReasonInvalidGrant) }, 0, tokenstore.ErrReconnect, 0},
		{"disabled", disable, 0, tokenstore.ErrNotActive, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				if err := r.Refresh(t.Context(), r.id, operator); err != nil {
					t.Fatal(err)
				}
				if tt.change != nil {
					r.change(tt.change)
				}
				time.Sleep(tt.age)
				g, err := r.Renew(t.Context(), r.id, 1)
				if !errors.Is(err, tt.want) || (err == nil && g.Token.Generation != tt.gen) {
					t.Errorf("Renew(1) = %+v, %v; want generation %d, %v", g, err, tt.gen, tt.want)
				}
			})
		})
	}
}

func TestReconnectedWhileRefreshing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{hook: func(*provider, string) {
			_, err := r.Store().UpdateConnection(context.Background(), r.id, func(c *tokenstore.Connection) error {
				c.Activate(tokenstore.Token{AccessToken: secret.New("at-re"), RefreshToken: secret.New("rt-re"), IssuedAt: time.Now(), ExpiresAt: time.Now().Add(tokenLife)}, nil, time.Now())
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}}}
		time.Sleep(tokenLife)
		r.wantToken("at-re")
		r.wantCalls("rt-0")
		if c := r.connection(); c.Token.RefreshToken.Reveal() != "rt-re" {
			t.Error("the late answer replaced the reconnected credential")
		}
	})
}

func TestLateAnswerOfAnotherCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.prov.script = []step{{hook: func(*provider, string) {
			_, err := r.Store().UpdateConnection(context.Background(), r.id, func(c *tokenstore.Connection) error {
				c.Activate(tokenstore.Token{AccessToken: secret.New("at-re"), RefreshToken: secret.New("rt-re"), IssuedAt: time.Now(), ExpiresAt: time.Now().Add(tokenLife)}, nil, time.Now())
				c.Intent = &tokenstore.Intent{RefreshTokenHash: secret.New("rt-0").Hash(), Deadline: time.Now().Add(tokenLife)}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}}}
		time.Sleep(tokenLife)
		r.wantToken("at-re")
		if c := r.connection(); c.Token.RefreshToken.Reveal() != "rt-re" || c.Intent == nil || c.Intent.Answer != nil {
			t.Error("the late answer was taken for the reconnected credential's")
		}
	})
}

// What a renewal brings for a connection that was revoked or deleted meanwhile
// is not forgotten: whoever revoked it can revoke that, too.
func TestLateToken(t *testing.T) {
	for name, end := range map[string]func(*rig) error{
		"revoked": func(r *rig) error {
			_, err := r.Store().UpdateConnection(context.Background(), r.id, func(c *tokenstore.Connection) error { c.Revoke(); return nil })
			return err
		},
		"deleted": func(r *rig) error {
			_, err := r.Store().DeleteConnection(context.Background(), r.id)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				if r.Late(r.id) != nil {
					t.Error("Late() with nothing under way")
				}
				r.prov.delay = 5 * time.Second
				go func() { _ = r.Refresh(t.Context(), r.id, operator) }()
				synctest.Wait()
				late := r.Late(r.id)
				if err := end(r); err != nil {
					t.Fatal(err)
				}
				tok, came := late(t.Context())
				if !came || tok.RefreshToken.Reveal() != "rt-new-1" {
					t.Errorf("late token = %v, %s; want the one that the refresh brought", came, tok.RefreshToken.Reveal())
				}
				synctest.Wait()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // one that comes in time is not late
		r := newRig(t)
		r.prov.delay = 5 * time.Second
		go func() { _ = r.Refresh(t.Context(), r.id, operator) }()
		synctest.Wait()
		if _, came := r.Late(r.id)(t.Context()); came {
			t.Error("a token that was stored is late")
		}
		synctest.Wait()
	})
}
