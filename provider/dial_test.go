package provider_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// address is a connection of which only the far end is known.
type address struct {
	net.Conn
	remote net.Addr
}

func (a address) RemoteAddr() net.Addr { return a.remote }

func TestCheckConn(t *testing.T) {
	const (
		public  = "public"
		private = "private" // with allow_private only
		never   = "never"
	)
	tests := map[string]string{
		"1.1.1.1": public, "8.8.8.8": public, "172.32.0.1": public, "100.128.0.1": public, "2606:4700::1111": public,
		"::ffff:1.1.1.1": public, "64:ff9b::101:101": public,
		"127.0.0.1": private, "127.9.9.9": private, "::1": private, "10.0.0.1": private, "172.16.0.1": private,
		"172.31.255.255": private, "192.168.1.1": private, "100.64.0.1": private, "fc00::1": private, "fd12::1": private,
		"::ffff:127.0.0.1": private, "::ffff:10.0.0.1": private, "64:ff9b::a00:1": private, "64:ff9b::7f00:1": private,
		"0.0.0.0": never, "::": never, "169.254.169.254": never, "::ffff:169.254.169.254": never, "64:ff9b::a9fe:a9fe": never,
		"fe80::1": never, "fe80::1%eth0": never, "fd00:ec2::254": never, "fd20:ce::254": never, "100.100.100.200": never, "168.63.129.16": never, "192.0.0.192": never,
		"224.0.0.1": never, "255.255.255.255": never, "240.0.0.1": never, "198.18.0.1": never, "192.0.2.1": never,
		"ff02::1": never, "2001:db8::1": never, "2002:7f00:1::": never, "2001::1": never, "::127.0.0.1": never,
		"64:ff9b:1::1": never, "fec0::1": never, "100::1": never, "0.1.2.3": never,
	}
	for ip, class := range tests {
		t.Run("A129 "+ip, func(t *testing.T) {
			addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(ip, "443"))
			if err != nil {
				t.Fatal(err)
			}
			for _, allowPrivate := range []bool{false, true} {
				want := class == public || class == private && allowPrivate
				err := provider.CheckConn(address{remote: addr}, allowPrivate)
				if (err == nil) != want || err != nil && !errors.Is(err, provider.ErrAddressBlocked) {
					t.Errorf("CheckConn(%s, %v) = %v; want allowed %v", ip, allowPrivate, err, want)
				}
				if want {
					continue // would be dialled in earnest
				}
				conn, err := provider.DialContext(allowPrivate)(t.Context(), "tcp", net.JoinHostPort(ip, "9"))
				if err == nil {
					_ = conn.Close()
				}
				if !errors.Is(err, provider.ErrAddressBlocked) && !strings.Contains(ip, "%") { // there may be no such interface
					t.Errorf("DialContext(%v) to %s = %v; want ErrAddressBlocked", allowPrivate, ip, err)
				}
			}
		})
	}
	if err := provider.CheckConn(address{remote: &net.UnixAddr{Name: "/x"}}, true); !errors.Is(err, provider.ErrAddressBlocked) {
		t.Errorf("CheckConn(unix) = %v", err)
	}
}

