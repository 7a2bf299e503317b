package provider

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/lanyard-proxy/lanyard/internal/uuid"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	authorizationHeader = "Authorization"
	prefixNone          = "none"   // inject.prefix
	uuidVar             = "{uuid}" // in headers
	secretName          = "client_secret"
	clientIDName        = "client_id"
)

// Injection is what requests to the API carry: the credential in a header,
// between Prefix and Suffix, or in a query parameter, and what else the entry
// says.
type Injection struct {
	Header, Prefix, Suffix string // Header is empty where Query is not
	Query                  string
	Headers                []InjectedHeader // by name
	Params                 []InjectedParam  // by name
}

// InjectedHeader is a further header.
type InjectedHeader struct {
	Name  string        // canonical
	Value secret.String // it may have the client's secret; zero while a parameter in it is not known
	// Always puts it in the place of the app's own. Else it stands for a request
	// that brings none.
	Always bool
	UUID   bool // `{uuid}` in Value stands for a new one each time
}

// InjectedParam is a further query parameter.
type InjectedParam struct {
	Name, Value  string // Value is empty while a parameter in it is not known
	Always, UUID bool   // as with InjectedHeader
}

// Inject returns what requests to the API carry.
func (p *Provider) Inject() Injection {
	in := p.carrier()
	client := map[string]string{clientIDName: p.clientID, secretName: p.clientSecret.Reveal()}
	in.Prefix, in.Suffix = fillText(in.Prefix, client), fillText(in.Suffix, client)
	for _, name := range slices.Sorted(maps.Keys(p.template.Inject.Headers)) {
		value, always := p.injected(p.template.Inject.Headers[name], client)
		in.Headers = append(in.Headers, InjectedHeader{
			Name: http.CanonicalHeaderKey(name), Value: secret.New(value), Always: always, UUID: strings.Contains(value, uuidVar),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(p.template.Inject.Params)) {
		value, always := p.injected(p.template.Inject.Params[name], client)
		in.Params = append(in.Params, InjectedParam{Name: name, Value: value, Always: always, UUID: strings.Contains(value, uuidVar)})
	}
	return in
}

// carrier returns what carries the credential.
func (p *Provider) carrier() Injection {
	e, k := &p.entry.Inject, &p.entry.Key
	switch p.scheme {
	case tokenstore.AuthAPIKey:
		return Injection{Header: http.CanonicalHeaderKey(k.Header), Prefix: k.Prefix, Suffix: k.Suffix, Query: k.Query}
	case tokenstore.AuthBasic:
		return Injection{Header: authorizationHeader, Prefix: "Basic "} // RFC 7617 section 2
	}
	if e.Query != "" {
		return Injection{Query: e.Query}
	}
	in := Injection{Header: http.CanonicalHeaderKey(cmp.Or(e.Header, authorizationHeader)), Prefix: e.Prefix}
	switch {
	case e.Prefix == prefixNone:
		in.Prefix = ""
	case e.Prefix == "" && in.Header == authorizationHeader:
		in.Prefix = "Bearer " // RFC 6750 section 2.1
	}
	return in
}

// injected returns a value with all that is known in its places, and whether it
// always stands: it does if it is this client's or this connection's.
func (p *Provider) injected(text string, client map[string]string) (value string, always bool) {
	names := textNames(text)
	always = slices.ContainsFunc(names, func(name string) bool { return "{"+name+"}" != uuidVar })
	for _, name := range names {
		if _, known := p.values[name]; !known && p.params.declared[name] != nil {
			return "", always
		}
	}
	values := maps.Clone(p.values)
	maps.Copy(values, client)
	return fillText(text, values), always // at once: braces in a value that somebody told are no place
}

// checkInjected refuses further headers in the credential's place, and a client
// whose ID or secret can't stand in a header that has it.
func (p *Provider) checkInjected() error {
	in := p.Inject()
	for _, h := range in.Headers {
		if h.Name == in.Header { // BASIC has its own, whatever inject.header says
			return fmt.Errorf("inject.headers %q is the header of the credential under auth_scheme %s", h.Name, p.scheme)
		}
		if !httpguts.ValidHeaderFieldValue(h.Value.Reveal()) {
			return fmt.Errorf("client_id or client_secret can't stand in the header %s", h.Name)
		}
	}
	if !httpguts.ValidHeaderFieldValue(in.Prefix + in.Suffix) {
		return fmt.Errorf("client_id can't stand in the header %s", in.Header)
	}
	return nil
}

// apply puts the credential and all else on a request to the API, which has
// nothing of its own, and returns its URL.
func (in *Injection) apply(rawURL string, credential secret.String, header http.Header) string {
	query := url.Values{}
	for _, q := range in.Params {
		if q.Value == "" { // not known yet
			continue
		}
		query.Set(q.Name, strings.ReplaceAll(q.Value, uuidVar, uuid.New()))
	}
	for _, h := range in.Headers {
		if h.Value.IsZero() {
			continue
		}
		header.Set(h.Name, strings.ReplaceAll(h.Value.Reveal(), uuidVar, uuid.New()))
	}
	if in.Header != "" {
		header.Set(in.Header, in.Prefix+credential.Reveal()+in.Suffix)
	} else {
		query.Set(in.Query, credential.Reveal())
	}
	if len(query) == 0 {
		return rawURL
	}
	sep := "?"
	if strings.Contains(rawURL, "?") {
		sep = "&"
	}
	return rawURL + sep + query.Encode()
}

// Tells reports whether a parameter that the provider tells is part of requests to
// the API. One that is only kept and shown is not.
func (e *Entry) Tells() bool {
	texts := append([]string{e.APIURL}, e.Hosts...)
	texts = slices.AppendSeq(texts, maps.Values(e.Inject.Headers))
	texts = slices.AppendSeq(texts, maps.Values(e.Inject.Params))
	return slices.ContainsFunc(texts, func(text string) bool {
		return slices.ContainsFunc(textNames(text), func(name string) bool { return e.Params[name].From != "" })
	})
}

// clientInKey reports whether requests with a key or a password of this entry
// name our client.
func (e *Entry) clientInKey() bool {
	named := func(text string) bool {
		return slices.ContainsFunc(textNames(text), func(name string) bool { return name == clientIDName || name == secretName })
	}
	if named(e.Key.Prefix) {
		return true
	}
	for _, values := range []map[string]string{e.Inject.Headers, e.Inject.Params} {
		for _, value := range values {
			if named(value) {
				return true
			}
		}
	}
	return false
}

// needsSecret reports whether nothing works without the client's secret.
func (e *Entry) needsSecret(scheme string) bool {
	if scheme == tokenstore.AuthOAuth2 && (e.Callback.HMAC != "" || e.ClientAuth == AuthPrivateKeyJWT || e.ClientAuth == AuthBasicSecret) {
		return true
	}
	for _, value := range e.Inject.Headers {
		if slices.Contains(textNames(value), secretName) {
			return true
		}
	}
	return false
}
