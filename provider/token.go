package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// RequestLimit is the longest that one request to a token endpoint takes, its
// answer included. It is the deadline of the intent that stands for it.
const RequestLimit = 20 * time.Second

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 1 << 20

// Exchange redeems an authorization code (RFC 6749 section 4.1.3): one POST,
// whatever happens. The answer is not looked at. The error wraps
// tokenstore.ErrNotSent if provably nothing of it left, else
// tokenstore.ErrOutcomeUnknown.
func (p *Provider) Exchange(ctx context.Context, code, codeVerifier secret.String) (tokenstore.Answer, error) {
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {code.Reveal()}, "redirect_uri": {p.redirectURI},
	}
	if p.entry.Authorize.PKCEOff == "" {
		form.Set("code_verifier", codeVerifier.Reveal())
	}
	a, err := p.askToken(ctx, form)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("code exchange: %w", err)
	}
	return a, nil
}

// Refresh redeems t's refresh token (RFC 6749 section 6), or asks for the next
// access token with what stands in its place: our own client (section 4.4), or
// an assertion that the key signs (RFC 7523 section 2.1). One POST, whatever
// happens. The answer is not looked at. The errors are those of Exchange.
func (p *Provider) Refresh(ctx context.Context, t tokenstore.Token) (tokenstore.Answer, error) {
	form, err := p.renewal(ctx, &t)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("token refresh: %w: %w", tokenstore.ErrNotSent, err)
	}
	a, err := p.askToken(ctx, form)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("token refresh: %w", err)
	}
	return a, nil
}

// renewal returns the request that renews t. What renews it has to be of this
// scheme: a connection may be older than the scheme of its integration, and a
// key must not go where a refresh token does.
func (p *Provider) renewal(ctx context.Context, t *tokenstore.Token) (url.Values, error) {
	scheme := renewedBy(t.RefreshToken)
	switch {
	case t.RefreshToken.IsZero():
		return nil, errors.New("there is no refresh token")
	case scheme != p.scheme:
		return nil, fmt.Errorf("the credential is of auth scheme %s, and the integration of %s", scheme, p.scheme)
	case scheme == tokenstore.AuthJWTBearer:
		return p.assert(ctx, t.RefreshToken)
	case scheme == tokenstore.AuthClientCredentials:
		form := url.Values{"grant_type": {"client_credentials"}}
		if len(p.scopes) > 0 {
			form.Set("scope", strings.Join(p.scopes, p.scopeSeparator()))
		}
		return form, nil
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.RefreshToken.Reveal()}}
	if p.entry.Refresh.SendScope && len(t.Scopes) > 0 {
		form.Set("scope", strings.Join(t.Scopes, p.scopeSeparator()))
	}
	return form, nil
}

// renewedBy returns the auth scheme of a credential by what renews it.
func renewedBy(refresh secret.String) string {
	switch {
	case refresh.Equal(tokenstore.ClientCredentials):
		return tokenstore.AuthClientCredentials
	case isKeyText(refresh):
		return tokenstore.AuthJWTBearer
	}
	return tokenstore.AuthOAuth2
}

// askToken sends a request for a token, with what the entry adds to all of them.
func (p *Provider) askToken(ctx context.Context, form url.Values) (tokenstore.Answer, error) {
	for name, value := range p.entry.TokenParams {
		form.Set(name, value)
	}
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	ep, err := p.endpoints(ctx)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("%w: %w", tokenstore.ErrNotSent, err)
	}
	if ep.token == "" {
		return tokenstore.Answer{}, fmt.Errorf("%w: auth scheme %s has no token endpoint", tokenstore.ErrNotSent, p.scheme)
	}
	return p.send(ctx, request{method: http.MethodPost, url: ep.token, clientAuth: ep.clientAuth, form: form})
}

// request is one request with the client's proof on it.
type request struct {
	method, url, clientAuth string
	form                    url.Values  // none for GET
	header                  http.Header // beside its own
	json                    bool        // the form's values as a JSON object
}

// send sends r once and returns the whole answer, of whatever status. It goes
// by the transport itself, not by an http.Client: no redirect is followed, so
// that no answer can have the secrets sent elsewhere.
func (p *Provider) send(ctx context.Context, r request) (tokenstore.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestLimit)
	defer cancel()
	req, body, err := p.build(ctx, r)
	if err != nil {
		return tokenstore.Answer{}, fmt.Errorf("%w: %w", tokenstore.ErrNotSent, err)
	}
	// What an HTTP/1 server sends past its Content-Length, net/http writes to
	// the standard log when the connection is used again, or takes for the next
	// answer. HTTP/2 has frames.
	req.Close = !p.http2.Load()
	a := tokenstore.Answer{SentAt: time.Now().Add(failpoint.Clock()).UTC()}
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return tokenstore.Answer{}, sendError(err, body.withhold())
	}
	defer res.Body.Close()
	p.http2.Store(res.ProtoMajor == 2)
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return tokenstore.Answer{}, sendError(err, false)
	}
	if len(b) > maxAnswer {
		return tokenstore.Answer{}, fmt.Errorf("%w: the answer is longer than 1 MiB", tokenstore.ErrOutcomeUnknown)
	}
	if encoding := res.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		b = nil // nobody asked for it, and what it unpacks to has no bound
	}
	a.ReceivedAt = time.Now().Add(failpoint.Clock()).UTC()
	a.Status = res.StatusCode
	a.ContentType = res.Header.Get("Content-Type")
	a.RetryAfter = res.Header.Get("Retry-After")
	a.Body = secret.New(string(b))
	return a, nil
}

// build makes the HTTP request. It leaves GetBody unset, without which the
// transport has no way to send a body twice.
func (p *Provider) build(ctx context.Context, r request) (*http.Request, *onceBody, error) {
	var user, password string
	switch id, pw := p.clientID, p.clientSecret.Reveal(); r.clientAuth {
	case AuthBasic: // RFC 6749 section 2.3.1: both are form-encoded first
		user, password = url.QueryEscape(id), url.QueryEscape(pw)
	case AuthBasicRaw:
		user, password = id, pw
	case AuthPost:
		r.form.Set("client_id", id)
		r.form.Set("client_secret", pw)
	case AuthNone:
		r.form.Set("client_id", id)
	}
	text, contentType := r.form.Encode(), "application/x-www-form-urlencoded"
	if r.json {
		object := make(map[string]string, len(r.form))
		for k := range r.form {
			object[k] = r.form.Get(k)
		}
		b, err := json.Marshal(object)
		if err != nil {
			return nil, nil, errors.New("the body could not be encoded")
		}
		text, contentType = string(b), "application/json"
	}
	body := &onceBody{r: strings.NewReader(text)}
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, body)
	if err != nil {
		return nil, nil, errors.New("the endpoint is not a URL")
	}
	if req.ContentLength = int64(len(text)); r.method == http.MethodGet {
		req.Body = http.NoBody
	} else {
		req.Header.Set("Content-Type", contentType)
	}
	maps.Copy(req.Header, r.header)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "lanyard")
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	return req, body, nil
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
	b.state.CompareAndSwap(bodyFresh, bodyRead)
	if b.state.Load() == bodyWithheld {
		return 0, errors.New("request was given up")
	}
	return b.r.Read(p)
}

// Close implements io.Closer.
func (b *onceBody) Close() error { return nil }

// withhold reports whether nothing was read, and sees to it that nothing will
// be: after an error the transport may still be about to write.
func (b *onceBody) withhold() bool { return b.state.CompareAndSwap(bodyFresh, bodyWithheld) }
