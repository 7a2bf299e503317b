package provider_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var sentAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func answer(status int, body string) tokenstore.Answer {
	return tokenstore.Answer{SentAt: sentAt, ReceivedAt: sentAt.Add(time.Second), Status: status, Body: secret.New(body)}
}

func acme() provider.Entry {
	return provider.Entry{
		AuthorizeURL: "https://id.acme.example/authorize", TokenURL: "https://id.acme.example/token",
		APIURL: "https://api.acme.example",
	}
}

// parsed is a Token whose secrets cmp can see.
type parsed struct {
	Access, Refresh, Type string
	Life                  time.Duration // -1: never ends
	Unknown               bool
	RefreshLife           time.Duration // 0: unknown
	Scopes                []string
	Metadata              map[string]string
	Generation            uint64
}

func seen(tok tokenstore.Token) parsed {
	out := parsed{
		Access: tok.AccessToken.Reveal(), Refresh: tok.RefreshToken.Reveal(), Type: tok.TokenType, Life: -1,
		Unknown: tok.ExpiryUnknown, Scopes: tok.Scopes, Metadata: tok.Metadata, Generation: tok.Generation,
	}
	if !tok.ExpiresAt.IsZero() {
		out.Life = tok.ExpiresAt.Sub(tok.IssuedAt)
	}
	if !tok.RefreshExpiresAt.IsZero() {
		out.RefreshLife = tok.RefreshExpiresAt.Sub(tok.IssuedAt)
	}
	return out
}

