package fidelity_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strconv"
	"strings"
)

// message is a request or an answer as it came.
type message struct {
	start string   // request line or status line
	lines []string // header lines: "Name: value"
	in    *bufio.Reader
	// trailers are the lines after a chunked body; there once body is at its end.
	trailers []string
}

// readMessage reads the head of a message.
func readMessage(in *bufio.Reader) (*message, error) {
	m := &message{in: in}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("head of a message, after %q: %w", m.start, err)
		}
		line = strings.TrimSuffix(line, "\r\n")
		switch {
		case m.start == "":
			m.start = line
		case line == "":
			return m, nil
		default:
			m.lines = append(m.lines, line)
		}
	}
}

// values returns the values of a header, in order.
func (m *message) values(name string) []string {
	var all []string
	for _, line := range m.lines {
		if n, v, _ := strings.Cut(line, ":"); strings.EqualFold(n, name) {
			all = append(all, strings.Trim(v, " \t"))
		}
	}
	return all
}

// value returns the only value of a header, "" where there is none.
func (m *message) value(name string) string { return strings.Join(m.values(name), " AND ") }

// chunked reports whether the body is.
func (m *message) chunked() bool { return strings.EqualFold(m.value("Transfer-Encoding"), "chunked") }

// length returns the length of a body: -1 where it is not told.
func (m *message) length() int64 {
	n, err := strconv.ParseInt(m.value("Content-Length"), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// status returns an answer's status code.
func (m *message) status() int {
	_, rest, _ := strings.Cut(m.start, " ")
	n, _ := strconv.Atoi(rest[:min(3, len(rest))])
	return n
}

// body returns the body, decoded from chunks. A request without a length has
// none; an answer without one goes on to the end of the connection. Not to be
// asked of answers that have no body whatever they say (HEAD, 204, 304).
func (m *message) body() io.Reader {
	switch {
	case m.chunked():
		return &chunks{m: m, r: httputil.NewChunkedReader(m.in)}
	case m.length() >= 0:
		return &exactly{r: m.in, left: m.length()}
	case strings.HasPrefix(m.start, "HTTP/"):
		return m.in
	default:
		return strings.NewReader("")
	}
}

// text reads the whole body.
func (m *message) text() (string, error) {
	b, err := io.ReadAll(m.body())
	return string(b), err
}

// exactly reads a body of a known length. That it breaks off is an error.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	if e.left -= int64(n); errors.Is(err, io.EOF) && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunks reads a chunked body and its trailers.
type chunks struct {
	m    *message
	r    io.Reader
	done bool
}

func (c *chunks) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	n, err := c.r.Read(p)
	if errors.Is(err, io.EOF) {
		c.done = true
		for {
			line, err := c.m.in.ReadString('\n')
			if err != nil {
				return n, io.ErrUnexpectedEOF
			}
			if line = strings.TrimSuffix(line, "\r\n"); line == "" {
				return n, io.EOF
			}
			c.m.trailers = append(c.m.trailers, line)
		}
	}
	return n, err
}

// wantText reads the whole body and compares it.
func (m *message) wantText(want string) error {
	got, err := m.text()
	if err != nil {
		return fmt.Errorf("body, after %s: %w", short(got), err)
	}
	return wantEqual("body", got, want)
}

// parse reads the head of a message from a text without its last empty line.
func parse(text string) *message {
	lines := strings.Split(text, "\r\n")
	return &message{start: lines[0], lines: lines[1:]}
}
