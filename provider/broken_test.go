package provider_test

import (
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
)

// goodEntry is a whole entry, a word a line, so that a line can be broken.
const goodEntry = `{
	"$schema": "../entry.schema.json",
	"title": "Acme",
	"authorize_url": "https://{shop}.acme.example/authorize",
	"token_url": "https://id.acme.example/token",
	"revoke_url": "https://id.acme.example/revoke",
	"api_url": "https://{instance}/v1",
	"hosts": ["files.acme.example"],
	"params": {
		"shop": {"title": "Shop"},
		"instance": {"title": "Instance", "from": "answer.instance_url", "domains": ["*.acme.example"]}
	},
	"client_auth": "basic",
	"scopes": ["read", "write"],
	"scope_texts": {"read": "See things"},
	"inject": {"headers": {"X-Version": "7"}},
	"account": {"url": "https://{instance}/me", "id": "id"},
	"authorize": {"params": {"prompt": "consent"}},
	"callback": {"code": "code"},
	"token": {"body": "form"},
	"answer": {"life": "1h"},
	"refresh": {"rotation": "grace"},
	"revoke": {"single": true},
	"errors": {"dead": ["gone"]}
}
`

// A broken entry fails with a message that says where, what, and what is right.
func TestBrokenEntries(t *testing.T) {
	if _, err := provider.ParseEntry("acme.json", []byte(goodEntry)); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ line, broken, want string }{ // what line becomes, and what is said
		{`"revoke_url"`, `"revok_url"`, `line 6: "revok_url" is no word of the language; did you mean "revoke_url"?`},
		{`{"rotation": "grace"}`, `{"rotaton": "grace"}`, `line 22: "refresh.rotaton" is no word of the language; did you mean "refresh.rotation"?`},
		{`{"rotation": "grace"}`, `{"rotation": "graceful"}`, `line 22: refresh.rotation "graceful" is not one of single_use, grace, none`},
		{`{"rotation": "grace"}`, `{"rotation": true}`, `line 22: refresh.rotation has to be a text in quotes`},
		{`{"rotation": "grace"}`, `"grace"`, `line 22: refresh has to be an object`},
		{`{"rotation": "grace"}`, `{"rotation": "grace", "rotation": "none"}`, `line 22: refresh.rotation is given twice, first on line 22`},
		{`{"rotation": "grace"}`, `{"concurrency": 1.5}`, `line 22: refresh.concurrency has to be a whole number`},
		{`"from": "answer.instance_url", `, `"from": "answer.instance_url", "fixed": true, `, `line 11: params.instance.fixed does not go with from: the configuration gives it, or the provider tells it`},
		{`"from": "answer.instance_url"`, `"from": "answer.refresh_token"`, `line 11: params.instance.from "answer.refresh_token" is a token: what is kept of an answer is shown to the app`},
		{`"token": {"body": "form"}`, `"exchange": {"params": {"grant_type": "x"}}`, `exchange needs refresh.with access_token`},
		{`{"rotation": "grace"}`, `{"life": "30d"}`, `line 22: refresh.life "30d" is not a duration such as 720h`},
		{`{"rotation": "grace"}`, `{"margin": "90d"}`, `line 22: refresh.margin "90d" is not a duration from 1s to 720h`},
		{`{"rotation": "grace"}`, `{"with": "code"}`, `line 22: refresh.with "code" is not one of refresh_token, access_token`},
		{`{"rotation": "grace"}`, `{"scopes": ["offline"]}`, `line 22: refresh.scopes "offline" is none of the provider's scopes`},
		{`{"rotation": "grace"}`, `{"rename": {"refresh": "x"}}`, `refresh.rename "refresh" is none of its parameters: access_token, assertion, `},
		{`{"rotation": "grace"}`, `{"headers": {"Host": "x"}}`, `refresh.headers "Host" is a header that is set by Lanyard itself`},
		{`"client_auth": "basic"`, `"client_auth": "Basic"`, `line 13: client_auth "Basic" is not one of basic, basic_id, basic_raw, basic_secret, post, private_key_jwt, none`},
		{`"client_auth": "basic"`, `"rotation": "grace"`, `line 13: "rotation" is no word of the language; did you mean "refresh.rotation"?`},
		{`"client_auth": "basic"`, `"token_params": {}`, `line 13: "token_params" is no word of the language; did you mean "token.params"?`},
		{`"client_auth": "basic"`, `"Title": "x"`, `line 13: "Title" is no word of the language; did you mean "title"?`},
		{`"client_auth": "basic"`, `"client_assertion": {"audience": "x"}`, `line 13: client_assertion goes with client_auth private_key_jwt only`},
		{`"client_auth": "basic",`, `"client_auth": "basic"`, `line 14: not JSON: `},
		{`["files.acme.example"]`, `"files.acme.example"`, `line 8: hosts has to be a list`},
		{`["files.acme.example"]`, `["Files.acme.example"]`, `line 8: hosts "Files.acme.example" is not a host name in lower case`},
		{`"https://{instance}/v1"`, `"https://{instnce}/v1"`, `line 7: api_url "https://{instnce}/v1" has {instnce}, which is none of its params`},
		{`"https://{instance}/v1"`, `"https://{shop}/v1"`, `line 7: api_url "https://{shop}/v1" has {shop} in the place of a whole host: say with domains in params.shop which hosts it may be`},
		{`"https://{instance}/v1"`, `"https://api.acme.example/{instance}"`, `line 7: api_url "https://api.acme.example/{instance}" has {instance}, which is a whole host (domains, host), elsewhere than in its place`},
		{`"https://id.acme.example/token"`, `"https://{instance}/token"`, `line 5: token_url "https://{instance}/token" has {instance}, which is not known yet: it comes from answer.instance_url; give it a default`},
		{`"https://id.acme.example/token"`, `"https://id.acme.example/{token}"`, `line 5: token_url "https://id.acme.example/{token}" has {token}, which only revoke_url may have`},
		{`"https://id.acme.example/token"`, `"http://id.acme.example/token"`, `line 5: token_url "http://id.acme.example/token" must be https; allow_private permits http on loopback`},
		{`"https://id.acme.example/token"`, `"https://id.acme.example/token?refresh_token=x"`, `line 5: token_url must not set "refresh_token": Lanyard does itself`},
		{`"https://id.acme.example/token"`, `"https://id.acme.example/token?a=1;refresh_token=x"`, `line 5: token_url has a query that can't be read`},
		{`"https://id.acme.example/revoke"`, `"https://id.acme.example/revoke?token=x"`, `line 6: revoke_url must not set "token": Lanyard does itself`},
		{`{"rotation": "grace"}`, `{"url": "https://id.acme.example/r?client_key=x", "rename": {"client_id": "client_key"}}`, `line 22: refresh.url must not set "client_key": Lanyard does itself`},
		{`{"rotation": "grace"}`, `{"url": "https://id.acme.example/r?version=1", "params": {"version": "2"}}`, `line 22: refresh.url must not set "version": Lanyard does itself`},
		{`/authorize"`, `/authorize?client_id=evil"`, `line 4: authorize_url must not set "client_id": Lanyard does itself`},
		{`/authorize"`, `/authorize?prompt=none"`, `line 4: authorize_url must not set "prompt": Lanyard does itself`},
		{`/authorize"`, `/authorize#/page?state=x"`, `line 4: authorize_url must not set "state": Lanyard does itself`},
		{`["*.acme.example"]`, `["*.example"]`, `line 11: params.instance.domains "*.example" is not a host name of two labels or more in lower case, or *. and one`},
		{`["*.acme.example"]`, `["*.co.uk"]`, `line 11: params.instance.domains "*.co.uk" must end in a domain of its provider's: below co.uk anybody may have one`},
		{`["*.acme.example"]`, `["*.acme.example"], "pattern": "x"`, `line 11: params.instance.pattern does not go with domains or host, which say the form`},
		{`"answer.instance_url"`, `"token.instance_url"`, `line 11: params.instance.from "token.instance_url" is not answer.PATH, callback.NAME or account.PATH`},
		{`"answer.instance_url"`, `"answer.a..b"`, `line 11: params.instance.from "a..b" is no path: names, numbers and [name=value] with dots between them`},
		{`"answer.instance_url", "domains": ["*.acme.example"]`, `"answer.x", "host": true`, `line 11: params.instance.from needs domains: no provider may name any host`},
		{`{"title": "Shop"}`, `{"title": "Shop", "default": "A b"}`, `line 10: params.shop.default "A b" is not of the form ^[a-z0-9][a-z0-9-]{0,62}$`},
		{`{"X-Version": "7"}`, `{"Cookie": "7"}`, `line 16: inject.headers "Cookie" is a header that is set by Lanyard itself`},
		{`{"X-Version": "7"}`, `{"authorization": "7"}`, `line 16: inject.headers "authorization" is the header of the credential`},
		{`{"X-Version": "7"}`, `{"X-Shop": "{shp}"}`, `line 16: inject.headers.X-Shop "{shp}" has {shp}, which is none of its params`},
		{`"headers": {"X-Version": "7"}`, `"prefix": "token"`, `line 16: inject.prefix "token" runs into the key: end it in what stands between them, such as "token "`},
		{`"headers": {"X-Version": "7"}`, `"query": "a", "header": "b"`, `line 16: inject: give either header, with its prefix, or query`},
		{`"id": "id"`, `"id": "[a]"`, `line 17: account.id "[a]" is no path: names, numbers and [name=value] with dots between them`},
		{`"id": "id"`, `"name": "id"`, `line 17: account.id is missing: a name or an email address identifies nobody`},
		{`"id": "id"`, `"id": "id", "body": "{}"`, `line 17: account.body goes with account.method POST only`},
		{`"https://{instance}/me"`, `"https://evil.example/me"`, `line 17: account.url is on "evil.example", which is neither the host of api_url or issuer nor one of hosts`},
		{`{"prompt": "consent"}`, `{"state": "x"}`, `line 18: authorize.params "state" is set by Lanyard itself`},
		{`{"params": {"prompt": "consent"}}`, `{"drop": ["state"]}`, `line 18: authorize: state has to stay as it is: without it a response belongs to nobody`},
		{`{"code": "code"}`, `{"code": "state"}`, `line 19: callback.code "state" is no parameter of an authorization response`},
		{`{"body": "form"}`, `{"body": "form", "method": "GET"}`, `line 20: token.body "form" does not go with method GET, which has no body`},
		{`{"life": "1h"}`, `{"paths": {"token": "x"}}`, `answer.paths "token" is not one of access_token, error, expires_at, `},
		{`{"single": true}`, `{"body": "none"}`, `line 23: revoke.body none leaves the token out: write {token} into revoke_url, or say inject`},
		{`["gone"]`, `["Gone away"]`, `line 24: errors.dead "Gone away" is not an error code, or text, in lower case`},
		{`"See things"`, `["See things"]`, `line 15: scope_texts.read has to be a text in quotes`},
	}
	for _, tt := range tests {
		text := strings.Replace(goodEntry, tt.line, tt.broken, 1)
		if text == goodEntry {
			t.Errorf("%s is nowhere in the entry", tt.line)
			continue
		}
		_, err := provider.ParseEntry("acme.json", []byte(text))
		want := "acme.json: " + tt.want
		partly := strings.HasSuffix(tt.want, " ") || !strings.HasPrefix(tt.want, "line ")
		switch {
		case err == nil:
			t.Errorf("%s: no error; want %s", tt.broken, want)
		case partly && !strings.Contains(err.Error(), tt.want), !partly && err.Error() != want:
			t.Errorf("%s:\n got %v\nwant %s", tt.broken, err, want)
		}
	}
	// What it is called there counts, whatever it is called here.
	renamed := strings.Replace(goodEntry, `{"params": {"prompt": "consent"}}`, `{"rename": {"client_id": "client_key"}}`, 1)
	for query, want := range map[string]string{
		"client_key=evil": `acme.json: line 4: authorize_url must not set "client_key": Lanyard does itself`,
		"other=1":         "",
	} {
		_, err := provider.ParseEntry("acme.json", []byte(strings.Replace(renamed, `/authorize"`, `/authorize?`+query+`"`, 1)))
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v; want %s", query, err, want)
		}
	}
	for text, want := range map[string]string{
		"":               "acme.json: line 1: not JSON: it ends too early",
		"[]":             "acme.json: line 1: an entry is one JSON object",
		"{":              "acme.json: line 1: not JSON: it ends too early",
		goodEntry + "{}": "acme.json: line 26: more follows behind the entry, which is one JSON object",
		`{"zzzzz":1}`:    `acme.json: line 1: "zzzzz" is no word of the language; it has $schema, account, allow_private, answer, api_url, `,
	} {
		if _, err := provider.ParseEntry("acme.json", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}