// The guard looks at what a name resolves to.
func TestDialGuard(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	_, port, _ := net.SplitHostPort(l.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0"} {
		conn, err := provider.DialContext(false)(t.Context(), "tcp", net.JoinHostPort(host, port))
		if !errors.Is(err, provider.ErrAddressBlocked) {
			t.Errorf("dialling %s: %v; want ErrAddressBlocked", host, err)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
	conn, err := provider.DialContext(true)(t.Context(), "tcp", l.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// Numbers that a resolver of the C library takes for addresses.
func TestDialGuardNumbers(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	_, port, _ := net.SplitHostPort(l.Listener.Addr().String())
	serveNames(t, func(string) []netip.Addr { return nil })
	for _, host := range []string{"2130706433", "0x7f000001", "017700000001", "127.1", "0177.0.0.1", "0x7f.0.0.1"} {
		t.Run("A129 "+host, func(t *testing.T) {
			if conn, err := provider.DialContext(false)(t.Context(), "tcp", net.JoinHostPort(host, port)); err == nil {
				_ = conn.Close()
				t.Errorf("%s was reached", host)
			}
		})
	}
}

// A name that answers differently each time is judged each time, by the
// address that is dialled.
func TestDialGuardRebinding(t *testing.T) {
	l := newLedger(t, answering(200, "application/json", okBody))
	_, port, _ := net.SplitHostPort(l.Listener.Addr().String())
	loopback, metadata := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")
	var next atomic.Pointer[[]netip.Addr]
	serveNames(t, func(string) []netip.Addr { return *next.Load() })
	for _, tt := range []struct {
		name         string
		allowPrivate bool
		answer       []netip.Addr
		reached      bool
	}{
		{"an allowed address first", true, []netip.Addr{loopback}, true},
		{"then metadata", true, []netip.Addr{metadata}, false},
		{"then both at once: the allowed one", true, []netip.Addr{metadata, loopback}, true},
		{"a public name that leads inside", false, []netip.Addr{loopback}, false},
		{"inside and metadata", false, []netip.Addr{loopback, metadata}, false},
		{"mapped", false, []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}, false},
	} {
		t.Run("A130 "+tt.name, func(t *testing.T) {
			next.Store(&tt.answer)
			conn, err := provider.DialContext(tt.allowPrivate)(t.Context(), "tcp", net.JoinHostPort("api.rebind.test", port))
			if err == nil {
				if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); got != loopback {
					t.Errorf("%s was reached", got)
				}
				_ = conn.Close()
			}
			if (err == nil) != tt.reached || !tt.reached && !errors.Is(err, provider.ErrAddressBlocked) {
				t.Errorf("DialContext() = %v; want reached %v", err, tt.reached)
			}
		})
	}
	t.Run("A130 at the token endpoint", func(t *testing.T) {
		next.Store(&[]netip.Addr{loopback})
		e := acme()
		e.TokenURL = "https://id.rebind.test:" + port + "/token"
		_, err := exchange(t.Context(), newProvider(t, e))
		if !errors.Is(err, provider.ErrAddressBlocked) || !errors.Is(err, tokenstore.ErrNotSent) || len(l.all()) != 0 {
			t.Errorf("Exchange() = %v after %d requests; want ErrAddressBlocked and ErrNotSent", err, len(l.all()))
		}
	})
}

// serveNames has this process ask a name server that answers with addrs.
func serveNames(t *testing.T, addrs func(name string) []netip.Addr) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 512); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if reply := nameReply(b[:n], addrs); reply != nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = conn.Close()
		<-done
	})
}

func nameReply(query []byte, addrs func(name string) []netip.Addr) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	found := addrs(q.Name.String())
	if len(found) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range found {
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			r.Body = &dnsmessage.AResource{A: a.As4()}
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			r.Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
		default:
			continue
		}
		m.Answers = append(m.Answers, r)
	}
	reply, _ := m.Pack()
	return reply
}

// A token endpoint whose name leads inside is never spoken to. The name passes
// Validate; only the resolver knows where it leads.
func TestTokenEndpointInside(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip", host)
	if err != nil || !addrs[0].Unmap().IsPrivate() && !addrs[0].Unmap().IsLoopback() {
		t.Skip("this machine's name does not lead to a private address")
	}
	e := acme()
	e.TokenURL = "https://" + strings.ToLower(host) + ":9/token"
	_, err = exchange(t.Context(), newProvider(t, e))
	if !errors.Is(err, provider.ErrAddressBlocked) || !errors.Is(err, tokenstore.ErrNotSent) {
		t.Errorf("Exchange() = %v; want ErrAddressBlocked and ErrNotSent", err)
	}
}
