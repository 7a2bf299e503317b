package provider

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Fields of an answer that may stand elsewhere (AnswerEntry.Paths).
var answerFields = []string{"access_token", "expires_in", "refresh_expires_in", "refresh_token", "scope", "token_type"}

// Parameters of the authorization request that are Lanyard's own.
var ownParams = []string{
	"client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "scope", "state",
}

// Parameters of requests for a token that are Lanyard's own.
var ownTokenParams = []string{
	"assertion", "client_id", "client_secret", "code", "code_verifier", "device_code", "grant_type", "redirect_uri",
	"refresh_token", "scope",
}

// errNoEndpoints is the mistake in an entry whose endpoints nobody can know.
var errNoEndpoints = errors.New("endpoints are missing: give authorize_url and token_url, or issuer")

// errorCode is the form of a listed error code, and of one that is shown.
var errorCode = regexp.MustCompile(`^[a-z0-9_.-]{1,64}$`)

// scopeToken is RFC 6749 section 3.3.
var scopeToken = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`)

// Validate returns an error that names the wrong word and the right ones, or
// nil.
func (e Entry) Validate() error {
	if e.APIURL == "" {
		return errors.New("api_url is missing: the base URL of the API that requests are proxied to")
	}
	if e.Issuer == "" && e.TokenURL == "" && (e.AuthorizeURL != "" || e.DeviceURL != "" || e.JWT != nil) {
		return errNoEndpoints
	}
	if err := e.checkAccountHost(); err != nil {
		return err
	}
	e, err := e.probed()
	if err != nil {
		return err
	}
	for _, u := range []struct {
		word, value string
		query       bool
	}{
		{"issuer", e.Issuer, false},
		{"authorize_url", e.AuthorizeURL, true},
		{"token_url", e.TokenURL, true},
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
	for _, check := range []func() error{
		e.checkHosts, e.checkWords, e.checkLists, e.checkAuthorize, e.checkLives, e.checkKey, e.checkHelp, e.checkJWT, e.checkAccount,
	} {
		if err := check(); err != nil {
			return err
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
	ps, err := e.parseParams()
	if err != nil {
		return e, err
	}
	values := map[string]string{}
	for name := range e.Params {
		values[name] = probe
	}
	return ps.fill(e, values)
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

// checkWords checks what takes one of a few words.
func (e Entry) checkWords() error {
	for _, w := range []struct {
		word, value string
		right       []string
	}{
		{"client_auth", e.ClientAuth, []string{AuthBasic, AuthBasicRaw, AuthPost, AuthNone}},
		{"refresh.rotation", e.Refresh.Rotation, []string{RotationSingleUse, RotationGrace, RotationNone}},
		{"revoke.method", e.Revoke.Method, []string{"POST", "DELETE"}},
		{"revoke.client_auth", e.Revoke.ClientAuth, []string{AuthBasic, AuthBasicRaw, AuthPost, AuthNone, AuthOmit}},
		{"revoke.body", e.Revoke.Body, []string{bodyForm, bodyJSON}},
		{"revoke.token", e.Revoke.Token, []string{tokenAny, tokenAccess}},
	} {
		if w.value != "" && !slices.Contains(w.right, w.value) {
			return fmt.Errorf("%s %q is not one of %s", w.word, w.value, strings.Join(w.right, ", "))
		}
	}
	for _, field := range slices.Sorted(maps.Keys(e.Answer.Paths)) {
		if !slices.Contains(answerFields, field) {
			return fmt.Errorf("answer.paths %q is not one of %s", field, strings.Join(answerFields, ", "))
		}
	}
	return nil
}

func (e Entry) checkLists() error {
	for _, s := range e.Scopes {
		if !scopeToken.MatchString(s) {
			return fmt.Errorf("scopes %q is not a scope (RFC 6749 section 3.3)", s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(e.ScopeTexts)) {
		if len(e.Scopes) > 0 && !slices.Contains(e.Scopes, s) {
			return fmt.Errorf("scope_texts %q is not one of scopes", s)
		}
	}
	for _, word := range e.Answer.TokenTypes {
		if word == "" || word != strings.ToLower(word) || !typeName.MatchString(word) {
			return fmt.Errorf("answer.token_types %q is not a token type in lower case", word)
		}
	}
	for _, list := range [][]string{e.Errors.Dead, e.Errors.Client, e.Errors.Denied} {
		for _, code := range list {
			if !errorCode.MatchString(code) {
				return fmt.Errorf("errors %q is not an error code of a-z, 0-9, _, . and -", code)
			}
		}
	}
	return nil
}

func (e Entry) checkAuthorize() error {
	for _, own := range ownParams {
		if _, ok := e.Authorize.Params[own]; ok {
			return fmt.Errorf("authorize.params %q is set by Lanyard itself", own)
		}
	}
	for _, own := range ownTokenParams {
		if _, ok := e.TokenParams[own]; ok {
			return fmt.Errorf("token_params %q is set by Lanyard itself", own)
		}
	}
	if err := checkAuthorizeQuery(e.AuthorizeURL); err != nil {
		return fmt.Errorf("authorize_url %w", err)
	}
	return nil
}

// checkAuthorizeQuery refuses an authorization endpoint that says what Lanyard
// says itself: which of the two holds would be the provider's guess.
func checkAuthorizeQuery(rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return errors.New("is not a URL")
	}
	for name := range u.Query() {
		if slices.Contains(ownParams, name) {
			return fmt.Errorf("must not set %q: Lanyard does itself", name)
		}
	}
	return nil
}

func (e Entry) checkLives() error {
	if _, err := parseLife(e.Answer.Life); err != nil {
		return fmt.Errorf("answer.life %w", err)
	}
	if life, err := parseLife(e.Refresh.Life); err != nil || life == forever {
		return fmt.Errorf("refresh.life %q is not a duration such as 720h", e.Refresh.Life)
	}
	if _, err := e.Refresh.interval(); err != nil {
		return fmt.Errorf("refresh.interval %w", err)
	}
	if n := e.Refresh.Concurrency; n < 0 || n > maxConcurrency {
		return fmt.Errorf("refresh.concurrency %d is not from 1 to %d", n, maxConcurrency)
	}
	return nil
}
