package e2e_test

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/dialect"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// speakers returns an integration for each auth scheme of an entry that its
// words are about. The first has the entry's name.
func speakersOf(t *testing.T, name string, e provider.Entry) []*speaker {
	t.Helper()
	var all []*speaker
	for _, scheme := range e.Schemes() {
		if scheme == tokenstore.AuthBearerToken || scheme == tokenstore.AuthBasic && e.Basic == (provider.BasicEntry{}) ||
			scheme == tokenstore.AuthClientCredentials && scheme != e.DefaultScheme() {
			continue
		}
		s := &speaker{name: name, entry: e, scheme: scheme, scopes: dialect.Scopes(e)}
		if scheme != e.DefaultScheme() {
			s.name += "." + strings.ToLower(scheme[:3])
		}
		s.name = strings.ReplaceAll(s.name, ".", "_")
		s.dialect = dialect.Of(s.name, e, scheme)
		all = append(all, s)
	}
	return all
}

func (s *speaker) account(who string) dialect.Account {
	id := who + "-at-" + s.name
	if s.dialect.AccountForm != "" {
		id = dialect.Sample(s.dialect.AccountForm, false)
		if who == "bob" {
			id = strings.NewReplacer("a", "b", "7", "8").Replace(id)
		}
	}
	return dialect.Account{ID: id, Name: who + " of " + s.name, Email: who + "@" + s.name + ".example"}
}

// TestCatalogue takes every entry of the catalogue, as it is, through connect,
// call, expiry, refresh, dead refresh token and revocation, at a provider that
// speaks its own dialect.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	var all []*speaker
	for _, name := range provider.Names() {
		file := filepath.Join(root, "provider/catalog", name+".json")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := provider.ParseEntry(name+".json", b)
		if err != nil {
			t.Error(err)
			continue
		}
		all = append(all, speakersOf(t, name, e)...)
	}
	for _, name := range dialect.Names() {
		if !slices.ContainsFunc(all, func(s *speaker) bool { return s.name == name }) {
			t.Errorf("the dialect %s was written by hand for a provider that is not in the catalogue", name)
		}
	}
	takeThrough(t, all)
}

// A provider that fits the language touches one file: this one is not in the
// catalogue, and the program has never heard of it.
func TestProviderOfOneFile(t *testing.T) {
	t.Parallel()
	const file = "testdata/newcomer.json"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	e, err := provider.ParseEntry(file, b)
	if err != nil {
		t.Fatal(err)
	}
	all := speakersOf(t, "newcomer", e)
	for _, s := range all {
		s.own = true
	}
	takeThrough(t, all)
}

// takeThrough is the table: all integrations go step by step, together, since
// the clock of the program is one.
func takeThrough(t *testing.T, all []*speaker) {
	t.Helper()
	c := newCatalogue(t, all)
	ids := make([]map[string]string, len(all))
	alive := make([]bool, len(all))
	before := map[*speaker]dialect.Record{}
	step := func(name string, do func(t *testing.T, s *speaker, ids map[string]string) error) {
		t.Helper()
		began := time.Now()
		t.Run(name, func(t *testing.T) {
			for i, s := range all {
				if name != "connect" && !alive[i] {
					continue
				}
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					if ids[i] == nil {
						ids[i] = map[string]string{}
					}
					err := c.withWhy(s, name, do(t, s, ids[i]))
					alive[i] = err == nil
					if err != nil {
						t.Error(err)
					}
				})
			}
		})
		t.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
	}
	step("connect", c.connects)
	step("call", c.serves)
	step("revoke", c.revokes)
	for i, s := range all {
		before[s] = c.server.Record(s.name, s.holder("ann"))
		if alive[i] && s.tells() && !s.withItself() {
			c.server.EndAccess(s.name, s.holder("ann"))
		}
	}
	c.advance(2 * time.Hour)
	step("expiry", func(t *testing.T, s *speaker, ids map[string]string) error {
		return c.renewsByClock(t, s, ids, before[s])
	})
	step("refused", c.renewsWhenRefused)
	for i, s := range all {
		if alive[i] && !s.withItself() {
			c.server.Kill(s.name, s.holder("ann"))
			c.server.EndAccess(s.name, s.holder("ann"))
		}
	}
	c.advance(5 * time.Hour)
	step("dead", c.ends)
	c.advance(55 * 24 * time.Hour)
	step("itself", c.renewsWithItself)
	for i, s := range all {
		if alive[i] && s.withItself() {
			c.server.Kill(s.name, s.holder("ann"))
			c.server.EndAccess(s.name, s.holder("ann"))
		}
	}
	c.advance(180 * 24 * time.Hour)
	step("itself dead", c.endsWithItself)
	for _, line := range c.server.Nobody() {
		t.Errorf("a request that is no provider's: %s", line)
	}
}

