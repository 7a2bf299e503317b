package dialect

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Server plays all providers that were added, told apart by host and path and,
// where two have the same, by the client or token in a request.
type Server struct {
	mu     sync.Mutex // guards all below
	all    map[string]*books
	nobody []string // requests that are no provider's
	clock  time.Duration
}

// New returns a Server that plays nobody yet.
func New() *Server { return &Server{all: map[string]*books{}} }

// Add has the server play d, with one registered client.
func (s *Server) Add(d *Dialect, client, secret, redirect string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &books{
		Dialect: d, client: client, secret: secret, redirect: redirect, given: map[string]given{},
		calls: map[string]int{}, staleCalls: map[string]int{},
	}
	s.all[d.Name] = b
	g := &grant{account: Account{ID: client, Name: client}}
	for _, own := range []string{client, secret} {
		if own != "" {
			b.given[own] = given{kind: "client", grant: g}
		}
	}
}

// Give has a provider take a credential that somebody made there by hand.
func (s *Server) Give(name, credential string, a Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[name]
	g := &grant{account: a, access: credential}
	b.grants = append(b.grants, g)
	b.given[credential] = given{kind: "credential", grant: g}
}

// Consent is the page at authorizeURL, where account allows what is asked. It
// returns the query with which the browser is sent back, or why the request is
// refused.
func (s *Server) Consent(name, authorizeURL string, account Account) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[name]
	c := &check{b: b, kind: "authorize", found: map[string]string{}}
	if err := c.page(authorizeURL); err != nil {
		return "", err
	}
	g := &grant{account: account, scopes: c.found["$scopes"], state: c.found["$state"], challenge: c.found["$challenge"], last: time.Now().Add(s.clock)}
	b.grants = append(b.grants, g)
	g.code = b.issue(g, "code")
	b.given[g.state] = given{kind: "state", grant: g}
	q, err := url.ParseQuery(b.answer(b.Authorize.Answer, g))
	if err != nil {
		return "", err
	}
	if b.HMAC != "" {
		q.Set(b.HMAC, shopHMAC(q, b.secret))
	}
	return q.Encode(), nil
}

// page checks an authorization request.
func (c *check) page(authorizeURL string) error {
	u, err := url.Parse(authorizeURL)
	if err != nil {
		return err
	}
	want, _, _ := strings.Cut(c.b.Authorize.URL, "#")
	in := &incoming{method: http.MethodGet, host: u.Host, path: u.EscapedPath(), query: u.Query(), header: http.Header{}}
	if _, fragment, ok := strings.Cut(c.b.Authorize.URL, "#"); ok {
		spa, query, _ := strings.Cut(u.EscapedFragment(), "?")
		if strings.HasPrefix(fragment, "/") { // a page that reads its parameters there
			in.query, _ = url.ParseQuery(query)
		} else {
			spa = u.Fragment
		}
		if spa != fragment {
			c.say("authorize_url or authorize.fragment", "the fragment is %q, want %q", spa, fragment)
		}
	}
	if !in.at(want) {
		c.say(words["authorize"].url, "the page is https://%s%s, want %s", in.host, in.path, want)
	}
	r := c.b.Authorize
	r.URL, r.Method = want, http.MethodGet
	c.request(in, &r)
	if len(c.wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(c.wrong, "; "))
	}
	return nil
}

// ServeHTTP implements http.Handler: token, revocation and account requests, and
// the APIs.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in, err := readRequest(r)
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	status, body := s.serve(in)
	s.mu.Unlock()
	if json.Valid([]byte(body)) {
		w.Header().Set("Content-Type", "application/json")
	} else if body != "" {
		w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	w.WriteHeader(status)
	if status != http.StatusNoContent {
		_, _ = w.Write([]byte(body)) //nolint:gosec // no browser renders it
	}
}

func (s *Server) serve(in *incoming) (status int, body string) {
	b, kind := s.find(in)
	if b == nil {
		s.nobody = append(s.nobody, fmt.Sprintf("%s https://%s%s with %v %v", in.method, in.host, in.path, slices.Sorted(maps.Keys(in.query)), slices.Sorted(maps.Keys(in.fields))))
		return http.StatusNotFound, "{}"
	}
	c := &check{b: b, kind: kind, now: time.Now().Add(s.clock), found: map[string]string{}}
	c.request(in, b.requests()[kind])
	switch kind {
	case "call":
		return c.call()
	case "account":
		return c.account()
	case "revoke":
		return c.revoke()
	}
	return c.token()
}

