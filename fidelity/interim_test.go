package fidelity_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// interim is a row on answers before the final one, which the app has to get in
// order with their headers.
func interim(name string, fails marks, answers ...string) row {
	return row{name: name, fails: fails, patience: 6 * time.Second, run: func(ctx context.Context, w *world) error {
		text := ""
		for _, a := range answers {
			text += "HTTP/1.1 " + a + "\r\n\r\n"
		}
		x, err := w.exchange(ctx, asked{again: true}, text+"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n")
		if err != nil {
			return err
		}
		if len(x.interim) != len(answers) {
			return fmt.Errorf("%d answers before the final one, want %d", len(x.interim), len(answers))
		}
		for i, m := range x.interim {
			want := parse("HTTP/1.1 " + answers[i])
			if err := wantEqual("status", m.status(), want.status()); err != nil {
				return err
			}
			if err := wantHeaders(want.start, headers(m.lines), headers(want.lines)); err != nil {
				return err
			}
		}
		if err := wantAnswerHeaders(x.answer, []string{"Transfer-Encoding: chunked", "Trailer: X-Sum"}); err != nil { // and nothing of theirs
			return err
		}
		if err := wantEqual("body", x.body, "body"); err != nil {
			return err
		}
		return wantTrailers(x.answer, "X-Sum: 1")
	}}
}

const expect = "Expect: 100-continue"

var interimRows = []row{
	interim("103 Early Hints come, with their headers alone", marks{"caddy": "adds `Server` to them", "nginx": "takes them for the final answer"}, "103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b>; rel=preload\r\nX-A: 1"),
	interim("102 Processing comes", marks{"caddy": "adds `Server` to it", "nginx": "takes it for the final answer"}, "102 Processing\r\nX-Progress: 50"),
	interim("Several of them come in order, and then a final answer with trailers", marks{"caddy": "adds `Server` to them", "nginx": "takes the first for the final answer"}, "102 Processing", "103 Early Hints\r\nLink: </a>", "103 Early Hints\r\nLink: </b>", "199 Odd"),
	{name: "103 comes as soon as it is sent", run: hintAsSent},
	{name: "A 100 that nobody asked for does no harm", fails: marks{"nginx": "takes it for the final answer"}, patience: 6 * time.Second, run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{again: true}, "HTTP/1.1 100 Continue\r\n\r\n"+ok)
		if err != nil {
			return err
		}
		return wantEqual("status and body", fmt.Sprint(x.answer.status())+x.body, "200ok")
	}},
	{name: "Expect: 100-continue reaches the upstream", fails: marks{"nginx": "drops it"}, run: func(ctx context.Context, w *world) error {
		return w.expecting(ctx, func(s *served) error {
			if err := wantEqual("Expect", s.value("Expect"), "100-continue"); err != nil {
				return err
			}
			return s.send("HTTP/1.1 100 Continue\r\n\r\n")
		}, func(*client) error { return nil }, false)
	}},
	{name: "100 comes only when the upstream wants the body", fails: marks{"nginx": "sends it by itself"}, run: func(ctx context.Context, w *world) error {
		looked := make(chan struct{})
		return w.expecting(ctx, func(s *served) error {
			select {
			case <-looked:
			case <-ctx.Done():
			}
			return s.send("HTTP/1.1 100 Continue\r\n\r\n")
		}, func(c *client) error {
			defer close(looked)
			// It would come at once where the proxy says it by itself.
			_ = c.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
			defer func() { _ = c.SetReadDeadline(time.Now().Add(10 * time.Second)) }()
			if b, err := c.in.Peek(1); err == nil {
				return fmt.Errorf("%q came before the upstream had said anything", b)
			}
			return nil
		}, false)
	}},
	{name: "One 100 comes, not two", fails: marks{"caddy": "at times sends two", "nginx": "sends its own and the upstream's"}, run: func(ctx context.Context, w *world) error {
		for range 100 { // it is a race where it goes wrong
			err := w.expecting(ctx, func(s *served) error {
				return s.send("HTTP/1.1 100 Continue\r\n\r\n")
			}, func(*client) error { return nil }, true)
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "A body that was not waited for with (Expect) arrives", run: func(ctx context.Context, w *world) error {
		return w.conversation(ctx, func(s *served) error {
			if err := s.wantText("body"); err != nil {
				return err
			}
			return s.send(ok)
		}, func(c *client, path string) error {
			if err := c.send(c.head("PUT", path, expect, "Content-Length: 4"), "body"); err != nil {
				return err
			}
			return c.wantStatus(200)
		})
	}},
	{name: "A refusal before the body comes, and the body is never asked for (417)", fails: marks{"nginx": "asks for the body at once"}, run: refused(417), patience: 6 * time.Second},
	{name: "A refusal before the body comes, and the body is never asked for (413)", fails: marks{"nginx": "asks for the body at once"}, run: refused(413), patience: 6 * time.Second},
	{name: "An app that speaks HTTP/1.0 gets none of them", fails: marks{"caddy": "sends them", "nginx": "sends them"}, run: func(ctx context.Context, w *world) error {
		return w.conversation(ctx, func(s *served) error {
			return s.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok)
		}, func(c *client, path string) error {
			if err := c.send(c.headOf("GET " + path + " HTTP/1.0")); err != nil {
				return err
			}
			before, m, err := c.answer()
			if err != nil {
				return err
			}
			if len(before) > 0 {
				return fmt.Errorf("%q came first", before[0].start)
			}
			return wantEqual("status", m.status(), 200)
		})
	}},
}