// holder returns whose grant an account's connection has at the provider.
func (s *speaker) holder(who string) string {
	if s.dialect.Mint.URL != "" {
		return s.client()
	}
	return s.account(who).ID
}

// tells reports whether the program can know when an access token ends, within
// the first two hours.
func (s *speaker) tells() bool {
	if s.told() {
		return true
	}
	if s.dialect.Code.URL == "" && s.dialect.Mint.URL == "" {
		return false
	}
	life, err := time.ParseDuration(cmp.Or(s.entry.Answer.Life, "1h"))
	return err == nil && life <= 2*time.Hour
}

// knows reports whether somebody tells that life, so that no call need find out.
func (s *speaker) knows() bool { return s.entry.Answer.Life != "" || s.told() }

func (s *speaker) told() bool {
	for _, r := range []dialect.Request{s.dialect.Code, s.dialect.Mint, s.dialect.Exchange} {
		if strings.Contains(r.Answer, "$life") || strings.Contains(r.Answer, "$expires_at") {
			return true
		}
	}
	return false
}

func (s *speaker) withItself() bool { return s.entry.Refresh.With == "access_token" }

// renews reports whether there is a way to the next access token.
func (s *speaker) renews() bool { return s.dialect.Refresh.URL != "" || s.dialect.Mint.URL != "" }

// connects has two accounts connected, and looks at one.
func (c *catalogue) connects(t *testing.T, s *speaker, ids map[string]string) error {
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
	for _, who := range []string{"ann", "bob"} {
		if err := c.served(t, s, ids[who], s.holder(who)); err != nil {
			return err
		}
	}
	return nil
}

func (c *catalogue) served(t *testing.T, s *speaker, id, holder string) error {
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
	if s.dialect.Mint.URL != "" { // both are the same grant
		return nil
	}
	if _, err := c.ask(t, http.MethodPost, "/v1/connections/"+ids["bob"]+"/revoke", nil, nil); err != nil {
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
		return fmt.Errorf("the connection is %s, %w", seen.Status, err)
	}
	a, err := c.visit(t, s, ids["bob"])
	if err != nil || a.Status != http.StatusFailedDependency {
		return fmt.Errorf("a call after the revocation got HTTP %d, %w", a.Status, err)
	}
	return nil
}

// renewsByClock comes after two hours.
func (c *catalogue) renewsByClock(t *testing.T, s *speaker, ids map[string]string, before dialect.Record) error {
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
		return fmt.Errorf("after the token's end: %w: see refresh and answer", err)
	}
	if r := c.server.Record(s.name, holder); r.StaleCalls > before.StaleCalls && s.dialect.Mint.URL == "" && s.knows() {
		return fmt.Errorf("the API saw %d calls with a token that was over: see answer.paths and answer.life", r.StaleCalls)
	}
	return nil
}

