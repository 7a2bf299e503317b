package demo_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/internal/demo"
)

const (
	apiKey    = "api-key-of-the-stub"
	clientKey = "client-key-of-the-stub"
	verifier  = "a-code-verifier-of-at-least-forty-three-characters"
)

// stub does what the demo needs of Lanyard, for one connection, in the
// simplest way that works.
type stub struct {
	t        *testing.T
	provider string
	url      string
	app      string

	mu       sync.Mutex // guards all below
	flow     url.Values // of the connect link, by the newest flow
	status   string     // of the connection; empty: none
	code     string     // that completes it
	access   string
	refresh  string
	expires  time.Time
	number   uint64
	complete int // calls
}

// setup is a demo with everything in this process but Lanyard.
type setup struct {
	stub *stub
	cfg  demo.Config
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	p := demo.Provider(0)
	provider := httptest.NewServer(p)
	t.Cleanup(provider.Close)
	s := &stub{t: t, provider: provider.URL}
	lanyard := httptest.NewServer(s)
	t.Cleanup(lanyard.Close)
	s.url = lanyard.URL
	var app *demo.App
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { app.ServeHTTP(w, r) }))
	t.Cleanup(site.Close)
	s.app = site.URL
	cfg := demo.Config{
		ConnectURL: s.url, APIURL: s.url, ProxyURL: s.url, ProviderURL: provider.URL, AppURL: site.URL,
		APIKey: apiKey, ClientKey: clientKey, Provider: p, Link: s.link,
	}
	app, err := demo.NewApp(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &setup{stub: s, cfg: cfg}
}

func (s *stub) link(params url.Values) (string, error) {
	params.Set("expires", "1")
	return s.url + "/connect?" + params.Encode() + "&signature=x", nil
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.URL.Path == "/connect":
		s.flow = r.URL.Query()
		sum := sha256.Sum256([]byte(verifier))
		q := url.Values{
			"response_type": {"code"}, "client_id": {"demo"}, "redirect_uri": {s.url + "/callback/demo"}, "state": {"s"},
			"scope": {"profile:read playlists:read"}, "code_challenge_method": {"S256"},
			"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])},
		}
		http.Redirect(w, r, s.provider+"/authorize?"+q.Encode(), http.StatusSeeOther)
	case r.URL.Path == "/callback/demo":
		back := url.Values{}
		if s.flow.Has("state") {
			back.Set("state", s.flow.Get("state"))
		}
		switch q := r.URL.Query(); {
		case q.Has("error"):
			back.Set("error", "user_denied")
		case !s.redeem(r.Context(), url.Values{
			"grant_type": {"authorization_code"}, "code": {q.Get("code")}, "redirect_uri": {s.url + "/callback/demo"}, "code_verifier": {verifier},
		}):
			back.Set("error", "source_error")
		default:
			s.code = rand.Text()
			s.status = cmp.Or(s.status, "INITIATED")
			back.Set("connection_id", "conn_STUB")
			back.Set("completion_code", s.code)
		}
		http.Redirect(w, r, s.flow.Get("redirect_url")+"?"+back.Encode(), http.StatusSeeOther)
	case strings.HasPrefix(r.URL.Path, "/v1/"):
		s.api(w, r)
	default:
		s.proxy(w, r)
	}
}

func (s *stub) api(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+apiKey {
		guard.Problem{Status: 401, Code: "key_required", Detail: "wrong key"}.Write(w)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/connections":
		list := []map[string]any{}
		if s.status != "" {
			list = append(list, map[string]any{
				"id": "conn_STUB", "user_id": r.URL.Query().Get("user_id"), "status": s.status, "generation": s.number,
				"access_token_expires_at": s.expires, "scopes": map[string]any{"granted": []string{"profile:read"}},
			})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"connections": list})
	case "POST /v1/connections/conn_STUB/complete":
		s.complete++
		var in struct {
			Code string `json:"completion_code"`
			User string `json:"user_id"`
		}
		if json.NewDecoder(r.Body).Decode(&in) != nil || in.Code != s.code || in.User != "user_123" {
			guard.Problem{Status: 409, Code: "completion_invalid", Detail: "The code is wrong."}.Write(w)
			return
		}
		s.status = "ACTIVE"
		_, _ = io.WriteString(w, "{}")
	default:
		guard.Problem{Status: 404, Code: "not_found"}.Write(w)
	}
}

func (s *stub) proxy(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Lanyard-Key") != clientKey || r.Header.Get("Connection-Id") != "conn_STUB" {
		guard.Problem{Status: 404, Code: "connection_not_found", Detail: "There is no such connection."}.Write(w)
		return
	}
	renewed := time.Now().After(s.expires) && s.renew(r.Context())
	for {
		req, _ := http.NewRequestWithContext(r.Context(), r.Method, s.provider+"/api"+r.URL.Path, nil)
		req.Header.Set("Authorization", "Bearer "+s.access)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			s.t.Error(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch {
		case resp.StatusCode != http.StatusUnauthorized:
			w.WriteHeader(resp.StatusCode)
			_, _ = w.Write(body)
			return
		case !renewed && s.renew(r.Context()):
			renewed = true
			continue
		}
		s.status = "EXPIRED"
		again := s.url + "/connect?" + url.Values{"connection_id": {"conn_STUB"}, "redirect_url": {s.app + "/callback"}}.Encode()
		guard.Problem{Status: 424, Code: "reconnect_required", Detail: "Reconnect.", Extra: map[string]any{"connect_url": again}}.Write(w)
		return
	}
}

func (s *stub) renew(ctx context.Context) bool {
	return s.redeem(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.refresh}})
}

func (s *stub) redeem(ctx context.Context, form url.Values) bool {
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.provider+"/token", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("demo", "demo-secret")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Error(err)
		return false
	}
	defer resp.Body.Close()
	var tok struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Expires int    `json:"expires_in"`
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&tok) != nil {
		return false
	}
	s.access, s.refresh, s.expires = tok.Access, tok.Refresh, time.Now().Add(time.Duration(tok.Expires)*time.Second)
	s.number++
	return true
}
