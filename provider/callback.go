package provider

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// callbackScope is the name of the granted scopes among what a callback tells.
const callbackScope = "scope"

// errCallbackHMAC: somebody else than the provider wrote the response.
var errCallbackHMAC = errors.New("the authorization response is not signed with the client's secret")

// What is signed has these characters written so, as Shopify's own libraries
// do: else one parameter could hold what was signed as two.
var (
	signedValue = strings.NewReplacer("%", "%25", "&", "%26")
	signedName  = strings.NewReplacer("%", "%25", "&", "%26", "=", "%3D")
)

// CodeParam returns the parameter of the authorization response that carries
// the code.
func (p *Provider) CodeParam() string { return cmp.Or(p.entry.Callback.Code, "code") }

// Callback reads the query of an authorization response that brings a code. It
// returns what it tells of the connection's parameters, by their names, and the
// granted scopes under `scope` where the entry has them there; nil for nothing.
// The error wraps ErrParams if a value is not of its form, or is missing and is
// needed to redeem the code; another error says that the response is not the
// provider's.
func (p *Provider) Callback(rawQuery string) (map[string]string, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, errors.New("the authorization response has a query that is none")
	}
	if err := p.checkHMAC(query); err != nil {
		return nil, err
	}
	var kept map[string]string
	keep := func(name, value string) {
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = value
	}
	for _, name := range p.params.names() {
		pm := p.params.declared[name]
		if pm.from != fromCallback {
			continue
		}
		values := query[pm.path]
		switch {
		case len(values) > 1:
			return nil, fmt.Errorf("%w: %s is told more than once", ErrParams, name)
		case len(values) == 0 && pm.inURL && p.values[name] == "":
			return nil, fmt.Errorf("%w: %s is missing in the authorization response", ErrParams, name)
		case len(values) == 0:
			continue
		}
		value, err := pm.read(values[0], false)
		if err != nil {
			return nil, fmt.Errorf("%w: %s %w", ErrParams, name, err)
		}
		keep(name, value)
	}
	if word := p.entry.Callback.Scope; word != "" && len(query[word]) == 1 && len(query.Get(word)) <= maxScopes {
		keep(callbackScope, query.Get(word))
	}
	return kept, nil
}

// checkHMAC checks the signature of an authorization response, where the entry
// has one: of all other parameters, sorted, as name=value with & between them.
func (p *Provider) checkHMAC(query url.Values) error {
	word := p.entry.Callback.HMAC
	if word == "" {
		return nil
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if len(query[name]) != 1 { // which of them was signed would be a guess
			return errCallbackHMAC
		}
		if name != word {
			lines = append(lines, signedName.Replace(name)+"="+signedValue.Replace(query.Get(name)))
		}
	}
	given, err := hex.DecodeString(query.Get(word))
	if err != nil {
		return errCallbackHMAC
	}
	mac := hmac.New(sha256.New, []byte(p.clientSecret.Reveal()))
	mac.Write([]byte(strings.Join(lines, "&")))
	if !hmac.Equal(mac.Sum(nil), given) {
		return errCallbackHMAC
	}
	return nil
}

// readTold returns what source tells of the connection's parameters. What is not
// of its form is left out: what is known of it already stays.
func (p *Provider) readTold(source string, fields any) map[string]string {
	told := map[string]string{}
	for _, name := range p.params.names() {
		pm := p.params.declared[name]
		if pm.from != source {
			continue
		}
		if value, err := pm.read(textAt(fields, pm.path), false); err == nil {
			told[name] = value
		}
	}
	return told
}
