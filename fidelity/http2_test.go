package fidelity_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

// fromH2 is a row on an app that speaks HTTP/2, and the plain HTTP/1.1 upstream.
func fromH2(name string, fails marks, serve func(s *served) error, app func(ctx context.Context, c *http.Client, req *http.Request) error) row {
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		f, err := w.via(w.up.spec)
		if err != nil {
			return err
		}
		tag, h, off := w.up.handle(serve)
		defer off()
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: protocols, DisableCompression: true, ExpectContinueTimeout: 5 * time.Second}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.H2C+"/"+tag, nil)
		if err != nil {
			return broken("%w", err)
		}
		w.authorize(req.Header)
		req.Header["User-Agent"] = nil
		client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		if err := app(ctx, client, req); err != nil {
			return err
		}
		select {
		case err := <-h.errs:
			return err
		case <-ctx.Done():
			return errors.New("the upstream has not come to an end")
		}
	}}
}

// get wants an answer of HTTP/2, and returns it with its body.
func get(c *http.Client, req *http.Request, status int) (*http.Response, string, error) {
	res, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != status || res.ProtoMajor != 2) {
		err = fmt.Errorf("answer = %s %s, want HTTP/2 and %d", res.Proto, res.Status, status)
	}
	return res, string(body), err
}

// plainly answers what must be a given request line and set of headers.
func plainly(path string, lines ...string) func(*served) error {
	return func(s *served) error {
		_, got, _ := strings.Cut(s.start, "-")
		_, got, _ = strings.Cut(got, "-")
		if err := wantEqual("request line", got, path+" HTTP/1.1"); err != nil {
			return err
		}
		if err := wantHeaders("request", headers(s.lines, "host"), headers(append(lines, "Authorization: Bearer "+token))); err != nil {
			return err
		}
		return s.send(ok)
	}
}

// wantOK wants the answer of plainly.
func wantOK(_ context.Context, c *http.Client, req *http.Request) error {
	_, body, err := get(c, req, 200)
	if err != nil {
		return err
	}
	return wantEqual("body", body, "ok")
}

