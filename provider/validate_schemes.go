package provider

import (
	"encoding/json"
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

// queryName is the name of a query parameter that is written in one way only.
var queryName = regexp.MustCompile(`^[A-Za-z0-9_.~-]{1,64}$`)

func (e Entry) checkKey() error {
	k := e.Key
	if k == (KeyEntry{}) {
		return nil
	}
	switch {
	case (k.Header == "") == (k.Query == ""):
		return errors.New("key: give either header or query, the name of what carries it")
	case k.Prefix != "" && k.Header == "":
		return errors.New("key.prefix goes with key.header only")
	case k.Suffix != "" && k.Header == "":
		return errors.New("key.suffix goes with key.header only")
	case k.Header != "" && checkCarrier(k.Header) != nil:
		return fmt.Errorf("key.header %w", checkCarrier(k.Header))
	case k.Query != "" && !queryName.MatchString(k.Query):
		return fmt.Errorf("key.query %q is not a name of A-Z a-z 0-9 _ . ~ -", k.Query)
	case !httpguts.ValidHeaderFieldValue(k.Suffix) || len(textNames(k.Suffix)) > 0:
		return fmt.Errorf("key.suffix %q can't stand in a header", k.Suffix)
	case k.Suffix != "" && isWord(k.Suffix[0]):
		return fmt.Errorf("key.suffix %q runs into the key: begin it with what stands between them", k.Suffix)
	}
	if err := checkPrefix("key.prefix", k.Prefix, []string{clientIDName}); err != nil {
		return err
	}
	if _, err := wholePattern(k.Pattern); err != nil {
		return fmt.Errorf("key.pattern %w", err)
	}
	return nil
}

// checkHelp checks where people are led to.
func (e Entry) checkHelp() error {
	for _, help := range []struct{ word, value string }{{"key.help_url", e.Key.HelpURL}, {"basic.help_url", e.Basic.HelpURL}, {"docs_url", e.DocsURL}} {
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
	if err := oneOf([]choice{
		{"jwt.issuer", e.JWT.Issuer},
		{"jwt.subject", e.JWT.Subject},
		{"jwt.key_id", e.JWT.KeyID},
		{"jwt.scope", e.JWT.Scope},
		{"jwt.carry", e.JWT.Carry},
	}); err != nil {
		return err
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
	if a.URL == "" && (a.ID != "" || a.Name != "" || a.Email != "" || a.Scopes != nil || a.Method != "" || a.Body != "") {
		return errors.New("account.url is missing")
	}
	switch {
	case a.ID == "" && (a.Name != "" || a.Email != ""):
		return errors.New("account.id is missing: a name or an email address identifies nobody")
	case a.Body != "" && a.Method != http.MethodPost:
		return errors.New("account.body goes with account.method POST only")
	case a.Body != "" && !json.Valid([]byte(a.Body)):
		return errors.New("account.body is not JSON")
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
