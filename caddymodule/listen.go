package caddymodule

import (
	"net"
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// listeners returns the addresses of the server in which a handler is being
// provisioned, as far as they can be read.
func listeners(ctx caddy.Context) []caddy.NetworkAddress {
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return nil
	}
	var addrs []caddy.NetworkAddress
	for _, l := range srv.Listen {
		if addr, err := caddy.ParseNetworkAddress(l); err == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// warnIfReachable tells the operator that other machines reach what is meant
// for the app. An address in a site's name does not prevent that.
func warnIfReachable(addrs []caddy.NetworkAddress, directive string, logger *zap.Logger) {
	for _, a := range addrs {
		if !a.IsUnixNetwork() && !a.IsFdNetwork() && !isLoopback(a.Host) {
			logger.Warn("other machines can reach this handler; `bind 127.0.0.1` or a unix socket keeps them out",
				zap.String("handler", directive), zap.String("listen", a.String()))
		}
	}
}

// loopbackURL returns how a program on this machine reaches one of the
// addresses, or "".
func loopbackURL(addrs []caddy.NetworkAddress) string {
	for _, a := range addrs {
		if a.IsUnixNetwork() || a.IsFdNetwork() {
			continue
		}
		if isLoopback(a.Host) {
			return "http://" + a.JoinHostPort(0)
		}
	}
	return ""
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// bothEndsLoopback reports whether a request never left this machine.
func bothEndsLoopback(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return false
	}
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && remote.Addr().Unmap().IsLoopback() && local.IP.IsLoopback()
}
