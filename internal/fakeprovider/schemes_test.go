package fakeprovider_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// The API opens to one credential of the right kind, and to no two.
func TestKeyAPI(t *testing.T) {
	c := start(t, func(cfg *fakeprovider.Config) {
		cfg.APIKey, cfg.KeyHeader, cfg.KeyPrefix, cfg.KeyQuery = "k y", "X-Key", "Key ", "key"
		cfg.BasicUser, cfg.BasicPassword = "ada", "pw"
	})
	good := "Basic " + base64.StdEncoding.EncodeToString([]byte("ada:pw"))
	for name, tt := range map[string]struct {
		query  string
		header map[string]string
		want   int
	}{
		"header":              {"", map[string]string{"X-Key": "Key k y"}, 200},
		"header without word": {"", map[string]string{"X-Key": "k y"}, 401},
		"query":               {"?key=k+y", nil, 200},
		"wrong in query":      {"?key=k", nil, 401},
		"twice in query":      {"?key=k+y&key=k+y", nil, 401},
		"password":            {"", map[string]string{"Authorization": good}, 200},
		"wrong password":      {"", map[string]string{"Authorization": good + "x"}, 401},
		"two":                 {"?key=k+y", map[string]string{"Authorization": good}, 401},
		"none":                {"", nil, 401},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/api/me"+tt.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tt.header {
			req.Header.Set(k, v)
		}
		resp, err := c.c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: HTTP %d; want %d", name, resp.StatusCode, tt.want)
		}
	}
}

// assertion signs claims with key.
func assertion(t *testing.T, key ed25519.PrivateKey, claims map[string]any) string {
	t.Helper()
	b, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(b)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(text)))
}

func TestAssertionGrant(t *testing.T) {
	c := start(t, nil)
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.s.RegisterKey("robot", public)
	now := time.Now()
	good := map[string]any{
		"iss": "robot", "sub": "robot", "aud": c.url + "/token", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "jti": "1", "scope": "read",
	}
	post := func(key ed25519.PrivateKey, change map[string]any) (int, tokens) {
		claims := maps.Clone(good)
		maps.Copy(claims, change)
		return c.token(url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion(t, key, claims)},
		})
	}
	if status, tok := post(key, nil); status != 200 || tok.Access == "" || tok.Refresh != "" || tok.Scope != "read" {
		t.Fatalf("assertion = %d %+v", status, tok)
	}
	for name, change := range map[string]map[string]any{
		"used":         {},
		"audience":     {"jti": "2", "aud": c.url},
		"expired":      {"jti": "3", "iat": now.Add(-time.Hour).Unix(), "exp": now.Add(-time.Minute).Unix()},
		"long":         {"jti": "4", "exp": now.Add(2 * time.Hour).Unix()},
		"future":       {"jti": "5", "iat": now.Add(time.Minute).Unix(), "exp": now.Add(2 * time.Minute).Unix()},
		"other issuer": {"jti": "6", "iss": "nobody"},
		"no jti":       {"jti": ""},
		"no subject":   {"jti": "7", "sub": ""},
	} {
		if status, tok := post(key, change); status != 400 || tok.Error != "invalid_grant" {
			t.Errorf("%s: %d %+v", name, status, tok)
		}
	}
	if status, tok := post(other, map[string]any{"jti": "8"}); status != 400 || tok.Error != "invalid_grant" {
		t.Errorf("another key: %d %+v", status, tok)
	}
}

func TestClientGrant(t *testing.T) {
	c := start(t, nil)
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"read"}}
	status, tok := c.token(form)
	if status != 200 || tok.Refresh != "" || tok.Scope != "read" {
		t.Fatalf("client credentials = %d %+v", status, tok)
	}
	if resp, _ := c.get("/api/me", tok.Access); resp.StatusCode != http.StatusOK {
		t.Errorf("API = %d", resp.StatusCode)
	}
	c.s.RevokeAll()
	if status, tok := c.token(form); status != 400 || tok.Error != "unauthorized_client" {
		t.Errorf("client credentials = %d %+v", status, tok)
	}
	if status, tok := c.token(url.Values{"grant_type": {"client_credentials"}, "scope": {"all"}}); status != 400 || tok.Error != "invalid_scope" {
		t.Errorf("client credentials = %d %+v", status, tok)
	}
}

