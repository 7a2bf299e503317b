package provider

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// request is one request, its parameters by their names in RFC 6749.
type request struct {
	method, url string
	clientAuth  string // how the client proves itself, one of the Auth constants
	form        url.Values
	body        string            // where form stands, one of the body constants; empty: bodyForm
	rename      map[string]string // :: name in RFC 6749 → name there
	drop        []string          // parameters that are left out
	header      http.Header       // beside its own, and instead of them
	json        string            // the whole body, instead of form
	gzip        bool              // its answer may be packed, though nobody asks for that
}

// over returns e with what more says in its place: maps name by name, lists and
// texts as a whole.
func (e RequestEntry) over(more RequestEntry) RequestEntry {
	e.Method, e.Body = cmp.Or(more.Method, e.Method), cmp.Or(more.Body, e.Body)
	if more.Drop != nil {
		e.Drop = more.Drop
	}
	for _, m := range []struct {
		into *map[string]string
		from map[string]string
	}{{&e.Params, more.Params}, {&e.Rename, more.Rename}, {&e.Headers, more.Headers}} {
		all := map[string]string{}
		maps.Copy(all, *m.into)
		maps.Copy(all, m.from)
		*m.into = all
	}
	return e
}

// shape gives r the form that e describes. What e has of parameters stands for
// r's own: `grant_type` may be another. The error wraps ErrParams: what a value
// needs is not known.
func (p *Provider) shape(r *request, e RequestEntry) error {
	r.method, r.body, r.rename, r.drop = cmp.Or(e.Method, http.MethodPost), e.Body, e.Rename, e.Drop
	if r.form == nil {
		r.form = url.Values{}
	}
	if r.header == nil {
		r.header = http.Header{}
	}
	values := p.inTexts()
	for name, text := range e.Params {
		value, err := filledText("parameter "+name, text, values)
		if err != nil {
			return err
		}
		r.form.Set(name, value)
	}
	for name, text := range e.Headers {
		value, err := filledText("header "+name, text, values)
		if err != nil {
			return err
		}
		r.header.Set(name, value)
	}
	return nil
}

// clientNames returns of the names at token_url those that name the client, which
// hold at whatever endpoint: TikTok calls the client_id client_key everywhere.
func clientNames(rename map[string]string) map[string]string {
	names := map[string]string{}
	for _, name := range []string{"client_id", "client_secret"} {
		if there, ok := rename[name]; ok {
			names[name] = there
		}
	}
	return names
}

// elsewhere returns how the endpoints beside those for tokens are spoken to, as
// far as the entry does not say it of each: with the headers of token, and in
// JSON where token is. A URL's query is no place for a token that is introspected.
func (p *Provider) elsewhere() RequestEntry {
	e := RequestEntry{Headers: p.entry.Token.Headers, Rename: clientNames(p.entry.Token.Rename)}
	if p.entry.Token.Body == bodyJSON {
		e.Body = bodyJSON
	}
	return e
}

// send sends r once and returns the whole answer, of whatever status. It goes
// by a transport itself, not by an http.Client: no redirect is followed, so
// that no answer can have the secrets sent elsewhere.
func (p *Provider) send(ctx context.Context, r request) (tokenstore.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	req, proof, err := p.build(ctx, r)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("%w: %w", tokenstore.ErrNotSent, err)
	}
	transport := p.transport
	if req.Body == http.NoBody {
		transport = p.single
	}
	// What an HTTP/1 server sends past its Content-Length, net/http writes to
	// the standard log when the connection is used again, or takes for the next
	// answer. HTTP/2 has frames.
	req.Close = !p.http2.Load()
	a := tokenstore.Answer{SentAt: time.Now().Add(failpoint.Clock()).UTC()}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return tokenstore.Answer{}, sendError(err, proof.withhold())
	}
	defer res.Body.Close()
	if transport == p.transport {
		p.http2.Store(res.ProtoMajor == 2)
	}
	if a.Body, err = readAnswer(res, r.gzip); err != nil {
		return tokenstore.Answer{}, err
	}
	a.ReceivedAt = time.Now().Add(failpoint.Clock()).UTC()
	a.Status = res.StatusCode
	a.ContentType = res.Header.Get("Content-Type")
	a.RetryAfter = res.Header.Get("Retry-After")
	return a, nil
}

// readAnswer returns an answer's body, maxAnswer at most, packed or not.
func readAnswer(res *http.Response, unpack bool) (secret.String, error) {
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return secret.String{}, sendError(err, false)
	}
	switch encoding := strings.ToLower(res.Header.Get("Content-Encoding")); {
	case encoding == "" || encoding == "identity":
	case encoding == "gzip" && unpack:
		b = unpacked(b)
	default:
		b = nil // nobody asked for it
	}
	if len(b) > maxAnswer {
		return secret.String{}, fmt.Errorf("%w: the answer is longer than 1 MiB", tokenstore.ErrOutcomeUnknown)
	}
	return secret.New(string(b)), nil
}

// unpacked returns what gzip packed, one byte beyond maxAnswer at most, and nil
// if it did not.
func unpacked(b []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	b, err = io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err != nil {
		return nil
	}
	return b
}

