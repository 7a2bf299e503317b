package provider

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// errNoEndpoints is the mistake in an entry whose endpoints nobody can know.
var errNoEndpoints = errors.New("endpoints are missing: give authorize_url and token_url, or issuer")

// Validate returns an error that names the wrong word and the right ones, or
// nil.
func (e Entry) Validate() error {
	e = e.complete()
	if e.APIURL == "" {
		return errors.New("api_url is missing: the base URL of the API that requests are proxied to")
	}
	if e.Issuer == "" && e.TokenURL == "" && (e.AuthorizeURL != "" || e.DeviceURL != "" || e.JWT != nil) {
		return errNoEndpoints
	}
	written := e
	e, err := e.probed()
	if err != nil {
		return err
	}
	if err := e.checkURLs(); err != nil {
		return err
	}
	for _, check := range []func() error{
		written.checkAccountHost, written.checkRevokeToken, // they look at places, not at what stands there
		e.checkHosts, e.checkChoices, e.checkLists, e.checkPaths, e.checkAuthorize, e.checkCallback, e.checkRequests, e.checkRevoke,
		e.checkTimes, e.checkInject, e.checkKey, e.checkHelp, e.checkJWT, e.checkAccount,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// complete returns the entry with what issuer alone says.
func (e Entry) complete() Entry {
	if e.APIURL == "" && e.Issuer != "" {
		scheme, _, _ := strings.Cut(e.Issuer, "://")
		e.APIURL = scheme + "://" + hostOf(e.Issuer)
	}
	return e
}

// checkURLs checks the URLs of an entry that was probed.
func (e Entry) checkURLs() error {
	// Of authorize_url alone, pages read their parameters behind the #.
	if before, fragment, paged := strings.Cut(e.AuthorizeURL, "#/"); paged && !strings.Contains(fragment, "#") {
		if e.Authorize.Fragment != "" {
			return errors.New("authorize.fragment does not go with an authorize_url that has one")
		}
		e.AuthorizeURL = before
	}
	exchange := ""
	if e.Exchange != nil {
		exchange = e.Exchange.URL
	}
	for _, u := range []struct {
		word, value string
		query       bool
	}{
		{"issuer", e.Issuer, false},
		{"authorize_url", e.AuthorizeURL, true},
		{"token_url", e.TokenURL, true},
		{"refresh.url", e.Refresh.URL, true},
		{"exchange.url", exchange, true},
		{"revoke_url", e.RevokeURL, true},
		{"introspect_url", e.IntrospectURL, true},
		{"device_url", e.DeviceURL, true},
		{"account.url", e.Account.URL, true},
		{"api_url", e.APIURL, false},
	} {
		if u.value == "" {
			continue
		}
		parsed, err := checkURL(u.value, e.AllowPrivate)
		if err != nil {
			return fmt.Errorf("%s %w", u.word, err)
		}
		if !u.query && (parsed.RawQuery != "" || parsed.ForceQuery) {
			return fmt.Errorf("%s must not have a query", u.word)
		}
	}
	return nil
}

// probed returns the entry with something in each place of a URL, so that it
// can be judged like any other.
func (e Entry) probed() (Entry, error) {
	if strings.ContainsAny(e.Issuer, "{}") {
		return e, errors.New("issuer must not have parameters")
	}
	e.RevokeURL = strings.ReplaceAll(e.RevokeURL, clientIDVar, "client-id")
	ps, err := e.parseParams("")
	if err != nil {
		return e, err
	}
	values := map[string]string{}
	for name, pm := range ps.declared {
		values[name] = pm.probe()
	}
	if e, err = ps.fill(e, values); err == nil {
		e.RevokeURL = strings.ReplaceAll(e.RevokeURL, tokenVar, "token")
	}
	return e, err
}

// checkURL returns rawURL parsed, or an error that goes on where the word it
// belongs to was named.
func checkURL(rawURL string, allowPrivate bool) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil: // the parser's own error would repeat a password
		return nil, errors.New("is not a URL")
	case u.User != nil:
		return nil, errors.New("must not hold a user or password")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", u.Opaque != "":
		return nil, fmt.Errorf("%q must be an absolute https URL", rawURL)
	case u.Fragment != "" || strings.Contains(rawURL, "#"):
		return nil, fmt.Errorf("%q must not have a fragment", rawURL)
	case strings.ContainsAny(rawURL, "{}"):
		return nil, fmt.Errorf("%q must not have braces", rawURL)
	case u.Scheme == "http" && !allowPrivate:
		return nil, fmt.Errorf("%q must be https; allow_private permits http on loopback", rawURL)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, fmt.Errorf("%q must be https: only a loopback address may do without", rawURL)
	}
	if err := checkHost(u.Host, allowPrivate); err != nil {
		return nil, err
	}
	return u, nil
}

// isLoopback reports whether host names this machine.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// hostName is a DNS name in its ASCII form, in lower case.
var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// checkHost checks a host with an optional port.
func checkHost(hostport string, allowPrivate bool) error {
	host := hostport
	if h, port, err := net.SplitHostPort(hostport); err == nil {
		host = h
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q has no valid port", hostport)
		}
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	addr, err := netip.ParseAddr(host)
	if err == nil && addr.Is6() && !strings.HasPrefix(hostport, "[") {
		return fmt.Errorf("%q must stand in brackets", hostport)
	}
	if err != nil {
		if !hostName.MatchString(host) {
			return fmt.Errorf("%q is not a host name in lower case", hostport)
		}
		if host == "localhost" && !allowPrivate {
			return fmt.Errorf("%q is this machine: say allow_private if that is meant", hostport)
		}
		return nil
	}
	if err := checkAddr(addr, allowPrivate); err != nil {
		return fmt.Errorf("%q is not allowed: %w; allow_private permits loopback and private addresses", hostport, err)
	}
	return nil
}

func (e Entry) checkHosts() error {
	for _, h := range e.Hosts {
		if strings.ContainsAny(h, "/@?#*") {
			return fmt.Errorf("hosts %q must be a host name, with a port where needed, and nothing else", h)
		}
		if err := checkHost(h, e.AllowPrivate); err != nil {
			return fmt.Errorf("hosts %w", err)
		}
	}
	return nil
}
