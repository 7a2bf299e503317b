package provider_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	slackWords = `{"answer":{"success":{"ok":"true"},"token_types":["bot"]},"authorize":{"scope_separator":","},
		"params":{"team_id":{"from":"answer.team.id"}},
		"errors":{"dead":["invalid_refresh_token","token_revoked","invalid_auth"],"client":["bad_client_secret"]}}`
	slackUserWords = `{"answer":{"success":{"ok":"true"},"token_types":["user"],"paths":{"access_token":"authed_user.access_token",
		"refresh_token":"authed_user.refresh_token","expires_in":"authed_user.expires_in","scope":"authed_user.scope","token_type":"authed_user.token_type"}}}`
	slackBody = `{"ok":true,"app_id":"A0KRD7HC3","authed_user":{"id":"U1234","scope":"chat:write","access_token":"xoxe.xoxp-1","refresh_token":"xoxe-2",
		"expires_in":43200,"token_type":"user"},"scope":"commands,incoming-webhook","token_type":"bot","access_token":"xoxe.xoxb-1","expires_in":43200,
		"refresh_token":"xoxe-1","bot_user_id":"U0KRQLJ9H","team":{"id":"T9TK3CUKW","name":"Slack Softball Team"},"enterprise":null,"is_enterprise_install":false}`
	withingsWords = `{"answer":{"success":{"status":"0"},"paths":{"access_token":"body.access_token","refresh_token":"body.refresh_token",
		"expires_in":"body.expires_in","scope":"body.scope","error":"status"}},"params":{"userid":{"from":"answer.body.userid"}},"errors":{"dead":["401"]}}`
	docusignWords = `{"params":{"base":{"from":"answer.accounts.[is_default=true].base_uri","domains":["*.docusign.net"]}},"api_url":"https://{base}","allow_private":false,
		"authorize_url":"https://a.test/a","token_url":"https://a.test/t","revoke_url":"https://a.test/r"}`
	renewedByItself = `{"refresh":{"with":"access_token"},"exchange":{},"answer":{"paths":{"access_token":"data.0.access_token","scope":"data.0.permissions"}}}`
)

