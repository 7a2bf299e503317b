package fidelity_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

const (
	gib = 1 << 30
	// lowMemory is what a proxy may ever take, whatever goes through it.
	lowMemory = 160 << 20
	// littleMore is by how much it may grow where one body alone goes through.
	littleMore = 24 << 20
)

// sample is bytes of all values whose length is a prime, so that pieces which
// are lost or change places are seen in the checksum.
var sample = sync.OnceValue(func() []byte {
	b := make([]byte, 1048573)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
})

// stream reads n bytes.
func stream(n int64) io.Reader { return io.LimitReader(&endless{}, n) }

type endless struct{ at int }

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, sample()[e.at:])
	e.at = (e.at + n) % len(sample())
	return n, nil
}

// wantStream reads r to its end, which has to come after the n bytes of a stream.
func wantStream(r io.Reader, n int64) error {
	want, got := crc32.NewIEEE(), crc32.NewIEEE()
	_, _ = io.Copy(want, stream(n))
	m, err := io.Copy(got, r)
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", m, n, err)
	}
	if m != n || got.Sum32() != want.Sum32() {
		return fmt.Errorf("%d bytes with checksum %x, want %d with %x", m, got.Sum32(), n, want.Sum32())
	}
	return nil
}

// uploaded is a row on a request's body: how it is framed and what it is. No
// header comes with it that was not sent.
func uploaded(name string, fails marks, method string, lines []string, body string, check func(x *exchange) error) row {
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{method: method, lines: lines, body: body}, ok)
		if err != nil {
			return err
		}
		if err := check(x); err != nil {
			return err
		}
		framing := []string{"content-length", "transfer-encoding", "trailer"}
		return wantHeaders("request", headers(x.request.lines, framing...),
			headers(append([]string{"Host: " + w.up.host, "Authorization: Bearer " + token}, lines...), framing...))
	}}
}

// framed wants a request's body, with a length or in chunks.
func framed(length, coding, body string) func(*exchange) error {
	return func(x *exchange) error {
		if err := wantEqual("Content-Length", x.request.value("Content-Length"), length); err != nil {
			return err
		}
		if err := wantEqual("Transfer-Encoding", x.request.value("Transfer-Encoding"), coding); err != nil {
			return err
		}
		return wantEqual("body", x.sentBody, body)
	}
}

// downloaded is a row on an answer's body. unknown says that its length stays
// unknown until its end.
func downloaded(name, answer, body string, unknown bool) row {
	return row{name: name, run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{}, "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n"+answer)
		if err != nil {
			return err
		}
		if got := x.answer.length() < 0; got != unknown {
			return fmt.Errorf("length of the answer unknown: %v, want %v; headers %s", got, unknown, short(x.answer.lines))
		}
		return wantEqual("body", x.body, body)
	}}
}

func zipped() string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(bytes.Repeat([]byte("zipped "), 1000))
	_ = z.Close()
	return b.String()
}

func allBytes() string { return string(sample()[:3000]) + "\x00\r\n\r\n0\r\n\r\n" }

// inChunks frames a body.
func inChunks(parts ...string) string {
	var b strings.Builder
	for _, part := range parts {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
	}
	return b.String() + "0\r\n\r\n"
}

var chunkedLine = []string{"Transfer-Encoding: chunked"}

