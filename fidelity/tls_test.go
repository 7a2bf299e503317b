package fidelity_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// quiet is for servers whose handlers break off on purpose.
var quiet = log.New(io.Discard, "", 0)

// secure are the upstreams with TLS: one of HTTP/1.1 that works on bytes, and
// one that offers HTTP/2.
type secure struct {
	h1     *upstream
	h2     *h2Upstream
	config *tls.Config // of h1, and of others like it
}

// h2Upstream is an HTTP/2 server of the standard library.
type h2Upstream struct {
	spec spec
	rows sync.Map // :: tag → http.HandlerFunc
}

// startSecure starts both.
func startSecure(t *testing.T, w *world) (*secure, error) {
	t.Helper()
	h2 := &h2Upstream{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, rest, _ := strings.Cut(r.RequestURI, "row-")
		tag, _, _ := strings.Cut(rest, "-")
		if serve, ok := h2.rows.Load("row-" + tag + "-"); ok {
			serve.(http.HandlerFunc)(rw, r)
			return
		}
		http.NotFound(rw, r)
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca, err := w.caFile(srv)
	if err != nil {
		return nil, broken("%w", err)
	}
	h2.spec = spec{URL: srv.URL, CA: ca}
	config := &tls.Config{Certificates: srv.TLS.Certificates, MinVersion: tls.VersionTLS12}
	h1 := newUpstream(t, config)
	h1.spec.CA = ca
	return &secure{h1: h1, h2: h2, config: config}, nil
}

// withTLS is a row on the HTTP/1.1 upstream with TLS.
func withTLS(name string, run func(ctx context.Context, l lane) error) row {
	return row{name: name, run: func(ctx context.Context, w *world) error {
		s, err := w.tls()
		if err != nil {
			return err
		}
		return run(ctx, lane{w: w, up: s.h1})
	}}
}

// h2Call is a call of an HTTP/1.1 app to the upstream that offers HTTP/2.
type h2Call struct {
	c   *client
	tag string
}

// toH2 is a row on that upstream.
func toH2(name string, fails marks, serve http.HandlerFunc, app func(ctx context.Context, c h2Call) error) row {
	return row{name: name, fails: fails, run: func(ctx context.Context, w *world) error {
		s, err := w.tls()
		if err != nil {
			return err
		}
		tag, _, off := w.up.handle(nil)
		off() // only the tag is of use
		s.h2.rows.Store(tag, serve)
		c, err := lane{w: w, up: &upstream{spec: s.h2.spec}}.dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return app(ctx, h2Call{c: c, tag: tag})
	}}
}

// call sends a request and wants 200 and a body.
func (h h2Call) call(head, rest, body string) (*message, error) {
	if err := h.c.send(head + rest); err != nil {
		return nil, err
	}
	_, m, err := h.c.answer()
	if err != nil {
		return nil, err
	}
	got, err := m.text()
	if err != nil {
		return nil, err
	}
	if m.status() != http.StatusOK || got != body {
		return nil, fmt.Errorf("answer = %q %s, want 200 %s", m.start, short(got), short(body))
	}
	return m, nil
}

var tlsRows = []row{
	toH2("An upstream that offers HTTP/2 gets HTTP/2", marks{"nginx": "speaks HTTP/1.1 to upstreams (HTTP/2 for gRPC only)"}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}, func(_ context.Context, h h2Call) error {
		_, err := h.call(h.c.head("GET", "/"+h.tag), "", "HTTP/2.0")
		return err
	}),
	toH2("Over TLS, an odd path and query go out byte for byte", marks{"caddy": "escapes some of it"}, func(w http.ResponseWriter, r *http.Request) {
		_, rest, _ := strings.Cut(r.RequestURI, "/")
		_, _ = io.WriteString(w, rest)
	}, func(_ context.Context, h h2Call) error {
		for _, path := range []string{"/a%2Fb//c;d%c3%a4/%61+?q=%zz&&a=;b+c", "?", "/{a}|b^?c|{d}"} {
			if _, err := h.call(h.c.head("GET", "/"+h.tag+path), "", h.tag+path); err != nil {
				return err
			}
		}
		return nil
	}),
	toH2("Over TLS, headers keep number and order both ways, and none is added", nil, func(w http.ResponseWriter, r *http.Request) {
		want := headers([]string{"Authorization: Bearer " + token, "X-Multi: b", "X-Multi: a", "X-Empty:"})
		got := map[string][]string{}
		for name, values := range r.Header {
			got[strings.ToLower(name)] = values
		}
		delete(got, "connection")
		if err := wantHeaders("request", got, want); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header()["X-Multi"] = []string{"d", "c"}
		w.Header()["Content-Type"] = []string{"text/x"}
		w.Header()["Date"] = []string{"x"}
		_, _ = io.WriteString(w, "ok")
	}, func(_ context.Context, h h2Call) error {
		m, err := h.call(h.c.head("GET", "/"+h.tag, "X-Multi: b", "X-Multi: a", "X-Empty:"), "", "ok")
		if err != nil {
			return err
		}
		return wantHeaders("answer", headers(m.lines), headers([]string{"X-Multi: d", "X-Multi: c", "Date: x", "Content-Type: text/x", "Content-Length: 2"}))
	}),
	toH2("Over TLS, trailers pass both ways", marks{"nginx": "drops them"}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Down")
		_, _ = fmt.Fprintf(w, "%s %d %s", body, r.ContentLength, r.Trailer.Get("X-Sum"))
		_ = http.NewResponseController(w).Flush() // else it finds a length
		w.Header().Set("X-Down", "2")
	}, func(_ context.Context, h h2Call) error {
		m, err := h.call(h.c.head("POST", "/"+h.tag, "Transfer-Encoding: chunked", "Trailer: X-Sum", "TE: trailers", "Connection: TE"), "4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n", "body -1 1")
		if err != nil {
			return err
		}
		return wantTrailers(m, "X-Down: 2")
	}),
	toH2("Over TLS, 103 comes", nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "ok")
	}, func(_ context.Context, h h2Call) error {
		if err := h.c.send(h.c.head("GET", "/"+h.tag)); err != nil {
			return err
		}
		before, m, err := h.c.answer()
		if err != nil {
			return err
		}
		if len(before) != 1 {
			return fmt.Errorf("%d answers before the final one, want 1", len(before))
		}
		return wantEqual("Link and status", before[0].value("Link")+fmt.Sprint(m.status()), "</a>200")
	}),
	toH2("Over TLS, an answer comes while it is being sent, and one that breaks off breaks off", nil, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(100 * time.Millisecond)
		panic(http.ErrAbortHandler)
	}, func(_ context.Context, h h2Call) error { return wantBroken(h.c, "/"+h.tag) }),
	cancelsH2(),
	remembersNothing,
	toH2("Over TLS, 8 MiB go up and come down", nil, func(w http.ResponseWriter, r *http.Request) {
		if err := wantStream(r.Body, 8<<20); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = io.Copy(w, stream(8<<20))
	}, func(_ context.Context, h h2Call) error {
		if err := h.c.send(h.c.head("PUT", "/"+h.tag, fmt.Sprintf("Content-Length: %d", 8<<20))); err != nil {
			return err
		}
		if _, err := io.Copy(h.c.Conn, stream(8<<20)); err != nil {
			return err
		}
		_, m, err := h.c.answer()
		if err != nil {
			return err
		}
		return wantStream(m.body(), 8<<20)
	}),
	withTLS("Over TLS and HTTP/1.1, a request and its answer pass byte for byte", func(ctx context.Context, l lane) error {
		x, err := l.exchange(ctx, asked{method: "POST", target: "/TAG/a%2Fb?", lines: append([]string{"X-A: 2", "X-A: 1"}, chunkedLine...), body: inChunks("body")},
			"HTTP/1.1 299 X\r\nX-B: 2\r\nX-B: 1\r\nTransfer-Encoding: chunked\r\n\r\n"+inChunks("an", "swer"))
		if err != nil {
			return err
		}
		if err := wantEqual("request line", x.request.start, "POST "+x.target+" HTTP/1.1"); err != nil {
			return err
		}
		if err := wantLines("X-A", x.request.values("X-A"), "2", "1"); err != nil {
			return err
		}
		if err := wantLines("X-B", x.answer.values("X-B"), "2", "1"); err != nil {
			return err
		}
		return wantEqual("bodies and status", x.sentBody+x.body+fmt.Sprint(x.answer.status()), "bodyanswer299")
	}),
}

// cancelsH2: an app that hangs up cancels the stream.
func cancelsH2() row {
	arrived, ended := make(chan string, 10), make(chan string, 10) // tags
	return toH2("Over TLS, an app that hangs up ends the call to the upstream", nil, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- r.RequestURI
		select {
		case <-r.Context().Done():
			ended <- r.RequestURI
		case <-time.After(10 * time.Second):
		}
	}, func(_ context.Context, h h2Call) error {
		if err := h.c.send(h.c.head("GET", "/"+h.tag)); err != nil {
			return err
		}
		if err := hears(arrived, "/"+h.tag); err != nil {
			return fmt.Errorf("the request does not arrive: %w", err)
		}
		_ = h.c.Close()
		return hears(ended, "/"+h.tag)
	})
}

// hears waits for a word, which others wait for, too, for words of their own.
func hears(words chan string, want string) error {
	for limit := time.After(atOnce); ; {
		select {
		case word := <-words:
			if word == want {
				return nil
			}
			words <- word
			time.Sleep(time.Millisecond)
		case <-limit:
			return fmt.Errorf("not within %v: %w", atOnce, context.DeadlineExceeded)
		}
	}
}