// Each provider's answer to the code, as its documentation shows it.
func TestAnswerDialects(t *testing.T) {
	never := time.Duration(-1)
	tests := []struct {
		name, words, body string
		callback          map[string]string
		want              parsed
		provisional       bool
	}{
		{
			name: "Slack, the bot", words: slackWords, body: slackBody,
			want: parsed{Access: "xoxe.xoxb-1", Refresh: "xoxe-1", Type: "bot", Life: 12 * time.Hour, Scopes: []string{"commands", "incoming-webhook"}, Metadata: map[string]string{"team_id": "T9TK3CUKW"}},
		},
		{
			name: "Slack, the user", words: slackUserWords, body: slackBody,
			want: parsed{Access: "xoxe.xoxp-1", Refresh: "xoxe-2", Type: "user", Life: 12 * time.Hour, Scopes: []string{"chat:write"}},
		},
		{
			name: "Withings, below body", words: withingsWords,
			body: `{"status":0,"body":{"userid":"363","access_token":"a075","refresh_token":"f736","expires_in":10800,"scope":"user.info,user.metrics","csrf_token":"PAC","token_type":"Bearer"}}`,
			want: parsed{Access: "a075", Refresh: "f736", Life: 3 * time.Hour, Scopes: []string{"user.info", "user.metrics"}, Metadata: map[string]string{"userid": "363"}},
		},
		{
			name: "Square, expires_at of RFC 3339", words: `{}`,
			body: `{"access_token":"EAAA","token_type":"bearer","expires_at":"2026-03-31T12:00:00Z","merchant_id":"MERCHANT_ID","refresh_token":"EQAA"}`,
			want: parsed{Access: "EAAA", Refresh: "EQAA", Type: "bearer", Life: 30 * 24 * time.Hour, Scopes: []string{"asked"}},
		},
		{
			name: "Strava, expires_at in seconds beside expires_in; scopes in the callback", words: `{"callback":{"scope":"scope"},"authorize":{"scope_separator":","}}`,
			body:     `{"token_type":"Bearer","expires_at":1568775134,"expires_in":20566,"refresh_token":"e5n5","access_token":"a4b9","athlete":{"id":1}}`,
			callback: map[string]string{"scope": "read,activity:read"},
			want:     parsed{Access: "a4b9", Refresh: "e5n5", Type: "Bearer", Life: 20566 * time.Second, Scopes: []string{"read", "activity:read"}},
		},
		{
			name: "expires_at in seconds alone", words: `{}`, body: `{"access_token":"a","expires_at":1772370000}`,
			want: parsed{Access: "a", Life: time.Hour, Scopes: []string{"asked"}},
		},
		{
			name: "expires_at over", words: `{}`, body: `{"access_token":"a","expires_at":1568775134}`,
			want: parsed{Access: "a", Life: time.Hour, Unknown: true, Scopes: []string{"asked"}},
		},
		{
			name: "expires_at in milliseconds", words: `{}`, body: `{"access_token":"a","expires_at":1772370000000}`,
			want: parsed{Access: "a", Life: time.Hour, Unknown: true, Scopes: []string{"asked"}},
		},
		{
			name: "QuickBooks, realmId in the callback", words: `{"params":{"realm_id":{"from":"callback.realmId"}},"answer":{"paths":{"refresh_expires_in":"x_refresh_token_expires_in"}}}`,
			body:     `{"token_type":"bearer","expires_in":3600,"refresh_token":"L311","x_refresh_token_expires_in":8640000,"access_token":"eyJl"}`,
			callback: map[string]string{"realm_id": "1231434565226279"},
			want:     parsed{Access: "eyJl", Refresh: "L311", Type: "bearer", Life: time.Hour, RefreshLife: 100 * 24 * time.Hour, Scopes: []string{"asked"}, Metadata: map[string]string{"realm_id": "1231434565226279"}},
		},
		{
			name: "DocuSign, the default account's host", words: docusignWords,
			body: `{"access_token":"a","expires_in":28800,"accounts":[{"is_default":false,"base_uri":"https://eu.docusign.net"},{"is_default":true,"base_uri":"https://demo.docusign.net"}]}`,
			want: parsed{Access: "a", Life: 8 * time.Hour, Scopes: []string{"asked"}, Metadata: map[string]string{"base": "demo.docusign.net"}},
		},
		{
			name: "a host that is not the provider's", words: docusignWords,
			body: `{"access_token":"a","expires_in":28800,"accounts":[{"is_default":true,"base_uri":"https://evil.example"}]}`,
			want: parsed{Access: "a", Life: 8 * time.Hour, Scopes: []string{"asked"}},
		},
		{
			name: "Instagram, a list, a token to be exchanged", words: renewedByItself,
			body: `{"data":[{"access_token":"EAAC","user_id":"1020","permissions":"instagram_business_basic,instagram_business_manage_messages"}]}`,
			want: parsed{Access: "EAAC", Refresh: "EAAC", Life: time.Hour, Unknown: true, Scopes: []string{"instagram_business_basic", "instagram_business_manage_messages"}}, provisional: true,
		},
		{
			name: "never ends, renewed with itself", words: `{"refresh":{"with":"access_token"},"answer":{"life":"never"}}`, body: `{"access_token":"a"}`,
			want: parsed{Access: "a", Refresh: "a", Life: never, Scopes: []string{"asked"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := wordedProvider(t, base, tt.words, nil)
			a := answer(200, tt.body)
			a.Callback = tt.callback
			tok, err := p.Parse(a, tokenstore.Token{}, []string{"asked"})
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Generation = 1
			if diff := cmp.Diff(tt.want, seen(tok)); diff != "" {
				t.Errorf("Parse() (-want +got):\n%s", diff)
			}
			if tok.Provisional != tt.provisional {
				t.Errorf("Provisional = %t; want %t", tok.Provisional, tt.provisional)
			}
		})
	}
}

// What is renewed with itself ends when it does, and what was exchanged lasts.
func TestRenewedWithItself(t *testing.T) {
	p := wordedProvider(t, base, `{"refresh":{"with":"access_token","margin":"30s"},"exchange":{}}`, nil)
	first, err := p.Parse(answer(200, `{"access_token":"short","expires_in":3600}`), tokenstore.Token{}, nil)
	if err != nil || !first.Provisional || first.Margin != 30*time.Second {
		t.Fatalf("Parse() = %+v, %v; want a provisional token with a margin of 30s", first, err)
	}
	for _, prev := range []tokenstore.Token{first, {AccessToken: secret.New("x"), Generation: 3}} {
		next, err := p.Parse(answer(200, `{"access_token":"long","expires_in":5184000}`), prev, nil)
		if err != nil || next.Provisional {
			t.Fatalf("Parse() = %+v, %v; want a token that lasts", next, err)
		}
		if !next.RefreshToken.Equal(secret.New("long")) || !next.RefreshExpiresAt.Equal(next.ExpiresAt) || next.RefreshExpiresAt.Sub(next.IssuedAt) != 60*24*time.Hour {
			t.Errorf("it is renewed until %v; want with itself until its end %v", next.RefreshExpiresAt, next.ExpiresAt)
		}
	}
}

// Slack's answer to a person's refresh has the token at the top. In the answer to
// the code the one at the top is the bot's.
func TestRefreshAnswerAtTheTop(t *testing.T) {
	p := wordedProvider(t, base, slackUserWords, nil)
	body := `{"ok":true,"access_token":"xoxe.xoxp-2","refresh_token":"xoxe-3","expires_in":43200,"token_type":"user","scope":"chat:write","authed_user":{"id":"U1234"}}`
	tok, err := p.Parse(answer(200, body), oldToken(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := parsed{Access: "xoxe.xoxp-2", Refresh: "xoxe-3", Type: "user", Life: 12 * time.Hour, Scopes: []string{"chat:write"}, Generation: 5}
	if diff := cmp.Diff(want, seen(tok)); diff != "" {
		t.Errorf("Parse() (-want +got):\n%s", diff)
	}
	for _, bot := range []string{body, strings.ReplaceAll(slackBody, `"access_token":"xoxe.xoxp-1",`, "")} {
		if tok, err := p.Parse(answer(200, bot), tokenstore.Token{}, nil); !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
			t.Errorf("Parse(%s) = %+v, %v; want ErrOutcomeUnknown", bot, seen(tok), err)
		}
	}
	if tok, err := p.Parse(answer(200, strings.ReplaceAll(slackBody, `"access_token":"xoxe.xoxp-1",`, "")), oldToken(), nil); !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
		t.Errorf("Parse() of the bot's token = %+v, %v; want ErrOutcomeUnknown", seen(tok), err)
	}
}

// What the provider told stays while the next answer does not tell another.
func TestToldStays(t *testing.T) {
	p := wordedProvider(t, base, docusignWords, nil)
	prev := oldToken()
	prev.Metadata = map[string]string{"base": "demo.docusign.net"}
	for _, body := range []string{
		`{"access_token":"a"}`, `{"access_token":"a","accounts":[{"is_default":true,"base_uri":"https://evil.example"}]}`,
	} {
		tok, err := p.Parse(answer(200, body), prev, nil)
		if err != nil || tok.Metadata["base"] != "demo.docusign.net" {
			t.Errorf("Parse(%s) told %v, %v", body, tok.Metadata, err)
		}
	}
}

// Each provider's way to say no, as its documentation shows it.
func TestRefusalDialects(t *testing.T) {
	const unreadable = tokenstore.RefusalKind(-1)
	wechat := `{"answer":{"paths":{"error":"errcode"}},"errors":{"dead":["40029","40030"]}}`
	facebook := `{"answer":{"paths":{"error":"error.code"}},"errors":{"dead":["190"]}}`
	hubspot := `{"answer":{"paths":{"error":"status"}},"errors":{"dead":["bad_refresh_token"],"client":["bad_client_id"]}}`
	tests := []struct {
		name, words string
		status      int
		body        string
		kind        tokenstore.RefusalKind
		code        string
	}{
		{"Slack", slackWords, 200, `{"ok":false,"error":"invalid_refresh_token"}`, tokenstore.RefusedGrant, "invalid_refresh_token"},
		{"Slack, our client", slackWords, 200, `{"ok":false,"error":"bad_client_secret"}`, tokenstore.RefusedClient, "bad_client_secret"},
		{"Slack, another", slackWords, 200, `{"ok":false,"error":"fatal_error"}`, tokenstore.RefusedForNow, "fatal_error"},
		{"Slack, no code", slackWords, 200, `{"ok":false}`, unreadable, ""},
		{"Slack, no ok", slackWords, 200, `{"access_token":"canary"}`, unreadable, ""},
		{"Slack, not ok, with a token", slackWords, 200, `{"ok":false,"error":"x","access_token":"canary"}`, unreadable, ""},
		{"WeChat", wechat, 200, `{"errcode":40030,"errmsg":"invalid refresh_token, hints: [ req_id: canary ]"}`, tokenstore.RefusedGrant, "40030"},
		{"Facebook", facebook, 400, `{"error":{"message":"Error validating access token: canary","type":"OAuthException","code":190,"error_subcode":460,"fbtrace_id":"E"}}`, tokenstore.RefusedGrant, "190"},
		{"Facebook under 200", facebook, 200, `{"error":{"message":"canary","type":"OAuthException","code":190}}`, tokenstore.RefusedGrant, "190"},
		{"Facebook, too many", facebook, 400, `{"error":{"message":"canary","type":"OAuthException","code":4}}`, tokenstore.RefusedForNow, "4"},
		{"an error object that the entry does not know", `{}`, 400, `{"error":{"code":190}}`, tokenstore.RefusedForNow, "unstructured_refusal"},
		{"HubSpot", hubspot, 400, `{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token","correlationId":"a43683b0"}`, tokenstore.RefusedGrant, "bad_refresh_token"},
		{"HubSpot, RFC 6749", hubspot, 400, `{"error":"invalid_grant"}`, tokenstore.RefusedGrant, "invalid_grant"},
		{"Withings", withingsWords, 200, `{"status":401,"body":{},"error":"XRequestID: canary"}`, tokenstore.RefusedGrant, "401"},
		{"Withings, for now", withingsWords, 200, `{"status":601,"body":{"wait_seconds":30},"error":"Too many requests"}`, tokenstore.RefusedForNow, "601"},
		{
			"Twitch, a text and no code", `{"answer":{"paths":{"error":"message"}},"errors":{"dead":["invalid refresh token"]}}`, 400,
			`{"error":"Bad Request","status":400,"message":"Invalid refresh token"}`, tokenstore.RefusedGrant, "unrecognized_error",
		},
		{
			"X, told by the description", `{"answer":{"paths":{"error":"error_description"}},"errors":{"dead":["value passed for the token was invalid."]}}`, 400,
			`{"error":"invalid_request","error_description":"Value passed for the token was invalid."}`, tokenstore.RefusedGrant, "unrecognized_error",
		},
		{
			"X, another wrong request", `{"answer":{"paths":{"error":"error_description"}},"errors":{"dead":["value passed for the token was invalid."]}}`, 400,
			`{"error":"invalid_request","error_description":"Missing required parameter [code_verifier]."}`, tokenstore.RefusedForNow, "unrecognized_error",
		},
		{
			"X, our client", `{"answer":{"paths":{"error":"error_description"}}}`, 401,
			`{"error":"unauthorized_client","error_description":"Missing valid authorization header"}`, tokenstore.RefusedClient, "unauthorized_client",
		},
		{"upper case", `{}`, 400, `{"error":"INVALID_GRANT"}`, tokenstore.RefusedGrant, "invalid_grant"},
		{"Zoho under 200", `{"errors":{"dead":["invalid_code"]}}`, 200, `{"error":"invalid_code"}`, tokenstore.RefusedGrant, "invalid_code"},
		{"two names in different case on the way", facebook, 400, `{"error":{"code":190,"Code":1}}`, tokenstore.RefusedForNow, "unstructured_refusal"},
		{"a token echoed in another case", `{}`, 400, `{"error":"` + strings.ToUpper(oldRefresh) + `"}`, tokenstore.RefusedForNow, "unrecognized_error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := wordedProvider(t, base, tt.words, nil).Parse(answer(tt.status, tt.body), oldToken(), nil)
			noSecrets(t, err)
			refusal, ok := errors.AsType[*tokenstore.RefusalError](err)
			switch {
			case tt.kind == unreadable:
				if ok || !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
					t.Errorf("Parse() = %v; want ErrOutcomeUnknown", err)
				}
			case !ok || refusal.Kind != tt.kind || refusal.Code != tt.code:
				t.Errorf("Parse() = %+v; want kind %v, code %q", err, tt.kind, tt.code)
			}
		})
	}
}

