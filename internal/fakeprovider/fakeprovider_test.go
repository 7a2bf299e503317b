package fakeprovider_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

func TestConnectAndRotate(t *testing.T) {
	c := start(t, nil)
	back := c.approve()
	if back.Get("state") != "st/1" || back.Get("iss") != c.url {
		t.Fatalf("callback = %v; want the state and the issuer", back)
	}
	status, first := c.token(codeForm(back.Get("code")))
	if status != http.StatusOK || first.Scope != "read write" || first.ExpiresIn != 3600 {
		t.Fatalf("code exchange = %d %+v", status, first)
	}
	status, second := c.token(refreshForm(first.Refresh))
	if status != http.StatusOK || second.Access == first.Access || second.Refresh == first.Refresh {
		t.Fatalf("refresh = %d, %+v after %+v", status, second, first)
	}
	if resp, _ := c.get("/api/me", second.Access); resp.StatusCode != http.StatusOK {
		t.Errorf("GET /api/me = %d", resp.StatusCode)
	}
	l := c.s.Ledger()
	g, ok := l.Grant("grant-1")
	if !ok || g.RefreshNumber != 2 || g.Refreshes != 1 || g.Revoked || len(l.Reused()) != 0 {
		t.Errorf("ledger: %+v, reused %v", g, l.Reused())
	}
	if len(l.Posts) != 2 || l.Posts[1].RefreshNumber != 1 || l.Posts[1].Outcome != fakeprovider.OutcomeIssued || l.Posts[1].Auth != "basic" {
		t.Errorf("posts: %+v", l.Posts)
	}
	if l.CallCount(http.StatusOK) != 1 {
		t.Errorf("calls: %v", l.Calls)
	}
	for _, want := range []string{back.Get("code"), first.Access, first.Refresh, second.Access, second.Refresh} {
		if !slices.Contains(c.s.Secrets(), want) {
			t.Errorf("Secrets() lacks %s", want)
		}
	}
}

func TestReuseRevokesTheFamily(t *testing.T) {
	c := start(t, nil)
	first := c.connect()
	_, second := c.token(refreshForm(first.Refresh))
	status, tok := c.token(refreshForm(first.Refresh))
	if status != http.StatusBadRequest || tok.Error != "invalid_grant" {
		t.Fatalf("reuse = %d %s", status, tok.Error)
	}
	if _, tok = c.token(refreshForm(second.Refresh)); tok.Error != "invalid_grant" {
		t.Errorf("the newest token still works after a reuse")
	}
	if resp, _ := c.get("/api/me", second.Access); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the access token still works after a reuse")
	}
	l := c.s.Ledger()
	if g, _ := l.Grant("grant-1"); !g.Revoked || g.Reuses != 1 || len(l.Reused()) != 1 {
		t.Errorf("ledger: %+v, reused %v", g, l.Reused())
	}
}

func TestReuseWithinGrace(t *testing.T) {
	c := start(t, func(cfg *fakeprovider.Config) { cfg.ReuseGrace = time.Minute })
	first := c.connect()
	_, second := c.token(refreshForm(first.Refresh))
	status, again := c.token(refreshForm(first.Refresh))
	if status != http.StatusOK || again.Refresh != second.Refresh {
		t.Errorf("reuse within the grace = %d %+v; want the newest refresh token", status, again)
	}
}

func TestWithoutRotation(t *testing.T) {
	c := start(t, func(cfg *fakeprovider.Config) { cfg.Rotate = false })
	first := c.connect()
	for range 2 {
		if status, tok := c.token(refreshForm(first.Refresh)); status != http.StatusOK || tok.Refresh != "" {
			t.Fatalf("refresh = %d %+v; want no refresh token in the answer", status, tok)
		}
	}
	if got := c.s.Ledger().Reused(); len(got) != 0 {
		t.Errorf("Reused() = %v without rotation", got)
	}
}

