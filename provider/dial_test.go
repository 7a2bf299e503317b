package provider_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

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
		"fe80::1": never, "fe80::1%eth0": never, "fd00:ec2::254": never, "fd20:ce::254": never, "100.100.100.200": never, "192.0.0.192": never,
		"224.0.0.1": never, "255.255.255.255": never, "240.0.0.1": never, "198.18.0.1": never, "192.0.2.1": never,
		"ff02::1": never, "2001:db8::1": never, "2002:7f00:1::": never, "2001::1": never, "::127.0.0.1": never,
		"64:ff9b:1::1": never, "fec0::1": never, "100::1": never, "0.1.2.3": never,
	}
	for ip, class := range tests {
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
		}
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
