package fidelity_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// atOnce is how soon one side has to hear that the other has ended.
const atOnce = 2 * time.Second

var endingRows = []row{
	{name: "An answer that comes before the upload has ended comes at once", run: earlyAnswer},
	{name: "The rest of an upload whose answer came early is never taken for a request", fails: marks{"caddy": "takes it for one, answered with 499 (without `enable_full_duplex` early answers do not come)"}, run: uploadStops},
	{name: "An app that hangs up while it waits ends the call to the upstream", run: hangUp("GET", nil, "", "")},
	{name: "An app that hangs up in the middle of an answer ends the call to the upstream", run: hangUp("GET", nil, "", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf")},
	{name: "An app that hangs up in the middle of a stream ends the call to the upstream", run: hangUp("GET", nil, "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")},
	{name: "An app that hangs up after its upload ends the call to the upstream", run: hangUp("POST", []string{"Content-Length: 4"}, "body", "")},
	{name: "An upload that breaks off is never a whole one at the upstream", run: brokenUpload([]string{"Content-Length: 10"}, "half")},
	{name: "A chunked upload that breaks off is never a whole one at the upstream", run: brokenUpload(chunkedLine, "4\r\nhalf\r\n")},
	brokenAnswer("An answer of known length that breaks off breaks off for the app", "Content-Length: 10\r\n\r\nhalf"),
	brokenAnswer("A chunked answer that breaks off breaks off for the app", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
	brokenAnswer("A chunked answer that breaks off within a chunk breaks off for the app", "Transfer-Encoding: chunked\r\n\r\n8\r\nhalf"),
	brokenAnswer("A chunked answer that breaks off before its last line breaks off for the app", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n"),
	brokenAnswer("A long answer that breaks off breaks off for the app", fmt.Sprintf("Content-Length: 10000000\r\n\r\n%1000000d", 0)),
	{name: "An answer to the end of the connection that is reset breaks off for the app", run: resetAnswer},
	{name: "An upstream that ends before it answers is a 502", run: noAnswer("")},
	{name: "An upstream that ends in the middle of a head is a 502", run: noAnswer("HTTP/1.1 200 OK\r\nX-A: b\r\n")},
	{name: "What is no HTTP is a 502", fails: marks{"nginx": "passes it on as HTTP/0.9"}, run: noAnswer("garbage\r\n\r\n"), patience: 6 * time.Second},
	{name: "A POST goes out once, though its upstream ends before it answers", run: sentOnce},
	{name: "After an upgrade, bytes pass both ways as they are", run: upgraded},
	{name: "After an upgrade, one side can end while the other goes on", fails: marks{"nginx": "ends both"}, run: halfClosed},
	{name: "A refused upgrade comes as it is", run: func(ctx context.Context, w *world) error {
		x, err := w.exchange(ctx, asked{lines: upgradeLines}, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\nX-A: b\r\n\r\nno")
		if err != nil {
			return err
		}
		return wantEqual("answer", fmt.Sprint(x.answer.status())+x.answer.value("X-A")+x.body, "426bno")
	}},
}

func earlyAnswer(ctx context.Context, w *world) error {
	return w.conversation(ctx, func(s *served) error {
		part := make([]byte, 4)
		if _, err := io.ReadFull(s.body(), part); err != nil {
			return err
		}
		if err := s.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"); err != nil {
			return err
		}
		_ = s.gone(5 * time.Second)
		return errClose
	}, func(c *client, path string) error {
		if err := c.send(c.head("POST", path, "Content-Length: 1000000"), "half"); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(atOnce))
		_, m, err := c.answer()
		if err != nil {
			return err
		}
		if err := wantEqual("status", m.status(), 403); err != nil {
			return err
		}
		body, err := m.text()
		if err != nil {
			return err
		}
		_ = c.Close()
		return wantEqual("body", body, "no")
	})
}

// uploadStops: what follows the answer looks like a request.
func uploadStops(ctx context.Context, w *world) error {
	behind := make(chan struct{}, 1)
	return w.conversation(ctx, func(s *served) error {
		if strings.Contains(s.start, "behind") {
			behind <- struct{}{}
			return s.send(ok)
		}
		if err := s.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"); err != nil {
			return err
		}
		_ = s.gone(time.Second)
		return errClose
	}, func(c *client, path string) error {
		if err := c.send(c.head("POST", path, "Content-Length: 1000000"), "half"); err != nil {
			return err
		}
		_, m, err := c.answer()
		if err != nil {
			return err
		}
		if err := m.wantText("no"); err != nil {
			return fmt.Errorf("%s: %w", m.start, err)
		}
		_ = c.send(c.head("GET", path+"/behind"))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if m, err := readMessage(c.in); err == nil {
			return fmt.Errorf("another answer came: %s", m.start)
		}
		return wantEqual("requests behind the first", len(behind), 0)
	})
}

// hangUp is a row on an app that leaves when it has sent its request, and got
// what the upstream answers so far.
func hangUp(method string, lines []string, body, answer string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		arrived := make(chan struct{})
		return w.conversation(ctx, func(s *served) error {
			if _, err := s.text(); err != nil {
				return err
			}
			if err := s.send(answer); err != nil {
				return err
			}
			close(arrived)
			if err := s.gone(atOnce); err != nil {
				return err
			}
			return errClose
		}, func(c *client, path string) error {
			if err := c.send(c.head(method, path, lines...) + body); err != nil {
				return err
			}
			if err := within("the request arrives", atOnce, arrived); err != nil {
				return err
			}
			if answer != "" {
				_, m, err := c.answer()
				if err != nil {
					return err
				}
				if _, err := io.ReadFull(m.body(), make([]byte, 4)); err != nil {
					return err
				}
			}
			return c.Close()
		})
	}
}

func brokenUpload(lines []string, half string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		arrived := make(chan struct{})
		return w.conversation(ctx, func(s *served) error {
			body := s.body()
			if _, err := io.ReadFull(body, make([]byte, 4)); err != nil {
				return err
			}
			close(arrived)
			_ = s.conn.SetReadDeadline(time.Now().Add(atOnce))
			b, err := io.ReadAll(body)
			switch {
			case err == nil:
				return fmt.Errorf("the body ended as if it were whole, with %q", b)
			case timedOut(err):
				return fmt.Errorf("the upstream does not hear that the upload has broken off: %w", err)
			}
			return errClose
		}, func(c *client, path string) error {
			if err := c.send(c.head("POST", path, lines...) + half); err != nil {
				return err
			}
			if err := within("the first half arrives", atOnce, arrived); err != nil {
				return err
			}
			return c.Close()
		})
	}
}