// renewsWhenRefused has the API refuse a token before its end.
func (c *catalogue) renewsWhenRefused(t *testing.T, s *speaker, ids map[string]string) error {
	if !s.renews() || s.withItself() || s.dialect.Mint.URL != "" {
		return nil
	}
	holder := s.holder("ann")
	before := c.server.Record(s.name, holder)
	c.server.EndAccess(s.name, holder)
	if s.entry.Refresh.Pause != "" { // it was renewed just now
		a, err := c.visit(t, s, ids["ann"])
		after := c.server.Record(s.name, holder)
		if after.Refreshes > before.Refreshes { // or too long ago
			before = after
			c.server.EndAccess(s.name, holder)
			a, err = c.visit(t, s, ids["ann"])
			after = c.server.Record(s.name, holder)
		}
		if err != nil || a.Status != http.StatusUnauthorized || after.Refreshes != before.Refreshes {
			return fmt.Errorf("a call got HTTP %d, and there were %d refreshes, %w: see refresh.pause", a.Status, after.Refreshes-before.Refreshes, err)
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
		return fmt.Errorf("a call with a token that its provider refuses got HTTP %d, %w", a.Status, err)
	}
	return nil
}

// renewsWithItself comes some days before the end of tokens that are renewed
// with themselves.
func (c *catalogue) renewsWithItself(t *testing.T, s *speaker, ids map[string]string) error {
	if !s.withItself() {
		return nil
	}
	holder := s.holder("ann")
	return soonNil(func() error {
		if err := c.served(t, s, ids["ann"], holder); err != nil {
			return err
		}
		if r := c.server.Record(s.name, holder); r.Refreshes == 0 || r.StaleCalls > 0 {
			return fmt.Errorf("%w: %+v: see refresh.with and refresh.margin", errNotRenewed, r)
		}
		return nil
	})
}

func (c *catalogue) endsWithItself(t *testing.T, s *speaker, ids map[string]string) error {
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
			return fmt.Errorf("a call got HTTP %d, the connection is %s (%s), %w", a.Status, seen.Status, seen.StatusReason, err)
		}
		return nil
	})
}

// advance puts all clocks forward, by d in all.
func (c *catalogue) advance(d time.Duration) {
	c.server.SetClock(d)
	c.fail(c.dial, "clock="+d.String())
}

// A contributor whose entry is wrong is told at which step, what the provider
// missed, and which words are about it.
func TestCatalogueSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		of   string
		spin func(*provider.Entry)
		want string
	}{
		"a name":         {"tiktok", func(e *provider.Entry) { e.Token.Rename = nil }, "code: the parameter client_key is missing"},
		"a body":         {"notion", func(e *provider.Entry) { e.Token.Body = "" }, `want "application/json": see token.body`},
		"two proofs":     {"okta", func(e *provider.Entry) { e.ClientAuth = "post" }, "the parameter client_secret must not be there: see token.params, token.rename, token.drop or client_auth"},
		"a header":       {"shopify", func(e *provider.Entry) { e.Inject.Header = "" }, "the header X-Shopify-Access-Token is there 0 times: see inject.header"},
		"an agent":       {"reddit", func(e *provider.Entry) { e.Token.Headers = nil }, "code: the header User-Agent is not $any:$client:$any: see token.headers"},
		"an answer":      {"slack-user", func(e *provider.Entry) { e.Answer.Paths = nil }, `the provider gave a token with the answer {"ok":true`},
		"an endpoint":    {"airtable", func(e *provider.Entry) { e.TokenURL = "https://airtable.com/oauth2/token" }, "POST https://airtable.com/oauth2/token is none of its endpoints: see token_url"},
		"a page":         {"wechat", func(e *provider.Entry) { e.Authorize.Fragment = "" }, `the fragment is "", want "wechat_redirect": see authorize_url or authorize.fragment`},
		"proof and code": {"airtable", func(e *provider.Entry) { e.Authorize.PKCEOff = "a mistake" }, "authorize: the parameter code_challenge is missing"},
	}
	var all []*speaker
	wants := map[*speaker]string{}
	for name, tt := range tests {
		e, ok := provider.Lookup(tt.of)
		if !ok {
			t.Fatalf("no entry %s", tt.of)
		}
		tt.spin(&e)
		s := speakersOf(t, tt.of, e)[0]
		s.own, s.name = true, "broken-"+strings.ReplaceAll(name, " ", "-")
		s.dialect.Name = s.name
		all = append(all, s)
		wants[s] = tt.want
	}
	c := newCatalogue(t, all)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			ids := map[string]string{}
			err := c.withWhy(s, "connect", c.connects(t, s, ids))
			if err == nil {
				err = c.withWhy(s, "call", c.serves(t, s, ids))
			}
			if err == nil || !strings.Contains(err.Error(), wants[s]) {
				t.Errorf("a broken entry is told %q\nwant in it %q", err, wants[s])
			}
		})
	}
}

// isOver waits until a connection says that its user has to connect again.
func (c *catalogue) isOver(t *testing.T, s *speaker, id, reason string) error {
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
