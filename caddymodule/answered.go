package caddymodule

import (
	"context"
	"net"
	"sync"
	"time"
)

// unreadWait is how long a write that failed leaves an answer that came before
// to be read: longer than http.Transport holds one back for its request to end.
const unreadWait = 250 * time.Millisecond

// answered has answers win over failed writes. An API that refuses an upload
// early says so and hangs up; http.Transport, which then finds that it can't
// write on, would forget the answer that it has got.
func answered(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &answeredConn{Conn: conn, over: make(chan struct{})}, nil
	}
}

type answeredConn struct {
	net.Conn
	once sync.Once
	over chan struct{} // closed when nothing more is to be read
}

func (c *answeredConn) end() { c.once.Do(func() { close(c.over) }) }

// Read implements net.Conn.
func (c *answeredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && n == 0 {
		c.end()
	}
	return n, err
}

// Write implements net.Conn. An error is returned once nothing more is to be
// read, or after unreadWait.
func (c *answeredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		wait := time.NewTimer(unreadWait)
		defer wait.Stop()
		select {
		case <-c.over:
		case <-wait.C:
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *answeredConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// CloseWrite ends one direction, where the connection can: a tunnel's.
func (c *answeredConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