func TestCodeIsRefused(t *testing.T) {
	for name, change := range map[string]func(url.Values){
		"wrong verifier":     func(f url.Values) { f.Set("code_verifier", strings.Repeat("x", 50)) },
		"no verifier":        func(f url.Values) { f.Del("code_verifier") },
		"other redirect URI": func(f url.Values) { f.Set("redirect_uri", redirectURI+"/") },
		"unknown code":       func(f url.Values) { f.Set("code", "fp_code_X") },
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, nil)
			form := codeForm(c.approve().Get("code"))
			change(form)
			if status, tok := c.token(form); status != http.StatusBadRequest || tok.Error != "invalid_grant" {
				t.Errorf("exchange = %d %s; want 400 invalid_grant", status, tok.Error)
			}
		})
	}
	t.Run("used twice", func(t *testing.T) {
		c := start(t, nil)
		code := c.approve().Get("code")
		_, first := c.token(codeForm(code))
		if _, tok := c.token(codeForm(code)); tok.Error != "invalid_grant" {
			t.Errorf("second exchange = %+v", tok)
		}
		if _, tok := c.token(refreshForm(first.Refresh)); tok.Error != "invalid_grant" {
			t.Errorf("the first exchange's tokens live on after the second")
		}
	})
}

func TestClientIsRefused(t *testing.T) {
	c := start(t, nil)
	form := codeForm(c.approve().Get("code"))
	for name, change := range map[string]func(r *http.Request){
		"wrong secret": func(r *http.Request) { r.SetBasicAuth("app", "other") },
		"wrong client": func(r *http.Request) { r.SetBasicAuth("other", "s3cr%25t") },
		"none":         func(r *http.Request) { r.Header.Del("Authorization") },
		"not encoded":  func(r *http.Request) { r.SetBasicAuth("app", "s3cr%t") },
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/token", strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		change(req)
		resp, err := c.c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: status %d, want 401", name, resp.StatusCode)
		}
	}
	if status, _ := c.token(form); status != http.StatusOK {
		t.Errorf("a refused client spent the code: %d", status)
	}
}

func TestAuthorizeIsRefused(t *testing.T) {
	c := start(t, nil)
	for name, change := range map[string]func(url.Values){
		"unknown client":          func(q url.Values) { q.Set("client_id", "x") },
		"unregistered redirect":   func(q url.Values) { q.Set("redirect_uri", redirectURI+"/x") },
		"a parameter twice":       func(q url.Values) { q.Add("scope", "read") },
		"no redirect URI":         func(q url.Values) { q.Del("redirect_uri") },
		"redirect with fragment":  func(q url.Values) { q.Set("redirect_uri", redirectURI+"#x") },
		"redirect without scheme": func(q url.Values) { q.Set("redirect_uri", "//x/callback") },
	} {
		if back, err := fakeprovider.Approve(t.Context(), c.c, c.authorizeURL(change)); err == nil {
			t.Errorf("%s: went to %s; want a page", name, back)
		}
	}
	for want, change := range map[string]func(url.Values){
		"invalid_scope":             func(q url.Values) { q.Set("scope", "read admin") },
		"unsupported_response_type": func(q url.Values) { q.Set("response_type", "token") },
		"invalid_request":           func(q url.Values) { q.Set("code_challenge_method", "plain") },
	} {
		back, err := fakeprovider.Approve(t.Context(), c.c, c.authorizeURL(change))
		if u, _ := url.Parse(back); err != nil || u.Query().Get("error") != want || u.Query().Get("iss") != c.url {
			t.Errorf("callback = %q, %v; want %s with the issuer", back, err, want)
		}
	}
}

