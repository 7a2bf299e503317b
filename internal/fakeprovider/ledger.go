package fakeprovider

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Outcomes of a token request that was answered as it should be. Others are
// the OAuth error code of the answer, or the name of the fault.
const (
	OutcomeOpen    = ""           // under way
	OutcomeIssued  = "issued"     // tokens were sent
	OutcomeLimited = "rate limit" // refused by LimitTokenRequests
)

// TokenPost is one request to the token endpoint.
type TokenPost struct {
	At            time.Time
	Host          string   // that it was sent to
	GrantType     string   // as sent
	Grant         string   // ID of the grant it is about; empty if not known
	Client        string   // client ID as sent
	Auth          string   // how the client authenticated: basic, post or none
	Params        []string // names of the form's parameters, sorted
	RefreshNumber int      // number of the refresh token presented; 0 if none
	Outcome       string   // see OutcomeIssued
	// Committed says that tokens were issued, whether or not the answer was
	// sent.
	Committed bool
	// Reused says that the refresh token had been rotated away by an earlier
	// request.
	Reused bool
}

// GrantRecord is what became of one grant.
type GrantRecord struct {
	ID            string
	Client        string
	User          User
	Scopes        []string
	RefreshNumber int // number of the newest refresh token; 0 before the code was redeemed
	Refreshes     int // that issued tokens
	Reuses        int // of refresh tokens rotated away
	Revoked       bool
}

// Call names API calls that are counted together.
type Call struct {
	Method string
	Path   string // below the base, decoded, without the query
	Status int    // 0: no answer was begun
}

// Revocation is one request to the revocation endpoint.
type Revocation struct {
	At     time.Time
	Kind   string // refresh_token, access_token, or empty for an unknown token
	Grant  string // empty for an unknown token
	Status int    // 0: no answer
}

// Ledger is what was asked of the provider, at one moment.
type Ledger struct {
	Posts          []TokenPost   // in the order they arrived
	Grants         []GrantRecord // in the order they were given
	Calls          map[Call]int  // :: what was called → how often
	Revocations    []Revocation  // in the order they were answered
	Introspections int
}

// Ledger returns a copy of the books.
func (s *Server) Ledger() Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Ledger{
		Posts: slices.Clone(s.posts), Calls: maps.Clone(s.calls),
		Revocations: slices.Clone(s.revocations), Introspections: s.introspections,
	}
	for _, g := range s.grants {
		l.Grants = append(l.Grants, GrantRecord{
			ID: g.id, Client: g.client, User: g.user, Scopes: slices.Clone(g.scopes),
			RefreshNumber: g.number, Refreshes: g.refreshes, Reuses: g.reuses, Revoked: g.revoked,
		})
	}
	return l
}

// Reused names every refresh token that was presented after it had been
// rotated away. A right client leaves it empty.
func (l Ledger) Reused() []string {
	var out []string
	for _, p := range l.Posts {
		if p.Reused {
			out = append(out, fmt.Sprintf("refresh token %d of %s", p.RefreshNumber, p.Grant))
		}
	}
	return out
}

// Refreshes returns the requests that presented a refresh token, whatever
// became of them.
func (l Ledger) Refreshes() []TokenPost {
	var out []TokenPost
	for _, p := range l.Posts {
		if p.GrantType == grantTypeRefresh {
			out = append(out, p)
		}
	}
	return out
}

// Grant returns the record of one grant.
func (l Ledger) Grant(id string) (GrantRecord, bool) {
	i := slices.IndexFunc(l.Grants, func(g GrantRecord) bool { return g.ID == id })
	if i < 0 {
		return GrantRecord{}, false
	}
	return l.Grants[i], true
}

// CallCount returns how many API calls were answered with status; 0 counts
// those without an answer, -1 all.
func (l Ledger) CallCount(status int) int {
	n := 0
	for c, k := range l.Calls {
		if status == -1 || c.Status == status {
			n += k
		}
	}
	return n
}
