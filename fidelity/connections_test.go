package fidelity_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// heldBack is what may be on its way in buffers of the proxy and of the system,
// where one side does not read.
const heldBack = 64 << 20

var connectionRows = []row{
	{name: "Requests on one connection are answered in order, pipelined too", run: pipelined},
	{name: "Connections are kept, to the app and to the upstream", run: kept},
	{name: "A kept connection that the upstream has closed costs no request", run: stale},
	{name: "An answer that takes ten seconds to begin comes", run: func(ctx context.Context, w *world) error {
		return w.conversation(ctx, func(s *served) error {
			time.Sleep(10 * time.Second)
			return s.send(ok)
		}, func(c *client, path string) error {
			if err := c.send(c.head("GET", path)); err != nil {
				return err
			}
			return c.wantStatus(200)
		})
	}},
	{name: "A reader who is slow gets everything", run: slowReader},
	{name: "A head and a body that come byte by byte arrive", run: slowWriter},
	{name: "A download waits for its reader, and takes no memory", run: backPressureDown},
	{name: "An upload waits for its upstream, and takes no memory", run: backPressureUp},
	{name: "An app that speaks HTTP/1.0 gets a whole answer that it can read", run: func(ctx context.Context, w *world) error {
		return w.conversation(ctx, func(s *served) error {
			return s.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + inChunks("a", "bc"))
		}, func(c *client, path string) error {
			if err := c.send(c.headOf("GET " + path + " HTTP/1.0")); err != nil {
				return err
			}
			_, m, err := c.answer()
			if err != nil {
				return err
			}
			if m.value("Transfer-Encoding") != "" {
				return errors.New("it came in chunks, which HTTP/1.0 does not know")
			}
			body, err := m.text()
			if err != nil {
				return err
			}
			return wantEqual("body", body, "abc")
		})
	}},
	{name: "An upstream that speaks HTTP/1.0 is understood", run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{}, "HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nbody")
		if err != nil {
			return err
		}
		return wantEqual("answer", fmt.Sprint(x.answer.status())+x.answer.value("X-A")+x.body, "200bbody")
	}},
	{name: "An upstream that closes after its answer is understood", run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{again: true}, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		if err != nil {
			return err
		}
		return wantEqual("body", x.body, "ok")
	}},
	{name: "Connection: close from the app closes after the answer", run: func(ctx context.Context, w *world) error {
		return w.conversation(ctx, func(s *served) error { return s.send(ok) }, func(c *client, path string) error {
			if err := c.send(c.head("GET", path, "Connection: close")); err != nil {
				return err
			}
			_, m, err := c.answer()
			if err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(atOnce))
			all, err := io.ReadAll(m.in)
			if err != nil {
				return err
			}
			return wantEqual("until the end", string(all), "ok")
		})
	}},
}

func pipelined(ctx context.Context, w *world) error {
	const n = 20
	return w.conversation(ctx, func(s *served) error {
		body, err := s.text()
		if err != nil {
			return err
		}
		_, number, _ := strings.Cut(strings.TrimSuffix(s.start, " HTTP/1.1"), "?")
		if number == "0" {
			time.Sleep(200 * time.Millisecond) // the first is the slowest
		}
		body = number + body
		return s.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	}, func(c *client, path string) error {
		all := ""
		for i := range n {
			if i%2 == 0 {
				all += c.head("GET", fmt.Sprintf("%s?%d", path, i))
			} else {
				all += c.head("POST", fmt.Sprintf("%s?%d", path, i), "Content-Length: 4") + "body"
			}
		}
		if err := c.send(all); err != nil {
			return err
		}
		for i := range n {
			_, m, err := c.answer()
			if err != nil {
				return fmt.Errorf("answer %d: %w", i, err)
			}
			want := fmt.Sprint(i)
			if i%2 == 1 {
				want += "body"
			}
			if err := m.wantText(want); err != nil {
				return fmt.Errorf("answer %d: %w", i, err)
			}
		}
		return nil
	})
}

