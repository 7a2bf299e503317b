package e2e_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// F038: the user has taken the consent back at the provider. It is asked once,
// and not again until the user connects anew.
func TestReallyRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withFailpoints, withLife(2*time.Second))
	gone := w.join("account 1")
	w.fake.SetAccessLife(time.Hour)
	stays := w.join("account 2")
	w.fake.RevokeGrant(w.grant(w.fake.Ledger(), gone).ID)
	w.eventually("the token has expired", w.expired(gone.id))
	for range 2 {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				a, err := w.tryCall(gone)
				if err != nil || a.Status != http.StatusFailedDependency || a.Header.Get("Lanyard-Error") != "reconnect_required" || !strings.Contains(a.Body, "connect_url") {
					t.Errorf("%v, HTTP %d: %s", err, a.Status, a.Body)
				}
			})
		}
		wg.Wait()
		w.eventually("the connection says why", func() error {
			gone.ended = "invalid_grant"
			return w.isNamed(gone)
		})
	}
	if a := w.api(http.MethodPost, "/v1/connections/"+gone.id+"/refresh", nil, nil); a.Status != http.StatusFailedDependency {
		t.Errorf("refresh: HTTP %d: %s", a.Status, a.Body)
	}
	if n := len(w.fake.Ledger().Refreshes()); n != 1 {
		t.Errorf("%d requests for a grant that is gone, want 1", n)
	}
	w.nothingLost([]*member{gone, stays})
	back := w.follow(newBrowser(t), w.connection(gone.id).ConnectURL)
	w.complete(gone.id, back.Get("completion_code"), gone.account)
	if err := w.wantCall(gone.id, http.StatusOK); err != nil {
		t.Errorf("after connecting again: %v", err)
	}
}

// F037, as far as it is one instance's: a token endpoint takes 15 seconds. It is
// asked once, and all who wait are served. One that takes longer than 20 seconds
// is as good as one that doesn't answer (F042).
func TestSlowProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withFailpoints, withLife(2*time.Second))
	m := w.join("account 1")
	w.fake.SetAccessLife(time.Hour)
	w.eventually("the token has expired", w.expired(m.id))
	w.fake.Faults.Token(fakeprovider.Delay(15 * time.Second))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := w.served(m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(w.fake.Ledger().Refreshes()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	w.nothingLost([]*member{m})
}

// F042 and F043: the answer to a refresh is lost on the way, while the process
// lives. The outcome is unknown: the connection serves with the token that it
// has, the refresh token is tried once more when that is at its end, and what
// the provider says then is final.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	// Two worlds, for two lives: the request that gets no answer at all takes 20
	// seconds, which the token has to outlive.
	for _, tc := range []struct {
		name   string
		life   time.Duration
		before time.Duration // the end of life, when the hard margin begins
		faults map[string]fakeprovider.Fault
	}{
		{"the connection ends", 8 * time.Second, time.Second, map[string]fakeprovider.Fault{
			"F042 dropped, not processed":      fakeprovider.Dropped(),
			"F042 reset in the answer, lost":   fakeprovider.Reset(),
			"F043 closed after the POST, lost": fakeprovider.LostAnswer(),
			"F043 half an answer, lost":        fakeprovider.Truncated(),
			"F043 502 from a gateway, lost":    fakeprovider.Status(http.StatusBadGateway).AfterCommit(),
		}},
		{"it stays open", 26 * time.Second, 2600 * time.Millisecond, map[string]fakeprovider.Fault{
			"F042 blackholed, not processed": fakeprovider.Blackholed(),
			"F042 blackholed answer, lost":   fakeprovider.HoldAnswer(nil),
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, withFailpoints, withLife(tc.life))
			began := time.Now()
			var hit []*member
			for name := range tc.faults {
				hit = append(hit, w.join(name))
			}
			w.fake.SetAccessLife(time.Hour)
			healthy := w.join("healthy")
			for _, m := range hit {
				posts := len(w.fake.Ledger().Posts)
				w.fake.Faults.Token(tc.faults[m.account])
				w.refresh(m)
				w.wantAsked(posts + 1)
				m.unknown = 1
				// One that works between, or the endpoint would count as down.
				w.mustRefresh(healthy)
			}
			for time.Since(began) < tc.life-tc.before-500*time.Millisecond {
				for _, m := range hit {
					// One that went on into the hard margin says nothing.
					if err := w.served(m); err != nil && time.Since(began) < tc.life-tc.before {
						t.Fatalf("%v in, while the token is valid: %v", time.Since(began), err)
					}
				}
				time.Sleep(100 * time.Millisecond) // the calls are to be spread over the token's life
			}
			for _, m := range hit {
				lost := strings.HasSuffix(m.account, "lost")
				w.eventually("the outcome is known", func() error {
					if lost {
						return w.isNamed(m)
					}
					return w.generation(m.id, 2)
				})
				l := w.fake.Ledger()
				g := w.grant(l, m).ID
				margin := exchanged(l, g).Add(tc.life - tc.before - 100*time.Millisecond)
				tries := slices.DeleteFunc(l.Refreshes(), func(p fakeprovider.TokenPost) bool { return p.Grant != g || p.RefreshNumber != 1 })
				if len(tries) != 2 || tries[1].At.Before(margin) {
					t.Errorf("%s: tried %+v, want a second time when the token is at its end, %v", m.account, tries, margin)
				}
			}
			w.nothingLost(append(hit, healthy))
		})
	}
}
