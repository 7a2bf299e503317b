package connect_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// wantSlow checks a page that says to come again.
func wantSlow(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	wantPage(t, w, http.StatusTooManyRequests, "rate_limited")
	seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
	if err != nil || seconds < 1 || seconds > 6 {
		t.Errorf("Retry-After = %q, want 1 to 6 seconds", w.Header().Get("Retry-After"))
	}
	if w.Header().Get("Set-Cookie") != "" {
		t.Errorf("a request that was refused set a cookie: %v", w.Header())
	}
}

func user(n int) func(*connect.Params) {
	return func(p *connect.Params) { p.UserID = fmt.Sprint("user-", n) }
}

// TestRequestsOfOneAddress: a burst, then so many a second; neighbours and what
// costs nothing go on.
func TestRequestsOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		br := b.browser()
		b.addr = "192.0.2.1"
		var states []string
		for n := range 60 {
			br.jar = map[string]string{}
			states = append(states, br.open(b.link(user(n))))
		}
		jar := br.jar
		last := states[59]
		asked := len(b.p.asked)
		for range 100 {
			wantSlow(t, br.get(b.link(user(99))))
			wantSlow(t, br.callback(last))
			wantSlow(t, br.get(public+"/connect?x"))
		}
		if len(b.p.asked) != asked || b.p.exchanged() != 0 || b.flow(last).Stage != tokenstore.FlowOpen {
			t.Errorf("requests that were refused did something: %d flows, flow %+v", len(b.p.asked)-asked, b.flow(last))
		}
		for _, free := range []string{public + "/connect/favicon.svg", public + "/connect/x"} {
			if w := br.get(free); w.Code == http.StatusTooManyRequests {
				t.Errorf("GET %s = 429", free)
			}
		}
		b.addr = "192.0.2.2"
		b.browser().open(b.link(user(99)))

		b.addr = "192.0.2.1"
		time.Sleep(time.Second) // five more: a callback that had to wait ends well
		br.jar = jar
		wantApp(t, br.callback(last), "")
		for n := range 4 {
			b.browser().open(b.link(user(100 + n)))
		}
		wantSlow(t, br.get(b.link(user(200))))
		time.Sleep(time.Hour)
		for n := range 60 {
			b.browser().open(b.link(user(300 + n)))
		}
		wantSlow(t, br.get(b.link(user(400))))
	})
}

// TestOfficeBehindOneAddress: as many as connect in an office go on, for as
// long as they like.
func TestOfficeBehindOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.addr = "192.0.2.1"
		for n := range 300 {
			br := b.browser()
			state := br.open(b.link(user(n)))
			time.Sleep(400 * time.Millisecond)
			wantApp(t, br.callback(state), "")
		}
	})
}

func TestGuesses(t *testing.T) {
	t.Run("A015 guesses of one address", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.addr = "192.0.2.1"
			br := b.browser()
			state := br.open(b.link())
			guesses := []string{
				public + "/connect", b.link() + "x", public + "/connect?integration=github&signature=x",
				callbackURL("state", "x", "code", "y"), callbackURL("code", "y"), public + "/callback/gitlab?code=y&state=" + state,
			}
			for n := range 20 {
				if w := b.browser().get(guesses[n%len(guesses)]); w.Code != 400 {
					t.Errorf("guess %d = %d", n, w.Code)
				}
			}
			for _, g := range guesses {
				wantSlow(t, b.browser().get(g))
			}
			// What is no guess goes on, from the same address.
			b.browser().open(b.link())
			wantApp(t, br.callback(state), "")
			wantPage(t, br.callback(state), 400, "state_used")
			time.Sleep(time.Second)
			wantPage(t, br.get(guesses[0]), 400, "link_invalid")
			wantSlow(t, br.get(guesses[0]))

			var denied, slow int
			for _, e := range b.audit.events {
				switch {
				case !e.Denied || e.Type != tokenstore.EventFlowEnded || e.ConnectionID != "" || e.Actor.From != "192.0.2.1" || e.Actor.Kind != tokenstore.ActorBrowser:
					t.Errorf("event %+v", e)
				case e.Reason == "rate_limited":
					slow++
				case e.Reason == "link_invalid" || e.Reason == "state_invalid":
					denied++
				}
			}
			if denied != 21 || slow != 7 {
				t.Errorf("%d guesses and %d 429s in the audit log, want 21 and 7", denied, slow)
			}
		})
	})
}

// TestFlowsOfOneUser: a link that is opened over and over, from everywhere,
// doesn't fill the store.
func TestFlowsOfOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.cfg.Integrations["other"] = b.cfg.Integrations["github"]
		b.remake()
		link := b.link()
		began := func() (n int) {
			for range 100 {
				if w := b.browser().get(link); w.Code == http.StatusSeeOther {
					n++
				} else {
					wantSlow(t, w)
				}
			}
			return n
		}
		if n := began(); n != 20 {
			t.Errorf("%d flows, want 20", n)
		}
		time.Sleep(time.Minute)
		if n := began(); n != 10 {
			t.Errorf("%d flows a minute later, want 10", n)
		}
		b.browser().open(b.link(user(1)))
		b.browser().open(b.link(func(p *connect.Params) { p.Integration = "other" }))
		if len(b.p.asked) != 32 {
			t.Errorf("%d flows in all, want 32", len(b.p.asked))
		}
	})
}

// TestAddresses: an IPv6 network counts as one address, and what is no address
// as the other end of the connection.
func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		name, first, second string
		one                 bool
	}{
		{"one /64", "2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true},
		{"two", "2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"IPv4 as IPv6", "192.0.2.9", "::ffff:192.0.2.9", true},
		{"zones", "fe80::1%eth0", "fe80::2%eth1", true},
		{"none", "nonsense", "another", true},
		{"with a port", "192.0.2.9:1", "192.0.2.8:2", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.addr = tt.first
				for range 20 {
					b.browser().get(public + "/connect")
				}
				b.addr = tt.second
				w := b.browser().get(public + "/connect")
				if got := w.Code == http.StatusTooManyRequests; got != tt.one {
					t.Errorf("%s after %s = %d", tt.second, tt.first, w.Code)
				}
			})
		})
	}
	b := newBench(t)
	b.cfg.ClientIP, b.cfg.Audit = nil, nil
	b.remake()
	for n := range 40 {
		r := httptest.NewRequest(http.MethodGet, public+"/connect", nil)
		r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", n)
		wantPage(t, b.browser().do(r), 400, "link_invalid")
	}
}

// TestCookiesOfOthers: too many flows take away no cookie but those of flows.
func TestCookiesOfOthers(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	const prefix = "__Host-lanyard-"
	br.jar[prefix+"dashboard"], br.jar[prefix+"forms"] = "seed", "forms" // made first, so sent first
	for i := range 20 {
		br.jar[prefix+fmt.Sprintf("z%015d", i)] = "flow"
	}
	br.get(b.link())
	if br.jar[prefix+"dashboard"] == "" || br.jar[prefix+"forms"] == "" || len(br.jar) != 22 {
		t.Errorf("left are %v", br.jar)
	}
}
