package connect_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// devices is a bench in which devices can connect.
func devices(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.p.device = tokenstore.Device{
		Code: secret.New("device-canary"), UserCode: "WDJB-MJHT", VerificationURI: "https://idp.example/device", Life: 900, Interval: 5,
	}
	return b
}

// answers makes the provider answer polls with these codes, one after the
// other, and then with a token; it returns when each came.
func (p *fakeProvider) answers(codes ...string) *[]time.Duration {
	began, at := time.Now(), new([]time.Duration)
	p.poll = func() (tokenstore.Answer, error) {
		*at = append(*at, time.Since(began))
		n := len(*at) - 1
		if n >= len(codes) || codes[n] == "" {
			return tokenstore.Answer{Status: 200, Body: secret.New("token-canary-device")}, nil
		}
		if codes[n] == "no answer" {
			return tokenstore.Answer{}, tokenstore.ErrOutcomeUnknown
		}
		return tokenstore.Answer{Status: 400, Body: secret.New(codes[n])}, nil
	}
	p.reading = func(a tokenstore.Answer) error {
		code := a.Body.Reveal()
		switch {
		case code == "broken":
			return &tokenstore.UnreadableError{Status: a.Status}
		case a.Status == 400:
			return &tokenstore.RefusalError{Kind: tokenstore.RefusedForNow, Code: code, Status: 400}
		}
		return nil
	}
	return at
}

func (b *bench) event(id string, what tokenstore.EventType) tokenstore.Event {
	b.t.Helper()
	events, _, err := b.store.ListEvents(b.t.Context(), tokenstore.EventFilter{ConnectionID: id}, "", 100)
	if err != nil {
		b.t.Fatal(err)
	}
	i := slices.IndexFunc(events, func(e tokenstore.Event) bool { return e.Type == what })
	if i < 0 {
		b.t.Fatalf("no event %s among %v", what, events)
	}
	return events[i]
}

func (b *bench) wantNoNotes() {
	b.t.Helper()
	if notes, err := b.store.ListNotes(b.t.Context(), ""); err != nil || len(notes) != 0 {
		b.t.Errorf("notes %v, %v; want none", notes, err)
	}
}

func TestDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(t)
		b.p.as(ada)
		at := b.p.answers("authorization_pending", "slow_down", "no answer", "authorization_pending")
		c := b.begun()
		d, err := b.h.BeginDevice(t.Context(), c, []string{"read"})
		if err != nil || d.UserCode != "WDJB-MJHT" || d.Life != 900 || d.Interval != 5 {
			t.Fatalf("Device() = %+v, %v", d, err)
		}
		if got := b.connection(c.ID); got.InitiatedUntil.Before(time.Now().Add(900 * time.Second)) {
			t.Errorf("connection lives until %v", got.InitiatedUntil)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		got := b.connection(c.ID)
		if got.Status != tokenstore.StatusActive || got.Staged != nil || got.Account != ada || got.Token.AccessToken.Reveal() != "token-canary-device" ||
			!slices.Equal(got.RequestedScopes, []string{"begin-scope", "read"}) {
			t.Errorf("connection %+v", got)
		}
		want := []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 60 * time.Second}
		if !slices.Equal(*at, want) {
			t.Errorf("polled at %v, want %v", *at, want)
		}
		if e := b.event(c.ID, tokenstore.EventActive); e.Actor.Kind != tokenstore.ActorLanyard {
			t.Errorf("event %+v", e)
		}
		b.wantNoNotes()
		if err := b.h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDeviceEnds(t *testing.T) {
	for code, want := range map[string]string{
		"access_denied": "user_denied", "user_cancelled": "user_denied", "expired_token": "timeout", "invalid_grant": "source_error",
	} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := devices(t)
				at := b.p.answers("authorization_pending", code)
				read := b.p.reading
				b.p.reading = func(a tokenstore.Answer) error {
					if code == "invalid_grant" && a.Body.Reveal() == code {
						return &tokenstore.RefusalError{Kind: tokenstore.RefusedGrant, Code: code, Status: 400}
					}
					return read(a)
				}
				c := b.begun()
				if _, err := b.h.BeginDevice(t.Context(), c, nil); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if got := b.connection(c.ID); got.Status != tokenstore.StatusFailed || got.StatusReason != want || len(*at) != 2 {
					t.Errorf("connection is %s %s after %d polls", got.Status, got.StatusReason, len(*at))
				}
				b.wantNoNotes()
			})
		})
	}
	t.Run("nobody comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := devices(t)
			at := b.p.answers(slices.Repeat([]string{"authorization_pending"}, 1000)...)
			c := b.begun()
			if _, err := b.h.BeginDevice(t.Context(), c, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := b.connection(c.ID); got.StatusReason != "timeout" || len(*at) != 179 {
				t.Errorf("connection is %s %s after %d polls", got.Status, got.StatusReason, len(*at))
			}
			b.wantNoNotes()
		})
	})
	t.Run("the connection goes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := devices(t)
			at := b.p.answers()
			c := b.begun()
			if _, err := b.h.BeginDevice(t.Context(), c, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := b.store.DeleteConnection(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(*at) != 0 {
				t.Errorf("polled at %v", *at)
			}
			b.wantNoNotes()
		})
	})
}

