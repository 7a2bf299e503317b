package client_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/client"
)

const clientKey = "client-key-0123456789abcdef0123456789"

// proxied is a stand-in for the proxy that keeps what comes.
type proxied struct {
	mu     sync.Mutex
	got    []*http.Request // guarded by mu
	answer http.HandlerFunc
}

func (p *proxied) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.got = append(p.got, r)
	p.mu.Unlock()
	if p.answer != nil {
		p.answer(w, r)
	}
}

func (p *proxied) last() *http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.got) == 0 {
		return nil
	}
	return p.got[len(p.got)-1]
}

func newProxy(t *testing.T) (p *proxied, address string) {
	t.Helper()
	p = &proxied{}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	return p, srv.URL
}

func get(t *testing.T, c *http.Client, address string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err == nil {
		t.Cleanup(func() { _ = res.Body.Close() })
	}
	return res, err
}

const testAPI = "https://api.example.com/v2"

func TestWhereRequestsGo(t *testing.T) {
	p, address := newProxy(t)
	tests := []struct {
		proxy, url string
		target     string // at the proxy; empty: ErrHostNotAllowed
		host       string // Lanyard-Host
	}{
		{"", testAPI + "/user", "/user", ""},
		{"", testAPI, "/", ""},
		{"", testAPI + "?q=1", "/?q=1", ""},
		{"", "https://API.example.com:443/v2/x", "/x", ""},
		{"", testAPI + "/a%2Fb//c;d=1/%E2%82%AC?x=%2B+&y&&z=a%20b", "/a%2Fb//c;d=1/%E2%82%AC?x=%2B+&y&&z=a%20b", ""},
		{"", testAPI + "/x?", "/x?", ""},
		{"", testAPI + "//double", "//double", ""},
		{"/api", testAPI + "/user", "/api/user", ""},
		{"/a%2Fpi", testAPI + "/us%2Fer", "/a%2Fpi/us%2Fer", ""},
		{"", "https://uploads.example.com/repos/x?name=y", "/repos/x?name=y", "uploads.example.com"},
		{"/api", "PROXY/api/user?page=2", "/api/user?page=2", ""},
		{"/api", "PROXY/api/_host/uploads.example.com/x", "/api/_host/uploads.example.com/x", ""},
		{"/api", "PROXY/other", "", ""},
		{"", "https://api.example.com/v3/user", "", ""},
		{"", "https://api.example.com/v2evil", "", ""},
		{"", "http://api.example.com/v2/user", "", ""},
		{"", "https://api.example.com.evil.test/v2/user", "", ""},
		{"", "https://api.example.com:8443/v2/user", "", ""},
		{"", "https://evil.test/v2/user", "", ""},
	}
	for _, tt := range tests {
		c := newClient(t, client.Config{ProxyURL: address + tt.proxy, ClientKey: clientKey})
		hc := c.HTTPClient("conn_A", testAPI, "https://uploads.example.com")
		before := p.last()
		_, err := get(t, hc, strings.Replace(tt.url, "PROXY", address, 1))
		got := p.last()
		switch {
		case tt.target == "":
			if !errors.Is(err, client.ErrHostNotAllowed) || got != before {
				t.Errorf("%s: %v, want ErrHostNotAllowed and no request", tt.url, err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.url, err)
		case got.RequestURI != tt.target || got.Header.Get("Lanyard-Host") != tt.host || "http://"+got.Host != address:
			t.Errorf("%s: %s at %s, Lanyard-Host %q; want %s, %q", tt.url, got.RequestURI, got.Host, got.Header.Get("Lanyard-Host"), tt.target, tt.host)
		}
	}
}

// TestSDKsOwnCredentialsStayHere sends what SDKs send.
func TestSDKsOwnCredentialsStayHere(t *testing.T) {
	p, address := newProxy(t)
	c := newClient(t, client.Config{ProxyURL: address, ClientKey: clientKey})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://user:sdk-secret@api.example.com/v2/x", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.test"
	for name, value := range map[string]string{
		"Authorization": "Bearer sdk-secret", "Cookie": "a=sdk-secret", "Lanyard-Key": "sdk-secret", "Lanyard-Host": "evil.test",
		"Connection-Id": "conn_B", "User-Id": "u2", "X-Own": "kept", "Content-Type": "text/plain",
	} {
		req.Header.Set(name, value)
	}
	sent := req.Header.Clone()
	res, err := c.HTTPClient("conn_A", testAPI).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	got := p.last()
	if got.Header.Get("Lanyard-Key") != clientKey || !slices.Equal(got.Header["Connection-Id"], []string{"conn_A"}) || got.Header.Get("X-Own") != "kept" {
		t.Errorf("sent %v", got.Header)
	}
	if text := fmt.Sprint(got.Header, got.URL, got.Host); strings.Contains(text, "sdk-secret") || strings.Contains(text, "evil") || got.Header.Get("User-Id") != "" {
		t.Errorf("the SDK's own travelled: %s", text)
	}
	if fmt.Sprint(req.Header) != fmt.Sprint(sent) || req.URL.Host != "api.example.com" || res.Request != req {
		t.Error("the SDK's request was changed, or is not the answer's")
	}
}

func problem(status int, code, rest string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Lanyard-Error", code)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"status": %d, "code": %q, "detail": "d"%s}`, status, code, rest)
	}
}

