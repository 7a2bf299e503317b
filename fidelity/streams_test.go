package fidelity_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

const (
	// soon is how long the end of one side may take to end the other.
	soon = time.Second
	// prompt is how late what is sent at once may arrive on a machine that runs
	// all rows at once. What is held back comes later than that, or never.
	prompt = time.Second
)

// kind is a kind of upstream that the rows on streams have in common.
type kind int

const (
	plain   kind = iota // HTTP/1.1
	overTLS             // TLS, which takes HTTP/2 and HTTP/1.1, and likes the former better
	overH2C             // HTTP/2 without TLS
)

// sites are the upstreams of a world, one of each kind. The zero value has none
// yet.
type sites struct {
	mu   sync.Mutex
	all  map[kind]*site        // guarded by mu
	grpc map[grpcKind]grpcSite // guarded by mu
}

// site is an upstream, each of whose paths is one row's, and the proxy before it.
type site struct {
	front *front
	major int // the version of HTTP in which requests have to come. 0: any

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc // :: path → what answers there; guarded by mu
}

// site returns the upstream of a kind.
func (w *world) site(k kind) (*site, error) {
	w.sites.mu.Lock()
	defer w.sites.mu.Unlock()
	if s := w.sites.all[k]; s != nil {
		return s, nil
	}
	s := &site{handlers: map[string]http.HandlerFunc{}}
	if k == overTLS && w.proxy != "nginx" { // which speaks HTTP/1.1 with it
		s.major = 2
	}
	srv := httptest.NewUnstartedServer(s)
	sp := spec{}
	switch k {
	case overTLS:
		srv.EnableHTTP2 = true
		srv.StartTLS()
		var err error
		if sp.CA, err = w.caFile(srv); err != nil {
			return nil, broken("certificate: %w", err)
		}
	case overH2C:
		srv.Config.Protocols = new(http.Protocols)
		srv.Config.Protocols.SetUnencryptedHTTP2(true)
		sp.H2, sp.GRPC = true, true // of nginx, only grpc_pass can
		srv.Start()
	default:
		srv.Start()
	}
	w.t.Cleanup(func() {
		srv.CloseClientConnections()
		_ = srv.Config.Close()
	})
	sp.URL = srv.URL
	var err error
	if s.front, err = w.via(sp); err != nil {
		return nil, err
	}
	if w.sites.all == nil {
		w.sites.all = map[kind]*site{}
	}
	w.sites.all[k] = s
	return s, nil
}

// handle has a path of its own answered, and returns it.
func (s *site) handle(h http.HandlerFunc) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := fmt.Sprintf("/row/%d", len(s.handlers))
	s.handlers[path] = h
	return path
}

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	h := s.handlers[r.URL.Path]
	s.mu.Unlock()
	switch {
	case h == nil:
		http.NotFound(w, r)
	case s.major > r.ProtoMajor && r.Header.Get("Upgrade") == "":
		http.Error(w, "not in this version", http.StatusHTTPVersionNotSupported)
	case r.Header.Get("Authorization") != "Bearer "+token:
		http.Error(w, "the token is missing", http.StatusUnauthorized)
	default:
		h(w, r)
	}
}

// flush sends what was written so far.
func flush(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() }

// h1 and h2 are apps that speak HTTP/1.1, and HTTP/2 without TLS.
var (
	h1 = &http.Transport{DisableCompression: true}
	h2 = func() *http.Transport {
		t := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
		t.Protocols.SetUnencryptedHTTP2(true)
		return t
	}()
)

// base is where an app reaches a proxy.
func (f *front) base(app *http.Transport) string {
	if app == h2 {
		return f.H2C
	}
	return f.URL
}

// arrives returns what comes on c, or an error if nothing does within the time.
func arrives[T any](ctx context.Context, c <-chan T, within time.Duration, what string) (T, error) {
	select {
	case v := <-c:
		return v, nil
	case <-ctx.Done():
	case <-time.After(within):
	}
	var none T
	return none, fmt.Errorf("%s: %w", what, context.DeadlineExceeded)
}

// deadlineOf has a connection's operations end with ctx.
func deadlineOf(ctx context.Context, conn net.Conn) {
	if at, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(at)
	}
}
