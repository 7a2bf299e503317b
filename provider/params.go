package provider

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// ErrParams is wrapped by the errors of For, With and Callback: a connection
// parameter is missing, unknown, or not of its form. Their texts name the parameter and its form,
// never the value, and may be shown.
var ErrParams = errors.New("connection parameter is not valid")

const (
	maxParams = 8
	// defaultPattern is the form of a value whose parameter declares none.
	defaultPattern = `^[a-z0-9][a-z0-9-]{0,62}$`
	// probe stands for any value while a template is judged, probeHost for any
	// whole host.
	probe     = "x"
	probeHost = "x.example.com"
	// maxTold is the longest value that is kept of what a provider tells, in
	// bytes: an import takes no longer one, and what is exported has to come back.
	maxTold = 256
)

var (
	paramName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)
	// pathValue bounds every value, whatever its pattern says: it holds no
	// character that means something in a URL or is written in more than one
	// way.
	pathValue = regexp.MustCompile(`^[A-Za-z0-9._-]{1,63}$`)
	// hostValue bounds a value that stands in a host: a DNS label (RFC 1123
	// section 2.1), without dots.
	hostValue = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	// wholeHost bounds a value that is a host: two labels or more, in ASCII, of
	// which the last makes it no address.
	wholeHost = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	// reserved are names that mean something else in braces or beside parameters.
	reserved = []string{"client_id", "client_secret", "scope", "token", "uuid"}
)

// ParamEntry declares a connection parameter: what has to be known of an
// account before its URLs are, such as a shop's subdomain, or what is kept of
// what the provider tells of it. `{name}` is its place in them.
type ParamEntry struct {
	// What it is, for people. Default: its name.
	Title string `json:"title,omitempty"`
	// The whole value's form, a regular expression (Go's). Beyond it a value is
	// at most 63 bytes of a-z A-Z 0-9 . _ -, and where it stands in a host one
	// DNS label; one that the provider tells and no URL has, any text of a line.
	// Default: `^[a-z0-9][a-z0-9-]{0,62}$`, and of what the provider tells: any.
	Pattern string `json:"pattern,omitempty"`
	// The value where none is given.
	Default string `json:"default,omitempty"`
	// Who tells it: `answer.PATH`, the token endpoint's answer;
	// `callback.NAME`, a parameter of the authorization response; `account.PATH`,
	// the answer to the account request. Default: whoever connects the account.
	From string `json:"from,omitempty"`
	// It is a whole host name, or a URL of which the host is taken: one of these,
	// or for `*.NAME` one below. It stands in the place of a whole host.
	Domains []string `json:"domains,omitempty"`
	// It is a whole host name, as with domains, and only the configuration of an
	// integration can give it, if none of domains has it.
	Host bool `json:"host,omitempty"`
	// Only the configuration of an integration can give it, and nobody is asked:
	// where a client is registered with one customer of the provider, it alone may
	// see the client's secret.
	Fixed bool `json:"fixed,omitempty"`
}

// Where values come from (`from`).
const (
	fromAnswer   = "answer"
	fromCallback = "callback"
	fromAccount  = "account"
)

// param is a declared parameter.
type param struct {
	form         *regexp.Regexp // nil: any
	pattern      string         // for people
	host         bool           // it stands in a label of a host
	whole        bool           // it is a host
	inURL        bool           // it stands in a URL
	inText       bool           // it stands in a header or a parameter
	from, path   string         // who tells it, and where; empty: who connects
	defaultValue string
	domains      []string // of a whole host
	operator     bool     // the configuration can give a host beyond them
	fixed        bool     // nobody else can give it
}

// asked reports whether people are asked for the parameter.
func (pm *param) asked() bool {
	return pm.from == "" && !pm.fixed && (!pm.operator || len(pm.domains) > 0)
}

// read returns value as it stands in its places. Its errors go on behind the
// parameter's name and do not repeat the value.
func (pm *param) read(value string, byOperator bool) (string, error) {
	switch {
	case pm.whole:
		return pm.readHost(value, byOperator)
	case pm.from != "" && !pm.inURL:
		if value == "" || len(value) > maxTold || strings.IndexFunc(value, func(r rune) bool { return !unicode.IsPrint(r) || pm.inText && r > '~' }) >= 0 {
			return "", errors.New("is not one line of text")
		}
	case !pathValue.MatchString(value) || value == "." || value == "..":
		return "", fmt.Errorf("is not of the form %s", pm.pattern)
	}
	if pm.form != nil && !pm.form.MatchString(value) {
		return "", fmt.Errorf("is not of the form %s", pm.pattern)
	}
	if pm.host && !hostValue.MatchString(value) {
		return "", errors.New("is not one label of a host name in lower case")
	}
	return value, nil
}

// readHost returns the host that value is, or of which it is the URL. Only the
// operator may name one outside domains: the client's secret goes there.
func (pm *param) readHost(value string, byOperator bool) (string, error) {
	if rest, ok := strings.CutPrefix(value, "https://"); ok {
		value = strings.TrimSuffix(rest, "/")
	}
	// What is not ASCII is refused before it is lowered: U+212A would become a k.
	if len(value) > 253 || !wholeHost.MatchString(value) {
		return "", errors.New("is not a host name, nor an https URL of nothing else")
	}
	value = strings.ToLower(value)
	in := func(domain string) bool {
		if below, ok := strings.CutPrefix(domain, "*"); ok {
			return strings.HasSuffix(value, below)
		}
		return value == domain
	}
	if byOperator && pm.operator || value == pm.defaultValue || slices.ContainsFunc(pm.domains, in) {
		return value, nil
	}
	return "", fmt.Errorf("is not one of the provider's hosts: %s", strings.Join(pm.hosts(), ", "))
}

