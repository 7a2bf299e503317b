package fidelity_test

import (
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"
)

// mixPlan is what the upstream does with a call.
type mixPlan struct {
	name   string
	serve  func(*mixServed) error
	fails  bool // no whole answer may come of it
	later  bool // it fails within the body, of which HEAD sees nothing
	bare   bool // the answer has no body
	silent bool // no answer comes: the app hangs up
	behind bool // more comes than the answer: calls with a body don't ask for it, see docs/security.md
}

// mixServed is a call at the upstream.
type mixServed struct {
	*served
	call   mixCall
	method string
	r      *mathrand.Rand
}

// mixPlans is all that the upstream does. The first is what is usual.
var mixPlans = []mixPlan{
	{name: "length", serve: func(s *mixServed) error { return s.send(s.whole()) }},
	{name: "chunks", serve: func(s *mixServed) error { return s.send(s.head("200 OK", "Transfer-Encoding: chunked") + s.chunks()) }},
	{name: "to the end", serve: func(s *mixServed) error { return s.ends(s.head("200 OK") + s.body()) }},
	{name: "HTTP/1.0", serve: func(s *mixServed) error {
		return s.ends(strings.Replace(s.head("200 OK"), "HTTP/1.1", "HTTP/1.0", 1) + s.body())
	}},
	{name: "HTTP/1.0, kept", serve: func(s *mixServed) error {
		return s.send(strings.Replace(s.head("200 OK", s.length(), "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1) + s.body())
	}},
	{name: "said to close", serve: func(s *mixServed) error {
		if err := s.together(s.head("200 OK", s.length(), "Connection: close")+s.body(), s.evil()); err != nil {
			return err
		}
		_ = s.gone(time.Second) // it is the proxy that has to
		return errClose
	}},
	{name: "length of 0", bare: true, serve: func(s *mixServed) error { return s.send(s.head("200 OK", "Content-Length: 0")) }},
	{name: "204", bare: true, serve: func(s *mixServed) error { return s.send(s.head("204 No Content")) }},
	{name: "304", bare: true, serve: func(s *mixServed) error { return s.send(s.head("304 Not Modified", "Content-Length: 12345")) }},
	{name: "hints", serve: func(s *mixServed) error {
		hints := ""
		for range 1 + s.r.IntN(4) {
			hints += s.head([]string{"103 Early Hints", "102 Processing", "100 Continue"}[s.r.IntN(3)])
		}
		return s.slowly(hints + s.whole())
	}},
	{name: "in bits", serve: func(s *mixServed) error { return s.slowly(s.whole()) }},
	{name: "chunks in bits", serve: func(s *mixServed) error {
		return s.slowly(s.head("200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum") + s.chunks())
	}},

	{name: "another behind", behind: true, serve: func(s *mixServed) error { return s.together(s.whole() + s.evil()) }},
	{name: "another in a record behind", behind: true, serve: func(s *mixServed) error { return s.together(s.whole(), s.evil()) }},
	{name: "another behind chunks", behind: true, serve: func(s *mixServed) error {
		return s.together(s.head("200 OK", "Transfer-Encoding: chunked")+s.chunks(), s.evil())
	}},
	{name: "a body behind 204", behind: true, bare: true, serve: func(s *mixServed) error { return s.together(s.head("204 No Content"), s.evil()) }},
	{name: "a body behind 304", behind: true, bare: true, serve: func(s *mixServed) error {
		return s.together(s.head("304 Not Modified", s.length())+s.body(), s.evil())
	}},
	{name: "a body behind 0", behind: true, bare: true, serve: func(s *mixServed) error { return s.together(s.head("200 OK", "Content-Length: 0") + s.evil()) }},
	{name: "ends a little later", serve: func(s *mixServed) error {
		err := s.send(s.whole())
		s.wait()
		return firstOf(err, errClose)
	}},
	{name: "resets a little later", serve: func(s *mixServed) error {
		err := s.send(s.whole())
		s.wait()
		return firstOf(err, s.reset())
	}},
	{name: "408 a little later", serve: func(s *mixServed) error {
		err := s.send(s.whole())
		s.wait()
		return firstOf(err, s.send(fmt.Sprintf("HTTP/1.1 408 Request Timeout\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(idleTimeout), idleTimeout)), errClose)
	}},

	{name: "no answer", fails: true, serve: func(*mixServed) error { return errClose }},
	{name: "no answer, but a reset", fails: true, serve: func(s *mixServed) error { return s.reset() }},
	{name: "half a head", fails: true, serve: func(s *mixServed) error { return s.ends(s.head("200 OK")[:20]) }},
	{name: "half a body", fails: true, later: true, serve: func(s *mixServed) error {
		return s.ends(s.head("200 OK", fmt.Sprintf("Content-Length: %d", 1+len(s.call.body()))) + s.body())
	}},
	{name: "half the chunks", fails: true, later: true, serve: func(s *mixServed) error {
		return s.ends(s.head("200 OK", "Transfer-Encoding: chunked") + strings.TrimSuffix(s.chunks(), "0\r\n\r\n"))
	}},
	{name: "a chunk that is none", fails: true, later: true, serve: func(s *mixServed) error {
		return s.send(s.head("200 OK", "Transfer-Encoding: chunked") + strings.TrimSuffix(s.chunks(), "0\r\n\r\n") + "zz\r\n" + s.evil())
	}},
	{name: "two lengths", fails: true, serve: func(s *mixServed) error {
		return s.send(s.head("200 OK", s.length(), "Content-Length: 1") + s.body() + s.evil())
	}},
	{name: "no HTTP", fails: true, serve: func(s *mixServed) error { return s.ends("SSH-2.0-x\r\n\r\n" + s.evil()) }},
	{name: "101", fails: true, serve: func(s *mixServed) error {
		return s.ends(s.head("101 Switching Protocols", "Connection: Upgrade", "Upgrade: x/1") + s.evil())
	}},
	{name: "silence", silent: true, serve: func(s *mixServed) error {
		_ = s.gone(10 * time.Second)
		_ = s.send(s.evil())
		return errClose
	}},
}

const idleTimeout = "idle for too long"

// head is the head of an answer that proves whose it is.
func (s *mixServed) head(status string, lines ...string) string {
	return "HTTP/1.1 " + status + "\r\n" + strings.Join(append(lines, "X-Proof: "+s.call.proof()), "\r\n") + "\r\n\r\n"
}

func (s *mixServed) length() string { return fmt.Sprintf("Content-Length: %d", len(s.call.body())) }

// body is the answer's, where the method leaves it one.
func (s *mixServed) body() string {
	if s.method == "HEAD" {
		return ""
	}
	return s.call.body()
}

func (s *mixServed) whole() string { return s.head("200 OK", s.length()) + s.body() }

// chunks frames the body, with extensions and a trailer.
func (s *mixServed) chunks() string {
	if s.method == "HEAD" {
		return ""
	}
	var b strings.Builder
	for rest := s.call.body(); rest != ""; {
		n := min(len(rest), 1+s.r.IntN(9000))
		fmt.Fprintf(&b, "%x;x=\"y\"\r\n%s\r\n", n, rest[:n])
		rest = rest[n:]
	}
	return b.String() + "0\r\n\r\n"
}

// evil is an answer that nobody asked for. It is for the same user: the next one
// to use the connection is another.
func (s *mixServed) evil() string {
	c := s.call
	c.id += " again"
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Proof: %s\r\nContent-Length: %d\r\n\r\n%s", c.proof(), len(c.body()), c.body())
}

// ends sends the last that comes over the connection.
func (s *mixServed) ends(text string) error { return firstOf(s.send(text), errClose) }

// slowly sends text in pieces, most of them bytes at its begin.
func (s *mixServed) slowly(text string) error {
	for at := 0; at < len(text); {
		n := 1 + s.r.IntN(3)
		if at > 40 {
			n = 1 + s.r.IntN(1+len(text)/4)
		}
		n = min(n, len(text)-at)
		if err := s.send(text[at : at+n]); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// wait is about as long as a connection may be idle here.
func (s *mixServed) wait() { time.Sleep(time.Duration(s.r.IntN(2000)) * time.Microsecond) }

// firstOf returns the first error.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
