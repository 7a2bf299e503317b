package e2e_test

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/dialect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// connects has two accounts connected, and looks at one.
func (c *catalogue) connects(t *testing.T, s *speaker, ids map[string]string) error {
	t.Helper()
	for _, who := range []string{"ann", "bob"} {
		id, err := c.join(t, s, s.account(who))
		if err != nil {
			return err
		}
		ids[who] = id
	}
	if s.dialect.Exchange.URL != "" {
		if err := soonNil(func() error {
			if c.server.Record(s.name, s.holder("ann")).Temporary {
				return fmt.Errorf("the token of the code was not exchanged: see exchange")
			}
			return nil
		}); err != nil {
			return err
		}
	}
	seen, err := c.look(t, ids["ann"])
	if err != nil {
		return err
	}
	want := s.account("ann")
	switch {
	case seen.Status != "ACTIVE":
		return fmt.Errorf("the connection is %s (%s)", seen.Status, seen.StatusReason)
	case s.entry.Account.ID != "" && s.dialect.Mint.URL == "" && seen.Account.ID != want.ID:
		return fmt.Errorf("the account is %+v, want %+v: see account", seen.Account, want)
	case s.scheme == tokenstore.AuthOAuth2 && !s.granted(seen.Scopes.Missing):
		return fmt.Errorf("asked for the scopes %v, granted are %v: see authorize.scope_separator, answer.paths or callback.scope", s.scopes, seen.Scopes.Granted)
	}
	for name, value := range s.dialect.Told {
		value = strings.ReplaceAll(value, "$account", want.ID)
		if from, _, _ := strings.Cut(s.entry.Params[name].From, "."); s.scheme != tokenstore.AuthOAuth2 && from != "account" {
			continue
		}
		if seen.Told[name] != value {
			return fmt.Errorf("provider_metadata is %v, want %s=%s: see params %s from", seen.Told, name, value, name)
		}
	}
	return nil
}

// granted reports whether a scope that is missing is one that brings a refresh
// token and that some never list.
func (s *speaker) granted(missing []string) bool {
	return !slices.ContainsFunc(missing, func(scope string) bool { return !slices.Contains(s.entry.Refresh.Scopes, scope) })
}

// serves makes a call.
func (c *catalogue) serves(t *testing.T, s *speaker, ids map[string]string) error {
	t.Helper()
	for _, who := range []string{"ann", "bob"} {
		holder := s.holder(who)
		if err := c.served(t, s, ids[who], holder); err != nil {
			return err
		}
		if s.dialect.Exchange.URL == "" {
			continue
		}
		if err := soonNil(func() error {
			if c.server.Record(s.name, holder).Used {
				return nil
			}
			return cmp.Or(c.served(t, s, ids[who], holder), errNotUsed)
		}); err != nil {
			return err
		}
	}
	return nil
}

// errNotUsed says that the program's newest token has not been to the API. A
// clock that is put forward before that meets the request for it under way, and
// the provider's pause would begin by the new time.
var errNotUsed = errors.New("the API has not seen the newest token")

func (c *catalogue) served(t *testing.T, s *speaker, id, holder string) error {
	t.Helper()
	a, err := c.visit(t, s, id)
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK || !strings.Contains(a.Body, `"`+holder+`"`) {
		return fmt.Errorf("a call got HTTP %d: %s", a.Status, a.Body)
	}
	return nil
}