var http2Rows = []row{
	fromH2("From HTTP/2, an odd path and query go out byte for byte", nil, plainly("/a%2Fb//c;d%c3%a4?q=%zz&&a=;b+c"), func(ctx context.Context, c *http.Client, req *http.Request) error {
		u, err := url.Parse(req.URL.String() + "/a%2Fb//c;d%c3%a4?q=%zz&&a=;b+c")
		if err != nil {
			return broken("%w", err)
		}
		req.URL = u
		return wantOK(ctx, c, req)
	}),
	fromH2("From HTTP/2, headers keep number and order, and none is added", nil, plainly("", "X-Multi: b", "X-Multi: a, c", "X-Multi: b", "X-Empty:", "X-Utf8: \u00e9"), func(ctx context.Context, c *http.Client, req *http.Request) error {
		req.Header["X-Multi"], req.Header["X-Empty"], req.Header["X-Utf8"] = []string{"b", "a, c", "b"}, []string{""}, []string{"\u00e9"}
		return wantOK(ctx, c, req)
	}),
	fromH2("From HTTP/2, a body of known length keeps it", nil, func(s *served) error {
		if err := s.wantText("body"); err != nil {
			return err
		}
		if err := wantEqual("Content-Length", s.value("Content-Length"), "4"); err != nil {
			return err
		}
		return s.send(ok)
	}, func(ctx context.Context, c *http.Client, req *http.Request) error {
		req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(strings.NewReader("body")), 4
		return wantOK(ctx, c, req)
	}),
	fromH2("From HTTP/2, a body of unknown length goes out while it is sent, and its trailers", marks{"nginx": "ends the connection at the trailers"}, func(s *served) error {
		if err := s.wantText("firstsecond"); err != nil {
			return err
		}
		if err := wantEqual("Transfer-Encoding", s.value("Transfer-Encoding"), "chunked"); err != nil {
			return err
		}
		if err := wantTrailers(s.message, "X-Sum: 1"); err != nil {
			return err
		}
		return s.send(ok)
	}, func(ctx context.Context, c *http.Client, req *http.Request) error {
		in, out := io.Pipe()
		req.Method, req.Body, req.ContentLength, req.Trailer = "POST", in, -1, http.Header{"X-Sum": nil}
		go func() {
			_, _ = io.WriteString(out, "first")
			time.Sleep(100 * time.Millisecond)
			_, _ = io.WriteString(out, "second")
			req.Trailer.Set("X-Sum", "1")
			_ = out.Close()
		}()
		return wantOK(ctx, c, req)
	}),
	fromH2("To HTTP/2, 103 comes, and then an answer with trailers", marks{"nginx": "breaks the stream"}, func(s *served) error {
		return s.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n")
	}, func(ctx context.Context, c *http.Client, req *http.Request) error {
		var hints []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h.Values("Link")))
			return nil
		}}
		res, body, err := get(c, req.WithContext(httptrace.WithClientTrace(ctx, trace)), 200)
		if err != nil {
			return err
		}
		if err := wantLines("hints", hints, "103 [</a>]"); err != nil {
			return err
		}
		return wantEqual("body and trailer", body+res.Trailer.Get("X-Sum"), "body1")
	}),
	fromH2("To HTTP/2, a 304 keeps its headers", nil, func(s *served) error {
		return s.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 12345\r\n\r\n")
	}, func(_ context.Context, c *http.Client, req *http.Request) error {
		res, err := c.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close() // net/http has it that a body of this length is missing
		return wantEqual("ETag and Content-Length", res.Header.Get("Etag")+res.Header.Get("Content-Length"), `"x"12345`)
	}),
	fromH2("To HTTP/2, an answer that breaks off breaks off for the app", nil, func(s *served) error {
		if err := s.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"); err != nil {
			return err
		}
		return errClose
	}, func(_ context.Context, c *http.Client, req *http.Request) error {
		if _, body, err := get(c, req, 200); err == nil {
			return fmt.Errorf("it looks complete: %q", body)
		}
		return nil
	}),
	fromH2("An HTTP/2 app that cancels ends the call to the upstream", nil, func(s *served) error {
		if err := s.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"); err != nil {
			return err
		}
		if err := s.gone(atOnce); err != nil {
			return err
		}
		return errClose
	}, func(ctx context.Context, c *http.Client, req *http.Request) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		res, err := c.Do(req.WithContext(ctx))
		if err != nil {
			return err
		}
		_, err = io.ReadFull(res.Body, make([]byte, 4))
		return errors.Join(err, res.Body.Close())
	}),
	fromH2("Over HTTP/2, 500 headers of 64 KiB go out, and come back", nil, func(s *served) error {
		if err := wantHeaders("request", headers(s.lines, "host"), headers(append(many(500, 128), "Authorization: Bearer "+token))); err != nil {
			return err
		}
		return s.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + strings.Join(many(500, 128), "\r\n") + "\r\n\r\nok")
	}, func(_ context.Context, c *http.Client, req *http.Request) error {
		for _, line := range many(500, 128) {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		res, _, err := get(c, req, 200)
		if err != nil {
			return err
		}
		for _, line := range many(500, 128) {
			name, value, _ := strings.Cut(line, ": ")
			if err := wantLines(name, res.Header.Values(name), value); err != nil {
				return err
			}
		}
		return nil
	}),
	fromH2("To HTTP/2, an answer that comes before the upload has ended comes at once", nil, func(s *served) error {
		if _, err := io.ReadFull(s.body(), make([]byte, 4)); err != nil {
			return err
		}
		if err := s.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"); err != nil {
			return err
		}
		_ = s.gone(5 * time.Second)
		return errClose
	}, func(ctx context.Context, c *http.Client, req *http.Request) error {
		ctx, cancel := context.WithTimeout(ctx, atOnce)
		defer cancel()
		in, out := io.Pipe()
		defer out.Close()
		go func() { _, _ = io.WriteString(out, "half") }()
		req = req.WithContext(ctx)
		req.Method, req.Body, req.ContentLength = "POST", in, 1_000_000
		_, body, err := get(c, req, 403)
		if err != nil {
			return err
		}
		return wantEqual("body", body, "no")
	}),
	fromH2("Over HTTP/2, 8 MiB go up and come down", nil, func(s *served) error {
		if err := wantStream(s.body(), 8<<20); err != nil {
			return err
		}
		if err := s.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 8<<20)); err != nil {
			return err
		}
		_, err := io.Copy(s.conn, stream(8<<20))
		return err
	}, func(_ context.Context, c *http.Client, req *http.Request) error {
		req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(stream(8<<20)), 8<<20
		res, err := c.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		return wantStream(res.Body, 8<<20)
	}),
}
