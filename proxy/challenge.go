package proxy

import (
	"iter"
	"net/http"
	"strings"
)

// insufficientScope reports whether a 401 says that the token is good and may
// not do this (RFC 6750 section 3.1): another token of the same grant would be
// refused as well.
func insufficientScope(h http.Header) bool {
	for _, value := range h["Www-Authenticate"] {
		for name, param := range authParams(value) {
			if strings.EqualFold(name, "error") && param == "insufficient_scope" {
				return true
			}
		}
	}
	return false
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
