package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/proxy"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	clientKey = "client-key-0123456789-0123456789-abc"
	apiKey    = "api-key-0123456789-0123456789-abcdef"
	connID    = "conn_AAAAAAAAAAAAAAAAAAAAAAAAAA"
	otherID   = "conn_BBBBBBBBBBBBBBBBBBBBBBBBBB"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// token returns the access token of a generation.
func token(generation uint64) string { return fmt.Sprintf("canary-token-%d", generation) }

// fakeGrants renews like a refresher: once per generation.
type fakeGrants struct {
	mu       sync.Mutex
	grants   map[string]tokenstore.Grant
	findErr  error
	tokenErr error
	renewErr error
	refused  []uint64 // the generations that Renew was asked for
	renewals int      // how many refreshes that made
	onRenew  func()
	uses     map[uint64]*tokenstore.Uses // :: generation → who has used it
	asked    []string                    // the IDs that Find was asked for
	// askedUsers are those that FindUser was asked for.
	askedUsers []string
	watched    map[string][]chan struct{} // :: connection ID → what end closes
}

func (f *fakeGrants) Watch(id string) (ended <-chan struct{}, stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan struct{})
	if f.watched == nil {
		f.watched = map[string][]chan struct{}{}
	}
	f.watched[id] = append(f.watched[id], c)
	return c, func() {}
}

// end tells those who watch a connection that it is no longer usable.
func (f *fakeGrants) end(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.watched[id] {
		close(c)
	}
	delete(f.watched, id)
}

func newGrants() *fakeGrants {
	return &fakeGrants{grants: map[string]tokenstore.Grant{connID: activeGrant()}}
}

func activeGrant() tokenstore.Grant {
	return tokenstore.Grant{
		ConnectionID: connID, Integration: "acme", UserID: "u1", Status: tokenstore.StatusActive,
		Token: tokenstore.Token{AccessToken: secret.New(token(1)), Generation: 1},
	}
}

func (f *fakeGrants) set(change func(*tokenstore.Grant)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.grants[connID]
	change(&g)
	f.grants[connID] = g
}

func (f *fakeGrants) Find(_ context.Context, id string) (*tokenstore.Grant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, id)
	g, ok := f.grants[id]
	switch {
	case f.findErr != nil:
		return nil, fmt.Errorf("finding connection: %w", f.findErr)
	case !ok:
		return nil, fmt.Errorf("finding connection: %w", tokenstore.ErrNotFound)
	}
	return &g, nil
}

// FindUser returns the connection with the greatest ID.
func (f *fakeGrants) FindUser(ctx context.Context, integration, userID string) (*tokenstore.Grant, error) {
	f.mu.Lock()
	f.askedUsers = append(f.askedUsers, userID)
	newest := ""
	for id, g := range f.grants {
		if g.Integration == integration && g.UserID == userID && id > newest {
			newest = id
		}
	}
	f.mu.Unlock()
	return f.Find(ctx, newest)
}

func (f *fakeGrants) Token(_ context.Context, g *tokenstore.Grant) (*tokenstore.Grant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return g, f.tokenErr
}

func (f *fakeGrants) Renew(_ context.Context, id string, refused uint64) (*tokenstore.Grant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.onRenew != nil {
		f.onRenew()
	}
	f.refused = append(f.refused, refused)
	if f.renewErr != nil {
		return nil, fmt.Errorf("renewing: %w", f.renewErr)
	}
	g := f.grants[id]
	if g.Token.Generation == refused {
		f.renewals++
		g.Token = tokenstore.Token{AccessToken: secret.New(token(refused + 1)), Generation: refused + 1}
		g.Uses = f.uses[refused+1]
		f.grants[id] = g
	}
	return &g, nil
}

