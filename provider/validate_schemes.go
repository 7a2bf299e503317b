package provider

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// maxAssertion is the longest life of an assertion, defaultAssertion the usual.
const (
	maxAssertion     = time.Hour
	defaultAssertion = 5 * time.Minute
)

// Headers that carry no key: they are the connection's, the request's own, or
// Lanyard's.
var noKeyHeaders = []string{
	"Accept", "Connection", "Content-Length", "Content-Type", "Cookie", "Host", "Keep-Alive", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "User-Agent", "Via",
}

// queryName is the name of a query parameter that is written in one way only.
var queryName = regexp.MustCompile(`^[A-Za-z0-9_.~-]{1,64}$`)

func (e Entry) checkKey() error {
	k := e.Key
	if k == (KeyEntry{}) {
		return nil
	}
	name := http.CanonicalHeaderKey(k.Header)
	switch {
	case (k.Header == "") == (k.Query == ""):
		return errors.New("key: give either header or query, the name of what carries it")
	case k.Prefix != "" && k.Header == "":
		return errors.New("key.prefix goes with key.header only")
	case k.Header != "" && (!httpguts.ValidHeaderFieldName(k.Header) || slices.Contains(noKeyHeaders, name) ||
		strings.HasPrefix(name, "Lanyard-") || strings.HasPrefix(name, "Proxy-")):
		return fmt.Errorf("key.header %q is no header for a key", k.Header)
	case k.Query != "" && !queryName.MatchString(k.Query):
		return fmt.Errorf("key.query %q is not a name of A-Z a-z 0-9 _ . ~ -", k.Query)
	case k.Prefix != "" && !httpguts.ValidHeaderFieldValue(k.Prefix):
		return fmt.Errorf("key.prefix %q can't stand in a header", k.Prefix)
	case k.Prefix != "" && isWord(k.Prefix[len(k.Prefix)-1]):
		return fmt.Errorf("key.prefix %q runs into the key: end it in what stands between them, such as %q", k.Prefix, k.Prefix+" ")
	}
	if _, err := wholePattern(k.Pattern); err != nil {
		return fmt.Errorf("key.pattern %w", err)
	}
	return nil
}

// checkHelp checks where people are led to.
func (e Entry) checkHelp() error {
	for _, help := range []struct{ word, value string }{{"key.help_url", e.Key.HelpURL}, {"basic.help_url", e.Basic.HelpURL}} {
		if u, err := url.Parse(help.value); help.value != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
			return fmt.Errorf("%s must be an absolute https URL", help.word)
		}
	}
	return nil
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// wholePattern returns the expression that a whole value has to match, nil for
// an empty one.
func wholePattern(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil //nolint:nilnil // any value will do
	}
	if _, err := regexp.Compile(pattern); err != nil { // by itself: what is put around it closes nothing of its own
		return nil, fmt.Errorf("is not a regular expression: %w", err)
	}
	form, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("does not end: %w", err)
	}
	return form, nil
}

func (e Entry) checkJWT() error {
	if e.JWT == nil {
		return nil
	}
	for _, w := range []struct {
		word, value string
		right       []string
	}{
		{"jwt.issuer", e.JWT.Issuer, []string{jwtClientID, jwtGiven}},
		{"jwt.subject", e.JWT.Subject, []string{jwtIssuer, jwtGiven, jwtOptional}},
		{"jwt.key_id", e.JWT.KeyID, []string{jwtGiven}},
		{"jwt.scope", e.JWT.Scope, []string{jwtClaim, jwtParam}},
	} {
		if w.value != "" && !slices.Contains(w.right, w.value) {
			return fmt.Errorf("%s %q is not one of %s", w.word, w.value, strings.Join(w.right, ", "))
		}
	}
	_, err := e.JWT.life()
	return err
}

// life reads jwt.life.
func (j *JWTEntry) life() (time.Duration, error) {
	if j.Life == "" {
		return defaultAssertion, nil
	}
	d, err := time.ParseDuration(j.Life)
	if err != nil || d < time.Minute || d > maxAssertion {
		return 0, fmt.Errorf("jwt.life %q is not a duration from 1m to 1h", j.Life)
	}
	return d, nil
}

func (e Entry) checkAccount() error {
	a := e.Account
	if a.URL == "" && (a.ID != "" || a.Name != "" || a.Email != "" || a.Scopes != nil) {
		return errors.New("account.url is missing")
	}
	if a.ID == "" && (a.Name != "" || a.Email != "") {
		return errors.New("account.id is missing: a name or an email address identifies nobody")
	}
	for _, s := range a.Scopes {
		if !scopeToken.MatchString(s) || len(e.Scopes) > 0 && !slices.Contains(e.Scopes, s) {
			return fmt.Errorf("account.scopes %q is none of the provider's scopes", s)
		}
	}
	return nil
}

// checkAccountHost refuses an account request that would take a credential to a
// host which is not to see it. It looks at what is written: two parameters that
// stand in the same place are not the same host.
func (e Entry) checkAccountHost() error {
	if e.Account.URL == "" {
		return nil
	}
	host := hostOf(e.Account.URL)
	if host == hostOf(e.APIURL) || host == hostOf(e.Issuer) || slices.Contains(e.Hosts, host) {
		return nil
	}
	return fmt.Errorf("account.url is on %q, which is neither the host of api_url or issuer nor one of hosts", host)
}

// hostOf returns what stands for host and port in a URL.
func hostOf(rawURL string) string {
	_, rest, _ := strings.Cut(rawURL, "://")
	host, _ := cutBefore(rest, "/?#")
	return host
}
