package fidelity_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// The opcodes of frames (RFC 6455 section 5.2).
const (
	opContinued = 0x0
	opText      = 0x1
	opBinary    = 0x2
	opClose     = 0x8
	opPing      = 0x9
	opPong      = 0xA
)

// frame is one frame of a WebSocket. The zero value is a continuation that is
// not the last.
type frame struct {
	fin     bool
	rsv1    bool // compressed, with permessage-deflate (RFC 7692 section 6)
	op      byte
	payload []byte
}

// encode returns the frame as it is sent: masked by apps, not by APIs.
func (f frame) encode(masked bool) []byte {
	first := f.op
	if f.fin {
		first |= 0x80
	}
	if f.rsv1 {
		first |= 0x40
	}
	b := []byte{first}
	var second byte
	if masked {
		second = 0x80
	}
	switch n := len(f.payload); {
	case n < 126:
		b = append(b, second|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, second|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, second|127), uint64(n))
	}
	if !masked {
		return append(b, f.payload...)
	}
	var key [4]byte
	_, _ = rand.Read(key[:])
	b = append(b, key[:]...)
	for i, c := range f.payload {
		b = append(b, c^key[i%4])
	}
	return b
}

// closing returns the payload of a close frame (RFC 6455 section 5.5.1).
func closing(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, code), reason...)
}

// noise returns n random bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// end is one end of a connection that has switched to another protocol.
type end struct {
	net.Conn
	r   *bufio.Reader
	app bool // the app's, whose frames are masked
}

// Read implements io.Reader: it returns what came with the switch, too.
func (e *end) Read(b []byte) (int, error) { return e.r.Read(b) }

// carry sends b from one end and reports how what arrives at the other differs.
func carry(from, to *end, b []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(b)
		sent <- err
	}()
	return errors.Join(wantBytes(to, b), <-sent)
}

// wantBytes reads exactly want.
func wantBytes(r io.Reader, want []byte) error {
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil {
		return fmt.Errorf("%d of %d bytes arrived: %w", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes arrived changed", len(want))
	}
	return nil
}

// frames carries frames from one end to the other, byte for byte.
func frames(from, to *end, list ...frame) error {
	var b []byte
	for _, f := range list {
		b = append(b, f.encode(from.app)...)
	}
	return carry(from, to, b)
}

// pair is both ends of a connection that goes through the proxy and has
// switched to another protocol.
type pair struct {
	app, api *end
	asked    *http.Request  // as the API got it
	answer   *http.Response // as the app got it
}

// ask is a request for a switch to another protocol. The zero value is that of
// most apps.
type ask struct {
	kind       kind
	connection string   // default: Upgrade
	protocol   string   // default: websocket
	header     string   // further lines
	answer     []string // further lines of the API's answer
}

// openPair has a switch asked for and answered.
func openPair(ctx context.Context, w *world, a ask) (*pair, error) {
	s, err := w.site(a.kind)
	if err != nil {
		return nil, err
	}
	p := &pair{}
	came := make(chan error, 1)
	path := s.handle(func(rw http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(rw).Hijack()
		if err == nil {
			deadlineOf(ctx, conn)
			p.asked, p.api = r, &end{Conn: conn, r: buffered.Reader}
			_, err = io.WriteString(conn, switching(r, a.answer...))
		}
		came <- err
	})
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.front.Addr)
	if err != nil {
		return nil, err
	}
	deadlineOf(ctx, conn)
	p.app = &end{Conn: conn, r: bufio.NewReader(conn), app: true}
	if _, err := io.WriteString(conn, a.request(w, path)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p.answer, err = http.ReadResponse(p.app.r, nil)
	if err == nil && p.answer.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New("the switch is answered with " + p.answer.Status)
	}
	if err == nil {
		err = <-came
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return p, nil
}

// request returns the request as it is sent.
func (a ask) request(w *world, path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + w.key + "\r\n" +
		"Connection: " + cmp.Or(a.connection, "Upgrade") + "\r\nUpgrade: " + cmp.Or(a.protocol, "websocket") + "\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + socketKey + "\r\n" + a.header + "\r\n"
}

// socketKey is a key that apps send (RFC 6455 section 4.1).
const socketKey = "dGhlIHNhbXBsZSBub25jZQ=="

func (p *pair) close() {
	_ = p.app.Close()
	_ = p.api.Close()
}

// bothWays carries the same frames in both directions.
func (p *pair) bothWays(list ...frame) error {
	if err := frames(p.app, p.api, list...); err != nil {
		return fmt.Errorf("to the API: %w", err)
	}
	if err := frames(p.api, p.app, list...); err != nil {
		return fmt.Errorf("to the app: %w", err)
	}
	return nil
}

// wantEnd reports an error unless a connection ends soon, with nothing more on
// it.
func wantEnd(e *end) error {
	_ = e.SetReadDeadline(time.Now().Add(soon + prompt))
	n, err := io.Copy(io.Discard, e)
	if isTimeout(err) {
		return fmt.Errorf("still open after %v", soon+prompt)
	}
	if n > 0 {
		return fmt.Errorf("%d bytes that nobody sent", n)
	}
	return nil
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// acceptKey answers Sec-WebSocket-Key (RFC 6455 section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// switching returns what an API answers that switches to what is asked for.
func switching(r *http.Request, further ...string) string {
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: " + r.Header.Get("Upgrade") + "\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + acceptKey(r.Header.Get("Sec-WebSocket-Key")) + "\r\n"
	for _, line := range further {
		answer += line + "\r\n"
	}
	return answer + "\r\n"
}