// TestDeviceGoesOn: the Handler that follows waits for what the one before it
// waited for, and for an answer that nobody has read.
func TestDeviceGoesOn(t *testing.T) {
	for _, answered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := devices(t)
			at := b.p.answers("authorization_pending", "authorization_pending")
			c := b.begun()
			if _, err := b.h.BeginDevice(t.Context(), c, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6 * time.Second)
			if err := b.h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if len(*at) != 1 {
				t.Fatalf("polled at %v after the end", *at)
			}
			if answered {
				_, err := b.store.UpdateFlow(t.Context(), b.p.device.Code.Hash(), func(f *tokenstore.Flow) error {
					f.Answer = &tokenstore.Answer{Status: 200, Body: secret.New("token-canary-device")}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			b.remake()
			for range 2 { // the second time changes nothing
				if err := b.h.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			want := 3
			if answered {
				want = 1
			}
			if got := b.connection(c.ID); got.Status != tokenstore.StatusActive || len(*at) != want {
				t.Errorf("connection is %s after polls at %v", got.Status, *at)
			}
			b.wantNoNotes()
		})
	}
}

// TestDeviceOtherAccount: reconnecting keeps to the account here too.
func TestDeviceOtherAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(t)
		b.p.as(grace)
		b.p.answers()
		c := b.create(tokenstore.Connection{Status: tokenstore.StatusActive, Token: live("t"), Account: ada})
		if _, err := b.h.BeginDevice(t.Context(), c, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.connection(c.ID); got.Revision != c.Revision || !slices.Equal(b.p.revoked, []string{"token-canary-device"}) {
			t.Errorf("connection %+v, revoked %v", got, b.p.revoked)
		}
	})
}

func TestDeviceRefused(t *testing.T) {
	b := newBench(t)
	c := b.begun()
	if _, err := b.h.BeginDevice(t.Context(), c, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Device() without an endpoint = %v", err)
	}
	b = newBench(t, withKeys)
	if _, err := b.h.BeginDevice(t.Context(), b.begun(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Device() with keys = %v", err)
	}
	c.Integration = "gone"
	if _, err := b.h.BeginDevice(t.Context(), c, nil); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("Device() of no integration = %v", err)
	}
	// A device code is no state: whoever had it would have no cookie.
	synctest.Test(t, func(t *testing.T) {
		b := devices(t)
		b.p.answers("authorization_pending")
		if _, err := b.h.BeginDevice(t.Context(), b.begun(), nil); err != nil {
			t.Fatal(err)
		}
		w := b.browser().callback("device-canary")
		wantPage(t, w, 400, "browser_mismatch")
		if b.p.exchanged() != 0 {
			t.Errorf("%d exchanges", b.p.exchanged())
		}
		_ = b.h.Close(context.Background())
	})
}

// TestRevokedWhileADeviceIsWaitedFor: the app revokes a connection while its
// device code is still to be approved.
func TestRevokedWhileADeviceIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := devices(t)
		b.p.answers("authorization_pending", "authorization_pending")
		c := b.begun()
		if _, err := b.h.BeginDevice(t.Context(), c, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if _, err := b.store.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error { c.Revoke(); return nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if c = b.connection(c.ID); c.Status != tokenstore.StatusRevoked {
			t.Errorf("revoked after the flow began, and now %s, with nobody to complete it", c.Status)
		}
		if err := b.h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
