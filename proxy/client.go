package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Client is a key that may call the proxy, and what it may be used for. A list
// that is nil doesn't limit; of any other, what is in it is allowed and nothing
// else.
type Client struct {
	Key guard.Key
	// Integrations and Users are those whose connections may be named.
	Integrations, Users []string
	// Methods are those that may be called, as they are sent: "GET".
	Methods []string
	// Paths are patterns of the escaped path that goes upstream, less the path
	// of api_url: whole (`/user`) or with all below it (`/repos/acme/*`, which
	// is not `/repos/acme`). One that begins with a host (`uploads.test/x/*`) is
	// of that further host, whose path is matched whole; no other is. A path is
	// compared as it is sent, byte for byte: one that is written in another way
	// than the pattern does not match.
	Paths []string
}

// Check returns why c can't be what somebody meant, or nil.
func (c *Client) Check() error {
	for word, list := range map[string][]string{
		"integrations": c.Integrations, "users": c.Users, "methods": c.Methods, "paths": c.Paths,
	} {
		if list != nil && len(list) == 0 {
			return fmt.Errorf("%s: needs at least one value", word)
		}
	}
	if slices.Contains(c.Users, "") {
		return errors.New("users: one of them is empty")
	}
	for _, method := range c.Methods {
		if err := CheckMethod(method); err != nil {
			return fmt.Errorf("methods: %w", err)
		}
	}
	for _, pattern := range c.Paths {
		if err := CheckPattern(pattern); err != nil {
			return fmt.Errorf("paths: %w", err)
		}
	}
	return nil
}

// CheckMethod returns why no request with this method could pass, or nil.
func CheckMethod(method string) error {
	upper := strings.IndexFunc(method, func(r rune) bool { return (r < 'A' || r > 'Z') && r != '-' }) < 0
	if method == "" || !upper || checkMethod(method) != nil {
		return fmt.Errorf("%q is not a method such as GET, in capitals, that the proxy takes", method)
	}
	return nil
}

// CheckPattern returns why no path could match this pattern of Client.Paths, or
// nil.
func CheckPattern(pattern string) error {
	host, path := cutSegment(pattern)
	path = strings.TrimSuffix(path, "*")
	switch {
	case path == "" || strings.ContainsAny(host, "*%@?#") || strings.HasSuffix(host, ":"):
		return fmt.Errorf("%q does not begin with a slash, or with a host and a slash", pattern)
	case strings.ContainsAny(path, "*?#") || (strings.HasSuffix(pattern, "*") && !strings.HasSuffix(path, "/")):
		return fmt.Errorf("%q is neither a path nor one that ends in /*", pattern)
	case !pathAllowed(path):
		return fmt.Errorf("%q is no path that a request may have", pattern)
	}
	return nil
}

// allows returns why c may not use a connection, as an event says it, or "". A
// nil Client may do anything.
func (c *Client) allows(g *tokenstore.Grant) string {
	switch {
	case c == nil:
	case !listed(c.Integrations, g.Integration):
		return "integration_not_allowed"
	case !listed(c.Users, g.UserID):
		return "user_not_allowed"
	}
	return ""
}

// allowsCall returns why c may not send r to target at up, or "".
func (c *Client) allowsCall(r *http.Request, target *url.URL, up *Upstream) string {
	switch {
	case c == nil || (c.Methods == nil && c.Paths == nil):
	case !listed(c.Methods, r.Method):
		return "method_not_allowed"
	case overridden(r.Header):
		return "override_not_allowed"
	case c.Paths != nil && !c.allowsPath(target, up):
		return "path_not_allowed"
	}
	return ""
}

// allowsPath looks at the bytes that will be sent.
func (c *Client) allowsPath(target *url.URL, up *Upstream) bool {
	path := sentPath(target)
	if !pathAllowed(path) {
		return false
	}
	below, ok := strings.CutPrefix(path, apiPath(up))
	ok = ok && (below == "" || below[0] == '/') && sameHost(target.Scheme, target.Host, up.API.Host)
	return slices.ContainsFunc(c.Paths, func(pattern string) bool {
		host, pattern := cutSegment(pattern)
		if host == "" {
			return ok && matches(pattern, below)
		}
		return sameHost(target.Scheme, host, target.Host) && matches(pattern, path)
	})
}

func listed(list []string, s string) bool { return list == nil || slices.Contains(list, s) }

// matches reports whether a path is the pattern, or below one that ends in /*.
func matches(pattern, path string) bool {
	if parent, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(path, parent)
	}
	return path == pattern
}

// overriding are the headers that ask for that. No trailer may.
var overriding = [...]string{
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Original-Uri", "X-Rewrite-Url",
}

// overridden reports whether a request asks to be taken for one with another
// method or path: there are servers that do so.
func overridden(h http.Header) bool {
	for _, name := range overriding {
		if _, ok := h[name]; ok {
			return true
		}
	}
	return false
}

// match returns the client with this key, or nil. It compares with every key,
// each in constant time.
func match(clients []Client, key secret.String) *Client {
	var found *Client
	for i := range clients {
		if clients[i].Key.Value.Equal(key) && !key.IsZero() {
			found = &clients[i]
		}
	}
	return found
}
