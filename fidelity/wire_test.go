package fidelity_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// served is a request at the upstream, which answers it byte by byte.
type served struct {
	*message
	conn net.Conn
	// number is the connection's, to see which requests shared one.
	number int64
}

// send writes bytes as they are.
func (s *served) send(parts ...string) error {
	for _, part := range parts {
		if _, err := io.WriteString(s.conn, part); err != nil {
			return fmt.Errorf("upstream: %w", err)
		}
	}
	return nil
}

// gone waits until the proxy closes the connection, or says that it did not.
func (s *served) gone(limit time.Duration) error {
	_ = s.conn.SetReadDeadline(time.Now().Add(limit))
	defer func() { _ = s.conn.SetReadDeadline(time.Time{}) }()
	n, err := io.Copy(io.Discard, s.in)
	if timedOut(err) {
		return fmt.Errorf("the proxy keeps its connection to the upstream for more than %v (%d bytes more came): %w", limit, n, err)
	}
	return nil
}

// upstream is an HTTP/1.1 server that works on bytes.
type upstream struct {
	spec  spec
	host  string
	conns atomic.Int64
	open  sync.Map // :: net.Conn → true
	rows  sync.Map // :: tag → *handler
}

// handler answers the requests of one row.
type handler struct {
	serve func(*served) error
	errs  chan error // what serve returned, of the first requests
}

var lastTag atomic.Int64

// newUpstream starts an upstream until the end of the test, with TLS where
// there is a configuration for it.
func newUpstream(t *testing.T, secure *tls.Config) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{host: l.Addr().String()}
	u.spec.URL = "http://" + u.host
	if secure != nil {
		u.spec.URL = "https://" + u.host
		l = tls.NewListener(corkedListener{l}, secure)
	}
	ctx := t.Context()
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { u.serve(ctx, conn) })
		}
	})
	t.Cleanup(func() { // t.Context() is done by now
		_ = l.Close()
		work.Wait()
	})
	return u
}

// serve answers the requests of one connection, until a handler returns an
// error: errClose where it only wants the connection closed.
func (u *upstream) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	u.open.Store(conn, true)
	defer u.open.Delete(conn)
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	in := bufio.NewReader(conn)
	number := u.conns.Add(1)
	for {
		m, err := readMessage(in)
		if err != nil {
			return
		}
		h := u.handler(m.start)
		if h == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 404 No Such Row\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		err = h.serve(&served{message: m, conn: conn, number: number})
		if errors.Is(err, errClose) {
			h.tell(nil)
			return
		}
		if h.tell(err); err != nil {
			return
		}
	}
}

// hangUp closes the connections that there are, and leaves the proxy time to see it.
func (u *upstream) hangUp() {
	u.open.Range(func(conn, _ any) bool {
		_ = conn.(net.Conn).Close()
		return true
	})
	settle()
}

// errClose has the upstream close its connection.
var errClose = errors.New("close")

func (h *handler) tell(err error) {
	select {
	case h.errs <- err:
	default:
	}
}

// handler returns that of the tag in a request line.
func (u *upstream) handler(line string) *handler {
	_, rest, ok := strings.Cut(line, "row-")
	tag, _, ended := strings.Cut(rest, "-")
	if !ok || !ended {
		return nil
	}
	h, _ := u.rows.Load("row-" + tag + "-")
	found, _ := h.(*handler)
	return found
}

// handle has serve answer the requests whose path holds tag. Call off at the end.
func (u *upstream) handle(serve func(*served) error) (tag string, h *handler, off func()) {
	tag = fmt.Sprintf("row-%d-", lastTag.Add(1))
	h = &handler{serve: serve, errs: make(chan error, 64)}
	u.rows.Store(tag, h)
	return tag, h, func() { u.rows.Delete(tag) }
}

// client is an app's connection to a proxy.
type client struct {
	net.Conn
	in   *bufio.Reader
	w    *world
	host string
}

// lane is the way through a proxy to one upstream.
type lane struct {
	w  *world
	up *upstream
}