// A device is approved on its page, as a person does.
func TestDevicePage(t *testing.T) {
	c := start(t, nil)
	_, body, err := c.post("/device_authorization", url.Values{"scope": {"read"}})
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Code     string `json:"device_code"`
		UserCode string `json:"user_code"`
		URL      string `json:"verification_uri_complete"`
	}
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	if got := c.s.UserCodes(); len(got) != 1 || got[0] != d.UserCode {
		t.Errorf("UserCodes() = %v", got)
	}
	poll := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d.Code}}
	if _, page := c.get(strings.TrimPrefix(d.URL, c.url), ""); !strings.Contains(page, d.UserCode) {
		t.Errorf("page: %s", page)
	}
	if _, page, err := c.post("/device", url.Values{"user_code": {d.UserCode}, "decision": {"allow"}}); err != nil || !strings.Contains(string(page), "Go back") {
		t.Errorf("page: %s, %v", page, err)
	}
	if status, tok := c.token(poll); status != 200 || tok.Refresh == "" {
		t.Errorf("poll = %d %+v", status, tok)
	}
	if status, tok := c.token(poll); status != 400 || tok.Error != "invalid_grant" {
		t.Errorf("poll = %d %+v", status, tok)
	}
}

// A provider may post its answer, and ask which account is meant.
func TestFormPostAndAccounts(t *testing.T) {
	bob := fakeprovider.User{ID: "bob", Name: "Bob", Email: "bob@provider.test"}
	c := start(t, func(cfg *fakeprovider.Config) { cfg.Users = []fakeprovider.User{bob} })
	_, page := c.get(strings.TrimPrefix(c.authorizeURL(nil), c.url), "")
	if !strings.Contains(page, `value="bob"`) || !strings.Contains(page, `value="ada" checked`) {
		t.Errorf("page: %s", page)
	}
	back, err := fakeprovider.ApproveAs(t.Context(), c.c, c.authorizeURL(nil), "bob")
	if err != nil || !strings.HasPrefix(back, redirectURI+"?") {
		t.Fatalf("ApproveAs() = %s, %v", back, err)
	}
	to := c.authorizeURL(func(q url.Values) { q.Set("response_mode", "form_post") })
	action, form, err := fakeprovider.ApproveForm(t.Context(), c.c, to, "bob")
	if err != nil || action != redirectURI || form.Get("state") != "st/1" || form.Get("iss") != c.url {
		t.Fatalf("ApproveForm() = %s, %v, %v", action, form, err)
	}
	status, tok := c.token(codeForm(form.Get("code")))
	if status != 200 {
		t.Fatalf("code exchange = %d %s", status, tok.Error)
	}
	if _, me := c.get("/api/me", tok.Access); !strings.Contains(me, `"bob"`) {
		t.Errorf("account: %s", me)
	}
	if u := c.s.Ledger().Grants[1].User; u != bob {
		t.Errorf("grant of %+v", u)
	}
}

// An access token may be what renews it: then codes bring no refresh token.
func TestSelfRenewal(t *testing.T) {
	c := start(t, func(cfg *fakeprovider.Config) { cfg.SelfRenewal = true })
	first := c.connect()
	renew := func(token string) (int, tokens) {
		return c.token(url.Values{"grant_type": {"fb_exchange_token"}, "fb_exchange_token": {token}})
	}
	status, next := renew(first.Access)
	if status != 200 || first.Refresh != "" || next.Refresh != "" || next.Access == first.Access {
		t.Fatalf("first %+v, next %d %+v", first, status, next)
	}
	if status, again := renew(first.Access); status != 200 || again.Access == next.Access {
		t.Errorf("the first one again = %d %+v", status, again)
	}
	if l := c.s.Ledger(); l.Grants[0].Refreshes != 2 || l.Posts[1].Grant != l.Grants[0].ID {
		t.Errorf("ledger %+v", l)
	}
	c.s.ExpireAccessTokens()
	if status, no := renew(next.Access); status != 400 || no.Error != "invalid_grant" {
		t.Errorf("one that has ended = %d %+v", status, no)
	}
	if status, no := start(t, nil).token(url.Values{"grant_type": {"fb_exchange_token"}, "fb_exchange_token": {"x"}}); status != 400 || no.Error != "unsupported_grant_type" {
		t.Errorf("elsewhere = %d %+v", status, no)
	}
}