var bodyRows = []row{
	uploaded("A GET without a body stays without", nil, "GET", nil, "", framed("", "", "")),
	uploaded("A DELETE without a body stays without", nil, "DELETE", nil, "", framed("", "", "")),
	uploaded("A POST with Content-Length: 0 keeps it", nil, "POST", []string{"Content-Length: 0"}, "", framed("0", "", "")),
	uploaded("A PUT with Content-Length: 0 keeps it", nil, "PUT", []string{"Content-Length: 0"}, "", framed("0", "", "")),
	uploaded("A body of one byte arrives", nil, "POST", []string{"Content-Length: 1"}, "x", framed("1", "", "x")),
	uploaded("A body of bytes of all values arrives, with its length", nil, "PUT", []string{fmt.Sprintf("Content-Length: %d", len(allBytes()))}, allBytes(),
		framed(fmt.Sprint(len(allBytes())), "", allBytes())),
	uploaded("A body that came coded arrives coded", nil, "POST", []string{"Content-Encoding: gzip", fmt.Sprintf("Content-Length: %d", len(zipped()))}, zipped(),
		framed(fmt.Sprint(len(zipped())), "", zipped())),
	uploaded("A chunked body stays of unknown length", marks{"nginx": "tells a length where all of the body came with the head"}, "POST", chunkedLine, inChunks("a", "bc", allBytes()), framed("", "chunked", "abc"+allBytes())),
	uploaded("A chunked body that is empty stays chunked", marks{"nginx": "tells a length of 0"}, "POST", chunkedLine, inChunks(), framed("", "chunked", "")),
	uploaded("A GET keeps its body", nil, "GET", []string{"Content-Length: 4"}, "body", framed("4", "", "body")),
	uploaded("A DELETE keeps its chunked body", marks{"nginx": "tells a length where all of the body came with the head"}, "DELETE", chunkedLine, inChunks("body"), framed("", "chunked", "body")),
	uploaded("A method of one's own keeps its body", nil, "FOO", []string{"Content-Length: 4"}, "body", framed("4", "", "body")),
	uploaded("Trailers of a request arrive", marks{"nginx": "drops them"}, "POST", append([]string{"Trailer: X-Sum, X-Twice"}, chunkedLine...), "2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Twice: a\r\nX-Twice: b\r\n\r\n",
		func(x *exchange) error { return wantTrailers(x.request, "X-Sum: 1", "X-Twice: a", "X-Twice: b") }),
	uploaded("Trailers of a request that were not announced arrive", marks{"nginx": "drops them"}, "POST", append([]string{"Trailer: X-Sum"}, chunkedLine...), "2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Late: 2\r\n\r\n",
		func(x *exchange) error { return wantTrailers(x.request, "X-Sum: 1", "X-Late: 2") }),
	{name: "A body arrives while it is being sent", run: upAsSent},
	{name: "1 GiB goes up, and takes no memory", run: up(gib, false), patience: time.Minute, alone: true},
	{name: "64 MiB of unknown length go up", run: up(64<<20, true), patience: time.Minute, alone: true},

	downloaded("An answer of known length keeps it", "Content-Length: 4\r\n\r\nbody", "body", false),
	downloaded("An answer with Content-Length: 0 keeps it", "Content-Length: 0\r\n\r\n", "", false),
	downloaded("An answer of one byte comes", "Content-Length: 1\r\n\r\nx", "x", false),
	downloaded("A chunked answer stays of unknown length", "Transfer-Encoding: chunked\r\n\r\n"+inChunks("a", "bc", allBytes()), "abc"+allBytes(), true),
	downloaded("A chunked answer that is empty stays of unknown length", "Transfer-Encoding: chunked\r\n\r\n"+inChunks(), "", true),
	downloaded("An answer that goes on until the connection ends comes whole", "\r\n"+allBytes(), allBytes(), true),
	downloaded("An answer that came coded comes coded", fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(zipped()), zipped()), zipped(), false),
	downloaded("A coding that nobody knows comes as it is", "Content-Encoding: x-own\r\nContent-Length: 3\r\n\r\n\x00\x01\x02", "\x00\x01\x02", false),
	{name: "No coding is asked for that the app did not ask for", run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{}, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(zipped()), zipped()))
		if err != nil {
			return err
		}
		if err := wantLines("Accept-Encoding", x.request.values("Accept-Encoding")); err != nil {
			return err
		}
		return wantEqual("body", x.body, zipped())
	}},
	trailersDown("Trailers of an answer come", marks{"nginx": "drops them"}, "Trailer: X-Sum, X-Twice\r\n", "X-Sum: 1", "X-Twice: a", "X-Twice: b"),
	trailersDown("Trailers of an answer that were not announced come", marks{"nginx": "drops them"}, "Trailer: X-Sum\r\n", "X-Sum: 1", "X-Late: 2"),
	{name: "An answer comes while it is being sent", run: downAsSent("Transfer-Encoding: chunked", "5\r\nfirst\r\n", "6\r\nsecond\r\n0\r\n\r\n")},
	{name: "An answer of known length comes while it is being sent", run: downAsSent("Content-Length: 11", "first", "second")},
	{name: "The head of an answer comes before its body is there", run: downAsSent("Transfer-Encoding: chunked", "", "b\r\nfirstsecond\r\n0\r\n\r\n")},
	{name: "1 GiB comes down, and takes no memory", run: down(gib, false), patience: time.Minute, alone: true},
	{name: "64 MiB of unknown length come down", run: down(64<<20, true), patience: time.Minute, alone: true},
}

func wantTrailers(m *message, want ...string) error {
	return wantHeaders("trailers", headers(m.trailers), headers(want))
}

func trailersDown(name string, fails marks, announced string, trailers ...string) row {
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{lines: []string{"TE: trailers", "Connection: TE"}},
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"+announced+"\r\n4\r\nbody\r\n0\r\n"+strings.Join(trailers, "\r\n")+"\r\n\r\n")
		if err != nil {
			return err
		}
		if err := wantEqual("body", x.body, "body"); err != nil {
			return err
		}
		return wantTrailers(x.answer, trailers...)
	}}
}

// within waits for what has to happen at once.
func within(what string, limit time.Duration, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s: not within %v: %w", what, limit, context.DeadlineExceeded)
	}
}

