package revoke_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestAFailedRevocationIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.answer(errDown)
		if out := b.revoke(b.put(active("a")).ID); !out.Pending {
			t.Errorf("outcome = %+v", out)
		}
		time.Sleep(6 * time.Second)
		b.wantLedger("at-a at-a")
		b.provider.answer(nil)
		time.Sleep(time.Hour)
		b.wantLedger("at-a at-a at-a")
		b.logged("revocation at the provider ended")
		if b.notes() != 0 {
			t.Error("its note is left")
		}
	})
}

func TestARevocationGivesUpAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.answer(errDown)
		b.revoke(b.put(active("a")).ID)
		time.Sleep(24*time.Hour - time.Minute)
		if b.notes() != 1 {
			t.Error("given up too early")
		}
		time.Sleep(2 * time.Minute)
		b.logged("revocation at the provider given up")
		tries := strings.Count(b.provider.ledger(), "at-a")
		time.Sleep(48 * time.Hour)
		if got := strings.Count(b.provider.ledger(), "at-a"); got != tries || tries < 25 || tries > 35 {
			t.Errorf("%d tries in a day, %d in three", tries, got)
		}
		if b.notes() != 0 {
			t.Error("its note is left")
		}
	})
}

// A run that ends forgets nothing, and the next goes on, up to a day in all.
func TestARevocationOutlivesRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.answer(errDown)
		c := b.put(active("a"), renewed("rt"), account("1"))
		if _, out, err := b.Delete(t.Context(), c.ID, tokenstore.Actor{}, true); err != nil || !out.Pending {
			t.Errorf("Delete() = %+v, %v", out, err)
		}
		b.restart()
		synctest.Wait()
		b.wantLedger("at-a+rt at-a+rt")
		time.Sleep(3 * time.Hour)
		b.provider.answer(nil)
		b.put(active("b"), account("2")) // another account's
		b.restart()
		synctest.Wait()
		if !strings.HasSuffix(b.provider.ledger(), "at-a+rt") || b.notes() != 0 {
			t.Errorf("revoked %q, %d notes are left", b.provider.ledger(), b.notes())
		}
		b.logged("revocation at the provider ended")

		b.provider.answer(errDown)
		b.revoke(b.put(active("c"), account("3")).ID)
		time.Sleep(time.Hour)
		b.Close()
		time.Sleep(30 * time.Hour)
		b.restart()
		synctest.Wait()
		b.logged("revocation at the provider given up")
		if b.notes() != 0 {
			t.Error("its note is left after a day")
		}
	})
}

// crashing is a store whose process ends when something is erased.
type crashing struct {
	tokenstore.Store
	after bool // rather than before
}

var errCrash = errors.New("crashed")

func (s crashing) DeleteConnection(ctx context.Context, id string, news ...tokenstore.Event) (tokenstore.Connection, error) {
	if s.after {
		_, _ = s.Store.DeleteConnection(ctx, id, news...)
	}
	panic(errCrash)
}

func (s crashing) UpdateConnection(ctx context.Context, id string, change func(*tokenstore.Connection) error) (tokenstore.Connection, error) {
	if s.after {
		_, _ = s.Store.UpdateConnection(ctx, id, change)
	}
	panic(errCrash)
}

// Whenever it ends, either nothing was erased and nothing is revoked, or both
// happen.
func TestACrashLeavesNothingHalfDone(t *testing.T) {
	for _, op := range []string{"revoke", "delete"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint(op, ", erased: ", after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBench(t)
					b.provider.single = true // else the connection itself would be spared
					c := b.put(active("a"))
					b.Close()
					b.start(crashing{b.store, after})
					func() {
						defer func() { _ = recover() }()
						if op == "delete" {
							_, _, _ = b.Delete(t.Context(), c.ID, tokenstore.Actor{}, true)
							return
						}
						_, _, _ = b.Revoke(t.Context(), c.ID, tokenstore.Actor{})
					}()
					// What is renewed before the next start is the same connection's.
					if !after {
						_, err := b.store.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
							c.Token.AccessToken = secret.New("at-renewed")
							return nil
						})
						if err != nil {
							t.Fatal(err)
						}
					}
					b.restart()
					synctest.Wait()
					b.wantLedger(map[bool]string{true: "at-a"}[after])
					if b.notes() != 0 {
						t.Error("its note is left")
					}
				})
			})
		}
	}
}