func hintAsSent(ctx context.Context, w *world) error {
	came := make(chan struct{})
	return w.conversation(ctx, func(s *served) error {
		if err := s.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
			return err
		}
		if err := within("the hint comes", 3*time.Second, came); err != nil {
			return err
		}
		return s.send(ok)
	}, func(c *client, path string) error {
		if err := c.send(c.head("GET", path)); err != nil {
			return err
		}
		m, err := readMessage(c.in)
		if err != nil {
			return err
		}
		close(came)
		if err := wantEqual("status", m.status(), 103); err != nil {
			return err
		}
		return c.wantStatus(200)
	})
}

// expecting sends a request whose body waits for a 100. The app looks at the
// connection before it does. once: there is a single 100.
func (l lane) expecting(ctx context.Context, serve func(*served) error, look func(*client) error, once bool) error {
	return l.conversation(ctx, func(s *served) error {
		if err := serve(s); err != nil {
			return err
		}
		if err := s.wantText("body"); err != nil {
			return err
		}
		return s.send(ok)
	}, func(c *client, path string) error {
		if err := c.send(c.head("PUT", path, expect, "Content-Length: 4")); err != nil {
			return err
		}
		if err := look(c); err != nil {
			return err
		}
		m, err := readMessage(c.in)
		if err != nil {
			return err
		}
		if err := wantEqual("first status", m.status(), 100); err != nil {
			return err
		}
		if err := c.send("body"); err != nil {
			return err
		}
		before, m, err := c.answer()
		if err != nil {
			return err
		}
		if once && len(before) > 0 {
			return fmt.Errorf("%q came, too", before[0].start)
		}
		return wantEqual("status", m.status(), 200)
	})
}

// refused is a row on an upstream that does not want the body.
func refused(status int) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.conversation(ctx, func(s *served) error {
			if err := s.send(fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno", status)); err != nil {
				return err
			}
			_ = s.conn.SetReadDeadline(time.Now().Add(time.Second))
			if b, err := s.in.ReadByte(); err == nil {
				return fmt.Errorf("a body came that the app never sent: %q", b)
			}
			return errClose
		}, func(c *client, path string) error {
			if err := c.send(c.head("PUT", path, expect, "Content-Length: 4")); err != nil {
				return err
			}
			before, m, err := c.answer()
			if err != nil {
				return err
			}
			if len(before) > 0 {
				return fmt.Errorf("%q came first", before[0].start)
			}
			if err := m.wantText("no"); err != nil {
				return err
			}
			return wantEqual("status", m.status(), status)
		})
	}
}

// timedOut reports whether a deadline passed.
func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
