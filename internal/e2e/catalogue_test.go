package e2e_test

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// march is the table: all integrations go step by step, together, since the clock
// of the program is one.
type march struct {
	*catalogue
	all   []*speaker
	ids   []map[string]string // of each, :: account → connection
	alive []bool              // those that came through the step before
}

// step takes those through a step that came so far.
func (m *march) step(t *testing.T, name string, do func(t *testing.T, s *speaker, ids map[string]string) error) {
	t.Helper()
	began := time.Now()
	t.Run(name, func(t *testing.T) {
		for i, s := range m.all {
			if !m.alive[i] {
				continue
			}
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				err := m.withWhy(s, name, do(t, s, m.ids[i]))
				m.alive[i] = err == nil
				if err != nil {
					t.Error(err)
				}
			})
		}
	})
	t.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
}

// forget ends the grants, as when users forget the app at their provider: of
// tokens that are renewed with themselves, or of all others.
func (m *march) forget(withItself bool) {
	for i, s := range m.all {
		if m.alive[i] && s.withItself() == withItself {
			m.server.Kill(s.name, s.holder("ann"))
			m.server.EndAccess(s.name, s.holder("ann"))
		}
	}
}

// takeThrough takes integrations through the life of a connection.
func takeThrough(t *testing.T, all []*speaker) {
	t.Helper()
	m := &march{catalogue: newCatalogue(t, all), all: all}
	for range all {
		m.ids, m.alive = append(m.ids, map[string]string{}), append(m.alive, true)
	}
	m.step(t, "connect", m.connects)
	m.step(t, "call", m.serves)
	m.step(t, "revoke", m.revokes)
	before := map[*speaker]dialect.Record{}
	for i, s := range all {
		before[s] = m.server.Record(s.name, s.holder("ann"))
		if m.alive[i] && s.tells() && !s.withItself() {
			m.server.EndAccess(s.name, s.holder("ann"))
		}
	}
	m.advance(2 * time.Hour)
	m.step(t, "expiry", func(t *testing.T, s *speaker, ids map[string]string) error {
		t.Helper()
		return m.renewsByClock(t, s, ids, before[s])
	})
	m.step(t, "refused", m.renewsWhenRefused)
	m.forget(false)
	m.advance(5 * time.Hour)
	m.step(t, "dead", m.ends)
	m.advance(55 * 24 * time.Hour)
	m.step(t, "itself", m.renewsWithItself)
	m.forget(true)
	m.advance(180 * 24 * time.Hour)
	m.step(t, "itself dead", m.endsWithItself)
	for _, line := range m.server.Nobody() {
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
