package provider

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// fix reads the parameters that the integration's configuration gives.
func (ps *params) fix(given map[string]string) (map[string]string, error) {
	fixed := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		pm := ps.declared[name]
		if pm == nil {
			return nil, wrongParam(name, fmt.Errorf("is none of the provider's, which has %s", orNone(ps.names())))
		}
		value, err := pm.read(given[name], true)
		if err != nil {
			return nil, wrongParam(name, err)
		}
		fixed[name] = value
	}
	for _, name := range ps.names() {
		if pm := ps.declared[name]; pm.from == "" && !pm.asked() && pm.defaultValue == "" && fixed[name] == "" {
			return nil, wrongParam(name, errors.New("is missing: only the integration's configuration can give it"))
		}
	}
	return fixed, nil
}

// wrongParam returns the error of a parameter that the configuration gives.
func wrongParam(name string, err error) error {
	return &OptionError{"param " + name, fmt.Errorf("param %s %w", name, err)}
}

// given reads the parameters of a connection: all that people are asked for and
// that have no default, and none that is not declared.
func (p *Provider) given(values map[string]string) (map[string]string, error) {
	read := map[string]string{}
	for _, name := range p.params.names() {
		pm := p.params.declared[name]
		value, ok := values[name]
		fixed, isFixed := p.fixed[name]
		switch {
		case !ok && (isFixed || pm.from != "" || pm.defaultValue != ""), ok && value == "" && pm.defaultValue != "":
			continue
		case ok && pm.fixed && !isFixed:
			return nil, fmt.Errorf("%w: only the integration's configuration can give %s", ErrParams, name)
		case !ok:
			return nil, fmt.Errorf("%w: %s is missing", ErrParams, name)
		}
		value, err := pm.read(value, false)
		if isFixed && value != fixed {
			return nil, fmt.Errorf("%w: %s is another in the integration's configuration", ErrParams, name)
		}
		if err != nil && !isFixed {
			return nil, fmt.Errorf("%w: %s %w", ErrParams, name, err)
		}
		read[name] = value
	}
	for name := range values {
		if p.params.declared[name] == nil {
			return nil, fmt.Errorf("%w: there is one that the provider does not have", ErrParams)
		}
	}
	return read, nil
}

// For returns the Provider with the URLs of a connection that has these
// parameters: all that people are asked for, those with a default excepted, and
// any that the provider tells; others are an error that wraps ErrParams. It
// shares what p has, and is closed with it. Where there is nothing to fill in,
// it is p itself.
func (p *Provider) For(values map[string]string) (*Provider, error) {
	if !p.unbound && len(values) == 0 && p.origin == nil {
		return p, nil
	}
	given, err := p.given(values)
	if err != nil {
		return nil, err
	}
	return p.bind(given, nil)
}

// With returns the Provider with what t.Metadata tells put in its places, p
// itself where the entry leaves nothing to tell. The error wraps ErrParams if
// then a value is missing that api_url or hosts need, or is not of its form.
func (p *Provider) With(t *tokenstore.Token) (*Provider, error) {
	bound, err := p.told(t.Metadata)
	if err != nil {
		return nil, err
	}
	if bound.unbound {
		return nil, fmt.Errorf("%w: the provider has some, and none were given", ErrParams)
	}
	for _, u := range append([]string{bound.entry.APIURL}, bound.entry.Hosts...) {
		if err := filled(u); err != nil {
			return nil, err
		}
	}
	return bound, nil
}

// told returns the Provider with what was told in its places, as far as it is
// known. Of values only those that providers tell are looked at.
func (p *Provider) told(values map[string]string) (*Provider, error) {
	read := map[string]string{}
	for _, name := range p.params.names() {
		value, ok := values[name]
		pm := p.params.declared[name]
		if !ok || pm.from == "" {
			continue
		}
		var err error
		if read[name], err = pm.read(value, false); err != nil {
			return nil, fmt.Errorf("%w: %s %w", ErrParams, name, err)
		}
	}
	if len(read) == 0 {
		return p, nil
	}
	return p.bind(p.values, read)
}

// bind returns p with values in its places: what the configuration fixes before
// what was told, that before what was given, and all before defaults.
func (p *Provider) bind(given, told map[string]string) (*Provider, error) {
	values := map[string]string{}
	for name, pm := range p.params.declared {
		if pm.defaultValue != "" {
			values[name] = pm.defaultValue
		}
	}
	for _, more := range []map[string]string{given, told, p.fixed} {
		maps.Copy(values, more)
	}
	e, err := p.params.fill(p.template, values)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrParams, err)
	}
	bound := *p
	bound.entry, bound.values, bound.origin = e, values, p
	bound.unbound, bound.api = false, nil
	for name, pm := range p.params.declared {
		_, known := values[name]
		bound.unbound = bound.unbound || !known && pm.from == ""
		if pm.host || pm.whole { // what one host speaks says nothing of another
			bound.http2 = new(atomic.Bool)
		}
	}
	if slices.ContainsFunc(append([]string{e.APIURL}, e.Hosts...), func(u string) bool { return filled(u) != nil }) {
		return &bound, nil
	}
	if bound.api, err = url.Parse(e.APIURL); err != nil {
		return nil, fmt.Errorf("%w: api_url is not a URL", ErrParams)
	}
	return &bound, nil
}

// start fills in what the configuration and defaults tell, and finds what can be
// said of the provider without a connection.
func (p *Provider) start(given map[string]string) error {
	var err error
	if p.fixed, err = p.params.fix(given); err != nil {
		return err
	}
	bound, err := p.bind(nil, nil)
	if err != nil {
		return err
	}
	p.entry, p.values, p.unbound, p.api = bound.entry, bound.values, bound.unbound, bound.api
	p.title = p.name()
	if !p.entry.AllowPrivate {
		return nil
	}
	for _, name := range p.params.names() {
		pm := p.params.declared[name]
		_, fixed := p.fixed[name]
		if (pm.host || pm.whole) && !fixed && (pm.from != "" || pm.asked()) {
			return fmt.Errorf("allow_private does not go with a host that connections tell: fix it with param %s", name)
		}
	}
	p.privateHosts = append(slices.Clone(p.entry.Hosts), hostOf(p.entry.APIURL))
	return nil
}

// name returns the provider's name for people.
func (p *Provider) name() string {
	if p.template.Title != "" {
		return p.template.Title
	}
	if filled(hostOf(p.entry.APIURL)) == nil {
		if u, err := url.Parse(p.entry.APIURL); err == nil && u.Hostname() != "" {
			return u.Hostname()
		}
		return hostOf(p.entry.APIURL)
	}
	fixed, _ := p.params.api.suffix()
	if s := p.params.api.places(); fixed == "" && len(s) > 0 {
		fixed = strings.TrimPrefix(p.params.declared[s[0].param].probe(), probe+".")
	}
	return fixed
}

// Origin returns the *Provider that p was made of by For and With, p itself if
// it was not: the same for all parameters, and another after a change of
// configuration.
func (p *Provider) Origin() any {
	if p.origin != nil {
		return p.origin.Origin()
	}
	return p
}
