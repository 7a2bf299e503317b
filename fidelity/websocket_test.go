package fidelity_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

var webSocketRows = []row{
	{name: "Text and binary messages are echoed, from none to a million bytes", run: wsMessages},
	{name: "A message in a hundred fragments arrives in the same fragments, both ways", run: onSockets(wsFragments)},
	{name: "A ping between the fragments of a message arrives between them", run: onSockets(wsPingBetween)},
	{name: "Empty messages and empty fragments arrive", run: onSockets(wsEmpty)},
	{name: "Pings and pongs pass both ways with their payload", run: onSockets(wsPings)},
	{name: "Close codes and reasons of the app arrive, and the API's answer to them", run: wsClosing(true)},
	{name: "Close codes and reasons of the API arrive, and the app's answer to them", run: wsClosing(false)},
	{name: "An app that hangs up ends the API's side within a second", run: onSockets(wsHangUp(true))},
	{name: "An API that hangs up ends the app's side within a second", run: onSockets(wsHangUp(false))},
	{name: "A WebSocket that is silent for ten seconds goes on", run: onSockets(wsSilent)},
	{name: "Single frames of 8 MiB pass both ways byte for byte", run: onSockets(wsLarge)},
	{name: "Megabytes pass in both directions at once", run: onSockets(wsFullDuplex)},
	{name: "Five hundred questions, each sent when the one before is answered, take no time", run: onSockets(wsPingPong)},
	{name: "Ten thousand small messages arrive in order, both ways at once", run: onSockets(wsMany)},
	{name: "An app that reads slowly slows the API down, and loses nothing", run: onSockets(wsSlow)},
	{name: "Subprotocols and compression are agreed on between the app and the API", run: wsNegotiated},
	{name: "A browser's `Connection: keep-alive, Upgrade` is an upgrade, and `WEBSOCKET` a WebSocket", run: wsSpelling},
	{name: "A WebSocket at an API by TLS that prefers HTTP 2", run: wsTLS},
	{name: "What is sent together with the request for a switch, or with its answer, arrives", run: wsTogether},
	{name: "A switch to another protocol, such as `SPDY 3.1`, is answered with its name as it was sent", run: otherProtocol(plain), fails: map[string]string{
		"caddy": "writes it in lower case",
	}},
	{name: "A switch to a protocol other than WebSocket, at an API by TLS that prefers HTTP 2", run: otherProtocol(overTLS), fails: map[string]string{
		"caddy": "asks for it by HTTP/2, which has none",
	}},
	{name: "A WebSocket stays when its token expires and another call has it refreshed", run: wsPastExpiry, patience: tokenLife + 20*time.Second, fails: map[string]string{
		"caddy": noTokens, "nginx": noTokens,
	}},
}

// noTokens is why peers don't pass what is about the life of tokens.
const noTokens = "keeps no tokens"

// onSockets runs f on a WebSocket of its own.
func onSockets(f func(*pair) error) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		p, err := openPair(ctx, w, ask{})
		if err != nil {
			return err
		}
		defer p.close()
		return f(p)
	}
}

// wsMessages has a library at either end.
func wsMessages(ctx context.Context, w *world) error {
	s, err := w.site(plain)
	if err != nil {
		return err
	}
	path := s.handle(func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(8 << 20)
		for {
			kind, m, err := c.Read(ctx)
			if err != nil || c.Write(ctx, kind, m) != nil {
				return
			}
		}
	})
	header := http.Header{}
	w.authorize(header)
	c, res, err := websocket.Dial(ctx, s.front.URL+path, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		return err
	}
	_ = res.Body // is the connection
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(8 << 20)
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			m := noise(size)
			if kind == websocket.MessageText {
				m = bytes.Repeat([]byte("é"), size/2)
			}
			if err := c.Write(ctx, kind, m); err != nil {
				return err
			}
			back, got, err := c.Read(ctx)
			if err != nil {
				return fmt.Errorf("echo of %v of %d bytes: %w", kind, len(m), err)
			}
			if back != kind || !bytes.Equal(got, m) {
				return fmt.Errorf("echo of %v of %d bytes is %v of %d", kind, len(m), back, len(got))
			}
		}
	}
	return c.Close(websocket.StatusNormalClosure, "done")
}

func wsFragments(p *pair) error {
	list := []frame{{op: opText, payload: []byte("first ")}}
	for i := range 98 {
		list = append(list, frame{payload: bytes.Repeat([]byte("x"), i)})
	}
	return p.bothWays(append(list, frame{fin: true, payload: []byte("last")})...)
}

