package http1

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errHead is an answer whose head is longer than it may be.
var errHead = errors.New("head of the answer is too long")

// unanswered is the error of a request of whose answer not a byte has come.
type unanswered struct{ err error }

func (e *unanswered) Error() string { return "no answer: " + e.err.Error() }

// Unwrap returns the cause.
func (e *unanswered) Unwrap() error { return e.err }

// isUnanswered reports whether the upstream has hung up without an answer, not
// only taken too long for one.
func isUnanswered(err error) bool {
	_, ok := errors.AsType[*unanswered](err)
	return ok && !errors.Is(err, os.ErrDeadlineExceeded)
}

// readers are buffers of connections that have a request. Those that are kept need
// none.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }}

// conn is one connection. It has one request at a time.
type conn struct {
	client *Client
	origin origin
	net    net.Conn
	state  *tls.ConnectionState // nil without TLS
	probe  probe
	abort  func() // closes it

	idleSince time.Time
	in        *bufio.Reader // while there is a request
	left      int64         // bytes that may yet be read, of a head
}

func newConn(c *Client, o origin, raw net.Conn) *conn {
	x := &conn{client: c, origin: o, net: raw}
	if sc, ok := raw.(syscall.Conn); ok {
		x.probe.init(sc)
	}
	x.abort = x.close
	return x
}

func (x *conn) close() { _ = x.net.Close() }

// silent reports whether the upstream has neither closed a connection that was
// kept nor sent anything that nobody asked for. That may be an answer to somebody
// else's request, or what is taken for one.
func (x *conn) silent() bool { return x.probe.silent() }

// unread reports whether there is more on the connection than the answer that was
// read, as far as it has been taken from the network.
func (x *conn) unread() bool {
	if x.in.Buffered() > 0 {
		return true
	}
	if x.state == nil {
		return false
	}
	// The rest of a TLS record that has been decrypted. Nothing is waited for.
	_ = x.net.SetReadDeadline(time.Unix(1, 0))
	var b [1]byte
	n, err := x.net.Read(b[:])
	_ = x.net.SetReadDeadline(time.Time{})
	return n > 0 || !errors.Is(err, os.ErrDeadlineExceeded)
}

// Read implements io.Reader: what in reads from.
func (x *conn) Read(p []byte) (int, error) {
	if x.left <= 0 {
		return 0, errHead
	}
	n, err := x.net.Read(p[:min(int64(len(p)), x.left)])
	x.left -= int64(n)
	return n, err
}

// send sends the head of a request and reads that of its answer. With the answer's
// body, or with an error, it is done with the connection.
func (x *conn) send(ctx context.Context, req *http.Request, head []byte) (*http.Response, error) {
	stop := context.AfterFunc(ctx, x.abort)
	x.in = readers.Get().(*bufio.Reader) //nolint:forcetypeassert // nothing else is in there
	x.in.Reset(x)
	_ = x.net.SetDeadline(time.Now().Add(x.client.HeadTimeout))
	_, written := x.net.Write(head)
	res, err := x.receive(ctx, req)
	if err != nil {
		stop()
		x.close()
		x.release()
		if written != nil { // and no answer came nevertheless
			err = &unanswered{written}
		}
		return nil, err
	}
	_ = x.net.SetDeadline(time.Time{})
	x.left = math.MaxInt64
	res.TLS = x.state
	b := body{x: x, src: res.Body, ctx: ctx, stop: stop, keep: written == nil && !res.Close && res.StatusCode >= http.StatusOK}
	if res.Body == http.NoBody {
		b.end(true)
	} else {
		res.Body = &b
	}
	return res, nil
}

// receive reads the head of the answer, and tells the hook of ctx what comes
// before.
func (x *conn) receive(ctx context.Context, req *http.Request) (*http.Response, error) {
	x.left = x.client.MaxHead
	if _, err := x.in.Peek(1); err != nil {
		return nil, &unanswered{err}
	}
	var hook func(int, textproto.MIMEHeader) error
	if trace := httptrace.ContextClientTrace(ctx); trace != nil {
		hook = trace.Got1xxResponse
	}
	for {
		res, err := http.ReadResponse(x.in, req)
		if err != nil {
			return nil, err
		}
		interim := res.StatusCode >= http.StatusContinue && res.StatusCode < http.StatusOK
		if !interim || res.StatusCode == http.StatusSwitchingProtocols {
			return res, nil
		}
		if hook == nil {
			continue // all heads together are bounded
		}
		if err := hook(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
			return nil, err
		}
		x.left = x.client.MaxHead
	}
}

// release gives the buffer back, which nobody reads from any more.
func (x *conn) release() {
	x.in.Reset(nil)
	readers.Put(x.in)
	x.in = nil
}

// body is the body of an answer. It may be closed while it is read.
type body struct {
	x    *conn
	src  io.Reader       // net/http's: it finds the end, and reads the trailers
	ctx  context.Context //nolint:containedctx // of the call whose answer it is
	stop func() bool     // the request's patience is no more about the connection
	keep bool            // the connection can be used again
	eof  bool            // of Read's goroutine alone
	over atomic.Bool     // the connection is another's
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.eof:
		return 0, io.EOF
	case b.over.Load():
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.src.Read(p)
	if err == nil {
		return n, nil
	}
	if b.eof = errors.Is(err, io.EOF); !b.eof {
		err = byCaller(b.ctx, err)
	}
	if b.over.CompareAndSwap(false, true) {
		b.end(b.eof)
	}
	return n, err
}

// Close implements io.Closer. A connection whose answer was not read to its end
// is of no use any more. Its buffer may be in use.
func (b *body) Close() error {
	if b.over.CompareAndSwap(false, true) {
		b.stop()
		b.x.close()
	}
	return nil
}

// end is done with a connection whose answer nobody reads any more: whole says that
// it was read to its end.
func (b *body) end(whole bool) {
	// Where the patience has ended, somebody is closing it.
	usable := b.stop() && whole && b.keep && !b.x.unread()
	b.x.release()
	if !usable || !b.x.client.keep(b.x) {
		b.x.close()
	}
}
