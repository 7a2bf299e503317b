package api_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestBeginWithCredentials(t *testing.T) {
	f := &fakeSource{account: tokenstore.Account{ID: "7", Name: "Ann", Email: "ann@example.com"}}
	b := newBench(t, withSource(f))
	a := b.do("POST", "/v1/connections", `{"integration":"mail","user_id":"u1","auth_scheme":"API_KEY",
		"credentials":{"api_key":"key-canary"},"metadata":{ "plan" : ["pro"] },"labels":{"a":"b"}}`)
	id := b.begun(a)
	c := b.stored(id)
	if c.Status != tokenstore.StatusActive || c.Token.AccessToken.Reveal() != "key-canary!" || c.Token.Generation != 1 ||
		c.AuthScheme != "API_KEY" || c.Account != f.account || c.Metadata != `{"plan":["pro"]}` || c.ConnectedAt.IsZero() {
		t.Errorf("stored %+v", c)
	}
	if strings.Contains(a.text, "canary") || a.json["status"] != "ACTIVE" || a.json["connect_url"] != nil {
		t.Errorf("answer = %s", a.text)
	}
	want := map[string]any{"id": "7", "name": "Ann", "email": "ann@example.com"}
	if d := cmp.Diff(want, a.json["account"]); d != "" {
		t.Errorf("account (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]any{"plan": []any{"pro"}}, a.json["metadata"]); d != "" {
		t.Errorf("metadata (-want +got):\n%s", d)
	}
	b.happened(id, "connection.active credentials")

	id = b.begun(b.do("POST", "/v1/connections", `{"integration":"shop","credentials":{"username":"ann"}}`))
	if c := b.stored(id); c.AuthScheme != "BASIC" || c.Token.AccessToken.Reveal() != "ann!" {
		t.Errorf("without what is optional: %+v", c)
	}
	id = b.begun(b.do("POST", "/v1/connections", `{"integration":"machine"}`))
	if c := b.stored(id); c.Status != tokenstore.StatusActive || !slices.Equal(c.RequestedScopes, []string{"all"}) {
		t.Errorf("CLIENT_CREDENTIALS: %+v", c)
	}
}

// A user enters the key on the page where the app does not give it.
func TestBeginWithoutCredentials(t *testing.T) {
	f := &fakeSource{}
	b := newBench(t, withSource(f))
	a := b.do("POST", "/v1/connections", `{"integration":"mail","auth_scheme":"API_KEY","response_mode":"form_post"}`)
	id := b.begun(a)
	link, _ := a.json["connect_url"].(string)
	if c := b.stored(id); c.Status != tokenstore.StatusInitiated || c.AuthScheme != "API_KEY" || f.ledger() != "" {
		t.Errorf("stored %+v", c)
	}
	if !strings.Contains(link, "response_mode=form_post") {
		t.Errorf("connect_url = %q", link)
	}
	b.happened(id, "connection.begun")
}

func TestCredentialsThatAreNotTaken(t *testing.T) {
	f := &fakeSource{}
	b := newBench(t, withSource(f))
	for _, tt := range []struct{ name, body, code, names string }{
		{"no field", `{"integration":"mail","credentials":{}}`, "invalid_request", "`api_key`"},
		{"empty", `{"integration":"mail","credentials":{"api_key":""}}`, "invalid_request", "`api_key`"},
		{"null", `{"integration":"mail","credentials":{"api_key":null}}`, "invalid_request", "`api_key`"},
		{"no object", `{"integration":"mail","credentials":"canary"}`, "invalid_request", "`credentials`"},
		{"one more", `{"integration":"mail","credentials":{"api_key":"k","other":"canary"}}`, "invalid_request", `"other"`},
		{"twice", `{"integration":"mail","credentials":{"api_key":"k","api_key":"canary"}}`, "invalid_request", `"api_key"`},
		{"long", `{"integration":"mail","credentials":{"api_key":"` + strings.Repeat("k", 64<<10+1) + `"}}`, "invalid_request", "`api_key`"},
		{"another scheme", `{"integration":"mail","auth_scheme":"BASIC","credentials":{"api_key":"k"}}`, "invalid_request", "API_KEY"},
		{"OAUTH2", `{"integration":"github","credentials":{"token":"canary"}}`, "invalid_request", "import"},
		{"no link", `{"integration":"mail","credentials":{"api_key":"k"},"state":"s"}`, "invalid_request", `"state"`},
		{"scopes", `{"integration":"mail","scopes":["a"]}`, "invalid_request", `"scopes"`},
		{"device", `{"integration":"mail","device":true}`, "invalid_request", "`device`"},
		{"device is a word", `{"integration":"github","device":"yes"}`, "invalid_request", "`device`"},
		{"response_mode", `{"integration":"github","response_mode":"fragment"}`, "invalid_request", "`response_mode`"},
		{"metadata is a list", `{"integration":"github","metadata":[]}`, "invalid_request", "`metadata`"},
		{"metadata is long", `{"integration":"github","metadata":{"a":"` + strings.Repeat("m", 16<<10) + `"}}`, "invalid_request", "`metadata`"},
		{"metadata twice", `{"integration":"github","metadata":{"a":1,"a":2}}`, "invalid_request", `"a"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := b.do("POST", "/v1/connections", tt.body)
			b.wants(a, 400, tt.code)
			if detail := a.json["detail"].(string); !strings.Contains(detail, tt.names) || strings.Contains(detail, "canary") {
				t.Errorf("detail = %q; want it to name %s", detail, tt.names)
			}
		})
	}
	if f.ledger() != "" || b.count() != 0 {
		t.Errorf("the provider was asked %q, %d connections are there", f.ledger(), b.count())
	}
}

func TestCredentialsThatTheProviderDoesNotTake(t *testing.T) {
	f := &fakeSource{}
	b := newBench(t, withSource(f))
	old := b.put(func(c *tokenstore.Connection) {
		c.Integration, c.AuthScheme = "mail", tokenstore.AuthAPIKey
		active("old")(c)
	})
	for _, tt := range []struct {
		name   string
		err    error
		status int
		code   string
		after  string
	}{
		{"invalid", fmt.Errorf("%w: api_key has not its form", tokenstore.ErrCredentialInvalid), 400, "credentials_invalid", ""},
		{"refused", tokenstore.ErrCredentialRefused, 422, "credentials_refused", ""},
		{"grant", &tokenstore.RefusalError{Kind: tokenstore.RefusedGrant, Code: "invalid_grant", Status: 400}, 422, "credentials_refused", ""},
		{"client", &tokenstore.RefusalError{Kind: tokenstore.RefusedClient, Code: "invalid_client", Status: 401}, 502, "integration_misconfigured", ""},
		{"scope", &tokenstore.RefusalError{Kind: tokenstore.RefusedScope, Code: "invalid_scope", Status: 400}, 400, "invalid_scope", ""},
		{"for now", &tokenstore.RefusalError{RetryAfter: 90 * time.Second, Status: 429}, 503, "source_unavailable", "90"},
		{"for long", &tokenstore.RefusalError{RetryAfter: 90 * time.Hour, Status: 429}, 503, "source_unavailable", "900"},
		{"not sent", tokenstore.ErrNotSent, 503, "source_unavailable", "10"},
		{"unreadable", &tokenstore.UnreadableError{Status: 500, RetryAfter: 3 * time.Second}, 503, "source_unavailable", "3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.err = tt.err
			for _, a := range []answer{
				b.do("POST", "/v1/connections", `{"integration":"mail","credentials":{"api_key":"canary"}}`),
				b.do("POST", "/v1/connections/"+old.ID+"/connect", `{"credentials":{"api_key":"canary"}}`),
			} {
				b.wants(a, tt.status, tt.code)
				if got := a.header.Get("Retry-After"); got != tt.after || strings.Contains(a.text, "canary") {
					t.Errorf("Retry-After %q, want %q: %s", got, tt.after, a.text)
				}
			}
		})
	}
	if b.count() != 1 || b.stored(old.ID).Revision != old.Revision {
		t.Errorf("something was stored")
	}
}

func TestReconnectWithCredentials(t *testing.T) {
	f := &fakeSource{account: tokenstore.Account{ID: "7"}}
	b := newBench(t, withSource(f))
	c := b.put(func(c *tokenstore.Connection) {
		c.Integration, c.AuthScheme, c.Account = "mail", tokenstore.AuthAPIKey, tokenstore.Account{ID: "7", Name: "Ann"}
		c.RequestedScopes = nil
		staged("s")(c)
		active("old")(c)
		staged("s")(c)
	})
	a := b.do("POST", "/v1/connections/"+c.ID+"/connect", `{"credentials":{"api_key":"new"}}`)
	b.wants(a, 200, "")
	got := b.stored(c.ID)
	if got.Token.AccessToken.Reveal() != "new!" || got.Token.Generation != 2 || got.Staged != nil || a.json["generation"] != 2.0 {
		t.Errorf("stored %+v, shown %s", got, a.text)
	}
	b.happened(c.ID, "connection.dropped replaced", "connection.active credentials")

	f.account.ID = "8"
	b.wants(b.do("POST", "/v1/connections/"+c.ID+"/connect", `{"credentials":{"api_key":"other"}}`), 409, "account_mismatch")
	if now := b.stored(c.ID); now.Revision != got.Revision {
		t.Errorf("another account's credentials were stored: %+v", now)
	}
	b.do("PATCH", "/v1/connections/"+c.ID, `{"disabled":true}`)
	b.wants(b.do("POST", "/v1/connections/"+c.ID+"/connect", `{"credentials":{"api_key":"new"}}`), 409, "connection_not_active")
}

func TestDevice(t *testing.T) {
	f := &fakeDevices{}
	b := newBench(t, func(c *api.Config) { c.Devices = f })
	a := b.do("POST", "/v1/connections", `{"integration":"github","device":true,"scopes":["repo"]}`)
	id := b.begun(a)
	device, _ := a.json["device"].(map[string]any)
	ends, err := time.Parse(time.RFC3339, device["expires_at"].(string))
	if left := time.Until(ends); err != nil || left > 10*time.Minute || left < 9*time.Minute {
		t.Errorf("expires_at = %v, %v", device["expires_at"], err)
	}
	delete(device, "expires_at")
	want := map[string]any{
		"user_code": "WDJB-MJHT", "verification_uri": "https://id.example/device",
		"verification_uri_complete": "https://id.example/device?user_code=WDJB-MJHT", "interval": 5.0,
	}
	if d := cmp.Diff(want, device); d != "" || strings.Contains(a.text, "canary") || len(a.json) != 3 {
		t.Errorf("answer = %s", a.text)
	}
	if c := b.stored(id); c.Status != tokenstore.StatusInitiated || !slices.Equal(f.scopes, []string{"repo"}) {
		t.Errorf("stored %+v, asked for %v", c, f.scopes)
	}
	b.wants(b.do("POST", "/v1/connections/"+id+"/connect", `{"device":true,"scopes":["read:user"]}`), 200, "")
	if !slices.Equal(f.scopes, []string{"repo", "read:user"}) {
		t.Errorf("again it asked for %v", f.scopes)
	}

	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{errors.ErrUnsupported, 400, "device_unsupported"},
		{tokenstore.ErrNotSent, 503, "source_unavailable"},
		{tokenstore.ErrUnavailable, 503, "store_unavailable"},
		{&tokenstore.RefusalError{Kind: tokenstore.RefusedClient}, 502, "integration_misconfigured"},
	} {
		f.err = tt.err
		// The same key again and again: a connection that went is not in the way.
		b.wants(b.do("POST", "/v1/connections", `{"integration":"github","device":true}`, once(tt.code)), tt.status, tt.code)
		b.wants(b.do("POST", "/v1/connections", `{"integration":"github","device":true}`, once(tt.code)), tt.status, tt.code)
		if n := b.count(); n != 1 {
			t.Errorf("%v leaves %d connections", tt.err, n-1)
		}
	}
	b = newBench(t)
	b.wants(b.do("POST", "/v1/connections", `{"integration":"github","device":true}`), 400, "device_unsupported")
}
