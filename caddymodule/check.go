package caddymodule

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/connect"
)

// minKeyLength is as long as 160 random bits are in base32.
const minKeyLength = 32

func checkAPIKey(key string) error {
	// A header can't carry others as they are, nor a space at the end.
	if len(key) < minKeyLength || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("the key needs at least %d characters, all of ASCII and none of them a space", minKeyLength)
	}
	return nil
}

func checkClientKey(key string) error {
	if len(key) < minKeyLength || strings.IndexFunc(key, func(r rune) bool { return !isNameRune(r) && (r < 'A' || r > 'Z') }) >= 0 {
		return fmt.Errorf("the key needs at least %d characters, all of A-Z, a-z, 0-9, _ and -", minKeyLength)
	}
	return nil
}

// checkHost returns why name can't be the host of a request, or nil.
func checkHost(name string) error {
	_, err := netip.ParseAddr(name)
	if err != nil && (name == "" || strings.ContainsFunc(name, func(r rune) bool { return !isNameRune(r) && (r < 'A' || r > 'Z') && r != '.' })) {
		return fmt.Errorf("%q is not a host name without scheme, port and wildcard", name)
	}
	return nil
}

// checkOrigin returns why origin can't be what a browser sends, or nil.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || origin != strings.ToLower(u.Scheme+"://"+u.Host) || strings.ContainsAny(origin, "*{}") {
		return fmt.Errorf("%q is not an origin as browsers send it, such as https://app.example.com", origin)
	}
	return nil
}

// isIntegrationName reports whether name may stand in a redirect URI as it is.
func isIntegrationName(name string) bool {
	return name != "" && name[0] != '_' && name[0] != '-' &&
		strings.IndexFunc(name, func(r rune) bool { return !isNameRune(r) }) < 0
}

func isNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}

func parsePublicURL(s string) (*url.URL, error) {
	if s == "" {
		return nil, errors.New("it is required: where browsers reach lanyard_connect, such as https://connect.example.com")
	}
	u, err := url.Parse(strings.TrimRight(s, "/"))
	if err != nil {
		return nil, fmt.Errorf("%q is not a URL", s)
	}
	if err := connect.ValidPublicURL(u); err != nil {
		return nil, fmt.Errorf("%q: %w", s, err)
	}
	return u, nil
}

// checkClients judges the clients as a whole.
func (a *App) checkClients() error {
	names := map[string]bool{}
	keys := slices.Clone(a.settings.apiKeys)
	for _, c := range a.settings.clients {
		name := c.Key.Name
		if name == "" || names[name] {
			return fmt.Errorf("client: each one needs a name of its own, and %q is none", name)
		}
		names[name] = true
		if slices.ContainsFunc(keys, c.Key.Value.Equal) {
			return fmt.Errorf("client %s: its key is also another client's, or an api_key; each needs its own", name)
		}
		keys = append(keys, c.Key.Value)
		if err := errors.Join(c.Check(), a.hasIntegrations(c.Integrations)); err != nil {
			return fmt.Errorf("client %s: %w", name, err)
		}
	}
	return nil
}

// hasIntegrations returns an error for the first of these names that is no
// integration's.
func (a *App) hasIntegrations(names []string) error {
	for _, name := range names {
		if name == "" {
			return errors.New("integrations: one of them is empty")
		}
		if err := a.hasIntegration(name); err != nil {
			return fmt.Errorf("integrations: %w", err)
		}
	}
	return nil
}
