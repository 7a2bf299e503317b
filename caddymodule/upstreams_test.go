package caddymodule_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lanyard-proxy/lanyard/caddymodule"
	"github.com/lanyard-proxy/lanyard/provider"
)

// upstreamsOf returns how a lanyard_proxy with these options reaches the APIs.
// The one at the host private may have a private address.
func upstreamsOf(t *testing.T, options, private string) http.RoundTripper {
	t.Helper()
	more := fmt.Sprintf(`"providers": {"acme": {"authorize_url": "http://127.0.0.1:1", "token_url": "http://127.0.0.1:1", "api_url": "https://%s", "allow_private": true}},
		"integrations": {"acme": {"client_id": "a"}}`, private)
	in, err := provision(t, config(t.TempDir(), more), map[string]string{"lanyard_proxy": options})
	if err != nil {
		t.Fatal(err)
	}
	return caddymodule.UpstreamsOf(in.http["lanyard_proxy"])
}

// reach asks for a URL and returns why there is no answer.
func reach(t *testing.T, rt http.RoundTripper, url string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := rt.RoundTrip(r)
	if err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	return err
}

// knocks counts the connections that are made to a port of this machine.
type knocks struct {
	port  string
	count atomic.Int32
}

func newKnocks(t *testing.T) *knocks {
	t.Helper()
	k := &knocks{}
	l, err := net.Listen("tcp", ":0") // every address there is
	if err != nil {
		t.Fatal(err)
	}
	_, k.port, _ = net.SplitHostPort(l.Addr().String())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			k.count.Add(1)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return k
}

// others returns how many there were besides one that it makes itself. The
// kernel hands connections over in the order they were made.
func (k *knocks) others(t *testing.T) int {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+k.port)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Read(make([]byte, 1)) // it is closed once it was counted
	_ = conn.Close()
	return int(k.count.Swap(0)) - 1
}

