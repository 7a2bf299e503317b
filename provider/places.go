package provider

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/internal/uuid"
)

// What is known of a connection when a place is filled :: whose telling came
// before. Everything is known to requests to the API.
var (
	atStart    = []string{}
	atCode     = []string{fromCallback}
	atExchange = []string{fromCallback, fromAnswer}
	atAPI      = []string{fromCallback, fromAnswer, fromAccount}
)

// place is a URL, or a host, that may hold parameters.
type place struct {
	word  string
	text  *string
	known []string
}

// places returns what of an entry may hold parameters. Those without a scheme
// are hosts.
func (e *Entry) places() []place {
	all := []place{
		{"authorize_url", &e.AuthorizeURL, atStart},
		{"token_url", &e.TokenURL, atCode},
		{"device_url", &e.DeviceURL, atStart},
		{"account.url", &e.Account.URL, atExchange},
		{"refresh.url", &e.Refresh.URL, atAPI},
		{"revoke_url", &e.RevokeURL, atAPI},
		{"introspect_url", &e.IntrospectURL, atAPI},
		{"api_url", &e.APIURL, atAPI},
	}
	if e.Exchange != nil {
		all = append(all, place{"exchange.url", &e.Exchange.URL, atExchange})
	}
	for i := range e.Hosts {
		all = append(all, place{"hosts", &e.Hosts[i], atAPI})
	}
	return all
}

// texts are values that may hold parameters, and what else they may hold.
type texts struct {
	word   string
	values *map[string]string
	also   []string
	known  []string
}

// texts returns the parameters and headers of an entry's requests.
func (e *Entry) texts() []texts {
	inHeader, secretToo := []string{"client_id", "uuid"}, []string{"client_id", "client_secret", "uuid"}
	all := []texts{
		{"authorize.params", &e.Authorize.Params, []string{"uuid"}, atStart},
		{"token.params", &e.Token.Params, nil, atCode},
		{"token.headers", &e.Token.Headers, inHeader, atCode},
		{"refresh.params", &e.Refresh.Params, nil, atAPI},
		{"refresh.headers", &e.Refresh.Headers, inHeader, atAPI},
		{"revoke.params", &e.Revoke.Params, nil, atAPI},
		{"revoke.headers", &e.Revoke.Headers, secretToo, atAPI},
		{"inject.headers", &e.Inject.Headers, secretToo, atAPI},
		{"inject.params", &e.Inject.Params, inHeader, atAPI},
	}
	if e.Exchange != nil {
		all = append(all, texts{"exchange.params", &e.Exchange.Params, nil, atExchange},
			texts{"exchange.headers", &e.Exchange.Headers, inHeader, atExchange})
	}
	return all
}

// findIn finds the parameters in a URL.
func (ps *params) findIn(at place) error {
	t, err := parseTemplate(*at.text)
	if err != nil {
		return fmt.Errorf("%s %q %w", at.word, *at.text, err)
	}
	if slices.Contains(t.path, tokenPiece) && at.word != "revoke_url" {
		return fmt.Errorf("%s %q has {token}, which only revoke_url may have", at.word, *at.text)
	}
	for _, in := range t.places() {
		pm, err := ps.named(in.param, at.word, *at.text, at.known)
		if err != nil {
			return err
		}
		switch {
		case in.whole && !pm.whole:
			return fmt.Errorf("%s %q has {%s} in the place of a whole host: say with domains in params.%s which hosts it may be", at.word, *at.text, in.param, in.param)
		case pm.whole && !in.whole:
			return fmt.Errorf("%s %q has {%s}, which is a whole host (domains, host), elsewhere than in its place", at.word, *at.text, in.param)
		}
		pm.inURL, pm.host = true, pm.host || in.host
	}
	ps.urls = append(ps.urls, t)
	if at.word == "api_url" {
		ps.api = &t
	}
	return nil
}

// findInAudience finds the parameters in jwt.audience.
func (ps *params) findInAudience(e *Entry) error {
	if e.JWT == nil {
		return nil
	}
	audience := map[string]string{"audience": e.JWT.Audience}
	return ps.findInText(texts{"jwt", &audience, nil, atStart})
}

// findInText finds the parameters in values.
func (ps *params) findInText(at texts) error {
	for _, name := range slices.Sorted(maps.Keys(*at.values)) {
		value := (*at.values)[name]
		for _, in := range textNames(value) {
			if slices.Contains(at.also, in) {
				continue
			}
			pm, err := ps.named(in, at.word+"."+name, value, at.known)
			if err != nil {
				return err
			}
			pm.inText = true
		}
	}
	return nil
}

// named returns the parameter that a place names, if it is known by then.
func (ps *params) named(name, word, text string, known []string) (*param, error) {
	pm := ps.declared[name]
	if pm == nil {
		return nil, fmt.Errorf("%s %q has {%s}, which is none of its params", word, text, name)
	}
	if pm.from != "" && pm.defaultValue == "" && !slices.Contains(known, pm.from) {
		return nil, fmt.Errorf("%s %q has {%s}, which is not known yet: it comes from %s.%s; give it a default", word, text, name, pm.from, pm.path)
	}
	return pm, nil
}

// fill returns e with values in those places of URLs for which all are there.
func (ps *params) fill(e Entry, values map[string]string) (Entry, error) {
	e.Hosts = slices.Clone(e.Hosts)
	if e.Exchange != nil {
		exchange := *e.Exchange
		e.Exchange = &exchange
	}
	if e.JWT != nil {
		jwt := *e.JWT
		jwt.Audience = fillText(jwt.Audience, values)
		e.JWT = &jwt
	}
	for i, at := range e.places() {
		t := &ps.urls[i]
		if slices.ContainsFunc(t.places(), func(s spot) bool { _, ok := values[s.param]; return !ok }) {
			continue
		}
		var err error
		if *at.text, err = t.fill(values); err != nil {
			return Entry{}, fmt.Errorf("%s %w", at.word, err)
		}
	}
	return e, nil
}

// inTexts returns what stands in the places of parameters and headers: all that
// is known of the connection, and the client. It is put in at once: braces in a
// value that somebody told are no place.
func (p *Provider) inTexts() map[string]string {
	all := map[string]string{clientIDName: p.clientID, secretName: p.clientSecret.Reveal(), "uuid": uuid.New()}
	maps.Copy(all, p.values)
	return all
}

// filledText returns a text with values in its places. The error wraps ErrParams:
// one of them is not known.
func filledText(word, text string, values map[string]string) (string, error) {
	for _, needed := range textNames(text) {
		if _, ok := values[needed]; !ok {
			return "", fmt.Errorf("%w: %s needs %s", ErrParams, word, needed)
		}
	}
	return fillText(text, values), nil
}

// openPlace returns the name of the first parameter that a URL lacks.
func openPlace(rawURL string) (name string, open bool) {
	_, rest, open := strings.Cut(strings.ReplaceAll(rawURL, tokenVar, ""), "{")
	name, _, _ = strings.Cut(rest, "}")
	return name, open
}

// filled returns an error that wraps ErrParams if a parameter's value is missing
// in a URL.
func filled(rawURL string) error {
	if name, open := openPlace(rawURL); open {
		return fmt.Errorf("%w: %s is missing", ErrParams, name)
	}
	return nil
}
