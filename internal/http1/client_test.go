package http1_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/lanyard-proxy/lanyard/internal/http1"
)

const maxHead = 64 << 10

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T) *http1.Client {
	t.Helper()
	c := &http1.Client{
		Dial: new(net.Dialer).DialContext, TLS: &tls.Config{MinVersion: tls.VersionTLS12},
		HandshakeTimeout: 10 * time.Second, HeadTimeout: time.Minute, IdleTimeout: time.Minute, MaxIdle: 100, MaxHead: maxHead,
	}
	t.Cleanup(c.Close)
	return c
}

// learn has c know the host of u.
func learn(c *http1.Client, u *url.URL) {
	c.Learn(request(http.MethodGet, u, nil), &http.Response{ProtoMajor: 1, ProtoMinor: 1})
}

func knowing(t *testing.T, u *url.URL) *http1.Client {
	t.Helper()
	c := newClient(t)
	learn(c, u)
	return c
}

// body returns the body of the answer, or what failed.
func fetch(t *testing.T, c *http1.Client, r *http.Request) string {
	t.Helper()
	res, err := c.RoundTrip(r.WithContext(t.Context()))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 seconds: " + what)
		}
	}
}

// What is not for it, it leaves to another client.
func TestWhatIsNotForIt(t *testing.T) {
	t.Parallel()
	up := serve(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false)
	c := knowing(t, up.url)
	other := url.URL{Scheme: "https", Host: "api.example.com"}
	for name, r := range map[string]*http.Request{
		"unknown host":   request(http.MethodGet, &other, nil),
		"unknown scheme": request(http.MethodGet, &url.URL{Scheme: "ftp", Host: up.url.Host}, nil),
		"upgrade":        request(http.MethodGet, up.url, http.Header{"Upgrade": {"websocket"}}),
		"expectation":    request(http.MethodPost, up.url, http.Header{"Expect": {"100-continue"}}),
		"tunnel":         request(http.MethodConnect, up.url, nil),
		"body": func() *http.Request {
			r := request(http.MethodPost, up.url, nil)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
			return r
		}(),
		"body of unknown length": func() *http.Request {
			r := request(http.MethodPost, up.url, nil)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("")), -1
			return r
		}(),
	} {
		if _, err := c.RoundTrip(r.WithContext(t.Context())); !errors.Is(err, http.ErrSkipAltProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := fetch(t, c, request(http.MethodGet, up.url, nil)); got != "ok" {
		t.Error(got)
	}
	for name, res := range map[string]*http.Response{
		"HTTP/2": {ProtoMajor: 2}, "HTTP/1.0": {ProtoMajor: 1}, "closing": {ProtoMajor: 1, ProtoMinor: 1, Close: true},
	} {
		r := request(http.MethodGet, &other, nil)
		c.Learn(r, res)
		if _, err := c.RoundTrip(r.WithContext(t.Context())); !errors.Is(err, http.ErrSkipAltProtocol) {
			t.Errorf("after an answer that was %s: %v", name, err)
		}
	}
}

// An upstream that hangs up when the second request of a connection comes.
func TestHangUp(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]struct {
		header http.Header
		heads  int32
		fails  bool
	}{
		http.MethodGet:     {heads: 3},
		http.MethodHead:    {heads: 3},
		http.MethodOptions: {heads: 3},
		http.MethodPost:    {heads: 2, fails: true},
		http.MethodDelete:  {heads: 2, fails: true},
		"PATCH":            {header: http.Header{"Idempotency-Key": {"k"}}, heads: 3},
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			var heads atomic.Int32
			u := listen(t, func(c net.Conn) {
				in := bufio.NewReader(c)
				if _, err := readHead(in); err == nil {
					heads.Add(1)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
				if _, err := readHead(in); err == nil {
					heads.Add(1)
				}
			})
			c := knowing(t, u)
			for nth := range 2 {
				res, err := c.RoundTrip(request(method, u, want.header).WithContext(t.Context()))
				if (err != nil) != (want.fails && nth == 1) {
					t.Fatalf("%d: %v", nth, err)
				}
				if err == nil {
					_ = res.Body.Close()
				}
			}
			if n := heads.Load(); n != want.heads {
				t.Errorf("%d requests came, want %d", n, want.heads)
			}
		})
	}
}

