package provider_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// A server that has closed the idle connection between two requests costs no
// request: either a new connection is used, or nothing was sent.
func TestIdleConnectionClosed(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	p := newProvider(t, entryAt(l.URL))
	sent := 0
	for range 20 {
		if _, err := p.Refresh(t.Context(), oldToken()); err == nil {
			sent++
		} else if errors.Is(err, tokenstore.ErrNotSent) == errors.Is(err, tokenstore.ErrOutcomeUnknown) {
			t.Errorf("Refresh() = %v; want one of the two", err)
		}
		l.CloseClientConnections()
	}
	if n := len(l.all()); n < sent || n > 20 {
		t.Errorf("%d requests arrived for %d answers of 20 calls", n, sent)
	}
}

// What a server sends past the end of its answer is nobody's: it must not be
// taken for the next answer, nor be written to the standard log, as net/http
// does with what comes on an idle connection.
func TestMoreThanTheAnswer(t *testing.T) {
	var logged syncBuffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer conn.Close()
				for in := bufio.NewReader(conn); ; {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					answer := `{"access_token":"a"}`
					_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\n\r\n{\"access_token\":\"smuggled\"}", len(answer), answer)
				}
			}()
		}
	}()
	e := acme()
	e.TokenURL = "http://" + l.Addr().String() + "/token"
	e.AllowPrivate = true
	p, err := provider.New(provider.Config{Entry: e, ClientID: "id", ClientSecret: secret.New("pw"), RedirectURI: "https://lanyard.example/callback/acme"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 3 {
		a, err := p.Refresh(t.Context(), tokenstore.Token{RefreshToken: secret.New("rt")})
		if err != nil || a.Body.Reveal() != `{"access_token":"a"}` {
			t.Fatalf("Refresh() = %q, %v", a.Body.Reveal(), err)
		}
	}
	if conns.Load() != 3 {
		t.Errorf("%d connections for 3 requests, want one each", conns.Load())
	}
	if s := logged.String(); s != "" {
		t.Errorf("the standard log got %q", s)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