// An API at an address that it must not have isn't even knocked at.
func TestA129AddressesOfUpstreams(t *testing.T) {
	k := newKnocks(t)
	serveNames(t, func(name string) netip.Addr {
		switch {
		case strings.HasPrefix(name, "inside."):
			return netip.MustParseAddr("127.0.0.1")
		case strings.HasPrefix(name, "metadata."):
			return netip.MustParseAddr("169.254.169.254")
		}
		return netip.Addr{}
	})
	rt := upstreamsOf(t, `{}`, "private.test")
	for _, host := range []string{
		"127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0", "[::1]", "[::]", "[::1%25lo]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
		"[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254",
		"[fd00:ec2::254]", "[fe80::1]", "[fc00::1]", "192.0.0.192", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "100.100.100.200",
		"inside.test", "metadata.test",
	} {
		if err := reach(t, rt, "http://"+host+":"+k.port+"/"); !errors.Is(err, provider.ErrAddressBlocked) {
			t.Errorf("%s: %v, want ErrAddressBlocked", host, err)
		}
	}
	// What some resolvers take for an address, and Go for a name.
	for _, host := range []string{"2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "017700000001"} {
		if reach(t, rt, "http://"+host+":"+k.port+"/") == nil {
			t.Errorf("%s was reached", host)
		}
	}
	if n := k.others(t); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// allow_private opens private networks, not what is no provider's anywhere.
func TestA129PrivateIsNotMetadata(t *testing.T) {
	for _, ip := range []string{"169.254.169.254", "169.254.170.2", "0.0.0.0", "100.100.100.200"} {
		serveNames(t, func(string) netip.Addr { return netip.MustParseAddr(ip) })
		rt := upstreamsOf(t, `{}`, "metadata.test")
		if err := reach(t, rt, "http://metadata.test/"); !errors.Is(err, provider.ErrAddressBlocked) {
			t.Errorf("%s: %v, want ErrAddressBlocked", ip, err)
		}
	}
}

// Options that need Caddy's own dialler: the connection is looked at before a
// byte is written to it.
func TestA129OwnDiallers(t *testing.T) {
	asked := make(chan string, 8)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	t.Cleanup(srv.Close)
	for _, options := range []string{
		`{"transport": {"local_address": "127.0.0.1"}}`, `{"transport": {"read_timeout": "9s"}}`,
		`{"transport": {"write_timeout": "9s"}}`,
	} {
		rt := upstreamsOf(t, options, "private.test")
		if err := reach(t, rt, srv.URL); !errors.Is(err, provider.ErrAddressBlocked) || len(asked) > 0 {
			t.Errorf("%s: %v, want ErrAddressBlocked; %d requests", options, err, len(asked))
		}
	}
}

// Whoever asks for no proxy is guarded as by default.
func TestA129NoProxy(t *testing.T) {
	k := newKnocks(t)
	for options, knocks := range map[string]int{
		`{"transport": {"network_proxy": {"from": "none"}}}`:                       0,
		`{"transport": {"network_proxy": {"from": "none"}, "read_timeout": "9s"}}`: 1, // Caddy dials, and nothing is sent
	} {
		rt := upstreamsOf(t, options, "private.test")
		if err := reach(t, rt, "http://127.0.0.1:"+k.port+"/"); !errors.Is(err, provider.ErrAddressBlocked) {
			t.Errorf("%s: %v, want ErrAddressBlocked", options, err)
		}
		if n := k.others(t); n > knocks {
			t.Errorf("%s: %d connections were made", options, n)
		}
	}
}

// The address is looked at for each connection: a name that leads elsewhere
// the next time gains nothing.
func TestA130Rebinding(t *testing.T) {
	asked := make(chan string, 8)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		asked <- r.URL.Path
	}))
	t.Cleanup(srv.Close)
	addr := netip.MustParseAddrPort(srv.Listener.Addr().String())
	var answers atomic.Pointer[netip.Addr]
	serveNames(t, func(string) netip.Addr { return *answers.Load() })
	for _, options := range []string{`{}`, `{"transport": {"read_timeout": "9s"}}`} {
		host := fmt.Sprintf("rebind.test:%d", addr.Port())
		rt, url := upstreamsOf(t, options, host), "http://"+host
		first, second := addr.Addr(), netip.MustParseAddr("169.254.169.254")
		answers.Store(&first)
		if err := reach(t, rt, url+"/first"); err != nil || <-asked != "/first" {
			t.Errorf("%s: first: %v", options, err)
		}
		answers.Store(&second)
		if err := reach(t, rt, url+"/second"); options == `{}` && !errors.Is(err, provider.ErrAddressBlocked) || err == nil {
			t.Errorf("%s: second: %v, want ErrAddressBlocked", options, err)
		}
		if len(asked) > 0 {
			t.Errorf("%s: the second request was sent", options)
		}
	}
}

// Whoever turns verification off is told so at each start.
func TestA118UnverifiedUpstreamsAreWarnedAbout(t *testing.T) {
	for options, want := range map[string]int{`{"transport": {"tls": {}}}`: 0, `{"transport": {"tls": {"insecure_skip_verify": true}}}`: 1} {
		in := started(t, config(t.TempDir(), ""), map[string]string{"lanyard_proxy": options})
		if got := strings.Count(read(t, in.log), "certificates of upstreams are not verified"); got != want {
			t.Errorf("%s: %d warnings, want %d", options, got, want)
		}
		in.end()
	}
}