func brokenAnswer(name, rest string) row {
	return row{name: name, run: func(ctx context.Context, w *world) error {
		return w.conversation(ctx, func(s *served) error {
			if err := s.send("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n" + rest); err != nil {
				return err
			}
			return errClose
		}, wantBroken)
	}}
}

// wantBroken: an answer breaks off, or is the proxy's own 502.
func wantBroken(c *client, path string) error {
	if err := c.send(c.head("GET", path)); err != nil {
		return err
	}
	_, m, err := c.answer()
	if err != nil {
		return wantNoTimeout(err)
	}
	if m.status() == 502 {
		return nil
	}
	if m.length() < 0 && !m.chunked() {
		// Then only a reset tells.
		if body, err := m.text(); err == nil {
			return fmt.Errorf("it looks complete: %s", short(body))
		}
		return nil
	}
	body, err := m.text()
	if err == nil {
		return fmt.Errorf("it looks complete: %s", short(body))
	}
	return wantNoTimeout(err)
}

// wantNoTimeout: something ended, and not by our patience.
func wantNoTimeout(err error) error {
	if timedOut(err) {
		return fmt.Errorf("the app does not hear that it has ended: %w", err)
	}
	return nil
}

func resetAnswer(ctx context.Context, w *world) error {
	return w.conversation(ctx, func(s *served) error {
		if err := s.send("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n\r\nhalf"); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond) // a reset may overtake what was sent before
		_ = s.conn.(*net.TCPConn).SetLinger(0)
		return errClose
	}, wantBroken)
}

