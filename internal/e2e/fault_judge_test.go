package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// soon is how long after a start what can't be recovered may go unnamed.
const soon = 10 * time.Second

// nothingLost is the judge of every fault. It is called on a program that
// nobody has done anything to since it came back, and checks by the provider's
// ledger and the API that
//
//   - what a client was told reads back the same, or newer;
//   - every connection whose grant is good serves its first call, with its own
//     account's token, and holds the provider's current refresh token, as the
//     next refresh proves;
//   - no refresh token was presented again but after an unknown outcome, and
//     each was redeemed once;
//   - what could not be recovered is named;
//   - the deleted stays deleted.
//
// The end of each test adds that no secret is in a log, an answer or a crash's
// output (sweep).
func (w *world) nothingLost(all []*member) {
	w.t.Helper()
	first := map[*member]answer{}
	for _, m := range all {
		first[m] = w.call(m.id, "/me")
	}
	for _, m := range all {
		if m.deleted {
			w.stillDeleted(m, first[m])
			continue
		}
		w.settled(m, first[m])
	}
	for _, m := range all {
		if !m.deleted && m.ended == "" {
			w.holdsCurrent(m)
		}
	}
	w.wantEachOnce(all)
}

func (w *world) stillDeleted(m *member, first answer) {
	w.t.Helper()
	if a := w.api(http.MethodGet, "/v1/connections/"+m.id, nil, nil); a.Status != http.StatusNotFound || first.Status != http.StatusNotFound {
		w.t.Errorf("%s was deleted: the API answers HTTP %d, a call got HTTP %d", m.account, a.Status, first.Status)
	}
}

// settled waits until a connection is what it has to be.
func (w *world) settled(m *member, first answer) {
	w.t.Helper()
	deadline := time.Now().Add(soon)
	for {
		err := w.isSettled(m)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			w.t.Errorf("%s, after %v: %v; its first call got HTTP %d: %s", m.account, soon, err, first.Status, first.Body)
			return
		}
		time.Sleep(20 * time.Millisecond) // between two looks at a condition
	}
	ok := first.Status == http.StatusOK && strings.Contains(first.Body, `"`+m.account+`"`)
	named := m.ended != "" && first.Status == http.StatusFailedDependency
	// An access token whose grant the provider has ended is refused by its API,
	// until a second call finds out why.
	unauthorized := m.ended != "" && first.Status == http.StatusUnauthorized
	if !ok && !named && !unauthorized {
		w.t.Errorf("%s: the first call got HTTP %d: %s\n%s", m.account, first.Status, first.Body, w.logsOf(m.id))
	}
}

// logsOf returns what the log last said of a connection.
func (w *world) logsOf(id string) string {
	text, err := os.ReadFile(w.path("caddy.log"))
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, id) || strings.Contains(line, `"level":"error"`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

func (w *world) isSettled(m *member) error {
	l := w.fake.Ledger()
	g := w.grant(l, m)
	if m.ended != "" || m.unknown > 0 && g.Revoked && g.Reuses > 0 {
		return w.isNamed(m)
	}
	c := w.connection(m.id)
	switch {
	case c.Status != "ACTIVE" || c.StatusReason != "":
		return fmt.Errorf("%+v, want ACTIVE", c)
	case c.Generation < m.told:
		return fmt.Errorf("generation %d, a client was told of %d", c.Generation, m.told)
	case int(c.Generation) != g.RefreshNumber:
		return fmt.Errorf("generation %d, the provider's current refresh token is the %dth", c.Generation, g.RefreshNumber)
	}
	m.told = c.Generation
	return nil
}

// isNamed checks that a connection says everywhere that it was interrupted.
func (w *world) isNamed(m *member) error {
	a := w.call(m.id, "/me")
	c := w.connection(m.id)
	reason := "refresh_interrupted"
	if m.ended != "" {
		reason = m.ended
	}
	if a.Status != http.StatusFailedDependency || a.Header.Get("Lanyard-Error") != "reconnect_required" || !strings.Contains(a.Body, reason) ||
		c.Status != "EXPIRED" || c.StatusReason != reason || c.ConnectURL == "" {
		return fmt.Errorf("a call gets HTTP %d %s, the connection is %+v; want both to say %s", a.Status, a.Body, c, reason)
	}
	m.ended = reason
	return nil
}

// holdsCurrent has a connection refreshed: what it presents is what it holds.
func (w *world) holdsCurrent(m *member) {
	w.t.Helper()
	before := w.fake.Ledger()
	g := w.grant(before, m)
	w.mustRefresh(m)
	after := w.fake.Ledger()
	n := presented(after, g.ID)[g.RefreshNumber]
	if now := w.grant(after, m); now.RefreshNumber != g.RefreshNumber+1 || now.Reuses != g.Reuses || n != 1 {
		w.t.Errorf("%s: the refresh token in the store is not the provider's current one: %+v, then %+v, presented %d times", m.account, g, now, n)
	}
	if err := w.served(m); err != nil {
		w.t.Error(err)
	}
}

// wantEachOnce checks the ledger: no refresh token and no code twice, unless an
// outcome was unknown.
func (w *world) wantEachOnce(all []*member) {
	w.t.Helper()
	l := w.fake.Ledger()
	codes := map[string]int{}
	for _, p := range l.Posts {
		if p.GrantType == "authorization_code" {
			codes[p.Grant]++
		}
	}
	for _, m := range all {
		g := w.grant(l, m)
		again := 0
		for _, n := range presented(l, g.ID) {
			again += n - 1
		}
		if again > m.unknown || g.Reuses > m.unknown {
			w.t.Errorf("%s: refresh tokens presented %v (number: times), %d reuses; only %d may be again", m.account, presented(l, g.ID), g.Reuses, m.unknown)
		}
		if codes[g.ID] != 1 {
			w.t.Errorf("%s: its code was presented %d times", m.account, codes[g.ID])
		}
	}
}
