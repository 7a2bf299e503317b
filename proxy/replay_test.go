package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// noise returns n bytes that no other test has.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

// refuseEarly answers 401 to the first generation after reading at least
// enough bytes of its body, and goes on reading what still comes.
func refuseEarly(t *testing.T, enough int, next http.HandlerFunc) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token(1) {
			next(w, r)
			return
		}
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		if _, err := io.CopyN(io.Discard, r.Body, int64(enough)); err != nil {
			t.Errorf("the first attempt brought too little: %v", err)
		}
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "no such token")
		_ = rc.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

func TestUploadIsReplayed(t *testing.T) {
	const size = 8 << 20
	tests := []struct {
		name         string
		spool        int64
		before, read int // sent before the 401, and read by the upstream until then
		length       int64
		replayed     bool
	}{
		{"chunked, half the spool", 0, 512 << 10, 512 << 10, -1, true},
		{"chunked, the whole spool", 0, 1 << 20, 1 << 20, -1, true},
		{"chunked, nothing sent", 0, 0, 0, -1, true},
		{"chunked, more than the spool", 0, 2 << 20, 2 << 20, -1, false},
		{"with a length, half the spool", 0, 512 << 10, 512 << 10, size, true},
		{"with a length, more than the spool", 0, 2 << 20, 2 << 20, size, false},
		{"a small spool", 1000, 1000, 1000, -1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body := noise(size)
			r := newRig(t, refuseEarly(t, tt.read, func(w http.ResponseWriter, r *http.Request) {
				wantToken(t, r, 2)
				if r.ContentLength != tt.length {
					t.Errorf("the second attempt has Content-Length %d, want %d", r.ContentLength, tt.length)
				}
				h := sha256.New()
				n, err := io.Copy(h, r.Body)
				if n != size || err != nil || sha256.Sum256(body) != [32]byte(h.Sum(nil)) {
					t.Errorf("the second attempt brought %d bytes, %v, or other ones", n, err)
				}
				_, _ = io.WriteString(w, "whole")
			}), func(c *proxy.Config, _ *proxy.Upstream) { c.Spool = tt.spool })
			renewing := make(chan struct{})
			r.grants.onRenew = sync.OnceFunc(func() { close(renewing) })

			reader, writer := io.Pipe()
			go func() {
				_, _ = writer.Write(body[:tt.before])
				<-renewing
				_, _ = writer.Write(body[tt.before:])
				_ = writer.Close()
			}()
			req := r.request(t, http.MethodPost, "/upload", reader)
			req.ContentLength = tt.length
			res, got := r.do(t, req)
			if tt.replayed && (res.StatusCode != http.StatusOK || got != "whole") {
				t.Errorf("answer = %d %q, want 200", res.StatusCode, got)
			}
			if !tt.replayed && (res.StatusCode != http.StatusUnauthorized || got != "no such token" || res.Header.Get("Lanyard-Hint") != "token-refreshed") {
				t.Errorf("answer = %d %q, hint %q; want the provider's 401 with the hint", res.StatusCode, got, res.Header.Get("Lanyard-Hint"))
			}
			if !slices.Equal(r.grants.refused, []uint64{1}) {
				t.Errorf("Renew was asked for generations %v, want 1 once", r.grants.refused)
			}
			reader.Close()
		})
	}
}

func TestSmallBodiesAreReplayed(t *testing.T) {
	var lengths []int64
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		lengths = append(lengths, r.ContentLength)
		b, _ := io.ReadAll(r.Body)
		revoked(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) })(w, r)
	})
	for _, tt := range []struct {
		body   io.Reader
		length int64
		want   string
	}{
		{nil, 0, ""},
		{strings.NewReader("hello"), 5, "hello"},
		{io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo")), -1, "hello"},
		{io.MultiReader(), -1, ""},
	} {
		r.grants.set(func(g *tokenstore.Grant) { *g = activeGrant() })
		lengths = nil
		req := r.request(t, http.MethodPost, "/x", tt.body)
		req.ContentLength = tt.length
		res, body := r.do(t, req)
		if res.StatusCode != http.StatusOK || body != tt.want || !slices.Equal(lengths, []int64{tt.length, tt.length}) {
			t.Errorf("body of length %d: %d %q, lengths %v; want 200 %q", tt.length, res.StatusCode, body, lengths, tt.want)
		}
		if res.Header.Get("Lanyard-Hint") != "" {
			t.Error("a replayed answer carries a hint")
		}
	}
}