// hosts returns the hosts that a whole host may be, for people.
func (pm *param) hosts() []string {
	if pm.defaultValue == "" || slices.Contains(pm.domains, pm.defaultValue) {
		return pm.domains
	}
	return append([]string{pm.defaultValue}, pm.domains...)
}

// probe returns a value that stands for any while the entry is judged.
func (pm *param) probe() string {
	switch {
	case !pm.whole:
		return probe
	case pm.defaultValue != "":
		return pm.defaultValue
	case len(pm.domains) > 0:
		return strings.Replace(pm.domains[0], "*", probe, 1)
	}
	return probeHost
}

// params are what an entry's parameters may be, and where they go.
type params struct {
	declared map[string]*param
	urls     []template // in the order of Entry.places
	api      *template
}

// names returns the declared names, sorted.
func (ps *params) names() []string { return slices.Sorted(maps.Keys(ps.declared)) }

// parseParams reads an entry's parameters and finds their places. Under scheme
// people are asked for what then nothing tells; empty: the entry is only judged.
func (e *Entry) parseParams(scheme string) (*params, error) {
	ps := &params{declared: map[string]*param{}}
	if err := ps.declare(e.Params); err != nil {
		return nil, err
	}
	for _, place := range e.places() {
		if err := ps.findIn(place); err != nil {
			return nil, err
		}
	}
	for _, place := range e.texts() {
		if err := ps.findInText(place); err != nil {
			return nil, err
		}
	}
	if err := ps.findInAudience(e); err != nil {
		return nil, err
	}
	if scheme != "" {
		ps.askUntold(scheme)
	}
	for _, name := range ps.names() {
		pm := ps.declared[name]
		if pm.from == "" && !pm.inURL && !pm.inText {
			return nil, fmt.Errorf("params.%s has no place: write {%s} into a URL, a header or a parameter", name, name)
		}
		if pm.defaultValue == "" {
			continue
		}
		if _, err := pm.read(pm.defaultValue, true); err != nil {
			return nil, fmt.Errorf("params.%s.default %q %w", name, pm.defaultValue, err)
		}
	}
	return ps, nil
}

// declare reads the declarations.
func (ps *params) declare(entries map[string]ParamEntry) error {
	if len(entries) > maxParams {
		return fmt.Errorf("params: there are more than %d", maxParams)
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if !paramName.MatchString(name) || slices.Contains(reserved, name) {
			return fmt.Errorf("params %q is not a name of a-z, 0-9 and _ that begins with a letter, or is one of %s", name, strings.Join(reserved, ", "))
		}
		pm, err := parseParam(entries[name])
		if err != nil {
			return fmt.Errorf("params.%s%w", name, err)
		}
		ps.declared[name] = pm
	}
	return nil
}

// askUntold has people asked for what nothing tells under a scheme: with a key
// comes no answer of a token endpoint, and without a browser no callback. A form
// stays that of what the provider would tell.
func (ps *params) askUntold(scheme string) {
	for _, pm := range ps.declared {
		told := pm.from == fromAnswer && asks(scheme) || pm.from == fromCallback && scheme == tokenstore.AuthOAuth2 || pm.from == fromAccount
		if !told && pm.inURL && pm.defaultValue == "" {
			pm.from, pm.path = "", ""
		}
	}
}

// parseParam reads one declaration. Its errors go on behind its name.
func parseParam(e ParamEntry) (*param, error) {
	pm := &param{
		pattern: cmp.Or(e.Pattern, defaultPattern), defaultValue: e.Default, domains: e.Domains,
		operator: e.Host, whole: e.Host || len(e.Domains) > 0, fixed: e.Fixed,
	}
	var err error
	if pm.form, err = wholePattern(pm.pattern); err != nil {
		return nil, fmt.Errorf(": the pattern %w", err)
	}
	if e.From != "" {
		from, path, ok := strings.Cut(e.From, ".")
		if !ok || path == "" || !slices.Contains([]string{fromAnswer, fromCallback, fromAccount}, from) {
			return nil, fmt.Errorf(".from %q is not answer.PATH, callback.NAME or account.PATH", e.From)
		}
		pm.from, pm.path = from, path
		if e.Pattern == "" {
			pm.form, pm.pattern = nil, "of a-z A-Z 0-9 . _ -"
		}
	}
	switch {
	case pm.whole && e.Pattern != "":
		return nil, errors.New(".pattern does not go with domains or host, which say the form")
	case pm.from != "" && pm.fixed:
		return nil, errors.New(".fixed does not go with from: the configuration gives it, or the provider tells it")
	case pm.from != "" && pm.operator && len(pm.domains) == 0:
		return nil, errors.New(".from needs domains: no provider may name any host")
	}
	for _, d := range e.Domains {
		if err := checkDomain(d); err != nil {
			return nil, fmt.Errorf(".domains %q %w", d, err)
		}
	}
	return pm, nil
}

// checkDomain refuses a domain that would let a value name anybody's host.
func checkDomain(d string) error {
	name, below := strings.CutPrefix(d, "*.")
	if d != strings.ToLower(d) || !wholeHost.MatchString(name) || !domain.MatchString(name) {
		return errors.New("is not a host name of two labels or more in lower case, or *. and one")
	}
	if below {
		return checkOwned(name)
	}
	return nil
}
