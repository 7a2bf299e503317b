package proxy_test

import (
	"net/http"
	"testing"

	"github.com/lanyard-proxy/lanyard/proxy"
)

// Without a key the random ID is all that opens an `open` proxy; user IDs are
// "default", numbers, addresses of people.
func TestOpenIsNotOpenByUser(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		bound, func(cfg *proxy.Config, _ *proxy.Upstream) { cfg.Open = true })
	for _, tt := range []struct {
		header [4]string
		status int
	}{
		{[4]string{"Connection-Id", connID}, 200},
		{[4]string{"User-Id", "u1"}, 401},
		{[4]string{"User-Id", "nobody"}, 401},
		{[4]string{"User-Id", "u1", "Connection-Id", connID}, 200},
		{[4]string{"User-Id", "u1", "Lanyard-Key", clientKey}, 200},
	} {
		req := r.request(t, http.MethodGet, "/x", nil)
		req.Header = http.Header{}
		for i := 0; i < 4 && tt.header[i] != ""; i += 2 {
			req.Header.Add(tt.header[i], tt.header[i+1])
		}
		if res, body := r.do(t, req); res.StatusCode != tt.status {
			t.Errorf("%v: %d %s; want %d", tt.header, res.StatusCode, body, tt.status)
		}
	}
}
