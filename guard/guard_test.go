package guard_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
)

func request(t *testing.T, host string, local net.Addr) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = host
	if local != nil {
		r = r.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, local))
	}
	return r
}

func TestHosts(t *testing.T) {
	local := guard.Local{Names: []string{"lanyard.internal"}}
	lan := &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 9080}
	lan6 := &net.TCPAddr{IP: net.ParseIP("2001:db8::7"), Port: 9080}
	tests := []struct {
		host  string
		local net.Addr
		ok    bool
	}{
		{"localhost", lan, true},
		{"LocalHost:9080", lan, true},
		{"127.0.0.1:9080", lan, true},
		{"127.9.9.9", lan, true},
		{"[::1]:9080", lan, true},
		{"[::1]", nil, true},
		{"192.0.2.7:9080", lan, true},
		{"[2001:db8::7]", lan6, true},
		{"lanyard.internal:1", lan, true},
		{"LANYARD.internal", nil, true},
		{"anything.test", &net.UnixAddr{Name: "/s", Net: "unix"}, true},
		{"", lan, false},
		{"localhost.", lan, false},
		{"localhost.evil.test", lan, false},
		{"evil.test:9080", lan, false},
		{"127.0.0.1.evil.test", lan, false},
		{"192.0.2.8", lan, false},
		{"192.0.2.7", nil, false},
		{"2130706433", lan, false},
		{"127.1", lan, false},
		{"0x7f.0.0.1", lan, false},
		{"0.0.0.0", lan, false},
		{"localhost:80:80", lan, false},
		{"x.lanyard.internal", lan, false},
	}
	for _, tt := range tests {
		p := local.Check(request(t, tt.host, tt.local))
		if (p == nil) != tt.ok {
			t.Errorf("Check(host %q at %v) = %v, want allowed %v", tt.host, tt.local, p, tt.ok)
		}
		if p != nil && (p.Status != http.StatusMisdirectedRequest || p.Code != "host_invalid") {
			t.Errorf("Check(host %q) = %d %s, want 421 host_invalid", tt.host, p.Status, p.Code)
		}
	}
}

func TestWebPages(t *testing.T) {
	local := guard.Local{AllowOrigin: []string{"https://tool.test"}}
	tests := []struct {
		header http.Header
		ok     bool
	}{
		{nil, true},
		{http.Header{"Sec-Fetch-Site": {"none"}}, true},
		{http.Header{"Origin": {"https://tool.test"}}, true},
		{http.Header{"Origin": {"https://tool.test"}, "Sec-Fetch-Site": {"cross-site"}}, true},
		{http.Header{"Origin": {"https://TOOL.test"}}, false},
		{http.Header{"Origin": {"https://tool.test:443"}}, false},
		{http.Header{"Origin": {"https://tool.test", "https://evil.test"}}, false},
		{http.Header{"Origin": {"null"}}, false},
		{http.Header{"Origin": {""}}, false},
		{http.Header{"Origin": {"http://localhost"}}, false},
		{http.Header{"Sec-Fetch-Site": {"same-origin"}}, false},
		{http.Header{"Sec-Fetch-Site": {"same-site"}}, false},
		{http.Header{"Sec-Fetch-Site": {"none", "cross-site"}}, false},
		{http.Header{"Sec-Fetch-Site": {""}}, false},
	}
	for _, tt := range tests {
		r := request(t, "localhost", nil)
		r.Header = tt.header
		for name, p := range map[string]*guard.Problem{"Check": local.Check(r), "CheckOrigin": local.CheckOrigin(r)} {
			if (p == nil) != tt.ok {
				t.Errorf("%s(%v) = %v, want allowed %v", name, tt.header, p, tt.ok)
			}
			if p != nil && (p.Status != http.StatusForbidden || p.Code != "browser_request_blocked") {
				t.Errorf("%s(%v) = %d %s", name, tt.header, p.Status, p.Code)
			}
		}
	}
}

func TestMatch(t *testing.T) {
	keys := []guard.Key{{Name: "a", Value: secret.New("first")}, {Name: "unset"}, {Name: "b", Value: secret.New("second")}}
	for given, want := range map[string]string{"first": "a", "second": "b", "": "", "firs": "", "firstx": "", "FIRST": ""} {
		k, ok := guard.Match(keys, secret.New(given))
		if ok != (want != "") || k.Name != want {
			t.Errorf("Match(%q) = %q, %v; want %q", given, k.Name, ok, want)
		}
	}
	if k, ok := guard.Match(keys, secret.String{}); ok {
		t.Errorf("Match(nothing) = %q", k.Name)
	}
	given := secret.New("second")
	if n := testing.AllocsPerRun(100, func() { guard.Match(keys, given) }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

func TestBearer(t *testing.T) {
	tests := []struct {
		values []string
		want   string
	}{
		{[]string{"Bearer abc"}, "abc"},
		{[]string{"bEARER  abc "}, "abc"},
		{[]string{"Bearer"}, ""},
		{[]string{"Bearerabc"}, ""},
		{[]string{"Basic abc"}, ""},
		{[]string{"Bearer abc", "Bearer abc"}, ""},
		{nil, ""},
	}
	for _, tt := range tests {
		r := request(t, "localhost", nil)
		r.Header["Authorization"] = tt.values
		if got := guard.Bearer(r); !got.Equal(secret.New(tt.want)) {
			t.Errorf("Bearer(%q) = %q, want %q", tt.values, got.Reveal(), tt.want)
		}
	}
}

func TestProblem(t *testing.T) {
	w := httptest.NewRecorder()
	guard.Problem{
		Status: http.StatusServiceUnavailable, Code: "refresh_unavailable", Detail: "Later.",
		RetryAfter: 1001 * time.Millisecond, Extra: map[string]any{"reason": "x"},
	}.Write(w)
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "about:blank", "title": "Service Unavailable", "status": 503.0, "code": "refresh_unavailable",
		"detail": "Later.", "retryable": true, "reason": "x",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("body (-want +got)\n%s", diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/problem+json", "Lanyard-Error": "refresh_unavailable", "Retry-After": "2",
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Www-Authenticate": "",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	w = httptest.NewRecorder()
	guard.Problem{Status: http.StatusUnauthorized, Code: "key_required"}.Write(w)
	if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || got != `Bearer realm="lanyard"` {
		t.Errorf("401 with WWW-Authenticate %q", got)
	}
}

// TestEarlyData: RFC 8470 section 5.2: what changes something is not taken while
// it may be a replay.
func TestEarlyData(t *testing.T) {
	for _, test := range []struct {
		name, method string
		state        *tls.ConnectionState
		header       bool
		code         string
	}{
		{"A105 POST in early data", http.MethodPost, &tls.ConnectionState{}, false, "too_early"},
		{"A105 POST in early data of a proxy before it", http.MethodPost, nil, true, "too_early"},
		{"A105 GET in early data", http.MethodGet, &tls.ConnectionState{}, true, ""},
		{"A105 POST after the handshake", http.MethodPost, &tls.ConnectionState{HandshakeComplete: true}, false, ""},
		{"A105 POST without TLS", http.MethodPost, nil, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(t, "localhost", nil)
			r.Method, r.TLS = test.method, test.state
			if test.header {
				r.Header.Set("Early-Data", "1")
			}
			code := ""
			if p := (guard.Local{}).Check(r); p != nil {
				code = p.Code
			}
			if code != test.code {
				t.Errorf("refused with %q, want %q", code, test.code)
			}
		})
	}
}
