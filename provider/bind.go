package provider

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A Provider begins with what the configuration and defaults tell (start). For
// adds what people gave for a connection, With what its provider told; each reads
// the values and has bind put them in their places.

// start reads what the configuration fixes, and finds what can be said of the
// provider without a connection.
func (p *Provider) start(given map[string]string) error {
	var err error
	if p.fixed, err = p.params.fix(given); err != nil {
		return err
	}
	p.values = map[string]string{}
	for name, pm := range p.params.declared {
		if pm.defaultValue != "" {
			p.values[name] = pm.defaultValue
		}
	}
	if err := p.put(nil); err != nil {
		return err
	}
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

// For returns the Provider with the URLs of a connection that has these
// parameters: all that people are asked for, those with a default excepted, and
// any that the provider tells; others are an error that wraps ErrParams. It
// shares what p has, and is closed with it. Where there is nothing to fill in,
// it is p itself.
func (p *Provider) For(values map[string]string) (*Provider, error) {
	if p.origin != nil {
		return p.origin.For(values)
	}
	if !p.unbound && len(values) == 0 {
		return p, nil
	}
	given, err := p.readParams(values)
	if err != nil {
		return nil, err
	}
	return p.bind(given)
}

// With returns the Provider with what t.Metadata tells put in its places, p
// itself where the entry leaves nothing to tell. The error wraps ErrParams if
// then a value is missing that api_url or hosts need, or that the account tells
// and requests to the API carry, or one is not of its form.
func (p *Provider) With(t *tokenstore.Token) (*Provider, error) {
	bound, err := p.told(t.Metadata)
	if err != nil {
		return nil, err
	}
	if bound.unbound {
		return nil, fmt.Errorf("%w: the provider has some, and none were given", ErrParams)
	}
	if err := bound.placed(); err != nil {
		return nil, err
	}
	if err := bound.carried(); err != nil {
		return nil, err
	}
	return bound, nil
}

// told is With as far as anything is known. Of values only those that providers
// tell are looked at.
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
	return p.bind(read)
}

// bind returns p with values in their places, too.
func (p *Provider) bind(values map[string]string) (*Provider, error) {
	bound := *p
	bound.origin = cmp.Or(p.origin, p)
	for _, pm := range p.params.declared {
		if pm.host || pm.whole { // what one host speaks says nothing of another
			bound.http2 = new(atomic.Bool)
		}
	}
	if err := bound.put(values); err != nil {
		return nil, err
	}
	return &bound, nil
}

// put adds values to those that p has, but for what the configuration fixes, and
// fills the places that can be filled with them.
func (p *Provider) put(values map[string]string) error {
	all := maps.Clone(p.values)
	maps.Copy(all, values)
	maps.Copy(all, p.fixed)
	e, err := p.params.fill(p.template, all)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrParams, err)
	}
	p.entry, p.values, p.unbound, p.api = e, all, false, nil
	for name, pm := range p.params.declared {
		_, known := all[name]
		p.unbound = p.unbound || !known && pm.from == ""
	}
	if p.placed() == nil {
		if p.api, err = url.Parse(e.APIURL); err != nil {
			return fmt.Errorf("%w: api_url is not a URL", ErrParams)
		}
	}
	return nil
}

// placed returns an error that wraps ErrParams if a value is missing that api_url
// or hosts need.
func (p *Provider) placed() error {
	for _, u := range append([]string{p.entry.APIURL}, p.entry.Hosts...) {
		if err := filled(u); err != nil {
			return err
		}
	}
	return nil
}

// carried returns an error that wraps ErrParams if a value is missing that
// requests to the API carry and that the account tells: without its tenant one
// would be about another, or about none, and nothing would ask for it again.
func (p *Provider) carried() error {
	for _, values := range []map[string]string{p.template.Inject.Headers, p.template.Inject.Params} {
		for _, text := range values {
			for _, name := range textNames(text) {
				pm := p.params.declared[name]
				if _, known := p.values[name]; !known && pm != nil && pm.from == fromAccount {
					return fmt.Errorf("%w: %s is missing", ErrParams, name)
				}
			}
		}
	}
	return nil
}

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

// readParams reads the parameters of a connection: all that people are asked for
// and that have no default, and none that is not declared.
func (p *Provider) readParams(values map[string]string) (map[string]string, error) {
	read := map[string]string{}
	for _, name := range p.params.names() {
		pm := p.params.declared[name]
		value, given := values[name]
		fixed, isFixed := p.fixed[name]
		var err error
		switch {
		case !given && (isFixed || pm.from != "" || pm.defaultValue != ""): // known already, or told later
		case !given:
			return nil, fmt.Errorf("%w: %s is missing", ErrParams, name)
		case value == "" && pm.defaultValue != "": // a field that was left empty
		case isFixed: // it may be given again
			if again, _ := pm.read(value, false); again != fixed {
				return nil, fmt.Errorf("%w: %s is another in the integration's configuration", ErrParams, name)
			}
		case pm.fixed:
			return nil, fmt.Errorf("%w: only the integration's configuration can give %s", ErrParams, name)
		default:
			if read[name], err = pm.read(value, false); err != nil {
				return nil, fmt.Errorf("%w: %s %w", ErrParams, name, err)
			}
		}
	}
	for name := range values {
		if p.params.declared[name] == nil {
			return nil, fmt.Errorf("%w: there is one that the provider does not have", ErrParams)
		}
	}
	return read, nil
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
func (p *Provider) Origin() any { return cmp.Or(p.origin, p) }
