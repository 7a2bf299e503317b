package provider_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Whatever a token endpoint answers, Parse returns a token that can be used,
// or one of its two errors, and tells nothing of the body. No credential comes
// from a name that stands there twice, or in another case.
func FuzzParseToken(f *testing.F) {
	f.Add(200, okBody)
	f.Add(200, `{"access_token":"a","Access_Token":"b"}`)
	f.Add(200, `{"access_token":"a","refre\u017fh_token":"b"}`)
	f.Add(200, `{"access_to\u212aen":"a","access_token":"b"}`)
	f.Add(200, "access_token=a&ACCESS_TOKEN=b")
	f.Add(200, `{"access_token":"a","token_type":"mac","user":{"scope":"x","Scope":"y"}}`)
	f.Add(200, "\ufeff{\"access_token\":\"a\"}")
	f.Add(200, "access_token=a&scope=x%2Cy&expires_in=1")
	f.Add(400, `{"error":"invalid_grant"}`)
	f.Add(200, `{"a":1 "b":2}`)
	f.Add(200, `{"access_token":"a","x":[1,]}`)
	f.Add(200, `{"access_token":"a","accounts":[{"is_default":true,"base_uri":"x"},{"is_default":1}],"expires_at":"2026-03-01T13:00:00Z"}`)
	e := acme()
	e.Answer.Paths = map[string]string{"scope": "user.scope"}
	e.Params = map[string]provider.ParamEntry{"user_id": {From: "answer.user.id"}, "base": {From: "answer.accounts.[is_default=true].base_uri"}}
	p, err := provider.New(provider.Config{Entry: e, ClientID: "id", ClientSecret: secret.New(clientSecret), RedirectURI: "https://l.example/cb"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		tok, err := p.Parse(answer(status, body), oldToken(), nil)
		if err != nil {
			if _, refused := errors.AsType[*tokenstore.RefusalError](err); refused == errors.Is(err, tokenstore.ErrOutcomeUnknown) {
				t.Fatalf("Parse() = %v; want one of two errors", err)
			}
			noSecrets(t, err)
			return
		}
		if trimmed := strings.TrimSpace(strings.TrimPrefix(body, "\ufeff")); strings.HasPrefix(trimmed, "{") && !json.Valid([]byte(trimmed)) {
			t.Fatalf("Parse() took %q, which is not JSON", body)
		}
		for _, name := range []string{"access_token", "refresh_token"} {
			if n := namesLike(body, name); n > 1 || n == 1 && namesLike(body, name+"\x00exact") == 0 {
				t.Fatalf("Parse() took %q, which has %s %d times", body, name, n)
			}
		}
		access := tok.AccessToken.Reveal()
		if access == "" || strings.IndexFunc(access, func(r rune) bool { return r < '!' || r > '~' }) >= 0 || tok.RefreshToken.IsZero() {
			t.Fatalf("Parse() took %q as a token", body)
		}
		if life := tok.ExpiresAt.Sub(sentAt); life <= 0 || life > 366*24*time.Hour || status < 200 || status > 299 {
			t.Fatalf("Parse(%d, %q) gave a life of %v", status, body, life)
		}
	})
}

// namesLike counts the names at the top of a JSON object that encoding/json
// would take for name, or with "\x00exact" behind it those that are name.
func namesLike(body, name string) (n int) {
	name, exact := strings.CutSuffix(name, "\x00exact")
	dec := json.NewDecoder(strings.NewReader(strings.TrimSpace(strings.TrimPrefix(body, "\ufeff"))))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return 0
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return n
		}
		if key, ok := tok.(string); ok && (key == name || !exact && strings.EqualFold(key, name)) {
			n++
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return n
		}
	}
	return n
}