func noAnswer(answer string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		return w.conversation(ctx, func(s *served) error {
			if err := s.send(answer); err != nil {
				return err
			}
			return errClose
		}, func(c *client, path string) error {
			if err := c.send(c.head("GET", path)); err != nil {
				return err
			}
			return c.wantStatus(502)
		})
	}
}

func sentOnce(ctx context.Context, w *world) error {
	requests := make(chan struct{}, 10)
	return w.conversation(ctx, func(s *served) error {
		if _, err := s.text(); err != nil {
			return err
		}
		if s.value("X-Warm") != "" { // so that the next one finds a connection that has been used
			return s.send(ok)
		}
		requests <- struct{}{}
		return errClose
	}, func(c *client, path string) error {
		if err := c.send(c.head("GET", path, "X-Warm: 1")); err != nil {
			return err
		}
		_, m, err := c.answer()
		if err != nil {
			return err
		}
		if _, err := m.text(); err != nil {
			return err
		}
		if err := c.send(c.head("POST", path, "Content-Length: 4") + "body"); err != nil {
			return err
		}
		if err := c.wantStatus(502); err != nil {
			return err
		}
		return wantEqual("times that it went out", len(requests), 1)
	})
}

var upgradeLines = []string{"Connection: Upgrade", "Upgrade: x-own/1"}

const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x-own/1\r\nX-A: b\r\n\r\n"

func upgraded(ctx context.Context, w *world) error {
	return w.conversation(ctx, func(s *served) error {
		if err := wantEqual("Connection and Upgrade", strings.ToLower(s.value("Connection"))+s.value("Upgrade"), "upgradex-own/1"); err != nil {
			return err
		}
		// What comes right behind the head belongs to it.
		if err := s.send(switched + "hello"); err != nil {
			return err
		}
		if err := wantStream(io.LimitReader(s.in, 1<<20), 1<<20); err != nil {
			return err
		}
		if _, err := io.Copy(s.conn, stream(1<<20)); err != nil {
			return err
		}
		return errClose
	}, func(c *client, path string) error {
		if err := c.send(c.head("GET", path, upgradeLines...)); err != nil {
			return err
		}
		_, m, err := c.answer()
		if err != nil {
			return err
		}
		if err := wantEqual("answer", fmt.Sprint(m.status())+m.value("Upgrade")+m.value("X-A"), "101x-own/1b"); err != nil {
			return err
		}
		hello := make([]byte, 5)
		if _, err := io.ReadFull(c.in, hello); err != nil {
			return err
		}
		if err := wantEqual("what came behind the head", string(hello), "hello"); err != nil {
			return err
		}
		if _, err := io.Copy(c.Conn, stream(1<<20)); err != nil {
			return err
		}
		return wantStream(c.in, 1<<20)
	})
}

func halfClosed(ctx context.Context, w *world) error {
	return w.conversation(ctx, func(s *served) error {
		if err := s.send(switched); err != nil {
			return err
		}
		// The app's side ends; ours goes on.
		_ = s.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		b, err := io.ReadAll(s.in)
		if err != nil {
			return fmt.Errorf("until the app's end, after %q: %w", b, err)
		}
		if err := wantEqual("until the app's end", string(b), "all"); err != nil {
			return err
		}
		if err := s.send("heard " + string(b)); err != nil { // at once: it may go to nobody
			return err
		}
		return errClose
	}, func(c *client, path string) error {
		if err := c.send(c.head("GET", path, upgradeLines...)); err != nil {
			return err
		}
		if err := c.wantStatus(101); err != nil {
			return err
		}
		if err := c.send("all"); err != nil {
			return err
		}
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		b, err := io.ReadAll(c.in)
		if err != nil {
			return err
		}
		return wantEqual("after the app's end", string(b), "heard all")
	})
}