func wsPingBetween(p *pair) error {
	return p.bothWays(
		frame{op: opBinary, payload: []byte{0}}, frame{fin: true, op: opPing, payload: []byte("between")},
		frame{payload: []byte{1}}, frame{fin: true, op: opPong}, frame{fin: true, payload: []byte{2}},
	)
}

func wsEmpty(p *pair) error {
	return p.bothWays(frame{fin: true, op: opText}, frame{fin: true, op: opBinary}, frame{op: opText}, frame{}, frame{fin: true})
}

// wsPings sends each frame once the one before has been answered.
func wsPings(p *pair) error {
	for _, payload := range [][]byte{nil, []byte("are you there?"), noise(125)} {
		for _, ends := range [][2]*end{{p.app, p.api}, {p.api, p.app}} {
			if err := frames(ends[0], ends[1], frame{fin: true, op: opPing, payload: payload}); err != nil {
				return fmt.Errorf("ping: %w", err)
			}
			if err := frames(ends[1], ends[0], frame{fin: true, op: opPong, payload: payload}); err != nil {
				return fmt.Errorf("pong: %w", err)
			}
		}
	}
	return nil
}

// wsClosing closes WebSockets as RFC 6455 section 7.1 has it: the first close
// frame is answered, then the API ends the connection.
func wsClosing(byApp bool) func(context.Context, *world) error {
	payloads := [][]byte{
		nil, closing(1000, ""), closing(1001, "going away"), closing(3000, "sich schließen"), closing(4999, strings.Repeat("r", 123)),
	}
	return func(ctx context.Context, w *world) error {
		for _, payload := range payloads {
			err := onSockets(func(p *pair) error {
				first, second := p.api, p.app
				if byApp {
					first, second = p.app, p.api
				}
				if err := frames(first, second, frame{fin: true, op: opClose, payload: payload}); err != nil {
					return err
				}
				if err := frames(second, first, frame{fin: true, op: opClose, payload: payload[:min(2, len(payload))]}); err != nil {
					return fmt.Errorf("answer: %w", err)
				}
				_ = p.api.Close()
				return wantEnd(p.app)
			})(ctx, w)
			if err != nil {
				return fmt.Errorf("with payload %q: %w", payload, err)
			}
		}
		return nil
	}
}

// wsHangUp resets one side's connection.
func wsHangUp(app bool) func(*pair) error {
	return func(p *pair) error {
		if err := p.bothWays(frame{fin: true, op: opText, payload: []byte("hello")}); err != nil {
			return err
		}
		gone, left := p.api, p.app
		if app {
			gone, left = p.app, p.api
		}
		if tcp, ok := gone.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = gone.Close()
		return wantEnd(left)
	}
}

func wsSilent(p *pair) error {
	hello := frame{fin: true, op: opText, payload: []byte("hello")}
	if err := p.bothWays(hello); err != nil {
		return err
	}
	time.Sleep(10 * time.Second)
	return p.bothWays(hello)
}

func wsLarge(p *pair) error {
	return p.bothWays(frame{fin: true, op: opBinary, payload: noise(8 << 20)})
}

func wsFullDuplex(p *pair) error {
	back := make(chan error, 1)
	go func() { back <- carry(p.api, p.app, noise(20<<20)) }()
	return errors.Join(carry(p.app, p.api, noise(20<<20)), <-back)
}

// wsPingPong takes more than its time where each message waits for the
// acknowledgement of the one before.
func wsPingPong(p *pair) error {
	for i := range 500 {
		if err := p.bothWays(frame{fin: true, op: opText, payload: fmt.Appendf(nil, "question %d", i)}); err != nil {
			return err
		}
	}
	return nil
}

func wsMany(p *pair) error {
	stream := func(from, to *end) error {
		const messages = 10_000
		var all []byte
		list := make([][]byte, messages)
		for i := range list {
			list[i] = frame{fin: true, op: opText, payload: fmt.Appendf(nil, "message %d", i)}.encode(from.app)
			all = append(all, list[i]...)
		}
		sent := make(chan error, 1)
		go func() {
			var err error
			for _, b := range list {
				if err == nil {
					_, err = from.Write(b)
				}
			}
			sent <- err
		}()
		return errors.Join(wantBytes(to, all), <-sent)
	}
	back := make(chan error, 1)
	go func() { back <- stream(p.api, p.app) }()
	return errors.Join(stream(p.app, p.api), <-back)
}

