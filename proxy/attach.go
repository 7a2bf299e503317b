package proxy

import (
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/lanyard-proxy/lanyard/internal/uuid"
	"github.com/lanyard-proxy/lanyard/secret"
)

// attach puts the credential of c on a clone of a request, and what else its
// provider wants on each.
func (c *call) attach(req *http.Request) {
	up, token := c.upstream, c.grant.Token.AccessToken.Reveal()
	if up.Query == "" {
		req.Header.Set(up.Header, up.Prefix+token+up.Suffix)
	}
	for i := range up.Headers {
		up.Headers[i].attach(req.Header)
	}
	if up.Query == "" && len(up.Params) == 0 {
		return
	}
	u := *req.URL
	for i := range up.Params {
		u.RawQuery = up.Params[i].attach(u.RawQuery)
	}
	if up.Query != "" {
		query, _ := withoutParam(u.RawQuery, func(name, _ string) bool { return name == up.Query })
		u.RawQuery = withParam(query, up.Query, token)
	}
	req.URL = &u
}

// attach puts the header on a request.
func (in *InjectedHeader) attach(h http.Header) {
	for name, values := range h { // a handler before this one may have written it in its own way
		switch {
		case !strings.EqualFold(name, in.Name):
		case in.Always:
			delete(h, name)
		case len(values) > 0:
			return
		}
	}
	value := in.Value.Reveal()
	if in.UUID {
		value = withUUID(value)
	}
	h.Set(in.Name, value)
}

// withUUID returns a value with a new UUID in the place of one.
func withUUID(value string) string { return strings.ReplaceAll(value, "{uuid}", uuid.New()) }

// attach returns a query with the parameter.
func (in *InjectedParam) attach(query string) string {
	rest, brought := withoutParam(query, func(name, _ string) bool { return name == in.Name })
	if brought && !in.Always {
		return query
	}
	value := in.Value
	if in.UUID {
		value = withUUID(value)
	}
	return withParam(rest, in.Name, value)
}

// withParam returns a query with a parameter at its end.
func withParam(query, name, value string) string {
	if query != "" {
		query += "&"
	}
	return query + url.QueryEscape(name) + "=" + url.QueryEscape(value)
}

// withoutParam returns a query without the parameters that drop says, every
// other byte of it as it is, and whether there were any. drop gets name and
// value decoded.
func withoutParam(query string, drop func(name, value string) bool) (rest string, dropped bool) {
	if query == "" {
		return "", false
	}
	kept := make([]string, 0, 1+strings.Count(query, "&"))
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if drop(decodeQuery(name), decodeQuery(value)) {
			dropped = true
			continue
		}
		kept = append(kept, pair)
	}
	if !dropped {
		return query, false
	}
	return strings.Join(kept, "&"), true
}

func decodeQuery(s string) string { return unescape(strings.ReplaceAll(s, "+", " ")) }

// mask has the credential of c masked where the upstream echoes it, and the
// client's secret where that went out with it.
func (c *call) mask(headersOnly bool) {
	if c.echo == nil {
		c.echo = &scrubber{headersOnly: headersOnly}
	}
	token := c.grant.Token.AccessToken
	c.echo.add(token)
	c.echo.add(c.upstream.ClientSecret)
	if strings.TrimSpace(c.upstream.Prefix) == "Basic" {
		c.echo.add(secret.New(password(token.Reveal())))
	}
}

// hidden is a credential that went out in a URL, and must not come back in what
// the upstream says about URLs.
type hidden struct {
	c     *call
	token string
}

// hide returns the request that has the credential taken out of what comes
// before its answer, and what takes it out of the answer: nil where the
// credential is no part of a URL, since few APIs repeat anything else.
func (c *call) hide(req *http.Request) (*http.Request, *hidden) {
	if c.upstream.Query == "" {
		return req, nil
	}
	hd := &hidden{c: c, token: c.grant.Token.AccessToken.Reveal()}
	s := new(scrubber) // of its own: the hook is called by another goroutine
	s.add(c.grant.Token.AccessToken)
	// Hooks of a context that wraps another are called first.
	return req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			hd.clean(http.Header(h), s)
			return nil
		},
	})), hd
}

// clean takes the credential out of a header.
func (hd *hidden) clean(h http.Header, s *scrubber) {
	for _, name := range [...]string{"Location", "Content-Location"} {
		mapValues(h, name, hd.withoutCredential)
	}
	mapValues(h, "Link", func(value string) string { return mapLinks(value, hd.withoutCredential) })
	s.header(h)
}

// withoutCredential returns a URL reference without the parameter that carries
// the credential: in every one that points at the provider, whatever its value,
// and in others if the value is the credential.
func (hd *hidden) withoutCredential(ref string) string {
	before, rest, ok := strings.Cut(ref, "?")
	if !ok {
		return ref
	}
	query, fragment, hasFragment := strings.Cut(rest, "#")
	scheme, authority, _, resolved := hd.c.resolve(ref)
	own := resolved && strings.EqualFold(scheme, hd.c.upstream.API.Scheme) && mayReach(hd.c.upstream, scheme, authority)
	query, dropped := withoutParam(query, func(name, value string) bool {
		return own && name == hd.c.upstream.Query || hd.token != "" && strings.Contains(value, hd.token)
	})
	if !dropped {
		return ref
	}
	if query != "" {
		query = "?" + query
	}
	if hasFragment {
		fragment = "#" + fragment
	}
	return before + query + fragment
}

// error returns err, or one that says nothing if err repeats the URL.
func (hd *hidden) error(err error) error {
	if err == nil || hd == nil {
		return err
	}
	text := err.Error()
	if strings.Contains(text, hd.token) || strings.Contains(text, url.QueryEscape(hd.token)) {
		return &hiddenError{err}
	}
	return err
}

// hiddenError is an error whose text repeats a credential.
type hiddenError struct{ err error }

func (e *hiddenError) Error() string { return "upstream failed" }

// Unwrap returns the error, for errors.Is.
func (e *hiddenError) Unwrap() error { return e.err }
