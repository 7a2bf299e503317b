package tokenstore

import (
	"slices"
	"strings"
)

// IsScope reports whether s has the form of one scope (RFC 6749 section 3.3,
// scope-token).
func IsScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

// UnionScopes returns the scopes of all lists, each once, in the order they come.
func UnionScopes(lists ...[]string) []string {
	var all []string
	for _, s := range slices.Concat(lists...) {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}
