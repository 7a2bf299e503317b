package fidelity_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"
)

// remembersNothing is a row on what requests over HTTP/2 leave in the table of
// headers of their connection (RFC 7541). Users share it: what one sends could
// tell by its length what another has sent (section 7.1).
var remembersNothing = row{
	name: "Over TLS, HTTP/2 keeps no header of a user's in the table of its connection",
	fails: marks{
		"caddy": "keeps them, the token too",
		"nginx": "speaks HTTP/1.1 to upstreams (HTTP/2 for gRPC only)",
	},
	run: func(ctx context.Context, w *world) error {
		s, err := w.tls()
		if err != nil {
			return err
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return broken("%w", err)
		}
		config := s.config.Clone()
		config.NextProtos = []string{"h2", "http/1.1"}
		blocks := make(chan []byte, 10)
		var work sync.WaitGroup
		defer work.Wait()
		ctx, cancel := context.WithCancel(ctx)
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
					defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
					_ = headerBlocks(tls.Server(conn, config), blocks)
				})
			}
		})
		up := &upstream{host: l.Addr().String()}
		up.spec = spec{URL: "https://" + up.host, CA: s.h1.spec.CA}
		for i := range 3 {
			c, err := lane{w: w, up: up}.dial(ctx)
			if err != nil {
				return err
			}
			err = c.send(c.head("GET", "/secretpath-0123456789", "X-Secret: 0123456789", "Idempotency-Key: 0123456789", "Lanyard-Nothing: "+fmt.Sprint(i)))
			if err == nil {
				err = c.wantStatus(204)
			}
			_ = c.Close()
			if err != nil {
				return err
			}
			select {
			case block := <-blocks:
				if err := keepsNothing(block); err != nil {
					return fmt.Errorf("request %d: %w", i, err)
				}
			default:
				return errors.New("it did not come by HTTP/2")
			}
		}
		return nil
	},
}

// headerBlocks answers the requests of an HTTP/2 connection with 204, and passes
// on their header blocks as they came.
func headerBlocks(conn net.Conn, blocks chan<- []byte) error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != http2.ClientPreface {
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		return err
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.HeadersFrame: // all of them are in one frame
			blocks <- append([]byte(nil), frame.HeaderBlockFragment()...)
			err = f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: frame.StreamID, EndHeaders: true, EndStream: true,
				BlockFragment: []byte{0x89}, // :status: 204, RFC 7541 appendix A
			})
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = f.WritePing(true, frame.Data)
			}
		}
		if err != nil {
			return err
		}
	}
}

// keepsNothing reads a header block (RFC 7541 section 6), in which nothing may be
// added to the table, nor come from it.
func keepsNothing(block []byte) error {
	const static = 61
	for len(block) > 0 {
		first := block[0]
		bits := 4
		switch {
		case first&0x80 != 0:
			bits = 7
		case first&0x40 != 0:
			return errors.New("a header is added to the table")
		case first&0x20 != 0:
			bits = 5
		}
		n, rest, err := hpackInt(block, bits)
		if err != nil {
			return err
		}
		if block = rest; first&0x20 != 0 && first&0xc0 == 0 {
			continue // the size of the table
		}
		if n > static {
			return fmt.Errorf("header %d of the table is used", n)
		}
		if first&0x80 != 0 {
			continue
		}
		literals := 1
		if n == 0 {
			literals = 2 // the name, too
		}
		for range literals {
			length, rest, err := hpackInt(block, 7)
			if err != nil || length > len(rest) {
				return errors.Join(errors.New("a header block that is none"), err)
			}
			block = rest[length:]
		}
	}
	return nil
}

// hpackInt reads an integer of a prefix of some bits (RFC 7541 section 5.1).
func hpackInt(b []byte, bits int) (n int, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	most := 1<<bits - 1
	if n = int(b[0]) & most; n < most {
		return n, b[1:], nil
	}
	for i, c := range b[1:] {
		if n += int(c&0x7f) << (7 * i); c&0x80 == 0 {
			return n, b[i+2:], nil
		}
		if i == 3 {
			break
		}
	}
	return 0, nil, errors.New("an integer without end")
}
