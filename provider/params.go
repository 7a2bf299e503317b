package provider

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"sync/atomic"
)

// ErrParams is wrapped by the errors of For: a connection parameter is missing,
// unknown, or not of its form. Their texts name the parameter and its form,
// never the value, and may be shown.
var ErrParams = errors.New("connection parameter is not valid")

const (
	maxParams = 8
	// defaultPattern is the form of a value whose parameter declares none.
	defaultPattern = `^[a-z0-9][a-z0-9-]{0,62}$`
	// probe stands for any value while a template is judged.
	probe = "x"
	// apiPlace is where api_url stands in Entry.places.
	apiPlace = 4
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
)

// ParamEntry declares a connection parameter: what has to be known of an
// account before its URLs are, such as a shop's subdomain. `{name}` is its
// place in them.
type ParamEntry struct {
	// What it is, for people. Default: its name.
	Title string `json:"title,omitempty"`
	// The whole value's form, a regular expression (Go's). Beyond it a value is
	// at most 63 bytes of a-z A-Z 0-9 . _ -, and where it stands in a host one
	// DNS label. Default: `^[a-z0-9][a-z0-9-]{0,62}$`.
	Pattern string `json:"pattern,omitempty"`
}

// param is a declared parameter.
type param struct {
	form    *regexp.Regexp
	pattern string // for people
	host    bool   // it stands in a host
}

// params are what an entry's parameters may be, and where they go.
type params struct {
	declared map[string]*param
	urls     []template // in the order of Entry.places
}

// places returns what of an entry may hold parameters, and which of it are
// hosts without a scheme.
func (e *Entry) places() (words []string, at []*string) {
	words = []string{"authorize_url", "token_url", "revoke_url", "introspect_url", "api_url", "device_url", "account.url"}
	at = []*string{&e.AuthorizeURL, &e.TokenURL, &e.RevokeURL, &e.IntrospectURL, &e.APIURL, &e.DeviceURL, &e.Account.URL}
	for i := range e.Hosts {
		words, at = append(words, "hosts"), append(at, &e.Hosts[i])
	}
	return words, at
}

// parseParams reads an entry's parameters and finds their places.
func (e *Entry) parseParams() (*params, error) {
	ps := &params{declared: map[string]*param{}}
	if len(e.Params) > maxParams {
		return nil, fmt.Errorf("params: there are more than %d", maxParams)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Params)) {
		if !paramName.MatchString(name) || "{"+name+"}" == clientIDVar {
			return nil, fmt.Errorf("params %q is not a name of a-z, 0-9 and _ that begins with a letter, or is client_id", name)
		}
		pattern := e.Params[name].Pattern
		if pattern == "" {
			pattern = defaultPattern
		}
		form, err := wholePattern(pattern)
		if err != nil {
			return nil, fmt.Errorf("params %s: the pattern %w", name, err)
		}
		ps.declared[name] = &param{form: form, pattern: pattern}
	}
	used := map[string]bool{}
	words, at := e.places()
	for i, text := range at {
		t, err := parseTemplate(*text)
		if err != nil {
			return nil, fmt.Errorf("%s %q %w", words[i], *text, err)
		}
		for _, in := range t.places() {
			p := ps.declared[in.param]
			if p == nil {
				return nil, fmt.Errorf("%s %q has {%s}, which is none of its params", words[i], *text, in.param)
			}
			used[in.param] = true
			p.host = p.host || in.host
			if in.host && e.AllowPrivate {
				return nil, fmt.Errorf("%s %q: allow_private does not go with a parameter in a host", words[i], *text)
			}
		}
		ps.urls = append(ps.urls, t)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Params)) {
		if !used[name] {
			return nil, fmt.Errorf("params %s has no place: write {%s} into a URL", name, name)
		}
	}
	return ps, nil
}

// api returns the template of api_url.
func (ps *params) api() *template { return &ps.urls[apiPlace] }

// check returns an error that wraps ErrParams unless values holds each
// parameter, in its form, and nothing else.
func (ps *params) check(values map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(ps.declared)) {
		p := ps.declared[name]
		value, ok := values[name]
		switch {
		case !ok:
			return fmt.Errorf("%w: %s is missing", ErrParams, name)
		case !pathValue.MatchString(value) || value == "." || value == ".." || !p.form.MatchString(value):
			return fmt.Errorf("%w: %s is not of the form %s", ErrParams, name, p.pattern)
		case p.host && !hostValue.MatchString(value):
			return fmt.Errorf("%w: %s is not one label of a host name in lower case", ErrParams, name)
		}
	}
	if len(values) > len(ps.declared) {
		return fmt.Errorf("%w: there is one that the provider does not have", ErrParams)
	}
	return nil
}

// fill returns e with values in their places.
func (ps *params) fill(e Entry, values map[string]string) (Entry, error) {
	e.Hosts = slices.Clone(e.Hosts)
	words, at := e.places()
	for i, text := range at {
		var err error
		if *text, err = ps.urls[i].fill(values); err != nil {
			return Entry{}, fmt.Errorf("%s %w", words[i], err)
		}
	}
	return e, nil
}

// describe returns what can be said of the provider without a connection: its
// name for people, and the hosts that may be private.
func (p *Provider) describe() (title string, private []string, err error) {
	e, err := p.template.probed()
	if err != nil {
		return "", nil, err
	}
	api, err := url.Parse(e.APIURL)
	if err != nil {
		return "", nil, errors.New("api_url is not a URL")
	}
	title = api.Hostname()
	if fixed, placed := p.params.api().suffix(); placed {
		title = fixed
	}
	if e.AllowPrivate {
		private = append(slices.Clone(e.Hosts), api.Host)
	}
	return cmp.Or(e.Title, title), private, nil
}

// For returns the Provider with the URLs of a connection that has these
// parameters: all that the entry declares and no others, else the error wraps
// ErrParams. It shares what p has, and is closed with it. Where the entry
// declares none, it is p itself.
func (p *Provider) For(values map[string]string) (*Provider, error) {
	if len(p.params.declared) == 0 && len(values) == 0 {
		return p, nil
	}
	if err := p.params.check(values); err != nil {
		return nil, err
	}
	e, err := p.params.fill(p.template, values)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	bound := *p
	bound.entry, bound.unbound, bound.origin = e, false, p
	if bound.api, err = url.Parse(e.APIURL); err != nil {
		return nil, fmt.Errorf("%w: api_url is not a URL", ErrParams)
	}
	for _, param := range p.params.declared {
		if param.host { // what one host speaks says nothing of another
			bound.http2 = new(atomic.Bool)
		}
	}
	return &bound, nil
}

// Origin returns the *Provider that p was made of by For, p itself if it was
// not: the same for all parameters, and another after a change of
// configuration.
func (p *Provider) Origin() any {
	if p.origin != nil {
		return p.origin.Origin()
	}
	return p
}