func Test401PassesOn(t *testing.T) {
	tests := []struct {
		name      string
		challenge string
		prepare   func(*fakeGrants)
		renewed   bool
	}{
		{"not renewed", `Bearer error="invalid_token"`, func(f *fakeGrants) { f.renewErr = tokenstore.ErrNotRenewed }, true},
		{"token endpoint down", "", func(f *fakeGrants) {
			f.renewErr = &tokenstore.UnavailableError{RetryAfter: time.Second, Cause: errors.New("down")}
		}, true},
		{"the new one is refused too", "", nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if tt.challenge != "" {
					w.Header().Set("WWW-Authenticate", tt.challenge)
				}
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = io.WriteString(w, "provider says no")
			})
			if tt.prepare != nil {
				tt.prepare(r.grants)
			}
			res, body := r.do(t, r.request(t, http.MethodPost, "/x", strings.NewReader("body")))
			if res.StatusCode != http.StatusUnauthorized || body != "provider says no" || res.Header.Get("WWW-Authenticate") != tt.challenge ||
				res.Header.Get("Lanyard-Error") != "" || res.Header.Get("Lanyard-Hint") != "" {
				t.Errorf("answer = %d %v %q, want the provider's own 401", res.StatusCode, res.Header, body)
			}
			if (len(r.grants.refused) == 1) != tt.renewed {
				t.Errorf("Renew was asked for %v", r.grants.refused)
			}
		})
	}
}

// What was read ahead of the upstream was not sent: a 401 to no more than the limit
// is answered with a replay.
func TestWhatIsReadAheadIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		body := noise(limit + 10_000)
		attempts := 0
		cfg, _ := newConfig(t, "http://api.test", func(c *proxy.Config, _ *proxy.Upstream) {
			c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				if attempts++; attempts == 1 {
					_, _ = io.ReadFull(r.Body, make([]byte, limit))
					synctest.Wait() // more is read meanwhile
					return &http.Response{StatusCode: http.StatusUnauthorized, ProtoMajor: 1, Header: http.Header{}, Body: http.NoBody}, nil
				}
				if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
					t.Errorf("the replay read %d bytes, %v; want %d", len(got), err, len(body))
				}
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, nil
			})
		})
		handler, err := proxy.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/x", bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		if w.Code != http.StatusOK || attempts != 2 {
			t.Errorf("answer = %d after %d attempts; want 200 after 2", w.Code, attempts)
		}
	})
}

// The refusal of a refresh says that the connection is dead: better than a
// 401 that looks as if the next call might work. An app that stalls must not hold
// it up, whether what it has sent is kept or not.
func Test401OfADeadConnection(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, spool := range []int64{0, 1} {
			t.Run(fmt.Sprintf("HTTP2 %v, spool %d", http2, spool), func(t *testing.T) {
				r := newRigByTLS(t, http2, spool, refuseEarly(t, 6000, func(http.ResponseWriter, *http.Request) { t.Error("replayed") }))
				r.grants.renewErr = tokenstore.ErrReconnect
				reader, writer := io.Pipe()
				defer writer.Close()
				go func() { _, _ = writer.Write(make([]byte, 6000)) }()
				res, body := r.do(t, r.request(t, http.MethodPost, "/x", reader))
				wantProblem(t, res, body, http.StatusFailedDependency, "reconnect_required")
			})
		}
	}
}

func TestParallel401s(t *testing.T) {
	const calls = 100
	var arrived sync.WaitGroup
	arrived.Add(calls)
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+token(1) {
			arrived.Done()
			arrived.Wait()
		}
		revoked(echo)(w, r)
	})
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			want := fmt.Sprintf("body %d", i)
			if res, body := r.do(t, r.request(t, http.MethodPost, "/x", strings.NewReader(want))); res.StatusCode != http.StatusOK || body != want {
				t.Errorf("answer = %d %q, want 200 %q", res.StatusCode, body, want)
			}
		})
	}
	wg.Wait()
	if r.grants.renewals != 1 || len(r.grants.refused) != calls || slices.Max(r.grants.refused) != 1 {
		t.Errorf("%d renewals for generations %v; want 1, all for generation 1", r.grants.renewals, r.grants.refused)
	}
}

// The first attempt hangs in Read when the 401 comes; the replay is answered
// without a look at the body. The app that stalls gets that answer whole.
func TestReplayOfAStalledBody(t *testing.T) {
	r := newRig(t, refuseEarly(t, 10, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "early")
		_ = http.NewResponseController(w).Flush()
	}))
	conn, reader := r.dial(t)
	_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"+slotLine+"\r\na\r\n0123456789\r\n")
	res, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || string(body) != "early" {
		t.Errorf("answer = %d %q, %v; want 200", res.StatusCode, body, err)
	}
	if _, err := reader.ReadByte(); err != io.EOF {
		t.Errorf("the connection stays open: %v", err)
	}
}

// An HTTP/2 transport lets go of a body once the upstream refuses the request. The
// app that stalls gets the refusal whole nevertheless, however long that takes, be
// what it has sent kept or not.
func TestSlowRefusalOfAStalledBody(t *testing.T) {
	for _, spool := range []int64{0, 1} {
		t.Run(fmt.Sprintf("spool %d", spool), func(t *testing.T) {
			r := newRigByTLS(t, true, spool, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.ReadFull(r.Body, make([]byte, 6000))
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				_ = http.NewResponseController(w).Flush()
				select { // longer than an app gets for its next bytes when it is to be cut off
				case <-time.After(200 * time.Millisecond):
				case <-r.Context().Done():
				}
				_, _ = io.WriteString(w, "too large")
			})
			conn, reader := r.dial(t)
			_, _ = fmt.Fprintf(conn, "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n%s\r\n1770\r\n%s\r\n",
				slotLine, make([]byte, 6000))
			res, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "too large" {
				t.Errorf("answer = %d %q, %v; want 413", res.StatusCode, body, err)
			}
		})
	}
}