func kept(ctx context.Context, w *world) error {
	const n = 30
	var mu sync.Mutex
	numbers := map[int64]bool{} // of connections
	return w.conversation(ctx, func(s *served) error {
		mu.Lock()
		defer mu.Unlock()
		numbers[s.number] = true
		return s.send(ok)
	}, func(c *client, path string) error {
		for i := range n {
			if err := c.send(c.head("GET", path)); err != nil {
				return fmt.Errorf("request %d: %w", i, err)
			}
			_, m, err := c.answer()
			if err != nil {
				return fmt.Errorf("answer %d: %w", i, err)
			}
			if _, err := m.text(); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(numbers) > n/2 { // other rows take some away
			return fmt.Errorf("%d connections to the upstream for %d requests", len(numbers), n)
		}
		return nil
	})
}

// stale lets the upstream close each connection after its answer without a
// word, while the proxy keeps it for the next request.
func stale(ctx context.Context, w *world) error {
	l := lane{w: w, up: newUpstream(w.t, nil)} //nolint:contextcheck // it lives as long as the test
	seen := make(chan struct{}, 10)            // gets each end once the proxy has seen it
	tag, _, off := l.up.handle(func(s *served) error {
		if _, err := s.text(); err != nil {
			return err
		}
		if err := s.send(ok); err != nil {
			return err
		}
		if err := s.conn.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		_ = s.gone(atOnce) // it closes its side, too
		seen <- struct{}{}
		return errClose
	})
	defer off()
	c, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range 10 {
		request := c.head("GET", "/"+tag)
		if i%2 == 1 {
			request = c.head("POST", "/"+tag, "Content-Length: 4") + "body"
		}
		if err := c.send(request); err != nil {
			return err
		}
		_, m, err := c.answer()
		if err != nil {
			return err
		}
		if err := m.wantText("ok"); err != nil {
			return fmt.Errorf("request %d, %s: %w", i, m.start, err)
		}
		if _, err := arrives(ctx, seen, atOnce+prompt, "the request is not answered to its end"); err != nil {
			return err
		}
	}
	return nil
}

func slowReader(ctx context.Context, w *world) error {
	const n = 8 << 20
	return w.conversation(ctx, func(s *served) error {
		if err := s.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n)); err != nil {
			return err
		}
		_, err := io.Copy(s.conn, stream(n))
		return err
	}, func(c *client, path string) error {
		if err := c.send(c.head("GET", path)); err != nil {
			return err
		}
		_, m, err := c.answer()
		if err != nil {
			return err
		}
		return wantStream(&slow{r: m.body()}, n)
	})
}

// slow reads 64 KiB, and then waits.
type slow struct {
	r io.Reader
	n int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.n >= 64<<10 {
		time.Sleep(15 * time.Millisecond)
		s.n = 0
	}
	n, err := s.r.Read(p)
	s.n += n
	return n, err
}

func slowWriter(ctx context.Context, w *world) error {
	return w.conversation(ctx, func(s *served) error {
		if err := s.wantText("slowly"); err != nil {
			return err
		}
		return s.send(ok)
	}, func(c *client, path string) error {
		for _, b := range []byte(c.head("POST", path, "Content-Length: 6") + "slowly") {
			if _, err := c.Write([]byte{b}); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
		return c.wantStatus(200)
	})
}

// backPressureDown: an app that reads nothing stops the upstream.
func backPressureDown(ctx context.Context, w *world) error {
	var sent atomic.Int64
	return w.conversation(ctx, func(s *served) error {
		if err := s.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", gib)); err != nil {
			return err
		}
		_, _ = io.Copy(counted{s.conn, &sent}, stream(gib)) // until the app is gone
		return errClose
	}, func(c *client, path string) error {
		if err := c.send(c.head("GET", path)); err != nil {
			return err
		}
		if err := stalls(&sent); err != nil {
			return err
		}
		_ = c.Close()
		return w.wantLowMemory()
	})
}

// backPressureUp: an upstream that reads nothing stops the app.
func backPressureUp(ctx context.Context, w *world) error {
	var sent atomic.Int64
	enough := make(chan struct{})
	return w.conversation(ctx, func(*served) error {
		if err := within("the app has stopped", 15*time.Second, enough); err != nil {
			return err
		}
		return errClose
	}, func(c *client, path string) error {
		defer close(enough)
		if err := c.send(c.head("PUT", path, fmt.Sprintf("Content-Length: %d", gib))); err != nil {
			return err
		}
		var work sync.WaitGroup
		defer work.Wait()
		defer c.Close()
		work.Go(func() { _, _ = io.Copy(counted{c.Conn, &sent}, stream(gib)) })
		if err := stalls(&sent); err != nil {
			return err
		}
		return w.wantLowMemory()
	})
}

// stalls waits until what is sent no longer grows.
func stalls(sent *atomic.Int64) error {
	for last, still := int64(-1), 0; ; {
		now := sent.Load()
		switch {
		case now > heldBack:
			return fmt.Errorf("%d MiB were taken that nobody reads", now>>20)
		case now == last && now > 0:
			still++
		default:
			last, still = now, 0
		}
		if still == 10 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// counted counts what is written.
type counted struct {
	w io.Writer
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}
