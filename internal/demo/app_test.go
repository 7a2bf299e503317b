package demo_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/demo"
	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// browser is a client with cookies that follows redirects.
type browser struct {
	t *testing.T
	c *http.Client
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, c: &http.Client{Jar: jar}}
}

// do returns the last answer of a chain of redirects, and its body.
func (b *browser) do(method, to string, header ...string) (*http.Response, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, to, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := b.c.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(body)
}

// connect goes through the flow that begins at path and says yes.
func (b *browser) connect(s *setup, path string) string {
	b.t.Helper()
	resp, body := b.do("GET", s.cfg.AppURL+path)
	if !strings.HasPrefix(resp.Request.URL.String(), s.cfg.ProviderURL+"/authorize?") {
		b.t.Fatalf("%s led to %s: %s", path, resp.Request.URL, body)
	}
	back, err := fakeprovider.Approve(b.t.Context(), b.c, resp.Request.URL.String())
	if err != nil {
		b.t.Fatal(err)
	}
	_, body = b.do("GET", back)
	return body
}

func wantIn(t *testing.T, page string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestAppWalk(t *testing.T) {
	s := newSetup(t)
	b := newBrowser(t)
	resp, page := b.do("GET", s.cfg.AppURL+"/")
	wantIn(t, page, `href="/connect"`, "Not connected")
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(page, "<script") || strings.Contains(page, "style=") {
		t.Errorf("CSP %q, page:\n%s", csp, page)
	}

	wantIn(t, b.connect(s, "/connect"), "Demo Music is connected.", "conn_STUB", "Call the API", "Let the token expire", "profile:read")
	_, page = b.do("POST", s.cfg.AppURL+"/call")
	wantIn(t, page, "<strong>200</strong>", "Ada Lovelace", "never seen it")
	b.do("POST", s.cfg.AppURL+"/expire")
	_, page = b.do("POST", s.cfg.AppURL+"/call")
	wantIn(t, page, "<strong>200</strong>", "<dd>2</dd>")
	b.do("POST", s.cfg.AppURL+"/revoke")
	_, page = b.do("POST", s.cfg.AppURL+"/call")
	wantIn(t, page, "<strong>424</strong>", "reconnect_required", "Reconnect needed", `href="/reconnect"`)
	wantIn(t, b.connect(s, "/reconnect"), "Demo Music is connected.")
	_, page = b.do("GET", s.cfg.AppURL+"/reconnect")
	wantIn(t, page, "There is nothing to reconnect.", "<strong>200</strong>")
	for _, secret := range append(s.cfg.Provider.Secrets(), apiKey, clientKey) {
		if strings.Contains(page, secret) {
			t.Errorf("the page shows %s", secret)
		}
	}
}

func TestAppDenied(t *testing.T) {
	s := newSetup(t)
	b := newBrowser(t)
	resp, _ := b.do("GET", s.cfg.AppURL+"/connect")
	back, err := fakeprovider.Deny(t.Context(), b.c, resp.Request.URL.String())
	if err != nil {
		t.Fatal(err)
	}
	_, page := b.do("GET", back)
	wantIn(t, page, "You did not connect Demo Music. Nothing was shared.", "Not connected")
}

func TestAppCompletesOnlyItsOwnFlows(t *testing.T) {
	s := newSetup(t)
	b := newBrowser(t)
	resp, _ := b.do("GET", s.cfg.AppURL+"/connect")
	back, err := fakeprovider.Approve(t.Context(), b.c, resp.Request.URL.String())
	if err != nil {
		t.Fatal(err)
	}
	// Another browser brings the answer.
	_, page := newBrowser(t).do("GET", back)
	wantIn(t, page, "not started in this browser")
	for _, q := range []string{"", "connection_id=conn_STUB&completion_code=x", "connection_id=conn_STUB&completion_code=x&state=other", "connection_id=../x&state=", "state=%0d%0a"} {
		_, page := b.do("GET", s.cfg.AppURL+"/callback?"+q)
		wantIn(t, page, "not started in this browser")
	}
	s.stub.mu.Lock()
	defer s.stub.mu.Unlock()
	if s.stub.complete != 0 {
		t.Errorf("complete was called %d times", s.stub.complete)
	}
}

func TestAppRefusesOtherSites(t *testing.T) {
	s := newSetup(t)
	b := newBrowser(t)
	for _, path := range []string{"/call", "/expire", "/revoke"} {
		for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://evil.test"}} {
			if resp, _ := b.do("POST", s.cfg.AppURL+path, header...); resp.StatusCode != http.StatusForbidden {
				t.Errorf("POST %s with %v: %d", path, header, resp.StatusCode)
			}
		}
		if resp, _ := b.do("GET", s.cfg.AppURL+path); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, resp.StatusCode)
		}
	}
	for host, want := range map[string]int{"evil.test": 421, "localhost:1": 200, "[::1]:1": 200, "127.0.0.1.evil.test": 421} {
		if resp, _ := b.do("GET", s.cfg.AppURL+"/", "Host", host); resp.StatusCode != want {
			t.Errorf("Host %s: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func TestAppSaysWhatIsWrong(t *testing.T) {
	s := newSetup(t)
	cfg := s.cfg
	cfg.APIKey = "wrong"
	app, err := demo.NewApp(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	for _, path := range []string{"/", "/connect", "/reconnect"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
		rec := httptest.NewRecorder()
		app.ServeHTTP(rec, req)
		if rec.Code != http.StatusBadGateway || !strings.Contains(rec.Body.String(), "key_required") {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body.String())
		}
	}
	_, page := b.do("GET", s.cfg.AppURL+"/?notice="+url.QueryEscape("<script>"))
	if strings.Contains(page, "<script>") || strings.Contains(page, "notice") {
		t.Errorf("an unknown notice is shown:\n%s", page)
	}
}

func TestNewAppNeedsItsConfig(t *testing.T) {
	s := newSetup(t)
	for name, change := range map[string]func(*demo.Config){
		"Link": func(c *demo.Config) { c.Link = nil }, "APIKey": func(c *demo.Config) { c.APIKey = "" }, "AppURL": func(c *demo.Config) { c.AppURL = "" },
	} {
		cfg := s.cfg
		change(&cfg)
		if _, err := demo.NewApp(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("NewApp without %s: %v", name, err)
		}
	}
}
