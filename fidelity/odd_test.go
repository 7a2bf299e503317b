package fidelity_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// turn is a request, on the connections to the upstream that the turns before
// have left, and what has to come of it.
type turn struct {
	ask   string   // the method. Default: GET
	lines []string // of the request's head
	body  string
	// serve answers it. nth counts from 1 how often it has arrived. Default: a
	// body that says which turn it is, "turn 0".
	serve func(s *served, nth int64) error
	// want is what may come, with "|" between: a status and a body, as in
	// "200 turn 0", a status alone, or "broken" for what breaks off. Default: the
	// default answer.
	want  string
	app   func(c *client) error // in the place of want
	once  bool                  // it must not arrive twice
	never bool                  // it need not arrive
	fresh bool                  // it must come over a connection that no turn had before
	// soon is at once after the turn before; else both sides have time to see how
	// that has left the connection.
	soon bool
	slow time.Duration // it must not take longer
}

// odd is a row on an upstream that is odd. It runs without and with TLS, over
// connections that no other row uses. First, they are used twice; last, a GET
// has to get its own answer.
func odd(name string, fails marks, turns ...turn) row {
	return row{name: name, fails: fails, patience: 3 * time.Minute, run: func(ctx context.Context, w *world) error {
		for _, secured := range []bool{false, true} {
			if err := w.bench.lend(ctx, secured, func(l lane) error { return l.take(ctx, turns) }); err != nil {
				if secured {
					err = fmt.Errorf("with TLS: %w", err)
				}
				return err
			}
		}
		return nil
	}}
}

// bench lends upstreams to rows which need one for themselves.
type bench struct {
	w    *world
	free [2]chan *upstream // plain, TLS; nil: not yet started
}

func newBench(w *world) *bench {
	b := &bench{w: w}
	for i := range b.free {
		b.free[i] = make(chan *upstream, 2)
		for range cap(b.free[i]) {
			b.free[i] <- nil
		}
	}
	return b
}

func (b *bench) lend(ctx context.Context, secured bool, run func(lane) error) error {
	free := b.free[0]
	if secured {
		free = b.free[1]
	}
	var up *upstream
	select {
	case up = <-free:
	case <-ctx.Done():
		return broken("no upstream is free: %w", ctx.Err())
	}
	if up == nil {
		up = newUpstream(b.w.t, nil) //nolint:contextcheck // it lives as long as the test
		if secured {
			s, err := b.w.tls()
			if err != nil {
				return err
			}
			up = newUpstream(b.w.t, s.config) //nolint:contextcheck // it lives as long as the test
			up.spec.CA = s.h1.spec.CA
		}
		up.spec.HeadTimeout = oddTimeout
	}
	err := run(lane{w: b.w, up: up})
	up.hangUp()
	if err != nil {
		up = nil // what the next row finds would be this one's doing
	}
	free <- up
	return err
}

// oddTimeout is how long the head of an answer may take.
const oddTimeout = 2 * time.Second

// turnPatience is how long a turn may take.
const turnPatience = 15 * time.Second

// settle is enough for both sides to see what came over a connection.
func settle() { time.Sleep(30 * time.Millisecond) }

// take takes the turns.
func (l lane) take(ctx context.Context, turns []turn) error {
	warm := turn{}
	all := append([]turn{warm, warm}, turns...)
	all = append(all, turn{})
	t := &playing{lane: l, turns: all, seen: map[int64]int{}, errs: make(chan error, 64), arrived: make([]atomic.Int64, len(all))}
	tag, _, off := l.up.handle(t.serve)
	defer off()
	for i := range all {
		if !all[i].soon {
			t.rest()
			settle()
		}
		if err := t.take(ctx, "/"+tag, i); err != nil {
			return fmt.Errorf("turn %d: %w", i-2, err)
		}
		select {
		case err := <-t.errs:
			return fmt.Errorf("turn %d, upstream: %w", i-2, err)
		default:
		}
	}
	return nil
}

// playing are turns under way.
type playing struct {
	lane

	turns   []turn
	arrived []atomic.Int64
	busy    atomic.Int64 // requests that the upstream is not done with
	errs    chan error

	mu   sync.Mutex
	seen map[int64]int // guarded by mu :: number of a connection → the last turn that came over it
}

// rest waits until the upstream has sent all that it sends, if it does so soon.
func (t *playing) rest() {
	const soon = time.Second
	for began := time.Now(); t.busy.Load() > 0 && time.Since(began) < soon; {
		time.Sleep(time.Millisecond)
	}
}

