package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// streamsPerConn is how many streams share an HTTP/2 connection: servers allow
// 250, and nothing is left waiting here.
const streamsPerConn = 200

// messageSize is about that of a chat message or of a model's next words.
const messageSize = 200

// how is what a stream carries.
type how struct {
	every time.Duration // between two messages
	size  int           // of one, at least
	count int           // how many, then it ends; 0: until it is closed
}

// stream is a client's end.
type stream struct {
	got    atomic.Int64 // messages that came
	closed atomic.Bool  // by us: an error after it is none
	ages   []time.Duration
}

// take notes a message. They come in order and none is left out.
func (s *stream) take(text string, h how) error {
	seq, age, err := parse(text)
	if err != nil {
		return err
	}
	if want := int(s.got.Load()); seq != want {
		return fmt.Errorf("message %d came where %d should", seq, want)
	}
	if h.count > 0 {
		s.ages = append(s.ages, age)
	}
	s.got.Add(1)
	return nil
}

// streams are many of one sort.
type streams struct {
	how
	all    []*stream
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu    sync.Mutex
	lost  int   // guarded by mu
	first error // guarded by mu: why the first was lost
}

func (s *streams) lose(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost++
	if s.first == nil {
		s.first = err
	}
}

func (s *streams) losses() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost, s.first
}

// dialFunc opens stream n and returns what runs it to its end.
type dialFunc func(ctx context.Context, n int, s *stream, h how) (run func() error, err error)

// openStreams opens n streams, 64 at a time, and returns once all are open.
func openStreams(ctx context.Context, n int, h how, dial dialFunc) *streams {
	ctx, cancel := context.WithCancel(ctx)
	all := &streams{how: h, cancel: cancel, all: make([]*stream, n)}
	var opening sync.WaitGroup
	slots := make(chan bool, 64)
	for i := range all.all {
		s := &stream{}
		all.all[i] = s
		slots <- true
		opening.Add(1)
		all.work.Go(func() {
			run, err := dial(ctx, i, s, h)
			<-slots
			opening.Done()
			if err == nil {
				err = run()
			}
			if err != nil && !s.closed.Load() {
				all.lose(err)
			}
		})
	}
	opening.Wait()
	return all
}

// close closes all that are open and waits for them.
func (s *streams) close() {
	for _, one := range s.all {
		one.closed.Store(true)
	}
	s.cancel()
	s.work.Wait()
}

// heard returns how many streams get a message within a time.
func (s *streams) heard(within time.Duration) int {
	before := make([]int64, len(s.all))
	for i, one := range s.all {
		before[i] = one.got.Load()
	}
	deadline := time.Now().Add(within)
	for {
		n := 0
		for i, one := range s.all {
			if one.got.Load() > before[i] {
				n++
			}
		}
		lost, _ := s.losses()
		if n >= len(s.all)-lost || time.Now().After(deadline) {
			return n
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// dialEvents opens a stream of server-sent events, over HTTP/2 without TLS or
// over HTTP/1.1.
func dialEvents(p *proxy, n int, h2 bool) dialFunc {
	transports := []*http.Transport{{MaxIdleConnsPerHost: 1}}
	if h2 {
		transports = make([]*http.Transport, n/streamsPerConn+1)
		for i := range transports {
			transports[i] = &http.Transport{Protocols: new(http.Protocols)}
			transports[i].Protocols.SetUnencryptedHTTP2(true)
		}
	}
	return func(ctx context.Context, n int, s *stream, h how) (func() error, error) {
		query := fmt.Sprintf("ms=%d&size=%d&count=%d", h.every.Milliseconds(), h.size, h.count)
		t := transports[n%len(transports)]
		res, err := t.RoundTrip(p.request(ctx, "/events", query, n)) //nolint:bodyclose // whoever reads the stream closes it
		if err != nil {
			return nil, err
		}
		if res.StatusCode != http.StatusOK {
			_ = res.Body.Close()
			return nil, errors.New(res.Status)
		}
		return func() error {
			defer t.CloseIdleConnections()
			defer func() { _ = res.Body.Close() }()
			return readEvents(res.Body, s, h)
		}, nil
	}
}

func readEvents(body io.Reader, s *stream, h how) error {
	in := bufio.NewReaderSize(body, 512)
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && h.count > 0 && int(s.got.Load()) == h.count {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d messages: %w", s.got.Load(), err)
		}
		if text, ok := strings.CutPrefix(string(line), "data: "); ok {
			if err := s.take(text, h); err != nil {
				return err
			}
		}
	}
}

// dialWebSocket opens a WebSocket. Its messages are ours, and come back.
func dialWebSocket(p *proxy) dialFunc {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	return func(ctx context.Context, n int, s *stream, h how) (func() error, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.listen)
		if err != nil {
			return nil, err
		}
		req := p.request(ctx, "/ws", "", n)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "websocket")
		req.Header.Set("Sec-WebSocket-Version", "13")
		req.Header.Set("Sec-WebSocket-Key", key)
		in := bufio.NewReaderSize(conn, 512)
		if err := shake(conn, in, req, key); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return func() error {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			defer func() { _ = conn.Close() }()
			var work sync.WaitGroup
			defer work.Wait()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			work.Go(func() { speak(ctx, conn, h) })
			return hear(in, s, h)
		}, nil
	}
}

func shake(conn net.Conn, in *bufio.Reader, req *http.Request, key string) error {
	if err := req.Write(conn); err != nil {
		return err
	}
	res, err := http.ReadResponse(in, req)
	if err != nil {
		return err
	}
	_ = res.Body.Close() // there is none
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Accept") != acceptOf(key) {
		return fmt.Errorf("handshake: %s", res.Status)
	}
	return nil
}

// speak sends messages, the first at any time within the span between two.
func speak(ctx context.Context, conn net.Conn, h how) {
	next := time.Now().Add(somewhere(h.every))
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	var payload, frame []byte
	for seq := 0; h.count == 0 || seq < h.count; seq++ {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		payload = message(payload[:0], seq, h.size)
		frame = appendFrame(frame[:0], payload, true)
		if _, err := conn.Write(frame); err != nil {
			return // the reader tells of it
		}
		next = next.Add(h.every)
		timer.Reset(time.Until(next))
	}
}

func hear(in *bufio.Reader, s *stream, h how) error {
	var payload []byte
	var err error
	for h.count == 0 || int(s.got.Load()) < h.count {
		if payload, err = readFrame(in, payload); err != nil {
			return fmt.Errorf("after %d messages: %w", s.got.Load(), err)
		}
		if err := s.take(string(payload), h); err != nil {
			return err
		}
	}
	return nil
}
