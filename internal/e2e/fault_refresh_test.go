package e2e_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// A crash at every place of a refresh, at a provider that rotates and takes no
// spent refresh token. Nobody else's connection may notice.
func TestCrashInARefresh(t *testing.T) {
	t.Parallel()
	w, all := newCrowd(t, 9)
	gone := all[len(all)-1]
	w.api("DELETE", "/v1/connections/"+gone.id, nil, nil)
	gone.deleted = true
	next := 0
	// take returns connections that no case has used.
	take := func(n int) []*member {
		next += n
		return all[next-n : next]
	}
	for _, tc := range []struct {
		name string
		die  func(t *testing.T, hit []*member) // ends the program in the middle
		hit  int                               // so many refreshes are under way
		// sent is how many requests there are before the restart, and after.
		sent, after int
		unknown     int
		named       bool // they can't be recovered
	}{
		{name: "F001 before the request is sent", die: w.dieAt("refresh.before_send"), hit: 1, sent: 0, after: 1},
		{name: "F002 the provider never saw it", die: w.dieAsProvider(fakeprovider.Received, fakeprovider.Blackholed(), syscall.SIGKILL), hit: 1, sent: 1, after: 2, unknown: 1},
		// F013: a process that the system kills for its memory dies the same.
		{name: "F003 F013 rotated and not answered", die: w.dieAsProvider(fakeprovider.Committed, fakeprovider.HoldAnswer(nil), syscall.SIGKILL), hit: 2, sent: 2, after: 4, unknown: 1, named: true},
		{name: "F005 answered and not stored", die: w.dieAt("refresh.before_persist"), hit: 1, sent: 1, after: 2, unknown: 1, named: true},
		{name: "F006 answer stored and not read", die: w.dieAt("refresh.after_persist"), hit: 1, sent: 1, after: 1},
		{name: "F007 token stored and nobody told", die: w.dieAt("refresh.before_serve"), hit: 1, sent: 1, after: 1},
		{name: "F013 SIGBUS", die: w.dieAsProvider(fakeprovider.Received, fakeprovider.Blackholed(), syscall.SIGBUS), hit: 1, sent: 1, after: 2, unknown: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			hit := take(tc.hit)
			before := len(w.fake.Ledger().Refreshes())
			tc.die(t, hit)
			w.fake.OnTokenRequest(nil)
			w.fail()
			if n := len(w.fake.Ledger().Refreshes()) - before; n != tc.sent {
				t.Errorf("%d requests before the restart, want %d", n, tc.sent)
			}
			for _, m := range hit {
				m.unknown += tc.unknown
			}
			w.start()
			started := time.Now()
			for _, m := range hit { // nobody has to do anything for it
				w.eventually("the refresh is resolved", func() error {
					if err := atLeast(len(w.fake.Ledger().Refreshes()), before+tc.after); err != nil || !tc.named {
						return errors.Join(err, w.isSettled(m))
					}
					return w.isNamed(m)
				})
			}
			if took := time.Since(started); took > soon {
				t.Errorf("resolved %v after the start", took)
			}
			if n := len(w.fake.Ledger().Refreshes()) - before; n != tc.after {
				t.Errorf("%d requests after the restart, want %d", n, tc.after)
			}
			for _, m := range all {
				if m.ended != "" && m.unknown == 0 {
					t.Errorf("%s was lost, and had no refresh under way", m.account)
				}
			}
			w.nothingLost(all)
		})
	}
	if out := w.output(); !strings.Contains(out, "SIGBUS") {
		t.Error("no output of the crash was looked at")
	}
}

// A crash that comes again at every start, until it doesn't.
func TestCrashAtEveryStart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, first, again string
		starts             int // that end in the crash
		sent               int
	}{
		{"F001 before the request is sent", "refresh.before_send", "refresh.before_send", 3, 1},
		{"F006 answer stored and not read", "refresh.after_persist", "refresh.before_serve", 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w, all := newCrowd(t, 2)
			w.dieAt(tc.first)(t, all[:1])
			w.fail(tc.again + "=crash")
			for range tc.starts {
				w.launch()
				w.died(patience)
			}
			w.fail()
			w.start()
			w.eventually("the refresh is resolved", func() error { return atLeast(len(w.fake.Ledger().Refreshes()), tc.sent) })
			w.nothingLost(all)
			if n := len(w.fake.Ledger().Refreshes()) - len(all); n != tc.sent {
				t.Errorf("%d requests, want %d", n, tc.sent)
			}
		})
	}
}

// dieAt has the program kill itself at a place.
func (w *world) dieAt(place string) func(*testing.T, []*member) {
	return func(t *testing.T, hit []*member) {
		t.Helper()
		w.fail(place + "=crash")
		for _, m := range hit {
			<-w.refresh(m)
		}
		if s := w.died(soon); !s.Signaled() || s.Signal() != syscall.SIGKILL {
			t.Fatalf("the program ended by %v", s)
		}
	}
}

// dieAsProvider kills the program once as many requests as there are members
// have come to a stage at the provider, which deals with them by a fault.
func (w *world) dieAsProvider(stage fakeprovider.Stage, fault fakeprovider.Fault, by syscall.Signal) func(*testing.T, []*member) {
	return func(t *testing.T, hit []*member) {
		t.Helper()
		w.fake.Faults.Token(fault.Times(len(hit)))
		reached := make(chan struct{}, len(hit))
		w.fake.OnTokenRequest(func(at fakeprovider.Stage, _ string) {
			if at == stage {
				reached <- struct{}{}
			}
		})
		var over []<-chan struct{}
		for _, m := range hit {
			over = append(over, w.refresh(m))
		}
		for range hit {
			<-reached
		}
		w.signal(by)
		for _, o := range over {
			<-o
		}
		s := w.died(soon)
		if killed := s.Signaled() && s.Signal() == by; !killed && by == syscall.SIGKILL {
			t.Fatalf("the program ended by %v", s)
		}
	}
}