func TestAnswersOfLanyard(t *testing.T) {
	p, address := newProxy(t)
	c := newClient(t, client.Config{ProxyURL: address, ClientKey: clientKey})
	hc := c.HTTPClient("conn_A", testAPI)

	p.answer = problem(424, "reconnect_required", `, "reason": "invalid_grant", "connect_url": "https://connect.example.com/connect?x&signature=sig"`)
	_, err := get(t, hc, testAPI+"/user")
	var reconnect *client.ReconnectRequired
	if !errors.As(err, &reconnect) || reconnect.ConnectionID != "conn_A" || reconnect.Reason != "invalid_grant" || !strings.HasSuffix(reconnect.URL, "signature=sig") {
		t.Errorf("424: %v, %+v", err, reconnect)
	}
	if strings.Contains(err.Error(), "signature") {
		t.Errorf("the error holds the link: %v", err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, testAPI+"/user", nil)
	reconnect = nil
	if _, err := hc.Do(req); !errors.As(err, &reconnect) {
		t.Errorf("424 to HEAD: %v", err)
	}

	p.answer = problem(404, "connection_not_found", "")
	var refused *client.APIError
	if _, err := get(t, hc, testAPI+"/user"); !errors.As(err, &refused) || refused.Code != "connection_not_found" || refused.RetryAfter.Seconds() != 7 {
		t.Errorf("404 of Lanyard's: %v", err)
	}

	p.answer = func(w http.ResponseWriter, _ *http.Request) { // the provider's own
		w.Header().Set("Lanyard-Hint", "insufficient_scope")
		w.Header().Set("Lanyard-Missing-Scopes", "repo gist")
		w.Header().Set("Lanyard-Connect-Url", "https://connect.example.com/connect?x")
		w.WriteHeader(http.StatusFailedDependency)
	}
	res, err := get(t, hc, testAPI+"/user")
	if err != nil || res.StatusCode != http.StatusFailedDependency {
		t.Fatalf("the provider's own 424: %v", err)
	}
	if scopes, link := client.MissingScopes(res); !slices.Equal(scopes, []string{"repo", "gist"}) || link == "" {
		t.Errorf("MissingScopes = %v, %q", scopes, link)
	}
}

func TestRedirects(t *testing.T) {
	p, address := newProxy(t)
	hc := newClient(t, client.Config{ProxyURL: address, ClientKey: clientKey}).HTTPClient("conn_A", testAPI)
	p.answer = func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/inside": // as Lanyard turns it back
			http.Redirect(w, r, address+"/there", http.StatusFound)
		case "/outside":
			http.Redirect(w, r, "https://evil.test/there", http.StatusFound)
		}
	}
	if res, err := get(t, hc, testAPI+"/inside"); err != nil || res.StatusCode != http.StatusOK || p.last().URL.Path != "/there" {
		t.Errorf("a redirect within the API: %v", err)
	}
	if p.last().Header.Get("Connection-Id") != "conn_A" {
		t.Error("the request after a redirect names no connection")
	}
	if res, err := get(t, hc, testAPI+"/outside"); err != nil || res.StatusCode != http.StatusFound || p.last().URL.Path != "/outside" {
		t.Errorf("a redirect to elsewhere: %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "lanyard.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Skipf("no unix sockets: %v", err)
	}
	p := &proxied{answer: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "<http://"+r.Host+"/x?page=2>; rel=\"next\"")
		_, _ = io.WriteString(w, `{"id": "conn_A"}`)
	}}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: p}}
	srv.Start()
	t.Cleanup(srv.Close)
	c := newClient(t, client.Config{APIURL: "unix://" + socket, APIKey: testKey})
	if got, err := c.Get(t.Context(), "conn_A"); err != nil || got.ID != "conn_A" || p.last().RequestURI != "/v1/connections/conn_A" {
		t.Errorf("Get by the socket: %v, %v", got, err)
	}
	hc := c.HTTPClient("conn_A", testAPI)
	res, err := get(t, hc, testAPI+"/x")
	if err != nil {
		t.Fatal(err)
	}
	next := strings.TrimPrefix(strings.Split(res.Header.Get("Link"), ">")[0], "<")
	if _, err := get(t, hc, next); err != nil || p.last().RequestURI != "/x?page=2" {
		t.Errorf("the next page %s: %v", next, err)
	}
}

// TestAsksWhereTheAPIIs once, and fills the connection's parameters in.
func TestAsksWhereTheAPIIs(t *testing.T) {
	p, address := newProxy(t)
	p.answer = func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/connections/conn_A":
			_, _ = io.WriteString(w, `{"id": "conn_A", "provider": "shop", "params": {"shop": "acme"}}`)
		case "/v1/providers":
			_, _ = io.WriteString(w, `{"providers": [{"name": "shop", "api_url": "https://{shop}.example.com/admin", "hosts": ["up-{shop}.example.com"]}]}`)
		}
	}
	c := newClient(t, client.Config{APIURL: address, APIKey: testKey, ClientKey: clientKey})
	hc := c.HTTPClient("conn_A")
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := get(t, hc, "https://acme.example.com/admin/x"); err != nil || p.last() == nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if _, err := get(t, hc, "https://up-acme.example.com/y"); err != nil || p.last().Header.Get("Lanyard-Host") != "up-acme.example.com" {
		t.Errorf("a further host: %v", err)
	}
	if _, err := get(t, hc, "https://other.example.com/admin/x"); !errors.Is(err, client.ErrHostNotAllowed) {
		t.Errorf("another shop's API: %v", err)
	}
	asked := func() (n int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, r := range p.got {
			if strings.HasPrefix(r.URL.Path, "/v1/") {
				n++
			}
		}
		return n
	}
	before := asked()
	if _, err := get(t, c.HTTPClient("conn_A"), "https://acme.example.com/admin/x"); err != nil || asked() != before {
		t.Errorf("a second client for the connection asked %d times more, %v", asked()-before, err)
	}
}