// revokes has the second account's connection revoked.
func (c *catalogue) revokes(t *testing.T, s *speaker, ids map[string]string) error {
	t.Helper()
	if s.dialect.Mint.URL != "" { // both are the same grant
		return nil
	}
	if err := c.ask(t, http.MethodPost, "/v1/connections/"+ids["bob"]+"/revoke", nil, nil); err != nil {
		return err
	}
	if s.dialect.Revoke.URL != "" {
		if err := soonNil(func() error {
			if !c.server.Record(s.name, s.holder("bob")).Revoked {
				return fmt.Errorf("the provider has not revoked the grant: see revoke_url and revoke")
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if seen, err := c.look(t, ids["bob"]); err != nil || seen.Status != "REVOKED" {
		return fmt.Errorf("the connection is %s, %s", seen.Status, fmt.Sprint(err))
	}
	a, err := c.visit(t, s, ids["bob"])
	if err != nil || a.Status != http.StatusFailedDependency {
		return fmt.Errorf("a call after the revocation got HTTP %d, %s", a.Status, fmt.Sprint(err))
	}
	return nil
}

// renewsByClock comes after two hours.
func (c *catalogue) renewsByClock(t *testing.T, s *speaker, ids map[string]string, before dialect.Record) error {
	t.Helper()
	if !s.tells() || s.withItself() || !s.renews() {
		return nil
	}
	holder := s.holder("ann")
	err := soonNil(func() error { // one that is told to come again does
		if err := c.served(t, s, ids["ann"], holder); err != nil {
			return err
		}
		if r := c.server.Record(s.name, holder); r.Refreshes <= before.Refreshes && s.dialect.Mint.URL == "" {
			return errNotRenewed
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("after the token's end: %s: see refresh and answer", fmt.Sprint(err))
	}
	if r := c.server.Record(s.name, holder); r.StaleCalls > before.StaleCalls && s.dialect.Mint.URL == "" && s.knows() {
		return fmt.Errorf("the API saw %d calls with a token that was over: see answer.paths and answer.life", r.StaleCalls)
	}
	return nil
}

// renewsWhenRefused has the API refuse a token before its end.
func (c *catalogue) renewsWhenRefused(t *testing.T, s *speaker, ids map[string]string) error {
	t.Helper()
	if !s.renews() || s.withItself() || s.dialect.Mint.URL != "" {
		return nil
	}
	holder := s.holder("ann")
	before := c.server.Record(s.name, holder)
	c.server.EndAccess(s.name, holder)
	if s.dialect.Pause { // it was renewed just now
		a, err := c.visit(t, s, ids["ann"])
		after := c.server.Record(s.name, holder)
		if after.Refreshes > before.Refreshes && before.Age > time.Minute { // or too long ago
			before = after
			c.server.EndAccess(s.name, holder)
			a, err = c.visit(t, s, ids["ann"])
			after = c.server.Record(s.name, holder)
		}
		if err != nil || a.Status != http.StatusUnauthorized || after.Refreshes != before.Refreshes {
			return fmt.Errorf("a call got HTTP %d, and there were %d refreshes, %s: see refresh.pause", a.Status, after.Refreshes-before.Refreshes, fmt.Sprint(err))
		}
		return nil
	}
	// Several find out at the same time, and one refresh serves them all.
	errs := make([]error, 3)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = c.served(t, s, ids["ann"], holder) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if after := c.server.Record(s.name, holder); after.Refreshes != before.Refreshes+1 {
		return fmt.Errorf("there were %d refreshes, want 1", after.Refreshes-before.Refreshes)
	}
	return nil
}

// ends comes after the user has forgotten the app at the provider.
func (c *catalogue) ends(t *testing.T, s *speaker, ids map[string]string) error {
	t.Helper()
	switch {
	case s.dialect.Mint.URL != "", s.withItself():
		return nil
	case s.renews():
		return c.isOver(t, s, ids["ann"], tokenstore.ReasonInvalidGrant)
	}
	// A clock that is put forward ends no token that nothing renews, and a
	// refusal says nothing for certain: it is the app's to see.
	a, err := c.visit(t, s, ids["ann"])
	if err != nil || a.Status != http.StatusUnauthorized {
		return fmt.Errorf("a call with a token that its provider refuses got HTTP %d, %s", a.Status, fmt.Sprint(err))
	}
	return nil
}

// renewsWithItself comes some days before the end of tokens that are renewed
// with themselves.
func (c *catalogue) renewsWithItself(t *testing.T, s *speaker, ids map[string]string) error {
	t.Helper()
	if !s.withItself() {
		return nil
	}
	holder := s.holder("ann")
	return soonNil(func() error {
		if err := c.served(t, s, ids["ann"], holder); err != nil {
			return err
		}
		switch r := c.server.Record(s.name, holder); {
		case r.Refreshes == 0 || r.StaleCalls > 0:
			return fmt.Errorf("%w: %+v: see refresh.with and refresh.margin", errNotRenewed, r)
		case !r.Used:
			return errNotUsed
		}
		return nil
	})
}

func (c *catalogue) endsWithItself(t *testing.T, s *speaker, ids map[string]string) error {
	t.Helper()
	if !s.withItself() {
		return nil
	}
	return soonNil(func() error {
		a, err := c.visit(t, s, ids["ann"])
		if err != nil {
			return err
		}
		seen, err := c.look(t, ids["ann"])
		if err != nil || a.Status != http.StatusFailedDependency || seen.Status != "EXPIRED" {
			return fmt.Errorf("a call got HTTP %d, the connection is %s (%s), %s", a.Status, seen.Status, seen.StatusReason, fmt.Sprint(err))
		}
		return nil
	})
}

// advance puts all clocks forward, by d in all.
func (c *catalogue) advance(d time.Duration) {
	c.server.SetClock(d)
	c.fail(c.dial, "clock="+d.String())
}

// isOver waits until a connection says that its user has to connect again.
func (c *catalogue) isOver(t *testing.T, s *speaker, id, reason string) error {
	t.Helper()
	return soonNil(func() error {
		a, err := c.visit(t, s, id)
		if err != nil {
			return err
		}
		seen, err := c.look(t, id)
		if err != nil {
			return err
		}
		if a.Status != http.StatusFailedDependency || seen.Status != "EXPIRED" || seen.StatusReason != reason {
			return fmt.Errorf("a call got HTTP %d, the connection is %s (%s), want EXPIRED (%s): see errors.dead and answer.paths error", a.Status, seen.Status, seen.StatusReason, reason)
		}
		return nil
	})
}