func TestParseSuccess(t *testing.T) {
	const year = 365 * 24 * time.Hour
	asked := []string{"read", "write"}
	base := parsed{Access: "a", Life: time.Hour, Scopes: asked, Generation: 1}
	with := func(change func(*parsed)) parsed { p := base; change(&p); return p }
	life := func(d time.Duration) parsed { return with(func(p *parsed) { p.Life = d }) }
	scopes := func(s ...string) parsed { return with(func(p *parsed) { p.Scopes = s }) }
	unknown := with(func(p *parsed) { p.Unknown = true })
	tests := []struct {
		name, body string
		entry      func(*provider.Entry)
		want       parsed
	}{
		{"plain", `{"access_token":"a","expires_in":3600}`, nil, base},
		{
			"all", `{"access_token":"a","refresh_token":"r","token_type":"bearer","expires_in":60,"scope":"x y","refresh_expires_in":120}`, nil,
			parsed{Access: "a", Refresh: "r", Type: "bearer", Life: time.Minute, RefreshLife: 2 * time.Minute, Scopes: []string{"x", "y"}, Generation: 1},
		},
		{
			"form", `access_token=a&expires_in=3600&scope=x%2Cy&token_type=bearer`, nil,
			with(func(p *parsed) { p.Scopes, p.Type = []string{"x", "y"}, "bearer" }),
		},
		{"byte order mark and space", "\ufeff \n" + `{"access_token":"a","expires_in":3600}` + "\n", nil, base},
		{"nulls", `{"access_token":"a","expires_in":3600,"refresh_token":null,"scope":null,"token_type":null,"error":null}`, nil, base},
		{"error empty", `{"access_token":"a","expires_in":3600,"error":"","ok":true}`, nil, base},
		{"odd members", `{"access_token":"a","expires_in":3600,"x":[1,{"y":null}],"access-token":"other","X-Token":"other"}`, nil, base},

		{"float", `{"access_token":"a","expires_in":3600.0}`, nil, base},
		{"half", `{"access_token":"a","expires_in":1.5}`, nil, life(1500 * time.Millisecond)},
		{"exponent", `{"access_token":"a","expires_in":36e2}`, nil, base},
		{"string", `{"access_token":"a","expires_in":"3600"}`, nil, base},
		{"string float", `{"access_token":"a","expires_in":" 3600.00 "}`, nil, base},
		{"huge", `{"access_token":"a","expires_in":1e14}`, nil, life(year)},
		{"beyond float", `{"access_token":"a","expires_in":1e999}`, nil, life(year)},
		{"ten years", `{"access_token":"a","expires_in":315360000}`, nil, life(year)},
		{"absent", `{"access_token":"a"}`, nil, unknown},
		{"empty", `{"access_token":"a","expires_in":""}`, nil, unknown},
		{"null life", `{"access_token":"a","expires_in":null}`, nil, unknown},
		{"zero", `{"access_token":"a","expires_in":0}`, nil, unknown},
		{"negative", `{"access_token":"a","expires_in":-5}`, nil, unknown},
		{"tiny", `{"access_token":"a","expires_in":1e-999}`, nil, unknown},
		{"word", `{"access_token":"a","expires_in":"soon"}`, nil, unknown},
		{"NaN", `{"access_token":"a","expires_in":"NaN"}`, nil, unknown},
		{"Inf", `{"access_token":"a","expires_in":"Inf"}`, nil, unknown},
		{"hexadecimal", `{"access_token":"a","expires_in":"0x10"}`, nil, unknown},
		{"boolean", `{"access_token":"a","expires_in":true}`, nil, unknown},
		{"object", `{"access_token":"a","expires_in":{"s":1}}`, nil, unknown},
		{"the catalogue's life", `{"access_token":"a"}`, func(e *provider.Entry) { e.Answer.Life = "2h" }, life(2 * time.Hour)},
		{"the answer's before the catalogue's", `{"access_token":"a","expires_in":3600}`, func(e *provider.Entry) { e.Answer.Life = "2h" }, base},
		{"the catalogue's long life", `{"access_token":"a"}`, func(e *provider.Entry) { e.Answer.Life = "20000h" }, life(year)},
		{"never", `{"access_token":"a","expires_in":0}`, func(e *provider.Entry) { e.Answer.Life = "never" }, life(-1)},
		{"told, though never", `{"access_token":"a","expires_in":3600}`, func(e *provider.Entry) { e.Answer.Life = "never" }, base},

		{"scope empty", `{"access_token":"a","expires_in":3600,"scope":""}`, nil, base},
		{"scope commas", `{"access_token":"a","expires_in":3600,"scope":"x, y,x,,"}`, nil, scopes("x", "y")},
		{"scope list", `{"access_token":"a","expires_in":3600,"scope":["x","y",3,"",null]}`, nil, scopes("x", "y")},
		{"scope separator", `{"access_token":"a","expires_in":3600,"scope":"x;y"}`, func(e *provider.Entry) { e.Authorize.ScopeSeparator = ";" }, scopes("x", "y")},
		{"scope number", `{"access_token":"a","expires_in":3600,"scope":7}`, nil, base},
		{"scope odd", "{\"access_token\":\"a\",\"expires_in\":3600,\"scope\":\"x\\u0000y \\u001b[31mz ü\"}", nil, scopes("x", "y", "[31mz")},

		{"nested", `{"ok":true,"authed_user":{"access_token":"a","expires_in":3600,"scope":"x"}}`, func(e *provider.Entry) {
			e.Answer.Paths = map[string]string{
				"access_token": "authed_user.access_token", "expires_in": "authed_user.expires_in", "scope": "authed_user.scope",
			}
		}, scopes("x")},
		{
			"metadata", `{"access_token":"a","expires_in":3600,"team":{"id":"T1"},"n":7,"b":true,"big":"` + strings.Repeat("x", 2000) + `"}`,
			func(e *provider.Entry) {
				e.Params = map[string]provider.ParamEntry{
					"team_id": {From: "answer.team.id"}, "n": {From: "answer.n"}, "b": {From: "answer.b"},
					"big": {From: "answer.big"}, "gone": {From: "answer.gone"},
				}
			},
			with(func(p *parsed) { p.Metadata = map[string]string{"team_id": "T1", "n": "7", "b": "true"} }),
		},
		{
			"refresh life by the catalogue", `{"access_token":"a","expires_in":3600,"refresh_token":"r"}`, func(e *provider.Entry) { e.Refresh.Life = "720h" },
			with(func(p *parsed) { p.Refresh, p.RefreshLife = "r", 720*time.Hour }),
		},
		{"no refresh token, no life of one", `{"access_token":"a","expires_in":3600}`, func(e *provider.Entry) { e.Refresh.Life = "720h" }, base},
		{
			"refresh life, GitHub's name", `{"access_token":"a","expires_in":3600,"refresh_token":"r","refresh_token_expires_in":"60"}`, nil,
			with(func(p *parsed) { p.Refresh, p.RefreshLife = "r", time.Minute }),
		},
		{"a type the catalogue has", `{"access_token":"a","expires_in":3600,"token_type":"Bot"}`, func(e *provider.Entry) { e.Answer.TokenTypes = []string{"bot"} }, with(func(p *parsed) { p.Type = "Bot" })},
		{"another name of Bearer", `{"access_token":"a","expires_in":3600,"token_type":"BearerToken"}`, nil, with(func(p *parsed) { p.Type = "BearerToken" })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := acme()
			if tt.entry != nil {
				tt.entry(&e)
			}
			for _, status := range []int{200, 201} {
				tok, err := newProvider(t, e).Parse(answer(status, tt.body), tokenstore.Token{}, asked)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, seen(tok)); diff != "" {
					t.Errorf("Parse() (-want +got):\n%s", diff)
				}
				if !tok.IssuedAt.Equal(sentAt) {
					t.Errorf("IssuedAt = %v; want when it was sent", tok.IssuedAt)
				}
			}
		})
	}
}

