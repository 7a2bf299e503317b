package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/metrics"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxDrain is how much of a 401 is read so that its connection can be used
// again: more costs more than a new connection.
const maxDrain = 64 << 10

// send sends a request with the credential of c. If the upstream refuses the
// token, it is renewed and the request is sent once more; the second answer is
// final. The error is a *refusalError if the connection turns out to be dead.
func (h *Handler) send(ctx context.Context, c *call) (*http.Response, error) {
	c.begin(ctx)
	res, err := h.sendRenewed(ctx, c)
	if err == nil {
		h.hintScopes(ctx, c, res)
	}
	return res, err
}

func (h *Handler) sendRenewed(ctx context.Context, c *call) (*http.Response, error) {
	res, err := h.attempt(ctx, c)
	if err != nil || res.StatusCode != http.StatusUnauthorized || insufficientScope(res.Header) {
		return res, err
	}
	// No more of the body may go to a request that is lost already; and the
	// 401, which may have to be passed on, lives only while that request does.
	replayable := c.body.hold()
	next, err := h.cfg.Grants.Renew(ctx, c.grant.ConnectionID, c.grant.Token.Generation)
	switch {
	case errors.Is(err, tokenstore.ErrReconnect):
		p := h.problemEnded(ctx, err, c.grant)
		c.body.cut()         // which may end ctx, see isGone
		_ = res.Body.Close() // an HTTP/2 transport waits for whoever reads the app
		return nil, &refusalError{p}
	case err != nil || next.Token.Generation <= c.grant.Token.Generation:
		c.body.release()
		return res, nil //nolint:nilerr // the provider's own 401 is the answer
	case !replayable:
		res.Header.Set("Lanyard-Hint", "token-refreshed")
		return res, nil
	}
	// Else the upstream may wait for what is held back, or what an HTTP/2
	// transport has let go of; and a stream of many need not be read to its end.
	if res.ProtoMajor == 1 && c.body.sent() {
		_, _ = io.CopyN(io.Discard, res.Body, maxDrain)
	}
	_ = res.Body.Close()
	if p := h.follow(ctx, c, next); p != nil {
		c.body.stop()
		return nil, &refusalError{p}
	}
	return h.attempt(ctx, c)
}

// attempt sends the request of c once.
func (h *Handler) attempt(ctx context.Context, c *call) (*http.Response, error) {
	req := h.request(ctx, c)
	if c.body != nil {
		var fill func()
		req.Trailer, fill = trailers(c.in, c.trailers, c.upstream)
		begin := func() (io.ReadCloser, error) {
			body, ok := c.body.begin(fill)
			if !ok {
				return nil, errAttemptOver
			}
			return body, nil
		}
		var err error
		if req.Body, err = begin(); err != nil {
			return nil, err
		}
		// For the transport's own second try, after a connection that the
		// upstream had closed before it read anything.
		req.GetBody = begin
	}
	h.noteUse(ctx, c)
	if h.cfg.Scrub || c.upstream.Query != "" {
		c.mask(!h.cfg.Scrub)
	}
	req, hd := c.hide(req)
	c.timing.goes()
	res, err := h.cfg.Transport.RoundTrip(req)
	c.timing.comes()
	if err != nil {
		return nil, hd.error(err)
	}
	c.body.answered()
	if res.StatusCode == http.StatusNotModified {
		res.Body = http.NoBody // with a length, net/http misses one that comes by HTTP/2
	}
	removeOwn(res.Header)
	if hd != nil {
		hd.clean(res.Header, c.echo)
	}
	return res, nil
}

// request returns the request that goes upstream, with its credential and
// without its body. It shares no header map with that of the app, and each
// attempt has one of its own: what handlers, logs and error routes see never
// carries the credential, and a transport may go on reading what it has given
// an answer to.
func (h *Handler) request(ctx context.Context, c *call) *http.Request {
	var req *http.Request
	if c.fixed == nil {
		req = (&http.Request{
			Method: c.in.Method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			ContentLength: c.in.ContentLength, TransferEncoding: c.in.TransferEncoding,
		}).WithContext(ctx)
	} else {
		req = c.in.WithContext(ctx)
		req.Body, req.Trailer = nil, nil
	}
	// The name in Host may decide who gets the request behind a shared address.
	req.URL, req.Host = c.target, c.target.Host
	req.Header = outgoing(c.in.Header, c.spare)
	if h.cfg.Scrub {
		delete(req.Header, "Accept-Encoding") // what comes compressed can't be read
	}
	c.attach(req)
	return req
}

