// Package http1 sends requests without a body over HTTP/1.1, by the goroutine
// that asks.
//
// http.Transport has two goroutines for each connection, which a request is
// handed to and its answer is fetched from. That is needed where a body is sent
// while an answer may come. Where there is none, it is most of what a call costs.
// What goes over the wire, and how an answer is read, is net/http's here, too.
package http1

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Client sends requests to upstreams that speak HTTP/1.1: without TLS to all, with
// TLS to those that are known to. All of its fields are required. It is safe for concurrent use.
type Client struct {
	// Dial connects to host:port. What it returns is used again only if it is a
	// syscall.Conn, as those of package net are.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is for https. Its ServerName is the host's where it has none.
	TLS *tls.Config
	// HandshakeTimeout bounds a TLS handshake, HeadTimeout the time from the
	// sending of a request until the head of its answer has come.
	HandshakeTimeout, HeadTimeout time.Duration
	// IdleTimeout is how long a connection is kept that is not used.
	IdleTimeout time.Duration
	// MaxIdle is how many of them are kept for each host.
	MaxIdle int
	// MaxHead bounds the head of an answer, in bytes.
	MaxHead int64

	mu     sync.Mutex
	hosts  map[origin]*host // guarded by mu
	sweep  *time.Timer      // guarded by mu; nil while nobody has to tidy
	closed bool             // guarded by mu: nothing is kept any more
}

// tidyEvery is how long a connection may hold a file that its upstream has closed.
// Many close theirs after a few seconds.
const tidyEvery = 5 * time.Second

// origin is where connections lead to.
type origin struct{ scheme, host string }

// host is an upstream that speaks HTTP/1.1.
type host struct {
	idle []*conn // the one that was used last comes last
	used time.Time
}

// Learn has a host known from now on if res, the answer to req that another client
// has got, says that it speaks HTTP/1.1 and keeps connections.
func (c *Client) Learn(req *http.Request, res *http.Response) {
	o, ok := originOf(req.URL)
	if !ok || res.ProtoMajor != 1 || res.ProtoMinor != 1 || res.Close {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.knownLocked(o).used = time.Now()
	}
}

// knownLocked returns what is known of o, from now on if it was not. c.mu is held.
func (c *Client) knownLocked(o origin) *host {
	h := c.hosts[o]
	if h == nil {
		h = new(host)
		if c.hosts == nil {
			c.hosts = map[origin]*host{}
		}
		c.hosts[o] = h
		if c.sweep == nil {
			c.sweep = time.AfterFunc(min(c.IdleTimeout, tidyEvery), c.tidy)
		}
	}
	return h
}

// originOf returns the origin of a URL, if that is one a client can dial as it
// stands.
func originOf(u *url.URL) (origin, bool) {
	for _, b := range []byte(u.Host) {
		if b >= 0x80 {
			return origin{}, false // a name that has to be encoded first
		}
	}
	return origin{u.Scheme, u.Host}, (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// RoundTrip implements http.RoundTripper. It returns http.ErrSkipAltProtocol for a
// request that is not for it: one that has a body, asks for more than an answer,
// or goes by TLS to a host that is not known to speak HTTP/1.1.
//
// A request that can be repeated (RFC 9110 section 9.2.2) is sent again if a kept
// connection turns out to be closed before any answer.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	o, ok := originOf(req.URL)
	if !ok || !plain(req) {
		return nil, http.ErrSkipAltProtocol
	}
	ctx := req.Context()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	kept, known := c.take(o)
	if !known {
		return nil, http.ErrSkipAltProtocol
	}
	head, err := headOf(req)
	if err != nil {
		if kept != nil {
			kept.close()
		}
		return nil, err
	}
	defer heads.Put(head)
	if kept != nil {
		res, err := kept.send(ctx, req, head.Bytes())
		if err == nil || ctx.Err() != nil || !isUnanswered(err) || !repeatable(req) {
			return res, byCaller(ctx, err)
		}
	}
	fresh, err := c.connect(ctx, o)
	var res *http.Response
	if err == nil {
		res, err = fresh.send(ctx, req, head.Bytes())
	}
	if err != nil && ctx.Err() == nil {
		c.forget(o)
	}
	return res, byCaller(ctx, err)
}

// forget has o no longer known, of which a new connection was of no use: it may
// speak another version now. Connections that were kept say that it does not.
func (c *Client) forget(o origin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.hosts[o]; h != nil && len(h.idle) == 0 {
		delete(c.hosts, o)
	}
}

// byCaller returns why the caller has given up, if that is what err comes from.
func byCaller(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// plain reports whether a request is no more than its head, which asks for no more
// than an answer.
func plain(req *http.Request) bool {
	return (req.Body == nil || req.Body == http.NoBody) && req.ContentLength == 0 && len(req.TransferEncoding) == 0 &&
		len(req.Trailer) == 0 && len(req.Header["Upgrade"]) == 0 && len(req.Header["Expect"]) == 0 &&
		req.Method != http.MethodConnect && !req.Close
}

// heads are buffers that requests are written to.
var heads = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// headOf returns what goes over the wire, to be given back to heads.
func headOf(req *http.Request) (*bytes.Buffer, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	b := heads.Get().(*bytes.Buffer) //nolint:forcetypeassert // nothing else is in there
	b.Reset()
	if err := req.Write(b); err != nil {
		return nil, err
	}
	return b, nil
}

// check refuses what http.Transport refuses: a head that could be read in another
// way than it is meant.
func check(req *http.Request) error {
	if !httpguts.ValidHeaderFieldName(req.Method) {
		return errors.New("invalid method")
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return errors.New("invalid header name")
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return fmt.Errorf("invalid value of header %s", name)
			}
		}
	}
	return nil
}