// A request that an upstream hangs up on is not taken from one kept connection to
// the next.
func TestHangUpIsTriedOnce(t *testing.T) {
	t.Parallel()
	var heads atomic.Int32
	many := make(chan struct{})
	u := listen(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := readHead(in); err != nil {
			return
		}
		<-many
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		if _, err := readHead(in); err == nil {
			heads.Add(1)
		}
	})
	c := knowing(t, u)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { fetch(t, c, request(http.MethodGet, u, nil)) })
	}
	time.AfterFunc(50*time.Millisecond, func() { close(many) })
	wg.Wait()
	if got := fetch(t, c, request(http.MethodGet, u, nil)); got != "" {
		t.Error(got)
	}
	if n := heads.Load(); n != 1 {
		t.Errorf("%d kept connections were tried", n)
	}
}

// What comes on a kept connection is never taken for the answer to what is sent
// next.
func TestUnaskedAnswer(t *testing.T) {
	t.Parallel()
	say, said := make(chan struct{}), make(chan struct{})
	u := listen(t, func(c net.Conn) {
		if _, err := readHead(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if _, ok := <-say; ok {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			said <- struct{}{}
		}
		_, _ = io.Copy(io.Discard, c)
	})
	defer close(say)
	c := knowing(t, u)
	for range 5 {
		if got := fetch(t, c, request(http.MethodGet, u, nil)); got != "ok" {
			t.Fatal(got)
		}
		say <- struct{}{}
		<-said
		time.Sleep(time.Millisecond) // it is on its way through the kernel
	}
}

// Who gives up ends the request at the upstream: before the answer and within.
func TestGivingUp(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"before the answer": "", "within the head": "HTTP/1.1 200 OK\r\n", "within the body": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			came, gone := make(chan struct{}), make(chan struct{})
			u := listen(t, func(c net.Conn) {
				defer close(gone)
				in := bufio.NewReader(c)
				if _, err := readHead(in); err == nil {
					_, _ = io.WriteString(c, answer)
					close(came)
					_, _ = in.ReadByte()
				}
			})
			enough := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-came
				cancel(enough)
			}()
			res, err := knowing(t, u).RoundTrip(request(http.MethodGet, u, nil).WithContext(ctx))
			if err == nil {
				_, err = io.ReadAll(res.Body)
				_ = res.Body.Close()
			}
			if !errors.Is(err, enough) {
				t.Errorf("error = %v, want why it was given up", err)
			}
			<-gone
		})
	}
}