// Transport is an http.RoundTripper that does for a reverse proxy of somebody
// else's what Handler does: it authenticates the caller, finds the connection
// and attaches its token. The request must go to the integration's API host or
// a declared one; its path is the reverse proxy's business.
//
// What Lanyard itself has to say comes as a response, never as an error: an
// error counts as the upstream's failure, and one dead connection would take a
// healthy provider down. Closing the request's body is left to the reverse
// proxy.
type Transport struct{ h *Handler }

// NewTransport returns a Transport, or an error for a Config that can't work.
// Prefix, Path and KeepLinks have no meaning here, nor has the Host of Local.
func NewTransport(cfg Config) (*Transport, error) {
	h, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return &Transport{h: h}, nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	c := &call{in: req, timing: timing{since: time.Now()}}
	if problem := t.accept(ctx, c); problem != nil {
		t.h.noteRefusal(ctx, c, problem)
		if err := ctx.Err(); err != nil {
			t.h.failed(c, metrics.CallCanceled)
			return nil, err
		}
		t.h.failed(c, problem.Code)
		return response(req, problem), nil
	}
	if hasBody(req) {
		c.body, c.trailers = newSource(req.Body, t.h.spoolFor(req), nil), slices.Collect(maps.Keys(req.Trailer))
	}
	res, err := t.h.send(ctx, c)
	c.body.leave()
	refused, ended := errors.AsType[*refusalError](err)
	switch {
	case ended:
		t.h.failed(c, refused.problem.Code)
		return response(req, refused.problem), nil
	case err != nil && ctx.Err() != nil:
		t.h.failed(c, metrics.CallCanceled)
		return nil, err
	case err != nil:
		t.h.failedUpstream(c, err)
		return nil, err
	}
	t.h.answered(c, res.StatusCode)
	res.Request = req // which has no credential
	if res.StatusCode == http.StatusSwitchingProtocols {
		t.watch(c, res)
	}
	return res, nil
}

// watch has the connection of a switch to another protocol closed once its
// connection at Lanyard is no longer usable. It ends with the reverse proxy's
// use of it.
func (t *Transport) watch(c *call, res *http.Response) {
	upstream, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return
	}
	ended, stop := t.h.cfg.Grants.Watch(c.grant.ConnectionID)
	over := make(chan struct{})
	res.Body = &watched{ReadWriteCloser: upstream, leave: sync.OnceFunc(func() { close(over) })}
	go func() {
		defer stop()
		select {
		case <-ended:
			_ = upstream.Close()
		case <-over:
		}
	}()
}

// watched is a connection that tells when it is closed.
type watched struct {
	io.ReadWriteCloser
	leave func()
}

// Close implements io.Closer.
func (w *watched) Close() error {
	w.leave()
	return w.ReadWriteCloser.Close()
}

func (t *Transport) accept(ctx context.Context, c *call) *guard.Problem {
	req := c.in
	if p := t.h.cfg.Local.CheckOrigin(req); p != nil {
		return p
	}
	if p := guard.CheckEarly(req); p != nil {
		return p
	}
	if p := checkMethod(req.Method); p != nil {
		return p
	}
	if p := t.h.open(ctx, c, ""); p != nil {
		return p
	}
	u := *req.URL
	if u.Scheme == "" {
		u.Scheme = c.upstream.API.Scheme
	}
	c.fixed = &u
	return t.h.fetchToken(ctx, c)
}

// mayReach reports whether a credential for up may go to this host.
func mayReach(up *Upstream, scheme, host string) bool {
	if !strings.EqualFold(scheme, up.API.Scheme) {
		return false
	}
	if sameHost(scheme, host, up.API.Host) {
		return true
	}
	for _, declared := range up.Hosts {
		if sameHost(scheme, host, declared) {
			return true
		}
	}
	return false
}

// spoolFor returns how much of a request's body is kept. Nothing of an
// upgrade's: what follows it belongs to the new protocol.
func (h *Handler) spoolFor(r *http.Request) int64 {
	if upgrade(r.Header) != "" {
		return 0
	}
	return h.cfg.Spool
}