func upAsSent(ctx context.Context, w *world) error {
	first := make(chan struct{})
	return w.conversation(ctx, func(s *served) error {
		body, part := s.body(), make([]byte, 5)
		if _, err := io.ReadFull(body, part); err != nil {
			return err
		}
		close(first)
		rest, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		if err := wantEqual("body", string(part)+string(rest), "firstsecond"); err != nil {
			return err
		}
		return s.send(ok)
	}, func(c *client, path string) error {
		if err := c.send(c.head("POST", path, chunkedLine...), "5\r\nfirst\r\n"); err != nil {
			return err
		}
		if err := within("the first part arrives", 3*time.Second, first); err != nil {
			return err
		}
		if err := c.send("6\r\nsecond\r\n0\r\n\r\n"); err != nil {
			return err
		}
		return c.wantStatus(200)
	})
}

// wantStatus reads the head of the final answer.
func (c *client) wantStatus(want int) error {
	_, m, err := c.answer()
	if err != nil {
		return err
	}
	return wantEqual("status", m.status(), want)
}

func downAsSent(framing, first, second string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		came := make(chan struct{})
		return w.conversation(ctx, func(s *served) error {
			if err := s.send("HTTP/1.1 200 OK\r\n"+framing+"\r\n\r\n", first); err != nil {
				return err
			}
			if err := within("the first part comes", 3*time.Second, came); err != nil {
				return err
			}
			return s.send(second)
		}, func(c *client, path string) error {
			if err := c.send(c.head("GET", path)); err != nil {
				return err
			}
			_, m, err := c.answer()
			if err != nil {
				return err
			}
			body, part := m.body(), make([]byte, 5)
			if first == "" {
				part = nil
			}
			if _, err := io.ReadFull(body, part); err != nil {
				return err
			}
			close(came)
			rest, err := io.ReadAll(body)
			if err != nil {
				return err
			}
			return wantEqual("body", string(part)+string(rest), "firstsecond")
		})
	}
}

// wantLowMemory looks at the most memory that the proxy ever had.
func (w *world) wantLowMemory() error {
	f, err := w.via(w.up.spec)
	if err != nil {
		return err
	}
	if peak := f.memory(); peak > lowMemory {
		return fmt.Errorf("the proxy took %d MiB", peak>>20)
	}
	return nil
}

// inLittle runs what nothing runs beside, and looks at how far the proxy's memory
// grows meanwhile.
func (w *world) inLittle(run func() error) error {
	f, err := w.via(w.up.spec)
	if err != nil {
		return err
	}
	before := f.resetMemory()
	if err := run(); err != nil {
		return err
	}
	if peak := f.memory(); peak > before+littleMore {
		return fmt.Errorf("the proxy took %d MiB, and %d MiB before", peak>>20, before>>20)
	}
	return nil
}

// up is a row on a large upload.
func up(n int64, chunked bool) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.inLittle(func() error {
			return w.conversation(ctx, func(s *served) error {
				if s.chunked() != chunked {
					return fmt.Errorf("the body came with %s", short(s.lines))
				}
				if err := wantStream(s.body(), n); err != nil {
					return err
				}
				return s.send(ok)
			}, func(c *client, path string) error {
				if !chunked {
					if err := c.send(c.head("PUT", path, fmt.Sprintf("Content-Length: %d", n))); err != nil {
						return err
					}
					if _, err := io.Copy(c.Conn, stream(n)); err != nil {
						return err
					}
					return c.wantStatus(200)
				}
				if err := c.send(c.head("PUT", path, chunkedLine...)); err != nil {
					return err
				}
				if err := writeChunks(c.Conn, stream(n)); err != nil {
					return err
				}
				return c.wantStatus(200)
			})
		})
	}
}

// writeChunks sends a body in chunks.
func writeChunks(w io.Writer, r io.Reader) error {
	chunks := httputil.NewChunkedWriter(w)
	if _, err := io.CopyBuffer(struct{ io.Writer }{chunks}, r, make([]byte, 100_000)); err != nil {
		return err
	}
	if err := chunks.Close(); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\r\n")
	return err
}

// down is a row on a large download.
func down(n int64, chunked bool) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.inLittle(func() error {
			return w.conversation(ctx, func(s *served) error {
				if !chunked {
					if err := s.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n)); err != nil {
						return err
					}
					_, err := io.Copy(s.conn, stream(n))
					return err
				}
				if err := s.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
					return err
				}
				return writeChunks(s.conn, stream(n))
			}, func(c *client, path string) error {
				if err := c.send(c.head("GET", path)); err != nil {
					return err
				}
				_, m, err := c.answer()
				if err != nil {
					return err
				}
				return wantStream(m.body(), n)
			})
		})
	}
}
