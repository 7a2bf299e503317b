package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// F034 and F035: the token endpoint fails, for longer than tokens live. No call
// fails while its token is valid; after that callers are told to wait, and
// nobody has to connect anew.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		fault fakeprovider.Fault
	}{
		{"500", fakeprovider.Status(http.StatusInternalServerError)},
		{"connection closed", fakeprovider.Dropped()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			const life = 10 * time.Second
			w, all := newCrowd(t, 20, withLife(life))
			w.fake.Faults.Token(tc.fault.Always())
			ends := map[*member]time.Time{} // of its token, at the earliest
			l := w.fake.Ledger()
			for _, m := range all {
				m.unknown = 1000 // as far as the program can know
				ends[m] = exchanged(l, w.grant(l, m).ID).Add(life)
			}
			first, last := ends[all[0]], ends[all[0]]
			for _, end := range ends {
				if end.Before(first) {
					first = end
				}
				if end.After(last) {
					last = end
				}
			}
			for time.Now().Before(first.Add(-100 * time.Millisecond)) {
				w.eachServed(all, func(m *member, err error) {
					if time.Now().Before(ends[m]) {
						t.Errorf("with a valid token: %v", err)
					}
				})
				time.Sleep(100 * time.Millisecond) // the calls are to be spread over the tokens' lives
			}
			time.Sleep(time.Until(last.Add(time.Second))) // until all have ended
			for _, m := range all {
				a := w.call(m.id, "/me")
				if a.Status != http.StatusServiceUnavailable || a.Header.Get("Lanyard-Error") != "refresh_unavailable" || a.Header.Get("Retry-After") == "" {
					t.Errorf("without a valid token: HTTP %d %v: %s", a.Status, a.Header, a.Body)
				}
				if err := w.status(m.id, "ACTIVE"); err != nil {
					t.Error(err)
				}
			}
			posts := len(w.fake.Ledger().Refreshes())
			w.fake.Faults.Clear()
			w.fake.SetAccessLife(time.Hour)
			back := time.Now()
			for _, m := range all {
				w.eventually("it works again", func() error { return w.served(m) })
			}
			t.Logf("%d requests in the outage, all served %v after its end", posts, time.Since(back).Round(time.Millisecond))
			// A circuit that is open lets one at a time find out.
			if posts > len(all) {
				t.Errorf("%d requests for %d connections in an outage of %v", posts, len(all), time.Since(first)+life)
			}
			w.wantNoReuse()
			w.nothingLost(all)
		})
	}
}

// exchanged returns when a grant's code came to the provider: its first token
// began to live after that.
func exchanged(l fakeprovider.Ledger, grant string) time.Time {
	for _, p := range l.Posts {
		if p.Grant == grant {
			return p.At
		}
	}
	return time.Time{}
}