// What is left of a body after an early answer is no request.
func TestRestOfABodyIsNoRequest(t *testing.T) {
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n" + slotLine + "\r\n"
	for _, framing := range []string{"Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"} {
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/x" {
				t.Errorf("upstream got %s", r.URL.Path)
			}
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "early")
			_ = http.NewResponseController(w).Flush()
		})
		conn, reader := r.dial(t)
		_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: localhost\r\n"+framing+slotLine+"\r\n")
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); string(body) != "early" || err != nil || !res.Close {
			t.Errorf("answer = %q, %v, close %v", body, err, res.Close)
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := reader.ReadByte(); err == io.EOF {
			continue // closed: nothing more is read from it
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(conn, smuggled)
		line, _ := reader.ReadString('\n')
		t.Errorf("the connection stays open, and the rest of the body gets %q", line)
	}
}

// fed is a body that brings what it is fed.
type fed chan []byte

func (f fed) Read(p []byte) (int, error) {
	b, ok := <-f
	if !ok {
		return 0, io.EOF
	}
	return copy(p, b), nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What the app sends while the token is being renewed is not lost to the
// replay, even if it is more than the spool may hold.
func TestBodyThatArrivesDuringRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := make(fed)
		first, rest := noise(10), noise(20000)
		var wg sync.WaitGroup
		attempts := 0
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}
			if attempts++; attempts == 1 {
				res.StatusCode = http.StatusUnauthorized
				wg.Go(func() {
					if got, err := io.ReadAll(r.Body); string(got) != string(first) || err == nil {
						t.Errorf("the first attempt read %d bytes, %v; want 10 and an error", len(got), err)
					}
				})
				body <- first
				synctest.Wait()
				return res, nil
			}
			if got, err := io.ReadAll(r.Body); err != nil || string(got) != string(first)+string(rest) {
				t.Errorf("the replay read %d bytes, %v; want %d", len(got), err, len(first)+len(rest))
			}
			return res, nil
		})
		cfg, r := newConfig(t, "http://api.test", func(c *proxy.Config, _ *proxy.Upstream) {
			c.Transport, c.Spool = transport, 10
		})
		r.grants.onRenew = func() {
			body <- rest
			synctest.Wait()
			close(body)
		}
		handler, err := proxy.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/x", bufio.NewReaderSize(body, 32<<10))
		req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		wg.Wait()
		if w.Code != http.StatusOK || attempts != 2 {
			t.Errorf("answer = %d after %d attempts; want 200 after 2: %s", w.Code, attempts, w.Body)
		}
	})
}

// An upstream that ends its 401 only once it has the whole body is not waited
// for while the rest of that body is held back.
func TestReplayDoesNotWaitForTheRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := noise(4096 + 10)
		attempts := 0
		cfg, _ := newConfig(t, "http://api.test", func(c *proxy.Config, _ *proxy.Upstream) {
			c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				if attempts++; attempts == 1 {
					_, _ = io.ReadFull(r.Body, make([]byte, 4096))
					synctest.Wait() // the rest has been read from the app
					return &http.Response{StatusCode: http.StatusUnauthorized, ProtoMajor: 1, Header: http.Header{}, Body: r.Body}, nil
				}
				if got, err := io.ReadAll(r.Body); err != nil || string(got) != string(body) {
					t.Errorf("the replay read %d bytes, %v; want %d", len(got), err, len(body))
				}
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, nil
			})
		})
		handler, err := proxy.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/x", iotest.DataErrReader(strings.NewReader(string(body))))
		req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		if w.Code != http.StatusOK || attempts != 2 {
			t.Errorf("answer = %d after %d attempts; want 200 after 2", w.Code, attempts)
		}
	})
}

// The server writes to its map of the trailers while the second attempt begins.
func TestTrailersComeDuringARenewal(t *testing.T) {
	r := newRig(t, refuseEarly(t, 5, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.Trailer.Get("X-Sum"))
	}))
	for i := range 100 {
		r.grants.set(func(g *tokenstore.Grant) { *g = activeGrant() })
		renewing := make(chan struct{})
		r.grants.onRenew = sync.OnceFunc(func() { close(renewing) })
		reader, writer := io.Pipe()
		req := r.request(t, http.MethodPost, "/upload", reader)
		req.Trailer = http.Header{"X-Sum": nil}
		go func() {
			_, _ = writer.Write([]byte("hello"))
			<-renewing
			for range i * 20 { // at another moment each time
				runtime.Gosched()
			}
			req.Trailer.Set("X-Sum", "abc")
			_ = writer.Close()
		}()
		if res, body := r.do(t, req); res.StatusCode != http.StatusOK || body != "abc" {
			t.Fatalf("answer = %d %q, want the trailer", res.StatusCode, body)
		}
	}
}
