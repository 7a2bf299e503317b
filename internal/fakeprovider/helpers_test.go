package fakeprovider_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

const (
	redirectURI = "http://127.0.0.1:1/callback"
	verifier    = "a-code-verifier-of-at-least-forty-three-characters"
)

// client is an OAuth client of the provider under test.
type client struct {
	t   *testing.T
	s   *fakeprovider.Server
	url string
	c   *http.Client
}

func start(t *testing.T, change func(*fakeprovider.Config)) *client {
	t.Helper()
	cfg := fakeprovider.Config{
		ClientID: "app", ClientSecret: "s3cr%t", RedirectURIs: []string{redirectURI}, Scopes: []string{"read", "write"},
		Rotate: true, RequirePKCE: true,
	}
	if change != nil {
		change(&cfg)
	}
	s := fakeprovider.New(cfg)
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return &client{t: t, s: s, url: srv.URL, c: &http.Client{Timeout: 10 * time.Second, Transport: srv.Client().Transport}}
}

func (c *client) authorizeURL(change func(url.Values)) string {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {"app"}, "redirect_uri": {redirectURI}, "state": {"st/1"}, "scope": {"read write"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	if change != nil {
		change(q)
	}
	return c.url + "/authorize?" + q.Encode()
}

// approve returns the query of the callback.
func (c *client) approve(scopes ...string) url.Values {
	c.t.Helper()
	back, err := fakeprovider.Approve(c.t.Context(), c.c, c.authorizeURL(nil), scopes...)
	if err != nil {
		c.t.Fatal(err)
	}
	u, err := url.Parse(back)
	if err != nil || !strings.HasPrefix(back, redirectURI+"?") {
		c.t.Fatalf("callback %q, %v", back, err)
	}
	return u.Query()
}

type tokens struct {
	Access    string `json:"access_token"`
	Refresh   string `json:"refresh_token"`
	Scope     string `json:"scope"`
	ExpiresIn int    `json:"expires_in"`
	Error     string `json:"error"`
}

// post asks an endpoint, with the client's secret.
func (c *client) post(path string, form url.Values) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("app", url.QueryEscape("s3cr%t"))
	resp, err := c.c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func (c *client) token(form url.Values) (int, tokens) {
	c.t.Helper()
	resp, body, err := c.post("/token", form)
	if err != nil {
		c.t.Fatal(err)
	}
	var tok tokens
	if err := json.Unmarshal(body, &tok); err != nil {
		c.t.Fatalf("answer %s: %v", body, err)
	}
	return resp.StatusCode, tok
}

func codeForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {verifier}}
}

func refreshForm(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
}

// connect goes the whole way to tokens.
func (c *client) connect() tokens {
	c.t.Helper()
	status, tok := c.token(codeForm(c.approve().Get("code")))
	if status != http.StatusOK {
		c.t.Fatalf("code exchange = %d %s", status, tok.Error)
	}
	return tok
}

// get calls the API.
func (c *client) get(path, token string) (*http.Response, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.c.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(body)
}