func TestConsent(t *testing.T) {
	c := start(t, nil)
	back, err := fakeprovider.Deny(t.Context(), c.c, c.authorizeURL(nil))
	if u, _ := url.Parse(back); err != nil || u.Query().Get("error") != "access_denied" || u.Query().Get("state") != "st/1" {
		t.Errorf("Deny = %q, %v", back, err)
	}
	if _, tok := c.token(codeForm(c.approve("read").Get("code"))); tok.Scope != "read" {
		t.Errorf("scope = %q, want the one that was ticked", tok.Scope)
	}
	resp, page := c.get(strings.TrimPrefix(c.authorizeURL(func(q url.Values) { q.Set("state", `"><script>`) }), c.url), "")
	if resp.StatusCode != http.StatusOK || !strings.Contains(page, `value="write"`) || strings.Contains(page, "<script") {
		t.Errorf("page: %d\n%s", resp.StatusCode, page)
	}
	// The form goes to the page's own address, which html/template would
	// escape beyond recognition.
	if strings.Contains(page, "action=") {
		t.Errorf("the form has an action:\n%s", page)
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("Content-Security-Policy: %s", csp)
	}
}

func TestRevokeAndIntrospect(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	active := func(token string) bool {
		_, body, err := c.post("/introspect", url.Values{"token": {token}})
		var got struct{ Active bool }
		if err != nil || json.Unmarshal(body, &got) != nil {
			t.Fatalf("introspect: %s %v", body, err)
		}
		return got.Active
	}
	if !active(tok.Access) || !active(tok.Refresh) || active("fp_at_none") {
		t.Error("introspection is wrong before the revocation")
	}
	if resp, _, err := c.post("/revoke", url.Values{"token": {tok.Refresh}}); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("revoke: %v %v", resp, err)
	}
	if active(tok.Access) || active(tok.Refresh) {
		t.Error("tokens are active after the revocation of the refresh token")
	}
	if resp, _, err := c.post("/revoke", url.Values{"token": {"fp_rt_none"}}); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("revoking an unknown token: %v %v", resp, err)
	}
	c.s.Faults.Revoke(fakeprovider.Status(503), fakeprovider.Dropped())
	if resp, _, err := c.post("/revoke", url.Values{"token": {tok.Refresh}}); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("revoking with a fault: %v %v", resp, err)
	}
	if _, _, err := c.post("/revoke", url.Values{"token": {tok.Refresh}}); err == nil {
		t.Error("revoking with a dropped connection: an answer")
	}
	l := c.s.Ledger()
	if len(l.Revocations) != 4 || l.Revocations[2].Status != 503 || l.Revocations[3].Status != 0 || l.Revocations[0].Grant != "grant-1" || l.Revocations[0].Kind != "refresh_token" || l.Introspections != 5 {
		t.Errorf("ledger: %+v, %d introspections", l.Revocations, l.Introspections)
	}
}

func TestTokensEnd(t *testing.T) {
	c := start(t, nil)
	tok := c.connect()
	status := func() int { resp, _ := c.get("/api/me", tok.Access); return resp.StatusCode }
	c.s.ExpireAccessTokens()
	if got := status(); got != http.StatusUnauthorized {
		t.Errorf("after ExpireAccessTokens: %d", got)
	}
	if _, tok = c.token(refreshForm(tok.Refresh)); status() != http.StatusOK {
		t.Error("the refreshed token does not work")
	}
	if !c.s.RevokeGrant("grant-1") || c.s.RevokeGrant("grant-9") {
		t.Error("RevokeGrant does not know its grants")
	}
	if got := status(); got != http.StatusUnauthorized {
		t.Errorf("after RevokeGrant: %d", got)
	}
	tok = c.connect()
	c.s.RevokeAll()
	if got := status(); got != http.StatusUnauthorized {
		t.Errorf("after RevokeAll: %d", got)
	}
}

func TestMetadata(t *testing.T) {
	c := start(t, nil)
	c.s.SetIssuer(c.url + "/tenant")
	for _, path := range []string{"/tenant/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/tenant", "/tenant/.well-known/oauth-authorization-server"} {
		resp, body := c.get(path, "")
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %d %s", path, resp.StatusCode, body)
		}
		if got["issuer"] != c.url+"/tenant" || got["token_endpoint"] != c.url+"/tenant/token" || got["authorization_response_iss_parameter_supported"] != true {
			t.Errorf("%s: %v", path, got)
		}
	}
	if resp, _ := c.get("/authorize", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("outside of the issuer's path: %d", resp.StatusCode)
	}
}