// repeatable reports whether it does no harm if a request arrives twice.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return len(req.Header["Idempotency-Key"]) > 0 || len(req.Header["X-Idempotency-Key"]) > 0
}

// take returns a kept connection to o, nil if there is none, and whether o is
// known: without TLS there is nothing to find out.
func (c *Client) take(o origin) (kept *conn, known bool) {
	for {
		c.mu.Lock()
		h := c.hosts[o]
		if h == nil {
			c.mu.Unlock()
			return nil, o.scheme == "http"
		}
		last := len(h.idle) - 1
		if last < 0 {
			c.mu.Unlock()
			return nil, true
		}
		kept, h.idle[last], h.idle = h.idle[last], nil, h.idle[:last]
		c.mu.Unlock()
		if !c.tooOld(kept) && kept.silent() {
			return kept, true
		}
		kept.close()
	}
}

// tooOld reports whether a connection was kept for too long: who is between may
// have forgotten it without a word. The wall clock counts, too, as the other stands
// still while a machine sleeps.
func (c *Client) tooOld(x *conn) bool {
	now := time.Now()
	return max(now.Sub(x.idleSince), now.Round(0).Sub(x.idleSince.Round(0))) > c.IdleTimeout
}

// keep takes back a connection that has no request any more. It reports false if
// it isn't kept.
func (c *Client) keep(x *conn) bool {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	h := c.knownLocked(x.origin)
	if len(h.idle) >= c.MaxIdle {
		return false
	}
	h.used, x.idleSince = now, now
	h.idle = append(h.idle, x)
	return true
}

// tidy closes the connections that have not been used for long, or that the
// upstream has closed, and forgets hosts that have none.
func (c *Client) tidy() {
	var over []*conn
	c.mu.Lock()
	before := time.Now().Add(-c.IdleTimeout)
	for o, h := range c.hosts {
		kept := h.idle[:0]
		for _, x := range h.idle {
			if x.idleSince.Before(before) || !x.silent() {
				over = append(over, x)
			} else {
				kept = append(kept, x)
			}
		}
		clear(h.idle[len(kept):])
		if h.idle = kept; len(kept) == 0 && h.used.Before(before) {
			delete(c.hosts, o)
		}
	}
	if len(c.hosts) > 0 {
		c.sweep.Reset(min(c.IdleTimeout/2, tidyEvery))
	} else {
		c.sweep = nil
	}
	c.mu.Unlock()
	for _, x := range over {
		x.close()
	}
}

// Close closes the connections that no request uses, and the others when their
// requests are over. Hosts are no longer known.
func (c *Client) Close() {
	c.mu.Lock()
	hosts := c.hosts
	c.hosts, c.closed = nil, true
	if c.sweep != nil {
		c.sweep.Stop()
	}
	c.mu.Unlock()
	for _, h := range hosts {
		for _, x := range h.idle {
			x.close()
		}
	}
}

// connect returns a new connection to o.
func (c *Client) connect(ctx context.Context, o origin) (*conn, error) {
	u := url.URL{Host: o.host}
	port := "80"
	if o.scheme == "https" {
		port = "443"
	}
	raw, err := c.Dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)))
	if err != nil {
		return nil, err
	}
	x := newConn(c, o, raw)
	if o.scheme == "http" {
		return x, nil
	}
	config := c.TLS.Clone()
	config.ServerName = cmp.Or(config.ServerName, u.Hostname())
	config.NextProtos = []string{"http/1.1"}
	secured := tls.Client(raw, config)
	ctx, cancel := context.WithTimeout(ctx, c.HandshakeTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	state := secured.ConnectionState()
	x.net, x.state = secured, &state
	return x, nil
}
