package caddymodule_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TestClientIP: browsers are told apart by the address that Caddy's
// trusted_proxies make out, and without one by the connection's other end.
func TestClientIP(t *testing.T) {
	in := started(t, config(t.TempDir(), ""), map[string]string{"lanyard_connect": "{}"})
	get := func(clientIP string, local net.Addr) int {
		r := httptest.NewRequest(http.MethodGet, "https://connect.example.com/connect", nil)
		r.RemoteAddr = "127.0.0.1:1"
		ctx := contextWithLocalAddr(r.Context(), local)
		vars := map[string]any{}
		if clientIP != "" {
			vars[caddyhttp.ClientIPVarKey] = clientIP
		}
		return in.serve("lanyard_connect", r.WithContext(context.WithValue(ctx, caddyhttp.VarsCtxKey, vars))).Code
	}
	tcp, unix := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UnixAddr{Name: "/run/s", Net: "unix"}
	for n := range 100 { // behind a proxy: each by itself
		if code := get(fmt.Sprint("192.0.2.", n), tcp); code != 400 {
			t.Fatalf("address %d got %d", n, code)
		}
	}
	for _, tt := range []struct {
		clientIP string
		local    net.Addr
	}{{"192.0.2.200", tcp}, {"", tcp}, {"", unix}} {
		codes := map[int]int{}
		for range 30 {
			codes[get(tt.clientIP, tt.local)]++
		}
		if codes[400] < 20 || codes[429] < 5 {
			t.Errorf("30 requests from %q by %s = %v; want 429 from the 21st on", tt.clientIP, tt.local.Network(), codes)
		}
	}
}