// Which of two is meant must not be a guess, on the way to what is read, too.
func TestAmbiguousPaths(t *testing.T) {
	for name, tt := range map[string]struct{ words, body string }{
		"told, in a list": {docusignWords, `{"access_token":"a","accounts":[{"is_default":true,"base_uri":"https://a.docusign.net","Base_URI":"https://b.docusign.net"}]}`},
		"a list's choice": {docusignWords, `{"access_token":"a","accounts":[{"is_default":false,"Is_Default":true,"base_uri":"https://b.docusign.net"},{"is_default":true,"base_uri":"https://a.docusign.net"}]}`},
		"told, an object": {slackWords, `{"ok":true,"access_token":"a","team":{"id":"1","ID":"2"}}`},
		"success":         {`{"answer":{"success":{"meta.code":"0"}}}`, `{"access_token":"a","meta":{"code":0,"Code":1}}`},
		"two places":      {slackWords, `{"ok":true,"access_token":"a","team":{"id":"1"},"team.id":"2"}`},
		"a list's token":  {renewedByItself, `{"data":[{"access_token":"a","Access_Token":"b"}]}`},
	} {
		_, err := wordedProvider(t, base, tt.words, nil).Parse(answer(200, tt.body), oldToken(), nil)
		if !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
			t.Errorf("%s: Parse() = %v; want ErrOutcomeUnknown", name, err)
		}
	}
}