// rig is a proxy between a test and an upstream.
type rig struct {
	grants   *fakeGrants
	upstream *url.URL
	proxy    *httptest.Server
	client   *http.Client
	logged   *syncBuffer
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

// change adjusts the configuration of a rig.
type change func(*proxy.Config, *proxy.Upstream)

// newRig puts a proxy before an upstream whose API is at its root.
func newRig(t *testing.T, upstream http.HandlerFunc, changes ...change) *rig {
	t.Helper()
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	return newRigFor(t, server.URL, changes...)
}

// newRigByTLS is newRig for an upstream that is spoken to by TLS.
func newRigByTLS(t *testing.T, http2 bool, spool int64, upstream http.HandlerFunc) *rig {
	t.Helper()
	server := httptest.NewUnstartedServer(upstream)
	server.EnableHTTP2 = http2
	server.StartTLS()
	t.Cleanup(server.Close)
	return newRigFor(t, server.URL, func(c *proxy.Config, _ *proxy.Upstream) {
		transport := server.Client().Transport.(*http.Transport).Clone()
		t.Cleanup(transport.CloseIdleConnections)
		c.Transport, c.Spool = transport, spool
	})
}

func newRigFor(t *testing.T, api string, changes ...change) *rig {
	t.Helper()
	cfg, r := newConfig(t, api, changes...)
	handler, err := proxy.New(cfg)
	if err != nil {
		t.Fatalf("New() = %v", err)
	}
	r.serve(t, handler)
	return r
}

// newConfig returns a configuration, and a rig that does not serve yet.
func newConfig(t *testing.T, api string, changes ...change) (proxy.Config, *rig) {
	t.Helper()
	base, err := url.Parse(api)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true, ExpectContinueTimeout: 5 * time.Second, MaxIdleConnsPerHost: 100}
	r := &rig{grants: newGrants(), upstream: base, logged: &syncBuffer{}}
	up := &proxy.Upstream{Integration: "acme", API: base, Header: "Authorization", Prefix: "Bearer "}
	cfg := proxy.Config{
		Grants: r.grants,
		Upstream: func(g *tokenstore.Grant) (*proxy.Upstream, string) {
			if g.Integration != "acme" {
				return nil, tokenstore.ReasonIntegrationMissing
			}
			return up, ""
		},
		Clients:   []proxy.Client{{Key: guard.Key{Name: "app", Value: secret.New(clientKey)}}},
		APIKeys:   []guard.Key{{Name: "api", Value: secret.New(apiKey)}},
		Transport: transport,
		ConnectURL: func(_ context.Context, g *tokenstore.Grant, scopes []string) string {
			link := "https://connect.test/connect?connection_id=" + g.ConnectionID
			if len(scopes) > 0 {
				link += "&scopes=" + strings.Join(scopes, "+")
			}
			return link
		},
		Logger: zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(r.logged), zapcore.DebugLevel)),
	}
	for _, c := range changes {
		c(&cfg, up)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return cfg, r
}

// serve answers with handler, behind what a Caddy sets before it.
func (r *rig) serve(t *testing.T, handler http.Handler) {
	t.Helper()
	r.proxy = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Server", "Caddy")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		handler.ServeHTTP(w, req)
	}))
	serverLog := &syncBuffer{}
	r.proxy.Config.ErrorLog = log.New(serverLog, "", 0)
	r.proxy.Start()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	r.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		r.proxy.Close()
		if serverLog.String() != "" {
			t.Errorf("the server complains: %s", serverLog.String())
		}
	})
	t.Cleanup(func() {
		if text := r.logged.String(); strings.Contains(text, "canary") || strings.Contains(text, clientKey) || strings.Contains(text, apiKey) {
			t.Errorf("the log holds a secret: %s", text)
		}
	})
}

// request returns a request for a path that names the connection.
func (r *rig) request(t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.proxy.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+clientKey+"."+connID)
	return req
}

// do sends req and returns the answer with its whole body.
func (r *rig) do(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	return res, string(body)
}

// problem is what Lanyard itself answers.
type problem struct {
	Status     int    `json:"status"`
	Code       string `json:"code"`
	Reason     string `json:"reason"`
	ConnectURL string `json:"connect_url"`
}

// wantProblem checks an answer of Lanyard's own.
func wantProblem(t *testing.T, res *http.Response, body string, status int, code string) problem {
	t.Helper()
	var p problem
	_ = json.Unmarshal([]byte(body), &p)
	if res.StatusCode != status || res.Header.Get("Lanyard-Error") != code || p.Code != code || p.Status != status {
		t.Errorf("answer = %d, Lanyard-Error %q, body %s; want %d %s", res.StatusCode, res.Header.Get("Lanyard-Error"), body, status, code)
	}
	for _, s := range []string{"canary", clientKey, apiKey} {
		if strings.Contains(body, s) {
			t.Errorf("problem holds a secret: %s", body)
		}
	}
	return p
}

// raw sends bytes to the proxy and returns the answer.
func (r *rig) raw(t *testing.T, request string) *http.Response {
	t.Helper()
	conn, reader := r.dial(t)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatalf("reading the answer to %q: %v", request, err)
	}
	return res
}

func (r *rig) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", r.proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn, bufio.NewReader(conn)
}

// rawUpstream is an upstream that answers every connection's first request
// with these bytes and reports the bytes of its header.
func rawUpstream(t *testing.T, answer string) (address string, headers <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var head strings.Builder
			reader := bufio.NewReader(conn)
			for line := ""; line != "\r\n"; {
				if line, err = reader.ReadString('\n'); err != nil {
					break
				}
				head.WriteString(line)
			}
			got <- head.String()
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return "http://" + l.Addr().String(), got
}

// wantToken fails a test from within an upstream that gets another token.
func wantToken(t *testing.T, r *http.Request, generation uint64) {
	t.Helper()
	if got, want := r.Header.Get("Authorization"), "Bearer "+token(generation); got != want {
		t.Errorf("upstream got Authorization %q, want %q", got, want)
	}
}

// echo reads the whole body, as a server must before it answers, and returns it.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = w.Write(body)
}

// revoked answers 401 to the first generation and calls next for later ones.
func revoked(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+token(1) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "no such token")
			return
		}
		next(w, r)
	}
}

// contextWithLocal is the context of a request that came in at this address.
func contextWithLocal(t *testing.T, addr net.Addr) context.Context {
	t.Helper()
	return context.WithValue(t.Context(), http.LocalAddrContextKey, addr)
}
