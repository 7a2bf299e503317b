package connect

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Errors of Signer.Verify.
var (
	// ErrLinkInvalid: the link was not signed with one of the keys, was changed
	// afterwards, or says something that a connect link can't say.
	ErrLinkInvalid = errors.New("connect link is not valid")
	// ErrLinkExpired: the link is whole and its time has passed.
	ErrLinkExpired = errors.New("connect link has expired")
)

const (
	// linkLife is the life of the links that Lanyard makes itself.
	linkLife = 15 * time.Minute
	// maxLinkLife bounds the links that apps make: one that leaks is of no use
	// the day after.
	maxLinkLife = 24 * time.Hour
	// maxQuery bounds a link's query in bytes, so that a signed one can't fill
	// the store with flows of any size.
	maxQuery = 16 << 10
	// maxState bounds the app's state in bytes: it comes back in a URL.
	maxState = 512
	// maxText bounds a user ID, a name and a label's value in characters. The
	// API takes no more either, so that a longer user ID could begin a flow
	// that nobody can complete.
	maxText = 256
	// maxLabels and maxLabelKey bound the labels and, in characters, their names.
	maxLabels   = 32
	maxLabelKey = 64
	// defaultUser is the user of a link that names none.
	defaultUser = "default"
	// modeFormPost is the response_mode that keeps the answer out of URLs.
	modeFormPost = "form_post"
)

// Params is what a connect link says. The zero value asks the user to choose
// among the integrations, for the user `default`.
type Params struct {
	Integration    string
	UserID         string // never empty after Verify
	Scopes         []string
	RedirectURL    string
	State          string // the app's own, returned to it unchanged; at most 512 bytes
	ConnectionID   string
	ConnectionName string
	Labels         map[string]string
	Params         map[string]string // the connection parameters of the integration's URLs
	FormPost       bool              // `response_mode=form_post`: the app is answered by a form, not in its URL
	Expires        time.Time         // set by Verify, not read by Sign
}

// Signer makes and checks connect links. Links are signed with HMAC-SHA256
// under keys derived from the API keys, so that an app that holds one makes
// them without a network call. Safe for concurrent use.
type Signer struct {
	endpoint string          // {public_url}/connect
	keys     []secret.String // derived, in the order of the API keys
}

// NewSigner returns a Signer for links to publicURL: the first API key signs,
// all of them verify. With no key it verifies nothing, and must not sign.
func NewSigner(publicURL *url.URL, keys []secret.String) *Signer {
	s := &Signer{endpoint: strings.TrimRight(publicURL.String(), "/") + "/connect"}
	for _, k := range keys {
		s.keys = append(s.keys, secret.New(string(k.MAC("lanyard link v1"))))
	}
	return s
}

func (s *Signer) signature(key secret.String, query string) string {
	return base64.RawURLEncoding.EncodeToString(key.MAC("lanyard-link-v1\n" + s.endpoint + "\n" + query))
}

// Sign returns the link for p that is good until expires, at most 24 hours
// ahead.
func (s *Signer) Sign(p Params, expires time.Time) string {
	q := url.Values{"expires": {strconv.FormatInt(expires.Unix(), 10)}}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("integration", p.Integration)
	set("user_id", p.UserID)
	set("scopes", strings.Join(p.Scopes, " "))
	set("redirect_url", p.RedirectURL)
	set("state", p.State)
	set("connection_id", p.ConnectionID)
	set("connection_name", p.ConnectionName)
	set("labels", joinPairs(p.Labels))
	set("params", joinPairs(p.Params))
	if p.FormPost {
		set("response_mode", modeFormPost)
	}
	query := q.Encode()
	return s.endpoint + "?" + query + "&signature=" + s.signature(s.keys[0], query)
}

// Link returns a link by which the user of c connects it, for the first time
// or again, and the link's end, 15 minutes from now. The browser returns to
// redirectURL with state, in a form that is posted if formPost says so; scopes
// are asked for, nil being c's own.
func (s *Signer) Link(
	c tokenstore.Connection, redirectURL, state string, scopes []string, formPost bool,
) (link string, expires time.Time) {
	expires = wallNow().Add(linkLife).Truncate(time.Second)
	return s.Sign(Params{
		Integration: c.Integration, UserID: c.UserID, ConnectionID: c.ID,
		RedirectURL: redirectURL, State: state, Scopes: scopes, FormPost: formPost,
	}, expires), expires
}