// find returns whose request it is, and what for.
func (s *Server) find(in *incoming) (*books, string) {
	if _, rest, ok := strings.Cut(in.path, "/lanyard-call/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		if b := s.all[name]; b != nil {
			if !in.at(strings.TrimSuffix(b.Call.URL, "/") + "/lanyard-call/" + rest) {
				b.complain("call", "it came to https://%s%s, want below %s: see %s", in.host, in.path, b.Call.URL, words["call"].url)
			}
			return b, "call"
		}
	}
	kinds := map[string]bool{}
	owners := map[string]bool{}
	temporary := false
	for _, told := range in.tellings() {
		for name, b := range s.all {
			if g, ok := b.given[told]; ok {
				owners[name], kinds[g.kind] = true, true
				temporary = temporary || g.kind == "access" && g.grant.temporary
			}
		}
	}
	var found *books
	var kind string
	best := 0
	for _, name := range slices.Sorted(maps.Keys(s.all)) {
		b := s.all[name]
		for k, r := range b.requests() {
			if k == "call" || k == "authorize" || !in.at(r.URL) {
				continue
			}
			score := 1
			if owners[name] {
				score += 8
			}
			if in.method == r.method() {
				score += 4
			}
			if meant(k, kinds, temporary) {
				score += 2
			}
			if score > best {
				found, kind, best = b, k, score
			}
		}
	}
	if found == nil && len(owners) == 1 { // the right provider at a wrong place
		for name := range owners {
			s.all[name].complain("a request", "%s https://%s%s is none of its endpoints: see token_url, refresh.url, exchange.url, revoke_url and account.url", in.method, in.host, in.path)
		}
	}
	return found, kind
}

// meant reports whether a request that has such words can be of a kind.
func meant(kind string, kinds map[string]bool, temporary bool) bool {
	switch kind {
	case "code":
		return kinds["code"]
	case "refresh":
		return kinds["refresh"] || kinds["access"] && !temporary
	case "exchange":
		return kinds["access"] && temporary
	case "mint":
		return !kinds["code"] && !kinds["refresh"]
	}
	return true
}

// Complaints returns what a provider found wrong, and forgets it.
func (s *Server) Complaints(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[name]
	out := b.complaints
	b.complaints = nil
	return out
}

// Nobody returns the requests that were no provider's.
func (s *Server) Nobody() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.nobody)
}

// Secrets returns everything that was given, and all clients' secrets.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, b := range s.all {
		for w, g := range b.given {
			if g.kind != "client" && g.kind != "state" || w == b.secret {
				all = append(all, w)
			}
		}
	}
	return all
}

// Record is what became of one account's newest grant.
type Record struct {
	Refreshes         int
	Calls, StaleCalls int
	Temporary         bool
	Revoked           bool
	Access            string
	Used              bool          // the API has served a request with that
	Age               time.Duration // of its tokens
}

// Record returns what became of an account's newest grant.
func (s *Server) Record(name, account string) Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[name]
	r := Record{Calls: b.calls[account], StaleCalls: b.staleCalls[account]}
	if g := b.newest(account); g != nil {
		r.Refreshes, r.Temporary, r.Revoked, r.Access = g.refreshes, g.temporary, g.revoked, g.access
		r.Used = g.used != "" && g.used == g.access
		r.Age = time.Now().Add(s.clock).Sub(g.last)
	}
	return r
}

func (b *books) newest(account string) *grant {
	for _, g := range slices.Backward(b.grants) {
		if g.account.ID == account {
			return g
		}
	}
	return nil
}

// EndAccess ends the access tokens that an account has.
func (s *Server) EndAccess(name, account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[name]
	for token, what := range b.given {
		if what.kind == "access" && what.grant.account.ID == account {
			what.over = true
			b.given[token] = what
		}
	}
}

// SetClock puts the providers' clock forward by d in all.
func (s *Server) SetClock(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock = d
}

// Kill ends what renews an account's token, as when its user forgets the app.
func (s *Server) Kill(name, account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.all[name].newest(account); g != nil {
		g.dead = true
	}
}
