package provider

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/failpoint"
)

// ErrAddressBlocked is returned for a connection to an address that a provider
// must not have: the machine itself, a private network, a cloud's metadata.
var ErrAddressBlocked = errors.New("address is not a public one")

// dialTimeout bounds one connection attempt.
const dialTimeout = 10 * time.Second

// privateNets are where allow_private may lead: loopback, private use (RFC
// 1918, RFC 4193), shared address space (RFC 6598).
var privateNets = prefixes(
	"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
	"::1/128", "fc00::/7",
)

// neverNets are never dialled, although they look private or public: metadata
// services of clouds among private addresses, and what is globally routed
// nowhere (RFC 6890 and IANA's registries of special-purpose addresses).
var neverNets = prefixes(
	"fd00:ec2::/32", "100.100.100.200/32", "fd20:ce::/32", "168.63.129.16/32", // the last is Azure's, public as it looks
	"0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

var (
	globalV6 = netip.MustParsePrefix("2000::/3")
	nat64    = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: an IPv4 address in the last four bytes
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func within(addr netip.Addr, nets []netip.Prefix) bool {
	for _, n := range nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// checkAddr returns an error that wraps ErrAddressBlocked unless addr may be
// dialled. Link-local and metadata addresses are blocked even with
// allowPrivate.
func checkAddr(addr netip.Addr, allowPrivate bool) error {
	addr = addr.WithZone("").Unmap()
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	public := addr.Is4() || globalV6.Contains(addr)
	switch {
	case within(addr, neverNets):
	case within(addr, privateNets):
		if allowPrivate {
			return nil
		}
	case public:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrAddressBlocked, addr)
}

// DialContext returns a dialler that refuses addresses that are not public, or,
// with allowPrivate, not on loopback or private networks either. It looks at
// the address that is dialled, after the name was resolved, for each attempt:
// a name that resolves differently the next time gains nothing by it. Its
// errors wrap ErrAddressBlocked.
func DialContext(allowPrivate bool) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout, Control: DialControl(allowPrivate)}
	return failpoint.Dial(d.DialContext)
}

// DialControl returns the check of DialContext, for another net.Dialer: it is
// made before anything is sent to the address.
func DialControl(allowPrivate bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %s", ErrAddressBlocked, address)
		}
		return checkAddr(ap.Addr(), allowPrivate)
	}
}

// CheckConn applies the rule of DialContext to a connection that another
// dialler made, before anything is written to it.
func CheckConn(conn net.Conn, allowPrivate bool) error {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("%w: %s", ErrAddressBlocked, conn.RemoteAddr())
	}
	return checkAddr(tcp.AddrPort().Addr(), allowPrivate)
}

// tlsConfig is the TLS of requests to a provider.
func tlsConfig() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }
