package dialect

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Lives of access tokens, in seconds: of most, and of those that are renewed
// with themselves.
const (
	life     = 3600
	selfLife = 60 * 24 * 3600
)

// grant is what one user allowed, or what one credential is.
type grant struct {
	account   Account
	scopes    string // as they were asked for
	state     string
	challenge string
	code      string
	codeUsed  bool
	access    string // the newest
	used      string // the newest that a request to the API had
	refresh   string
	temporary bool // it has to be exchanged
	busy      bool // a refresh was told to come back
	dead      bool // its refresh tokens are over
	revoked   bool
	refreshes int
	last      time.Time
}

// given is what a word stands for.
type given struct {
	kind  string // code, access, refresh, or credential: one made by hand
	grant *grant
	over  bool // it is an access token at its end
}

// books are what one provider gave.
type books struct {
	*Dialect
	client, secret, redirect string
	grants                   []*grant
	given                    map[string]given // :: code, token or key → what it is
	complaints               []string
	calls, staleCalls        map[string]int // :: account → requests to the API, those with a token that was over
}

// word makes a secret that nothing else has.
func word(name, kind string) string { return "fp-" + kind + "-" + name + "-" + rand.Text() }

func (b *books) issue(g *grant, kind string) string {
	w := word(b.Name, kind)
	b.given[w] = given{kind: kind, grant: g}
	return w
}

// renew gives a grant its next tokens.
func (b *books) renew(g *grant, refresh bool) {
	g.access = b.issue(g, "access")
	if refresh {
		g.refresh = b.issue(g, "refresh")
	}
}

// answer fills an answer's words.
func (b *books) answer(text string, g *grant) string {
	seconds, scopes := b.life(g), g.scopes
	values := map[string]string{
		"$access": g.access, "$refresh": g.refresh, "$code": g.code, "$state": g.state, "$scopes": scopes, "$life": strconv.Itoa(seconds),
		"$granted": strings.TrimSpace(strings.ReplaceAll(scopes, "offline_access", "")), "$comma_scopes": strings.ReplaceAll(scopes, " ", ","),
		"$list_scopes": strings.ReplaceAll(scopes, b.separator(), `","`),
		"$account":     g.account.ID, "$name": g.account.Name, "$email": g.account.Email, "$client": b.client, "$redirect": b.redirect,
	}
	return wordPattern.ReplaceAllStringFunc(text, func(w string) string {
		if w == "$expires_at" {
			return g.last.Add(time.Duration(seconds) * time.Second).UTC().Format(time.RFC3339)
		}
		if v, ok := values[w]; ok {
			return v
		}
		return w
	})
}

// life returns how many seconds a grant's access token lives.
func (b *books) life(g *grant) int {
	if b.Refresh.uses("$access") && !g.temporary {
		return selfLife
	}
	return cmp.Or(b.Life, life)
}

func (b *books) separator() string {
	if b.ScopeSeparator != "" {
		return b.ScopeSeparator
	}
	return " "
}

// uses reports whether a request is to have a word.
func (r *Request) uses(word string) bool {
	for _, v := range r.Params {
		if strings.Contains(v, word) {
			return true
		}
	}
	for _, v := range r.Headers {
		if strings.Contains(v, word) {
			return true
		}
	}
	return false
}

func (b *books) complain(kind, format string, args ...any) {
	b.complaints = append(b.complaints, kind+": "+fmt.Sprintf(format, args...))
}

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