// dial connects to the proxy. What is read and written fails when ctx ends.
// Close it.
func (l lane) dial(ctx context.Context) (*client, error) {
	f, err := l.w.via(l.up.spec)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", f.Addr)
	if err != nil {
		return nil, broken("dialing: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	return &client{Conn: conn, in: bufio.NewReader(conn), w: l.w, host: f.Addr}, nil
}

// head returns the head of a request: with Host and the app's key, and lines.
func (c *client) head(method, target string, lines ...string) string {
	return c.headOf(method+" "+target+" HTTP/1.1", lines...)
}

func (c *client) headOf(start string, lines ...string) string {
	all := append([]string{start, "Host: " + c.host, "Authorization: Bearer " + c.w.key}, lines...)
	return strings.Join(all, "\r\n") + "\r\n\r\n"
}

// send writes bytes as they are.
func (c *client) send(parts ...string) error {
	for _, part := range parts {
		if _, err := io.WriteString(c.Conn, part); err != nil {
			return fmt.Errorf("app: %w", err)
		}
	}
	return nil
}

// answer reads the head of the final answer; interim ones are returned before.
func (c *client) answer() (interim []*message, final *message, err error) {
	for {
		m, err := readMessage(c.in)
		if err != nil {
			return interim, nil, fmt.Errorf("app: %w", err)
		}
		if m.status() >= 200 || m.status() == 101 {
			return interim, m, nil
		}
		interim = append(interim, m)
	}
}

// exchange is a request and its answer, both ways, as they came.
type exchange struct {
	target   string   // what the app asked for
	request  *message // at the upstream
	sentBody string
	interim  []*message
	answer   *message // at the app
	body     string
}

// asked is what an app sends.
type asked struct {
	method string   // default: GET
	target string   // TAG in it becomes what leads to this row, HOST the proxy's; default: /TAG
	lines  []string // after Host and Authorization
	body   string   // as framed
	again  bool     // a plain second request on the connection has to be answered, too
}

// exchange sends a request, answers it with the given bytes, and returns what
// arrived at both ends. The connection is the app's only one.
func (l lane) exchange(ctx context.Context, ask asked, answer string) (*exchange, error) {
	x := &exchange{}
	tag, h, off := l.up.handle(func(s *served) error {
		if strings.Contains(s.start, "again") {
			return s.send(ok)
		}
		var err error
		if x.sentBody, err = s.text(); err != nil {
			return fmt.Errorf("body at the upstream: %w", err)
		}
		x.request = s.message
		if err := s.send(answer); err != nil {
			return err
		}
		if !strings.Contains(answer, "\r\nContent-Length:") && !strings.Contains(answer, "\r\nTransfer-Encoding:") {
			return errClose
		}
		return nil
	})
	defer off()
	c, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	method, target := ask.method, strings.NewReplacer("TAG", tag, "HOST", c.host).Replace(ask.target)
	if method == "" {
		method = "GET"
	}
	if target == "" {
		target = "/" + tag
	}
	x.target = target
	if err := c.send(c.head(method, target, ask.lines...) + ask.body); err != nil {
		return nil, err
	}
	if x.interim, x.answer, err = c.answer(); err != nil {
		return nil, err
	}
	if method != "HEAD" && x.answer.status() != 204 && x.answer.status() != 304 {
		if x.body, err = x.answer.text(); err != nil {
			return nil, fmt.Errorf("body of the answer: %w", err)
		}
	}
	select {
	case err := <-h.errs:
		if err != nil {
			return nil, err
		}
	case <-time.After(2 * time.Second):
		return nil, fmt.Errorf("the request did not reach the upstream: %w; the answer is %q %q", context.DeadlineExceeded, x.answer.start, x.answer.lines)
	}
	if ask.again {
		if err := c.send(c.head("GET", "/"+tag+"/again")); err != nil {
			return nil, err
		}
		if err := c.wantStatus(200); err != nil {
			return nil, fmt.Errorf("the next request on the connection: %w", err)
		}
	}
	return x, nil
}

// conversation is a row that works on both ends itself. serve gets the request
// at the upstream; app has sent nothing yet.
func (l lane) conversation(ctx context.Context, serve func(*served) error, app func(c *client, path string) error) error {
	tag, h, off := l.up.handle(serve)
	defer off()
	c, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := app(c, "/"+tag); err != nil {
		select {
		case upErr := <-h.errs:
			if upErr != nil {
				return fmt.Errorf("%w; upstream: %w", err, upErr)
			}
		default:
		}
		return err
	}
	select {
	case err := <-h.errs:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the upstream has not come to an end")
	}
}

// ok is the simplest answer.
const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// wantEqual compares.
func wantEqual[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s = %s, want %s", what, short(got), short(want))
	}
	return nil
}

// wantLines compares lists.
func wantLines(what string, got []string, want ...string) error {
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s = %s, want %s", what, short(got), short(want))
	}
	return nil
}

// short prints a value, not all of it where it is long.
func short(v any) string {
	s := fmt.Sprintf("%q", v)
	if _, isInt := v.(int); isInt {
		s = fmt.Sprint(v)
	}
	if len(s) > 400 {
		return fmt.Sprintf("%s… (%d)", s[:400], len(s))
	}
	return s
}