func wsNegotiated(ctx context.Context, w *world) error {
	const (
		offered  = "permessage-deflate; client_max_window_bits; server_no_context_takeover, permessage-deflate"
		accepted = "permessage-deflate; server_no_context_takeover"
	)
	p, err := openPair(ctx, w, ask{
		header: "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n" +
			"Sec-WebSocket-Extensions: " + offered + "\r\nSec-WebSocket-Extensions: x-own; a=\"b\"\r\n",
		answer: []string{"Sec-WebSocket-Protocol: chat.v1", "Sec-WebSocket-Extensions: " + accepted},
	})
	if err != nil {
		return err
	}
	defer p.close()
	wants := []struct {
		header http.Header
		name   string
		values []string
	}{
		{p.asked.Header, "Sec-Websocket-Protocol", []string{"chat.v2, chat.v1"}},
		{p.asked.Header, "Sec-Websocket-Extensions", []string{offered, `x-own; a="b"`}},
		{p.asked.Header, "Sec-Websocket-Version", []string{"13"}},
		{p.asked.Header, "Sec-Websocket-Key", []string{socketKey}},
		{p.answer.Header, "Sec-Websocket-Protocol", []string{"chat.v1"}},
		{p.answer.Header, "Sec-Websocket-Extensions", []string{accepted}},
		{p.answer.Header, "Sec-Websocket-Accept", []string{acceptKey(socketKey)}},
	}
	for _, want := range wants {
		if got := want.header[want.name]; strings.Join(got, "\n") != strings.Join(want.values, "\n") {
			return fmt.Errorf("%s is %q, want %q", want.name, got, want.values)
		}
	}
	// "Hello", compressed: the example of RFC 7692 section 7.2.3.1.
	return p.bothWays(frame{fin: true, rsv1: true, op: opText, payload: []byte{0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}})
}

func wsTLS(ctx context.Context, w *world) error {
	p, err := openPair(ctx, w, ask{kind: overTLS})
	if err != nil {
		return err
	}
	defer p.close()
	if p.asked.TLS == nil {
		return broken("the API was not reached by TLS")
	}
	return p.bothWays(frame{op: opText, payload: []byte("hel")}, frame{fin: true, payload: []byte("lo")}, frame{fin: true, op: opBinary, payload: noise(1 << 20)})
}

func wsSpelling(ctx context.Context, w *world) error {
	p, err := openPair(ctx, w, ask{connection: "keep-alive, Upgrade", protocol: "WEBSOCKET"})
	if err != nil {
		return err
	}
	defer p.close()
	return p.bothWays(frame{fin: true, op: opText, payload: []byte("hello")})
}

func otherProtocol(k kind) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		p, err := openPair(ctx, w, ask{kind: k, protocol: "SPDY/3.1"})
		if err != nil {
			return err
		}
		defer p.close()
		if got := p.answer.Header.Get("Upgrade"); got != "SPDY/3.1" {
			return fmt.Errorf("the app is told of %q", got)
		}
		return errors.Join(carry(p.app, p.api, noise(100_000)), carry(p.api, p.app, noise(100_000)))
	}
}

// wsSlow has the app read nothing until the API can send no more.
func wsSlow(p *pair) error {
	const all, enough = 64 << 20, 48 << 20
	piece := noise(1 << 20)
	var sent atomic.Int64
	go func() {
		for sent.Load() < all {
			n, err := p.api.Write(piece)
			if err != nil {
				return
			}
			sent.Add(int64(n))
		}
	}()
	for before := int64(-1); before < sent.Load(); time.Sleep(300 * time.Millisecond) {
		if before = sent.Load(); before > enough {
			return fmt.Errorf("%d MiB were taken from the API before the app read anything", before>>20)
		}
	}
	for i := range all / len(piece) {
		if err := wantBytes(p.app, piece); err != nil {
			return fmt.Errorf("MiB %d: %w", i, err)
		}
	}
	return nil
}

// wsTogether has the app not wait for the answer, and the API send at once.
func wsTogether(ctx context.Context, w *world) error {
	s, err := w.site(plain)
	if err != nil {
		return err
	}
	early := frame{fin: true, op: opText, payload: []byte("at once")}
	got := make(chan error, 1)
	fromApp := early.encode(true)
	path := s.handle(func(rw http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			got <- err
			return
		}
		defer conn.Close()
		deadlineOf(ctx, conn)
		_, _ = io.WriteString(conn, switching(r)+string(early.encode(false)))
		got <- wantBytes(buffered.Reader, fromApp)
		_, _ = io.Copy(io.Discard, conn) // until the app is done
	})
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.front.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadlineOf(ctx, conn)
	if _, err := io.WriteString(conn, ask{}.request(w, path)+string(fromApp)); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("answer is %v, %w", res, err)
	}
	if err := wantBytes(r, early.encode(false)); err != nil {
		return fmt.Errorf("to the app: %w", err)
	}
	err, late := arrives(ctx, got, 5*time.Second, "what the app sent does not arrive")
	return errors.Join(err, late)
}