// singleTransport returns a transport of which each request has a connection of
// its own, for those without a body. On one that it has used before, net/http
// sends them again by itself when the connection ends or the server refuses, and
// the code in their URL works once.
func singleTransport(allowPrivate bool) *http.Transport {
	t := newTransport(allowPrivate)
	t.DisableKeepAlives, t.ForceAttemptHTTP2 = true, false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return t
}

// build makes the HTTP request, and what proves whether it left. It leaves
// GetBody unset, without which the transport has no way to send a body twice.
func (p *Provider) build(ctx context.Context, r request) (*http.Request, *onceBody, error) {
	if r.form == nil {
		r.form = url.Values{}
	}
	if err := filled(r.url); err != nil {
		return nil, nil, err
	}
	user, password, err := p.prove(ctx, &r)
	if err != nil {
		return nil, nil, err
	}
	target, text, contentType, err := r.place()
	if err != nil {
		return nil, nil, err
	}
	body := &onceBody{r: strings.NewReader(text)}
	if text == "" { // what is secret stands in the URL or a header, and leaves with them
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { body.leave() }})
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, http.NoBody)
	if err != nil {
		return nil, nil, errors.New("the endpoint is not a URL")
	}
	if text != "" {
		req.Body, req.ContentLength = body, int64(len(text))
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "lanyard")
	maps.Copy(req.Header, r.header)
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	return req, body, nil
}

// prove puts what the client proves itself with among r's parameters, or
// returns it for HTTP Basic.
func (p *Provider) prove(ctx context.Context, r *request) (user, password string, err error) {
	switch id, pw := p.clientID, p.clientSecret.Reveal(); r.clientAuth {
	case AuthBasic: // RFC 6749 section 2.3.1: both are form-encoded first
		return url.QueryEscape(id), url.QueryEscape(pw), nil
	case AuthBasicID:
		r.form.Set("client_id", id)
		return url.QueryEscape(id), url.QueryEscape(pw), nil
	case AuthBasicRaw:
		return id, pw, nil
	case AuthBasicSecret:
		return pw, "", nil
	case AuthPost:
		r.form.Set("client_id", id)
		r.form.Set("client_secret", pw)
	case AuthPrivateKeyJWT:
		assertion, err := p.assertClient(ctx)
		if err != nil {
			return "", "", err
		}
		r.form.Set("client_id", id)
		r.form.Set("client_assertion_type", clientAssertionType)
		r.form.Set("client_assertion", assertion)
	case AuthNone:
		r.form.Set("client_id", id)
	}
	return "", "", nil
}

// place returns the URL and the body of r, with its parameters under their names
// there. An empty body has no content type.
func (r *request) place() (target, body, contentType string, err error) {
	if r.json != "" {
		return r.url, r.json, "application/json", nil
	}
	form := renamed(r.form, r.rename, r.drop)
	switch {
	case len(form) == 0 || r.body == bodyNone:
		return r.url, "", "", nil
	case r.body == bodyQuery || r.method == http.MethodGet:
		return withQuery(r.url, form), "", "", nil
	case r.body == bodyJSON:
		object := make(map[string]string, len(form))
		for name := range form {
			object[name] = form.Get(name)
		}
		b, err := json.Marshal(object)
		if err != nil {
			return "", "", "", errors.New("the body could not be encoded")
		}
		return r.url, string(b), "application/json", nil
	}
	return r.url, form.Encode(), "application/x-www-form-urlencoded", nil
}

// renamed returns params under the names that a provider has for them, and
// without those that it does not want.
func renamed(params url.Values, rename map[string]string, drop []string) url.Values {
	there := make(url.Values, len(params))
	for name, values := range params {
		if !slices.Contains(drop, name) {
			there[cmp.Or(rename[name], name)] = values
		}
	}
	return there
}

// withQuery returns a URL with further parameters at its end: in the query, or
// in a fragment that a page reads them from.
func withQuery(rawURL string, more url.Values) string {
	before, fragment, paged := strings.Cut(rawURL, "#")
	last := before
	if paged {
		last = fragment
	}
	switch {
	case len(more) == 0:
		return rawURL
	case !strings.Contains(last, "?"):
		return rawURL + "?" + more.Encode()
	case strings.HasSuffix(last, "?"), strings.HasSuffix(last, "&"):
		return rawURL + more.Encode()
	}
	return rawURL + "&" + more.Encode()
}

// onceBody is a request body that knows whether any of it was handed out, and
// can be withheld for good: the proof that a token never left.
type onceBody struct {
	r     *strings.Reader
	state atomic.Int32
}

// The states of a onceBody.
const (
	bodyFresh int32 = iota
	bodyRead
	bodyWithheld
)

// Read implements io.Reader.
func (b *onceBody) Read(p []byte) (int, error) {
	b.leave()
	if b.state.Load() == bodyWithheld {
		return 0, errors.New("request was given up")
	}
	return b.r.Read(p)
}

// Close implements io.Closer.
func (b *onceBody) Close() error { return nil }

// leave notes that the request is on its way.
func (b *onceBody) leave() { b.state.CompareAndSwap(bodyFresh, bodyRead) }

// withhold reports whether nothing left, and sees to it that nothing of the body
// will: after an error the transport may still be about to write. A request
// without one it writes before it returns, or never.
func (b *onceBody) withhold() bool { return b.state.CompareAndSwap(bodyFresh, bodyWithheld) }