// Verify reads the raw query of a connect link, byte for byte as sent. The
// signature comes first: nothing else is read of a query that was not signed.
// The error wraps ErrLinkInvalid or ErrLinkExpired and may be logged.
func (s *Signer) Verify(rawQuery string, now time.Time) (Params, error) {
	if len(rawQuery) > maxQuery {
		return Params{}, fmt.Errorf("%w: query is longer than %d bytes", ErrLinkInvalid, maxQuery)
	}
	query, signature, ok := strings.Cut(rawQuery, "&signature=")
	if !ok {
		return Params{}, fmt.Errorf("%w: no signature", ErrLinkInvalid)
	}
	if !s.signed(query, signature) {
		return Params{}, fmt.Errorf("%w: signature does not match", ErrLinkInvalid)
	}
	return parseLink(query, now)
}

// signed compares with every key, each in constant time. Text after the
// signature makes it another signature.
func (s *Signer) signed(query, signature string) bool {
	given, ok := secret.New(signature), false
	for _, k := range s.keys {
		if secret.New(s.signature(k, query)).Equal(given) {
			ok = true
		}
	}
	return ok
}

func parseLink(query string, now time.Time) (Params, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return Params{}, fmt.Errorf("%w: query is not form-encoded", ErrLinkInvalid)
	}
	p := Params{UserID: defaultUser}
	var expires string
	for name, all := range values {
		if len(all) != 1 {
			return Params{}, fmt.Errorf("%w: a parameter stands twice", ErrLinkInvalid)
		}
		if !utf8.ValidString(all[0]) || name != "state" && strings.ContainsFunc(all[0], notText) {
			return Params{}, fmt.Errorf("%w: a value is not Unicode text or has a control character", ErrLinkInvalid)
		}
		if name == "expires" {
			expires = all[0]
			continue
		}
		if err := p.set(name, all[0]); err != nil {
			return Params{}, err
		}
	}
	if p.FormPost && strings.ContainsFunc(p.State, unicode.IsControl) { // browsers change line ends in forms
		return Params{}, fmt.Errorf("%w: state has a control character, which a form does not return unchanged", ErrLinkInvalid)
	}
	unix, err := strconv.ParseUint(expires, 10, 40) // 40 bits: past the year 36000, and no overflow
	if err != nil {
		return Params{}, fmt.Errorf("%w: expires is not in Unix seconds", ErrLinkInvalid)
	}
	p.Expires = time.Unix(int64(unix), 0).UTC()
	switch {
	case !now.Before(p.Expires):
		return Params{}, ErrLinkExpired
	case p.Expires.Sub(now) > maxLinkLife:
		return Params{}, fmt.Errorf("%w: expires is more than 24 hours ahead", ErrLinkInvalid)
	}
	return p, nil
}

// notText reports whether r is no character of a text. The replacement
// character is what encoders make of one that was broken: two users would
// become one.
func notText(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }

// set takes one parameter. An empty value says the same as none.
func (p *Params) set(name, value string) error {
	switch name {
	case "integration":
		p.Integration = value
	case "user_id":
		if value != "" {
			p.UserID = value
		}
		return bounded(name, value, maxText)
	case "scopes":
		p.Scopes = tokenstore.UnionScopes(strings.Fields(value))
	case "redirect_url":
		p.RedirectURL = value
	case "state":
		if len(value) > maxState {
			return fmt.Errorf("%w: state is longer than %d bytes", ErrLinkInvalid, maxState)
		}
		p.State = value
	case "connection_id":
		p.ConnectionID = value
	case "connection_name":
		p.ConnectionName = value
		return bounded(name, value, maxText)
	case "labels":
		labels, err := parsePairs(name, value)
		p.Labels = labels
		return err
	case "params":
		params, err := parsePairs(name, value)
		p.Params = params
		return err
	case "response_mode":
		if value != "" && value != "query" && value != modeFormPost {
			return fmt.Errorf("%w: response_mode is neither query nor form_post", ErrLinkInvalid)
		}
		p.FormPost = value == modeFormPost
	default:
		return fmt.Errorf("%w: a parameter is not known", ErrLinkInvalid)
	}
	return nil
}

func bounded(what, value string, characters int) error {
	if utf8.RuneCountInString(value) > characters {
		return fmt.Errorf("%w: %s is longer than %d characters", ErrLinkInvalid, what, characters)
	}
	return nil
}

func joinPairs(all map[string]string) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		pairs = append(pairs, k+"="+all[k])
	}
	return strings.Join(pairs, ",")
}

// parsePairs reads labels or params, which have the same form and bounds.
func parsePairs(what, s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	all := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(pair, "=")
		if _, twice := all[k]; !ok || k == "" || twice {
			return nil, fmt.Errorf("%w: %s are not k=v,k=v", ErrLinkInvalid, what)
		}
		if err := errors.Join(bounded("a name in "+what, k, maxLabelKey), bounded("a value in "+what, v, maxText)); err != nil {
			return nil, err
		}
		all[k] = v
	}
	if len(all) > maxLabels {
		return nil, fmt.Errorf("%w: there are more than %d %s", ErrLinkInvalid, maxLabels, what)
	}
	return all, nil
}
