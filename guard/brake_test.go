package guard_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lanyard-proxy/lanyard/guard"
)

func TestBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := guard.NewBrake()
		wrong := func(addr string, want bool) {
			t.Helper()
			p := b.Wrong(addr)
			if (p != nil) != want {
				t.Fatalf("Wrong(%q) = %v; want braked %v", addr, p, want)
			}
			if p != nil && (p.Status != http.StatusTooManyRequests || p.Code != "rate_limited" || p.RetryAfter <= 0 || p.RetryAfter > time.Second) {
				t.Fatalf("Wrong(%q) = %d %s, retry after %v", addr, p.Status, p.Code, p.RetryAfter)
			}
		}
		for range 20 {
			wrong("192.0.2.1", false)
		}
		for range 1000 {
			wrong("192.0.2.1", true)
		}
		wrong("192.0.2.2", false) // a neighbour
		time.Sleep(time.Second)
		wrong("192.0.2.1", false) // trying on has not made it worse
		wrong("192.0.2.1", true)
		time.Sleep(time.Hour)
		for range 20 {
			wrong("192.0.2.1", false)
		}
		wrong("192.0.2.1", true)
	})
}

func TestBrakeTakesANetworkForOneAddress(t *testing.T) {
	tests := []struct {
		name, first, second string
		one                 bool
	}{
		{"IPv6 of one /64", "2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true},
		{"IPv6 of two", "2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"zones", "fe80::1%eth0", "fe80::2%eth1", true},
		{"IPv4", "192.0.2.1", "192.0.2.2", false},
		{"unix", "unix", "unix", true},
		{"unknown", "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := guard.NewBrake()
			for b.Wrong(tt.first) == nil { //nolint:revive // until the burst is used up
			}
			if p := b.Wrong(tt.second); (p != nil) != tt.one {
				t.Errorf("Wrong(%q) after too many of %q = %v; want braked %v", tt.second, tt.first, p, tt.one)
			}
		})
	}
}

// Whoever has many addresses can't fill the memory.
func TestBrakeIsBounded(t *testing.T) {
	b := guard.NewBrake()
	for b.Wrong("192.0.2.1") == nil { //nolint:revive // until the burst is used up
	}
	others := func(from, n int) {
		for i := range n {
			b.Wrong(fmt.Sprintf("2001:db8:%x:%x::1", (from+i)>>16, (from+i)&0xffff))
		}
	}
	others(0, 9_999)
	if b.Wrong("192.0.2.1") == nil {
		t.Error("an address among 10,000 is forgotten")
	}
	others(20_000, 10_000)
	if b.Wrong("192.0.2.1") != nil {
		t.Error("an address is remembered after 10,000 others")
	}
}

func TestFrom(t *testing.T) {
	tests := []struct {
		remote string
		local  net.Addr
		want   string
	}{
		{"192.0.2.7:41000", nil, "192.0.2.7"},
		{"[2001:db8::7]:41000", &net.TCPAddr{}, "2001:db8::7"},
		{"[::ffff:192.0.2.7]:1", nil, "192.0.2.7"},
		{"[fe80::1%eth0]:1", nil, "fe80::1%eth0"},
		{"@", &net.UnixAddr{Name: "/s", Net: "unix"}, "unix"},
		{"", &net.UnixAddr{Name: "/s", Net: "unix"}, "unix"},
		{"", nil, ""},
	}
	for _, tt := range tests {
		r := request(t, "localhost", tt.local)
		r.RemoteAddr = tt.remote
		r.Header.Set("X-Forwarded-For", "203.0.113.9") // says whoever likes
		if got := guard.From(r); got != tt.want {
			t.Errorf("From(%q at %v) = %q, want %q", tt.remote, tt.local, got, tt.want)
		}
	}
}
