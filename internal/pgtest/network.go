package pgtest

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"sync"
	"time"
)

// Network is a way to a server that can be slow, cut and closed. Its methods are
// safe for concurrent use.
type Network struct {
	listener net.Listener
	server   string
	relays   sync.WaitGroup

	mu     sync.Mutex
	closed bool              // no new connection comes through
	delay  time.Duration     // of each answer
	word   []byte            // in lower case: whoever sends it gets no answer
	cut    chan struct{}     // closed when that has happened
	conns  map[net.Conn]bool // of both sides
}

// NewNetwork returns a way to the server of a DSN, until the test's end, and the
// DSN by that way.
func NewNetwork(t T, dsn string) (*Network, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	check(t, err)
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	check(t, err)
	n := &Network{listener: l, server: u.Host, conns: map[net.Conn]bool{}}
	n.relays.Go(n.accept)
	t.Cleanup(func() {
		_ = l.Close()
		n.Close()
		n.relays.Wait()
	})
	u.Host = l.Addr().String()
	return n, u.String()
}

// Close cuts all connections, and every new one at once.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for c := range n.conns {
		_ = c.Close()
	}
}

// Cut cuts all connections. New ones come through.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Close()
	}
}

// Open lets connections through again.
func (n *Network) Open() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = false
}

// Delay has each piece of the server's answers wait for d from now on.
func (n *Network) Delay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// CutAnswer lets the next message with word in it, in letters of either case,
// reach the server, waits until that has answered, and cuts the connection
// instead of passing the answer on. What it returns is closed then.
func (n *Network) CutAnswer(word string) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.word, n.cut = bytes.ToLower([]byte(word)), make(chan struct{})
	return n.cut
}

func (n *Network) accept() {
	for {
		client, err := n.listener.Accept()
		if err != nil {
			return
		}
		n.relays.Go(func() { n.relay(client) })
	}
}

// keep notes a connection to be cut, or cuts it now.
func (n *Network) keep(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = true
	return !n.closed
}

func (n *Network) drop(c net.Conn) {
	_ = c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// relay passes on what both sides say, until one of them ends.
func (n *Network) relay(client net.Conn) {
	defer n.drop(client)
	if !n.keep(client) {
		return
	}
	server, err := (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "tcp", n.server)
	if err != nil {
		return
	}
	defer n.drop(server)
	if !n.keep(server) {
		return
	}
	doomed := make(chan chan struct{}, 1) // holds what to close once the server has answered
	n.relays.Go(func() {
		defer func() { _ = client.Close() }()
		pass(client, server, func([]byte) bool {
			n.mu.Lock()
			delay := n.delay
			n.mu.Unlock()
			time.Sleep(delay) // the network's own slowness
			select {
			case cut := <-doomed:
				close(cut)
				return false
			default:
				return true
			}
		})
	})
	pass(server, client, func(message []byte) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.word != nil && bytes.Contains(bytes.ToLower(message), n.word) {
			n.word = nil
			doomed <- n.cut
		}
		return true
	})
	// An answer that is still awaited decides when the connection ends.
	_ = client.Close()
}

// pass copies from one connection to the other what look lets through.
func pass(to, from net.Conn, look func([]byte) bool) {
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !look(buf[:n]) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
