package proxy

import (
	"context"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// maxMissing bounds how many scopes an app is told that it lacks.
	maxMissing = 50
	// maxScope is the longest scope that is told, in bytes.
	maxScope = 200
)

// insufficientScope reports whether a 401 says that the token is good and may
// not do this (RFC 6750 section 3.1): another token of the same grant would be
// refused as well.
func insufficientScope(h http.Header) bool {
	_, ok := scopeChallenge(h)
	return ok
}

// scopeChallenge reports whether an answer says so, and returns the scopes that
// it names as necessary.
func scopeChallenge(h http.Header) (scopes []string, ok bool) {
	for _, value := range h["Www-Authenticate"] {
		var named []string
		lacking := false
		for name, param := range authParams(value) {
			switch {
			case strings.EqualFold(name, "error"):
				lacking = lacking || param == "insufficient_scope"
			case strings.EqualFold(name, "scope"):
				named = append(named, strings.Fields(param)...)
			}
		}
		if lacking {
			return named, true
		}
	}
	return nil, false
}

// hintScopes adds to a provider's answer that says so which scopes the
// connection lacks, and a link by which its user can grant them.
func (h *Handler) hintScopes(ctx context.Context, c *call, res *http.Response) {
	if res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusUnauthorized {
		return
	}
	named, ok := scopeChallenge(res.Header)
	if !ok {
		return
	}
	res.Header.Set("Lanyard-Hint", "insufficient_scope")
	missing := c.missing(named)
	if len(missing) == 0 {
		return
	}
	res.Header.Set("Lanyard-Missing-Scopes", strings.Join(missing, " "))
	if h.cfg.ConnectURL == nil || !slices.ContainsFunc(missing, c.upstream.mayAsk) {
		return
	}
	var ask []string
	for _, scope := range slices.Concat(c.grant.Requested, missing) {
		if c.upstream.mayAsk(scope) && !slices.Contains(ask, scope) {
			ask = append(ask, scope)
		}
	}
	if link := h.cfg.ConnectURL(ctx, c.grant, ask); link != "" {
		res.Header.Set("Lanyard-Connect-Url", link)
	}
}

// missing returns the scopes that the connection lacks of those that a provider
// has named, or of those that were asked for where that tells nothing.
func (c *call) missing(named []string) []string {
	if lacks := c.lacks(named); len(lacks) > 0 {
		return lacks
	}
	return c.lacks(c.grant.Requested)
}

func (c *call) lacks(scopes []string) []string {
	var lacks []string
	for _, scope := range scopes {
		if tokenstore.IsScope(scope) && len(scope) <= maxScope && !slices.Contains(c.grant.Token.Scopes, scope) && !slices.Contains(lacks, scope) && len(lacks) < maxMissing {
			lacks = append(lacks, scope)
		}
	}
	return lacks
}

// mayAsk reports whether a scope may be asked for.
func (up *Upstream) mayAsk(scope string) bool {
	return len(up.Scopes) == 0 || slices.Contains(up.Scopes, scope)
}

// authParams yields the parameters of all challenges in a WWW-Authenticate
// value (RFC 9110 section 11.6.1). It skips what it can't read.
func authParams(s string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for s != "" {
			var word, value string
			if word, s = cutToken(s); word == "" {
				if s[0] == '"' { // a string that belongs to nothing
					_, s = cutQuoted(s)
				} else {
					s = s[1:]
				}
				continue
			}
			rest := strings.TrimLeft(s, " \t")
			if !strings.HasPrefix(rest, "=") {
				continue // a scheme
			}
			s = strings.TrimLeft(rest[1:], " \t")
			if strings.HasPrefix(s, `"`) {
				value, s = cutQuoted(s)
			} else {
				value, s = cutToken(s)
			}
			if !yield(word, value) {
				return
			}
		}
	}
}

// cutToken splits s after its leading token (RFC 9110 section 5.6.2).
func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

// cutQuoted splits s after its leading quoted-string (RFC 9110 section 5.6.4)
// and decodes it. One without an end goes to the end of s.
func cutQuoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