func (t *playing) serve(s *served) error {
	t.busy.Add(1)
	defer t.busy.Add(-1)
	var i int
	_, rest, _ := strings.Cut(s.start, "?turn=")
	if _, err := fmt.Sscan(rest, &i); err != nil {
		t.errs <- fmt.Errorf("%s arrived", short(s.start))
		return errClose
	}
	nth := t.arrived[i].Add(1)
	t.mu.Lock()
	last, used := t.seen[s.number]
	t.seen[s.number] = i
	t.mu.Unlock()
	if t.turns[i].fresh && used && last != i {
		t.errs <- errors.New("it came over a connection that is of no more use")
	}
	if got := s.value("Authorization"); got != "Bearer "+token {
		t.errs <- fmt.Errorf("it came with Authorization %q", got)
	}
	if serve := t.turns[i].serve; serve != nil {
		if err := serve(s, nth); !errors.Is(err, errClose) && err != nil {
			return errClose // the proxy may hang up
		} else if err != nil {
			return err
		}
		return nil
	}
	if _, err := s.text(); err != nil {
		return errClose
	}
	return s.send(whole(ownBody(i)))
}

// whole is an answer with a body of known length.
func whole(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func ownBody(i int) string { return fmt.Sprintf("turn %d", i-2) }

func (t *playing) take(ctx context.Context, path string, i int) error {
	now := t.turns[i]
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	method := now.ask
	if method == "" {
		method = "GET"
	}
	begin := time.Now()
	_ = c.SetDeadline(begin.Add(turnPatience))
	if err := c.send(c.head(method, fmt.Sprintf("%s?turn=%d", path, i), now.lines...) + now.body); err != nil {
		return err
	}
	if now.app != nil {
		for t.arrived[i].Load() == 0 && time.Since(begin) < turnPatience { // it may hang up
			time.Sleep(time.Millisecond)
		}
		if err := now.app(c); err != nil {
			return err
		}
	} else {
		got, err := c.outcome(method)
		if err != nil {
			return err
		}
		want := now.want
		if want == "" {
			want = "200 " + ownBody(i)
		}
		matches := false
		for may := range strings.SplitSeq(want, "|") {
			status, _, hasBody := strings.Cut(got, " ")
			matches = matches || got == may || (hasBody && may == status && may != "200")
		}
		if !matches {
			return fmt.Errorf("%s came, want %s", short(got), short(want))
		}
	}
	if took := time.Since(begin); now.slow != 0 && took > now.slow {
		return fmt.Errorf("it took %v, want at most %v", took.Round(time.Millisecond), now.slow)
	}
	n := t.arrived[i].Load()
	if n > 1 && now.once || n == 0 && !now.never {
		return fmt.Errorf("it arrived %d times", n)
	}
	return nil
}

// outcome reads an answer: its status and body, or "broken".
func (c *client) outcome(method string) (string, error) {
	_, m, err := c.answer()
	if err != nil {
		return "broken", wantNoTimeout(err)
	}
	status := m.status()
	if method == "HEAD" || status == 204 || status == 304 || status == 101 {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if rest, _ := io.ReadAll(c.in); len(rest) > 0 {
			return fmt.Sprintf("%d, and behind it %q", status, rest), nil
		}
		return fmt.Sprint(status), nil
	}
	body, err := m.text()
	if err != nil {
		return "broken", wantNoTimeout(err)
	}
	return fmt.Sprintf("%d %s", status, body), nil
}

// refusedHead has an upstream answer when it has read a line, and then read no
// more.
func refusedHead(ctx context.Context, w *world) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return broken("%w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	defer l.Close()
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer conn.Close()
				refuseHeads(ctx, conn)
			})
		}
	})
	up := &upstream{host: l.Addr().String()}
	up.spec.URL = "http://" + up.host
	for _, tt := range []struct {
		lines []string
		want  string
	}{{nil, "200 ok"}, {nil, "200 ok"}, {many(90, 10_000), "431 no"}, {nil, "200 ok"}} {
		c, err := lane{w: w, up: up}.dial(ctx)
		if err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		if err := c.send(c.head("GET", "/x", tt.lines...)); err != nil {
			return err
		}
		got, err := c.outcome("GET")
		_ = c.Close()
		if err != nil {
			return err
		}
		if err := wantEqual("answer", got, tt.want); err != nil {
			return err
		}
	}
	return nil
}

// refuseHeads answers requests. From one with a head of more than 4 KiB it reads
// no more.
func refuseHeads(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	in := bufio.NewReader(conn)
	for {
		head := 0
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if head += len(line); line == "\r\n" {
				break
			}
			if head > 4096 {
				_, _ = io.WriteString(conn, "HTTP/1.1 431 Too Long\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
				<-ctx.Done()
				return
			}
		}
		if _, err := io.WriteString(conn, ok); err != nil {
			return
		}
	}
}