// A user who has connected again meanwhile must not lose the new grant.
func TestTryingAgainSparesWhoReconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.answer(errDown)
		c := b.put(active("a"))
		b.revoke(c.ID)
		time.Sleep(time.Second)
		if _, err := b.store.UpdateConnection(t.Context(), c.ID, func(c *tokenstore.Connection) error {
			active("new")(c)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		b.provider.answer(nil)
		b.restart()
		time.Sleep(time.Hour)
		b.wantLedger("at-a")
		if b.notes() != 0 {
			t.Error("its note is left")
		}
	})
}

// A refresh was under way: what it brings afterwards is revoked, too, also when
// the program ends meanwhile.
func TestRevokingDuringARefresh(t *testing.T) {
	for _, closing := range []bool{false, true} {
		t.Run(fmt.Sprint("closing: ", closing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.late = func(ctx context.Context) (tokenstore.Token, bool) {
					select {
					case <-time.After(10 * time.Second):
						return tokenstore.Token{AccessToken: secret.New("at-late")}, true
					case <-ctx.Done():
						return tokenstore.Token{}, false
					}
				}
				if out := b.revoke(b.put(active("a")).ID); !out.Pending {
					t.Errorf("outcome = %+v", out)
				}
				if closing {
					b.Close()
				} else {
					time.Sleep(11 * time.Second)
				}
				b.wantLedger("at-a at-late")
			})
		})
	}
}

// What the provider told with a credential, on which its endpoint may depend, goes
// with it across restarts.
func TestARevocationKnowsWhatWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.answer(errDown)
		c := b.put(active("a"), func(c *tokenstore.Connection) { c.Token.Metadata = map[string]string{"realm_id": "7"} })
		b.revoke(c.ID)
		b.restart()
		synctest.Wait()
		b.wantLedger("at-a@7 at-a@7")
	})
}

func TestCloseEndsTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.answer(errDown)
		b.revoke(b.put(active("a")).ID)
		start := time.Now()
		b.Close()
		if waited := time.Since(start); waited != 0 {
			t.Errorf("Close() waited %v", waited)
		}
		// It is noted, for the next run.
		if out := b.revoke(b.put(active("b"), user("u2")).ID); !out.Pending || b.notes() != 2 {
			t.Errorf("revoke after Close = %+v, %d notes", out, b.notes())
		}
	})
}

// A store that can't write the note erases what it can all the same.
func TestWithoutANote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Close()
		b.start(noteless{b.store})
		b.provider.answer(errDown)
		if out := b.revoke(b.put(active("a")).ID); !out.Pending {
			t.Errorf("outcome = %+v", out)
		}
		b.logged("revocation not noted: a restart would forget it")
		b.Close()
		b.logged("revocation at the provider given up")
	})
}

type noteless struct{ tokenstore.Store }

func (noteless) UpdateNote(context.Context, string, func(*tokenstore.Note) error) (tokenstore.Note, error) {
	return tokenstore.Note{}, tokenstore.ErrFull
}

func TestASlowProviderDelaysTheAnswerFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.hangs = true
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a caller that hangs up stops nothing
		c := b.put(active("a"))
		start := time.Now()
		_, out, err := b.Revoke(ctx, c.ID, tokenstore.Actor{})
		if took := time.Since(start); took != 5*time.Second || !out.Pending || err != nil {
			t.Errorf("after %v: %+v, %v", took, out, err)
		}
	})
}

// One provider that is down holds up nobody else's, and is asked once for all
// that waits.
func TestAProviderThatIsDownIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.answer(errDown)
		for i := range 50 {
			b.revoke(b.put(active(fmt.Sprint(i)), user(fmt.Sprint("u", i))).ID)
		}
		before := len(strings.Fields(b.provider.ledger()))
		time.Sleep(6 * time.Second)
		if got := len(strings.Fields(b.provider.ledger())) - before; got != 1 {
			t.Errorf("asked %d times, want once", got)
		}
		b.provider.answer(nil)
		time.Sleep(time.Hour)
		if b.notes() != 0 {
			t.Errorf("%d are left", b.notes())
		}
	})
}

func TestNoSecretInLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.provider.answer(errDown)
		b.revoke(b.put(active("canary"), renewed("canary")).ID)
		time.Sleep(25 * time.Hour)
		for _, e := range b.logs.All() {
			if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, "canary") {
				t.Errorf("a secret was logged: %s", text)
			}
		}
	})
}
