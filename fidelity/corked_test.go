package fidelity_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"sync"
)

// corked is an upstream's connection whose writes can be held back, to go out
// together: TLS records of one segment.
type corked struct {
	net.Conn

	mu   sync.Mutex
	hold bool         // guarded by mu
	held bytes.Buffer // guarded by mu
}

// Write implements net.Conn.
func (c *corked) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hold {
		return c.held.Write(b)
	}
	return c.Conn.Write(b)
}

// CloseWrite ends one direction.
func (c *corked) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func (c *corked) cork() {
	c.mu.Lock()
	c.hold = true
	c.mu.Unlock()
}

func (c *corked) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = false
	_, err := c.held.WriteTo(c.Conn)
	return err
}

type corkedListener struct{ net.Listener }

// Accept implements net.Listener.
func (l corkedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &corked{Conn: conn}, nil
}

// together sends parts in one segment, with TLS in a record each.
func (s *served) together(parts ...string) error {
	secured, ok := s.conn.(*tls.Conn)
	if !ok {
		all := ""
		for _, part := range parts {
			all += part
		}
		return s.send(all)
	}
	c := secured.NetConn().(*corked)
	c.cork()
	err := s.send(parts...)
	if last := c.uncork(); err == nil {
		err = last
	}
	return err
}

// tcp returns the connection under TLS, or the plain one.
func (s *served) tcp() *net.TCPConn {
	if secured, ok := s.conn.(*tls.Conn); ok {
		return secured.NetConn().(*corked).Conn.(*net.TCPConn)
	}
	return s.conn.(*net.TCPConn)
}

// reset has the upstream's end of the connection break at once, when it closes.
func (s *served) reset() error {
	_ = s.tcp().SetLinger(0)
	_ = s.tcp().Close()
	return errClose
}