// The successor keeps of its predecessor what the answer does not replace.
func TestParseSuccessor(t *testing.T) {
	p := newProvider(t, acme())
	prev := oldToken()
	prev.RefreshExpiresAt = sentAt.Add(time.Hour)
	prev.Metadata = map[string]string{"team": "T1"}

	tok, err := p.Parse(answer(200, `{"access_token":"a","expires_in":60}`), prev, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := parsed{
		Access: "a", Refresh: oldRefresh, Life: time.Minute, RefreshLife: time.Hour,
		Scopes: prev.Scopes, Metadata: prev.Metadata, Generation: 5,
	}
	if diff := cmp.Diff(want, seen(tok)); diff != "" {
		t.Errorf("without a refresh token (-want +got):\n%s", diff)
	}
	tok.Scopes[0], tok.Metadata["team"] = "changed", "changed"
	if prev.Scopes[0] != "read" || prev.Metadata["team"] != "T1" {
		t.Error("Parse() shares memory with prev")
	}

	tok, err = p.Parse(answer(200, `{"access_token":"a","expires_in":60,"refresh_token":"r","scope":"read"}`), prev, nil)
	if err != nil {
		t.Fatal(err)
	}
	want = parsed{
		Access: "a", Refresh: "r", Life: time.Minute, Scopes: []string{"read"}, Metadata: prev.Metadata, Generation: 5,
	}
	if diff := cmp.Diff(want, seen(tok)); diff != "" {
		t.Errorf("with a refresh token (-want +got):\n%s", diff)
	}
}

func TestParseUnreadable(t *testing.T) {
	p := newProvider(t, acme())
	bodies := map[string]string{
		"empty": "", "HTML": "<html>canary</html>", "HTML with a link": `<a href="/x?y=1&access_token=canary">`,
		"text": "canary", "array": `[{"access_token":"canary"}]`, "string": `"canary"`, "no token": `{}`,
		"null token": `{"access_token":null}`, "empty token": `{"access_token":""}`, "number": `{"access_token":123}`,
		"space": `{"access_token":"can ary"}`, "newline": `{"access_token":"canary\n"}`, "null byte": "{\"access_token\":\"canary\\u0000\"}",
		"delete": "{\"access_token\":\"canary\\u007f\"}", "beyond ASCII": `{"access_token":"canaryü"}`,
		"long":           `{"access_token":"` + strings.Repeat("canary", 4000) + `"}`,
		"refresh space":  `{"access_token":"canary","refresh_token":"can ary"}`,
		"refresh number": `{"access_token":"canary","refresh_token":7}`,
		"cut off":        `{"access_token":"canary"`, "two objects": `{"access_token":"canary"}{}`, "garbage after": `{"access_token":"canary"}x`,
		"twice":         `{"access_token":"canary","access_token":"canary2"}`,
		"refresh twice": `{"access_token":"canary","refresh_token":"canary","refresh_token":"canary2"}`,
		"form twice":    "access_token=canary&access_token=canary2",
		"deep":          `{"access_token":"canary","x":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `}`,
		"DPoP":          `{"access_token":"canary","token_type":"DPoP"}`, "mac": `{"access_token":"canary","token_type":"mac"}`,
		"type with a header": `{"access_token":"canary","token_type":"Bearer\r\nX: 1"}`, "type number": `{"access_token":"canary","token_type":1}`,
		"error object": `{"error":{"message":"canary"}}`, "error with a token": `{"error":"invalid_grant","access_token":"canary"}`,
		"gzip": "\x1f\x8b\x08\x00canary",
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			tok, err := p.Parse(answer(200, body), oldToken(), nil)
			if !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
				t.Errorf("Parse() = %v; want ErrOutcomeUnknown", err)
			}
			if !tok.AccessToken.IsZero() || !tok.RefreshToken.IsZero() {
				t.Error("Parse() returned a token with its error")
			}
			noSecrets(t, err)
		})
	}
	for _, status := range []int{0, 100, 500, 502, 503, 504, 599} {
		for _, body := range []string{"", `{"error":"invalid_grant"}`, `{"access_token":"a"}`} {
			if _, err := p.Parse(answer(status, body), oldToken(), nil); !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
				t.Errorf("Parse() with HTTP %d = %v; want ErrOutcomeUnknown", status, err)
			}
		}
	}
}

// Microsoft leaves offline_access out of what it says was granted.
func TestParseLastingScope(t *testing.T) {
	e := acme()
	e.Refresh.Scopes = []string{"offline_access", "lasting"}
	p := newProvider(t, e)
	for _, tt := range []struct {
		body        string
		asked, want []string
	}{
		{body: `{"access_token":"a","refresh_token":"r","scope":"x"}`, asked: []string{"x", "offline_access"}, want: []string{"x", "offline_access"}},
		{body: `{"access_token":"a","refresh_token":"r","scope":"lasting"}`, asked: []string{"x", "lasting"}, want: []string{"lasting"}},
		{body: `{"access_token":"a","refresh_token":"r","scope":"x"}`, asked: []string{"x", "y"}, want: []string{"x"}},
		{body: `{"access_token":"a","scope":"x"}`, asked: []string{"x", "offline_access"}, want: []string{"x"}},
	} {
		got, err := p.Parse(answer(200, tt.body), tokenstore.Token{}, tt.asked)
		if err != nil || !slices.Equal(got.Scopes, tt.want) {
			t.Errorf("Parse(%s) asked for %q has scopes %q, %v; want %q", tt.body, tt.asked, got.Scopes, err, tt.want)
		}
		again, err := p.Parse(answer(200, `{"access_token":"b","scope":"x"}`), got, nil)
		if want := slices.Contains(tt.want, "offline_access"); err != nil || slices.Contains(again.Scopes, "offline_access") != want {
			t.Errorf("after a refresh it has scopes %q, %v", again.Scopes, err)
		}
	}
}

func TestParseRefusal(t *testing.T) {
	const (
		now    = tokenstore.RefusedForNow
		grant  = tokenstore.RefusedGrant
		client = tokenstore.RefusedClient
		scope  = tokenstore.RefusedScope
	)
	tests := []struct {
		status int
		body   string
		kind   tokenstore.RefusalKind
		code   string
	}{
		{400, `{"error":"invalid_grant","error_description":"canary"}`, grant, "invalid_grant"},
		{401, `{"error":"invalid_grant"}`, grant, "invalid_grant"},
		{403, `{"error":"invalid_grant"}`, grant, "invalid_grant"},
		{200, `{"error":"invalid_grant"}`, grant, "invalid_grant"},
		{200, `error=bad_refresh_token&error_description=canary`, grant, "bad_refresh_token"},
		{200, `{"ok":false,"error":"bad_refresh_token"}`, grant, "bad_refresh_token"},
		{400, `{"error":"invalid_client"}`, client, "invalid_client"},
		{401, `{"error":"invalid_client"}`, client, "invalid_client"},
		{400, `{"error":"unauthorized_client"}`, client, "unauthorized_client"},
		{200, `{"error":"incorrect_client_credentials"}`, client, "incorrect_client_credentials"},
		{401, `{"error":"something_else"}`, client, "something_else"},
		{400, `{"error":"invalid_scope"}`, scope, "invalid_scope"},
		{400, `{"error":"invalid_request"}`, now, "invalid_request"},
		{200, `{"error":"something_else"}`, now, "something_else"},
		{400, `{"error":"slow_down"}`, now, "slow_down"},
		{401, `{"error":"temporarily_unavailable"}`, now, "temporarily_unavailable"},
		{429, ``, now, "too_many_requests"},
		{429, `<html>canary</html>`, now, "too_many_requests"},
		{429, `{"error":"invalid_grant"}`, now, "invalid_grant"},
		{400, ``, now, "unstructured_refusal"},
		{401, `<html>canary</html>`, now, "unstructured_refusal"},
		{403, `<html>blocked: canary&error=invalid_grant</html>`, now, "unstructured_refusal"},
		{400, `{"error":{"code":"invalid_grant"}}`, now, "unstructured_refusal"},
		{400, `{"error":"invalid_grant","error":"invalid_client"}`, now, "unstructured_refusal"},
		{400, `{"message":"invalid_grant"}`, now, "unstructured_refusal"},
		{400, `invalid_grant`, now, "unstructured_refusal"},
		{307, `{"error":"invalid_grant"}`, now, "redirect"},
		// What could be a secret or upset a log is not shown.
		{400, `{"error":"invalid_grant\n"}`, now, "unrecognized_error"},
		{400, `{"error":"\u001b[31mred"}`, now, "unrecognized_error"},
		{400, `{"error":"token ` + oldRefresh + ` is bad"}`, now, "unrecognized_error"},
		{400, `{"error":"` + oldRefresh + `"}`, now, "unrecognized_error"},
		{400, `{"error":"bad.` + oldAccess + `"}`, now, "unrecognized_error"},
		{400, `{"error":"` + strings.Repeat("x", 65) + `"}`, now, "unrecognized_error"},
		{400, `{"error":"E0000011"}`, now, "e0000011"},
	}
	e := acme()
	e.Errors.Dead = []string{"bad_refresh_token"}
	e.Errors.Client = []string{"incorrect_client_credentials"}
	p := newProvider(t, e)
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d %s", tt.status, tt.body), func(t *testing.T) {
			_, err := p.Parse(answer(tt.status, tt.body), oldToken(), nil)
			got, ok := errors.AsType[*tokenstore.RefusalError](err)
			if !ok {
				t.Fatalf("Parse() = %v; want a refusal", err)
			}
			want := &tokenstore.RefusalError{Kind: tt.kind, Code: tt.code, Status: tt.status}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Parse() (-want +got):\n%s", diff)
			}
			noSecrets(t, err)
		})
	}
}

func TestParseRetryAfter(t *testing.T) {
	received := sentAt.Add(time.Second)
	tests := map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "900": 900 * time.Second, "901": 900 * time.Second,
		"99999999999": 900 * time.Second, "99999999999999999999999": 0, "-1": 0, "soon": 0, "1.5": 0,
		received.Add(90 * time.Second).Format("Mon, 02 Jan 2006 15:04:05 GMT"): 90 * time.Second,
		received.Add(-time.Hour).Format("Mon, 02 Jan 2006 15:04:05 GMT"):       0,
		"Fri, 31 Dec 9999 23:59:59 GMT":                                        900 * time.Second,
	}
	p := newProvider(t, acme())
	for header, want := range tests {
		a := answer(429, "")
		a.RetryAfter = header
		_, err := p.Parse(a, oldToken(), nil)
		if got, ok := errors.AsType[*tokenstore.RefusalError](err); !ok || got.RetryAfter != want {
			t.Errorf("Retry-After %q: %v, %v; want %v", header, got, err, want)
		}
	}
}