// What nobody wants any more is not sent, be there a connection for it.
func TestGivenUpBefore(t *testing.T) {
	t.Parallel()
	up := serve(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false)
	c := knowing(t, up.url)
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	for range 20 {
		if got := fetch(t, c, request(http.MethodGet, up.url, nil)); got != "ok" {
			t.Fatal(got)
		}
		if _, err := c.RoundTrip(request(http.MethodDelete, up.url, nil).WithContext(ctx)); !errors.Is(err, enough) {
			t.Errorf("error = %v, want why it was given up", err)
		}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if len(up.got) != 20 || up.conns != 1 {
		t.Errorf("%d requests came over %d connections", len(up.got), up.conns)
	}
}

// An answer that nobody reads to its end takes its connection with it.
func TestUnreadAnswer(t *testing.T) {
	t.Parallel()
	up := serve(t, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100_000), false)
	c := knowing(t, up.url)
	for range 3 {
		res, err := c.RoundTrip(request(http.MethodGet, up.url, nil).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if n, err := res.Body.Read(make([]byte, 10)); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("Read after Close = %d, %v", n, err)
		}
		_ = res.Body.Close()
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.conns != 3 {
		t.Errorf("%d connections", up.conns)
	}
}

// A body may be closed while it is read, and the other way round.
func TestCloseWhileReading(t *testing.T) {
	t.Parallel()
	u := listen(t, func(c net.Conn) {
		if _, err := readHead(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
			_, _ = io.Copy(io.Discard, c)
		}
	})
	res, err := knowing(t, u).RoundTrip(request(http.MethodGet, u, nil).WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	reads := make(chan error)
	go func() {
		_, err := io.ReadAll(res.Body)
		reads <- err
	}()
	_ = res.Body.Close()
	if err := <-reads; err == nil {
		t.Error("the answer has ended")
	}
}

// What an upstream does not send in time is an error that says so.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]string{"silent": "", "half a head": "HTTP/1.1 200 OK\r\n"} {
			start := time.Now()
			c := newClient(t)
			c.Dial = func(context.Context, string, string) (net.Conn, error) {
				here, there := net.Pipe()
				go func() {
					in := bufio.NewReader(there)
					_, _ = readHead(in)
					_, _ = io.WriteString(there, answer)
					_, _ = in.ReadByte()
					_ = there.Close()
				}()
				return here, nil
			}
			u := &url.URL{Scheme: "http", Host: "api.example.com"}
			learn(c, u)
			_, err := c.RoundTrip(request(http.MethodGet, u, nil).WithContext(t.Context()))
			if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took != time.Minute {
				t.Errorf("%s: after %s", name, took)
			}
			c.Close()
		}
	})
}

// An upstream that does not shake hands is one that takes too long, not one whose
// connection could not be closed.
func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	u := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	u.Scheme = "https"
	c := newClient(t)
	c.HandshakeTimeout = time.Millisecond
	learn(c, u)
	_, err := c.RoundTrip(request(http.MethodGet, u, nil).WithContext(t.Context()))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v", err)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok { // what is logged
		t.Errorf("error has %v", op)
	}
}

// A body may take as long as it likes.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t)
		c.Dial = func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				_, _ = readHead(bufio.NewReader(there))
				_, _ = io.WriteString(there, "HTTP/1.1 200 OK\r\n\r\n")
				for range 3 {
					time.Sleep(time.Hour)
					_, _ = io.WriteString(there, "x")
				}
				_ = there.Close()
			}()
			return here, nil
		}
		u := &url.URL{Scheme: "http", Host: "api.example.com"}
		learn(c, u)
		if got := fetch(t, c, request(http.MethodGet, u, nil)); got != "xxx" {
			t.Error(got)
		}
		c.Close()
	})
}

// Interim answers come one by one, and who refuses one ends the request.
func TestInterimRefused(t *testing.T) {
	t.Parallel()
	up := serve(t, strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("x", maxHead/2)+"\r\n\r\n", 10), false)
	refused, n := errors.New("refused"), 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		if n++; n == 7 {
			return refused
		}
		return nil
	}})
	c := knowing(t, up.url)
	if _, err := c.RoundTrip(request(http.MethodGet, up.url, nil).WithContext(ctx)); !errors.Is(err, refused) {
		t.Errorf("error = %v", err)
	}
	// Where nobody looks at them, together they may be no longer than one.
	learn(c, up.url) // it forgets who has failed
	if got := fetch(t, c, request(http.MethodGet, up.url, nil)); !strings.Contains(got, "too long") {
		t.Errorf("%.100q", got)
	}
}