// An API that answers nothing, or heads without end, holds nobody for ever.
func TestUpstreamsAreBounded(t *testing.T) {
	for options, want := range map[string]time.Duration{`{}`: 10 * time.Minute, `{"transport": {"response_header_timeout": "90s"}}`: 90 * time.Second} {
		in, err := provision(t, config(t.TempDir(), ""), map[string]string{"lanyard_proxy": options})
		if err != nil {
			t.Fatal(err)
		}
		if got := caddymodule.HeaderTimeout(in.http["lanyard_proxy"]); got != want {
			t.Errorf("%s: an upstream has %v for its head, want %v", options, got, want)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			<-r.Context().Done()
		}
		for i := range 2000 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
		}
	}))
	t.Cleanup(srv.Close)
	rt := upstreamsOf(t, `{"transport": {"response_header_timeout": "50ms"}}`, srv.Listener.Addr().String())
	if err, ok := errors.AsType[net.Error](reach(t, rt, srv.URL+"/silent")); !ok || !err.Timeout() {
		t.Errorf("a silent upstream: %v, want a timeout", err)
	}
	if err := reach(t, rt, srv.URL+"/long"); err == nil {
		t.Error("a head of 2 MB was taken")
	}
}

// The buffer that is configured bounds what trailers there may be, for each call.
func TestReadBuffer(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"X", strings.Repeat("x", 8<<10))
		_, _ = io.WriteString(w, "ok")
		_ = http.NewResponseController(w).Flush()
	}))
	t.Cleanup(srv.Close)
	rt := upstreamsOf(t, `{"transport": {"read_buffer_size": 65536}}`, srv.Listener.Addr().String())
	for range 3 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(b) != "ok" || err != nil || len(res.Trailer.Get("X")) != 8<<10 {
			t.Errorf("%q, %v, a trailer of %d bytes", b, err, len(res.Trailer.Get("X")))
		}
	}
}

// As many connections are made as there are calls at once, from the start.
func TestNoMoreConnectionsThanCalls(t *testing.T) {
	const calls = 8
	var conns atomic.Int32
	came, leave := make(chan struct{}), make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		came <- struct{}{}
		<-leave
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	rt := upstreamsOf(t, `{}`, srv.Listener.Addr().String())
	for range 3 {
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				if err := reach(t, rt, srv.URL); err != nil {
					t.Error(err)
				}
			})
		}
		for range calls {
			<-came
		}
		for range calls {
			leave <- struct{}{}
		}
		wg.Wait()
	}
	if n := conns.Load(); n != calls {
		t.Errorf("%d connections for %d calls at once", n, calls)
	}
}

// An open proxy whose paths name connections would ask itself for ever.
func TestA109ConfiguredLoop(t *testing.T) {
	for options, want := range map[string]bool{`"open": true, "path": true`: true, `"path": true`: false, `"open": true`: false} {
		more := `"providers": {"acme": {"authorize_url": "http://127.0.0.1:1", "token_url": "http://127.0.0.1:1", "api_url": "http://localhost:9080/c", "allow_private": true}},
			"integrations": {"acme": {"client_id": "a"}}`
		servers := `{"servers": {"s": {"listen": ["127.0.0.1:9080"], "routes": [{"handle": [{"handler": "lanyard_proxy", ` + options + `}]}]}}}`
		_, err := provision(t, config(t.TempDir(), more), nil, servers)
		if got := err != nil && strings.Contains(err.Error(), "the API of integration acme, localhost:9080, is where this proxy listens"); got != want {
			t.Errorf("%s: %v, want an error %v", options, err, want)
		}
	}
}

// serveNames has this process ask a name server of the test's own.
func serveNames(t *testing.T, lookup func(name string) netip.Addr) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(nameAnswer(buf[:n], lookup), from)
		}
	})
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = conn.Close()
		wg.Wait()
	})
}

func nameAnswer(query []byte, lookup func(name string) netip.Addr) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Additionals, m.RCode = true, nil, dnsmessage.RCodeNameError
	if addr := lookup(q.Name.String()); addr.IsValid() {
		m.RCode = dnsmessage.RCodeSuccess
		if q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
				Body:   &dnsmessage.AResource{A: addr.As4()},
			}}
		}
	}
	answer, _ := m.Pack()
	return answer
}