// A code is shown in lower case: a secret in it is still one.
func TestCodeThatIsASecret(t *testing.T) {
	prev := tokenstore.Token{AccessToken: secret.New("Canary-Access"), RefreshToken: secret.New("Canary-Refresh")}
	for _, code := range []string{"Canary-Access", "canary-access", "x-CANARY-REFRESH"} {
		_, err := wordedProvider(t, base, `{}`, nil).Parse(answer(400, `{"error":"`+code+`"}`), prev, nil)
		if refusal, ok := errors.AsType[*tokenstore.RefusalError](err); !ok || refusal.Code != "unrecognized_error" {
			t.Errorf("Parse() of the code %s = %v", code, err)
		}
		noSecrets(t, err)
	}
}

// Slack says under 200 that a token is none, and Stack Exchange packs whatever it
// says.
func TestAccountDialects(t *testing.T) {
	words := `{"account":{"url":"BASE/me","id":"items.0.id"},"answer":{"success":{"ok":"true"}},"errors":{"dead":["invalid_auth"]}}`
	for _, tt := range []struct {
		name, body string
		packed     bool
		id         string
		want       error
	}{
		{name: "Slack", body: `{"ok":true,"items":[{"id":"U1"}]}`, id: "U1"},
		{name: "Slack, a dead token", body: `{"ok":false,"error":"invalid_auth"}`, want: tokenstore.ErrCredentialRefused},
		{name: "Stack Exchange", body: `{"items":[{"id":7}]}`, packed: true, id: "7"},
		{name: "a bomb", body: strings.Repeat(" ", 4<<20), packed: true, want: tokenstore.ErrOutcomeUnknown},
	} {
		l := newLedger(t, func(w http.ResponseWriter, r *http.Request) {
			if tt.packed {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = io.WriteString(w, gzipped([]byte(tt.body)))
				return
			}
			answering(200, "application/json", tt.body)(w, r)
		})
		tok := oldToken()
		account, err := wordedProvider(t, l.URL, words, nil).Account(t.Context(), &tok)
		if account.ID != tt.id || !errors.Is(err, tt.want) {
			t.Errorf("%s: Account() = %+v, %v; want %q, %v", tt.name, account, err, tt.id, tt.want)
		}
		noSecrets(t, err)
	}
}