// Connections that are not used are closed.
func TestIdle(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 10)
	u := listen(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, err := readHead(in); err != nil {
				closed <- struct{}{}
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	c := newClient(t)
	c.IdleTimeout = 20 * time.Millisecond
	learn(c, u)
	if got := fetch(t, c, request(http.MethodGet, u, nil)); got != "ok" && !strings.Contains(got, "skip") {
		t.Fatal(got)
	}
	<-closed
}

// A connection that was kept for too long is not used, be it that nobody has come
// yet to close it.
func TestTooOld(t *testing.T) {
	t.Parallel()
	up := serve(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false)
	c := newClient(t)
	c.IdleTimeout = time.Hour // when it is looked what is too old
	learn(c, up.url)
	for range 3 {
		if got := fetch(t, c, request(http.MethodGet, up.url, nil)); got != "ok" {
			t.Fatal(got)
		}
		c.IdleTimeout = 1
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.conns != 3 {
		t.Errorf("%d connections", up.conns)
	}
}

// A connection that the upstream has closed is closed soon, however long it might
// have been kept.
func TestClosedWhileKept(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	u := listen(t, func(c net.Conn) {
		if _, err := readHead(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			_ = c.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // it is
			_, _ = io.Copy(io.Discard, c)
			close(closed)
		}
	})
	c := newClient(t)
	c.IdleTimeout = time.Hour
	learn(c, u)
	if got := fetch(t, c, request(http.MethodGet, u, nil)); got != "ok" {
		t.Fatal(got)
	}
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("it is kept half closed")
	}
}

// No more are kept than may be, and none after Close.
func TestKept(t *testing.T) {
	t.Parallel()
	var open atomic.Int32
	hold := make(chan struct{})
	u := listen(t, func(c net.Conn) {
		open.Add(1)
		defer open.Add(-1)
		in := bufio.NewReader(c)
		for {
			if _, err := readHead(in); err != nil {
				return
			}
			<-hold
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	c := newClient(t)
	c.MaxIdle = 2
	learn(c, u)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() { fetch(t, c, request(http.MethodGet, u, nil)) })
	}
	eventually(t, "five are open", func() bool { return open.Load() == 5 })
	close(hold)
	wg.Wait()
	eventually(t, "two are kept", func() bool { return open.Load() == 2 })

	res, err := c.RoundTrip(request(http.MethodGet, u, nil).WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "ok" {
		t.Errorf("a body that was being read at Close: %q, %v", b, err)
	}
	_ = res.Body.Close()
	eventually(t, "none is kept", func() bool { return open.Load() == 0 })
	if got := fetch(t, c, request(http.MethodGet, u, nil)); got != "ok" {
		t.Errorf("after Close: %s", got)
	}
	eventually(t, "none is kept after Close", func() bool { return open.Load() == 0 })
}

// Over TLS, too: the certificate is checked for the host, and one connection
// serves many requests.
func TestTLS(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.TLS.NegotiatedProtocol, r.TLS.ServerName, r.Host)
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "example.com:" + u.Port() // a name in its certificate
	c := newClient(t)
	c.TLS = server.Client().Transport.(*http.Transport).TLSClientConfig //nolint:forcetypeassert // it is
	c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	learn(c, u)
	for range 3 {
		res, err := c.RoundTrip(request(http.MethodGet, u, nil).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(b) != "http/1.1example.com"+u.Host || res.TLS == nil {
			t.Errorf("%q, TLS %v", b, res.TLS)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	wrong := *u
	wrong.Host = "api.example.org:443"
	learn(c, &wrong)
	_, err = c.RoundTrip(request(http.MethodGet, &wrong, nil).WithContext(t.Context()))
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("a certificate of another host: %v", err)
	}
}

// Where HTTP/1.1 is no longer spoken, it is asked of another client what is.
func TestNoLongerHTTP1(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil) // for its certificate
	server.StartTLS()
	t.Cleanup(server.Close)
	u := listen(t, func(c net.Conn) {
		_ = tls.Server(c, &tls.Config{Certificates: server.TLS.Certificates, NextProtos: []string{"h3"}}).HandshakeContext(t.Context())
	})
	u.Scheme = "https"
	c := newClient(t)
	learn(c, u)
	if _, err := c.RoundTrip(request(http.MethodGet, u, nil).WithContext(t.Context())); err == nil || errors.Is(err, http.ErrSkipAltProtocol) {
		t.Errorf("error = %v", err)
	}
	if _, err := c.RoundTrip(request(http.MethodGet, u, nil).WithContext(t.Context())); !errors.Is(err, http.ErrSkipAltProtocol) {
		t.Errorf("then: %v", err)
	}
}

// What stands behind an answer in the same TLS record is not on the network any more.
func TestUnaskedAnswerOverTLS(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	server := httptest.NewUnstartedServer(nil) // for its certificate
	server.StartTLS()
	t.Cleanup(server.Close)
	server.TLS.DynamicRecordSizingDisabled = true
	u := listen(t, func(c net.Conn) {
		conns.Add(1)
		secured := tls.Server(c, server.TLS)
		for in := bufio.NewReader(secured); ; {
			if _, err := readHead(in); err != nil {
				return
			}
			ok := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: \r\n\r\nok"
			ok = strings.Replace(ok, "X: ", "X: "+strings.Repeat("x", 4096-len(ok)), 1) // one buffer full
			_, _ = io.WriteString(secured, ok+"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"+strings.Repeat("evil ", 1000))
		}
	})
	u.Scheme, u.Host = "https", "example.com:"+u.Port()
	c := newClient(t)
	c.TLS = server.Client().Transport.(*http.Transport).TLSClientConfig //nolint:forcetypeassert // it is
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.Replace(addr, "example.com", "127.0.0.1", 1))
	}
	learn(c, u)
	for range 5 {
		if got := fetch(t, c, request(http.MethodGet, u, nil)); got != "ok" {
			t.Errorf("%.100q", got)
		}
	}
	if n := conns.Load(); n != 5 {
		t.Errorf("%d connections", n)
	}
}

// Many at once, over upstreams that do what they like with their connections: each
// gets the answer to what it has asked, or an error.
func TestNobodyGetsAnothersAnswer(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var nth atomic.Uint64
	u := listen(t, func(c net.Conn) {
		random := rand.New(rand.NewPCG(seed, nth.Add(1)))
		in := bufio.NewReader(c)
		for {
			head, err := readHead(in)
			if err != nil {
				return
			}
			_, rest, _ := strings.Cut(head, "X-Id: ")
			id, _, _ := strings.Cut(rest, "\r\n")
			switch random.IntN(12) {
			case 0:
				return
			case 1: // one more that nobody asked for
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", len(id), id)
			case 2: // broken off
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id)+1, id)
				return
			case 3:
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nA: b\r\n\r\n", len(id), id)
			case 4: // later than the answer
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id)
				_, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 4\r\n\r\nevil")
				return
			default:
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id)
			}
		}
	})
	c := knowing(t, u)
	var wg sync.WaitGroup
	var right atomic.Int32
	for worker := range 32 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1000+uint64(worker)))
			for n := range 100 {
				id := fmt.Sprintf("%d-%d-%s", worker, n, strings.Repeat("x", random.IntN(9000)))
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(20) == 0 {
					time.AfterFunc(time.Duration(random.IntN(1000))*time.Microsecond, cancel)
				}
				learn(c, u) // it forgets who has failed
				res, err := c.RoundTrip(request(http.MethodGet, u, http.Header{"X-Id": {id}}).WithContext(ctx))
				if err == nil {
					var b []byte
					if random.IntN(10) == 0 {
						b = make([]byte, min(4, len(id)))
						_, err = io.ReadFull(res.Body, b)
						id = id[:len(b)]
					} else {
						b, err = io.ReadAll(res.Body)
					}
					_ = res.Body.Close()
					if res.StatusCode == http.StatusRequestTimeout { // it has crossed the request
						err = io.ErrUnexpectedEOF
					}
					if err == nil && string(b) != id {
						t.Errorf("%.20q instead of %.20q", b, id)
					}
				}
				if err == nil {
					right.Add(1)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if n := right.Load(); n < 2000 {
		t.Errorf("%d of 3200 were answered", n)
	}
}
