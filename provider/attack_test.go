package provider_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// What a hostile answer is taken for.
const (
	isUnknown = "unknown" // may have been redeemed: the row's "invalid response"
	isDead    = "dead"    // the grant is refused
	isForNow  = "for now" // refused, later it may work
	isToken   = "a token"
)

// hostile is one answer of the token endpoint to a code exchange and to a
// refresh.
type hostile struct {
	name        string
	status      int // default 200
	contentType string
	encoding    string
	body        string
	want        string
	life        time.Duration // of a token; -1: unknown, an hour
}

func gzipped(b []byte) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.String()
}

func hostileAnswers() []hostile {
	const esc = `\u001b[31m\n`
	long := strings.Repeat("canary", 17<<10)
	return []hostile{
		// The row reads 256 KB; Lanyard reads 1 MiB and refuses what is longer.
		{name: "A134 5 MB", body: `{"access_token":"canary","x":"` + strings.Repeat("x", 5<<20) + `"}`, want: isUnknown},

		{name: "A137 error under 200", body: `{"error":"invalid_grant"}`, want: isDead},
		{name: "A137 error under 200, with a null token", body: `{"access_token":null,"error":"invalid_grant"}`, want: isDead},
		{name: "A137 Slack's", body: `{"ok":false,"error":"invalid_refresh_token"}`, want: isDead},
		{name: "A137 Slack's, unknown", body: `{"ok":false,"error":"fatal_error"}`, want: isForNow},
		{name: "A137 Slack's, without a code", body: `{"ok":false}`, want: isUnknown},
		{name: "A137 GitHub's form", contentType: "application/x-www-form-urlencoded", body: "error=bad_refresh_token&error_description=canary", want: isDead},
		{name: "A137 error beside a token", body: `{"error":"invalid_grant","access_token":"canary"}`, want: isUnknown},
		{name: "A137 error that is an object", body: `{"error":{"code":"invalid_grant"}}`, want: isUnknown},

		{name: "A138 two cases", body: `{"access_token":"canary","Access_Token":"EVIL"}`, want: isUnknown},
		{name: "A138 two cases, the other first", body: `{"ACCESS_TOKEN":"EVIL","access_token":"canary"}`, want: isUnknown},
		{name: "A138 another case alone", body: `{"Access_Token":"EVIL"}`, want: isUnknown},
		{name: "A138 twice", body: `{"access_token":"canary","access_token":"EVIL"}`, want: isUnknown},
		{name: "A138 refresh token twice", body: `{"access_token":"canary","refresh_token":"canary","refresh_token":"EVIL"}`, want: isUnknown},
		{name: "A138 twice by an escape", body: `{"access_token":"canary","access\u005ftoken":"EVIL"}`, want: isUnknown},
		{name: "A138 long s", body: `{"access_token":"canary","refre\u017fh_token":"EVIL"}`, want: isUnknown},
		{name: "A138 long s as it is", body: `{"access_token":"canary","refreſh_token":"EVIL"}`, want: isUnknown},
		{name: "A138 Kelvin sign", body: `{"access_to\u212aen":"EVIL","access_token":"canary"}`, want: isUnknown},
		{name: "A138 expires_in in two cases", body: `{"access_token":"canary","expires_in":60,"Expires_In":1e9}`, want: isUnknown},
		{name: "A138 error in two cases", status: 400, body: `{"error":"invalid_grant","Error":"x"}`, want: isForNow},
		{name: "A138 form twice", body: "access_token=canary&access_token=EVIL", want: isUnknown},
		{name: "A138 form in two cases", body: "access_token=canary&Access_Token=EVIL", want: isUnknown},

		{name: "A139 mac", body: `{"access_token":"canary","token_type":"mac"}`, want: isUnknown},
		{name: "A139 DPoP", body: `{"access_token":"canary","token_type":"DPoP"}`, want: isUnknown},
		{name: "A139 N_A", body: `{"access_token":"canary","token_type":"N_A"}`, want: isUnknown},
		{name: "A139 a word of its own", body: `{"access_token":"canary","token_type":"bot"}`, want: isUnknown},
		{name: "A139 a header", body: `{"access_token":"canary","token_type":"Bearer\r\nX: 1"}`, want: isUnknown},
		{name: "A139 a list", body: `{"access_token":"canary","token_type":["Bearer"]}`, want: isUnknown},
		// The row wants a flag for an empty one. Parsing is tolerant by design,
		// and none is common: it is taken for Bearer.
		{name: "A139 empty", body: `{"access_token":"a","token_type":"","expires_in":60}`, want: isToken, life: time.Minute},
		{name: "A139 another case", body: `{"access_token":"a","token_type":"bEARER","expires_in":60}`, want: isToken, life: time.Minute},

		{name: "A141 negative", body: `{"access_token":"a","expires_in":-5}`, want: isToken, life: -1},
		{name: "A141 zero", body: `{"access_token":"a","expires_in":0}`, want: isToken, life: -1},
		{name: "A141 negative text", body: `{"access_token":"a","expires_in":"-5"}`, want: isToken, life: -1},
		{name: "A142 string", body: `{"access_token":"a","expires_in":"3600"}`, want: isToken, life: time.Hour},
		{name: "A142 float", body: `{"access_token":"a","expires_in":3600.5}`, want: isToken, life: time.Hour + 500*time.Millisecond},
		{name: "A142 huge", body: `{"access_token":"a","expires_in":1e14}`, want: isToken, life: 365 * 24 * time.Hour},
		{name: "A142 beyond any number", body: `{"access_token":"a","expires_in":1e99999}`, want: isToken, life: 365 * 24 * time.Hour},
		{name: "A142 null", body: `{"access_token":"a","expires_in":null}`, want: isToken, life: -1},
		{name: "A142 missing", body: `{"access_token":"a"}`, want: isToken, life: -1},

		{name: "A143 none", body: `{}`, want: isUnknown},
		{name: "A143 null", body: `{"access_token":null}`, want: isUnknown},
		{name: "A143 numeric", body: `{"access_token":123}`, want: isUnknown},
		{name: "A143 empty", body: `{"access_token":""}`, want: isUnknown},
		{name: "A143 a list", body: `{"access_token":["canary"]}`, want: isUnknown},
		{name: "A143 a new line", body: `{"access_token":"canary\r\nX: 1"}`, want: isUnknown},
		{name: "A143 a space", body: `{"access_token":"can ary"}`, want: isUnknown},
		{name: "A143 a null byte", body: `{"access_token":"canary\u0000"}`, want: isUnknown},
		{name: "A143 a refresh token with a new line", body: `{"access_token":"canary","refresh_token":"canary\n"}`, want: isUnknown},
		{name: "A143 100 KB", body: `{"access_token":"` + long + `"}`, want: isUnknown},
		{name: "A143 a refresh token of 100 KB", body: `{"access_token":"canary","refresh_token":"` + long + `"}`, want: isUnknown},

		// The row goes by the content type; answers come under all of them, so
		// Lanyard goes by what the body is.
		{name: "A145 trailing garbage", body: `{"access_token":"canary"}x`, want: isUnknown},
		{name: "A145 a second object", body: `{"access_token":"canary"}{"access_token":"EVIL"}`, want: isUnknown},
		{name: "A145 deep nesting", body: `{"access_token":"canary","x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, want: isUnknown},
		{name: "A145 eleven deep", body: `{"access_token":"canary","x":` + strings.Repeat(`{"a":`, 10) + `1` + strings.Repeat("}", 10) + `}`, want: isUnknown},
		{name: "A145 invalid UTF-8 in the token", body: "{\"access_token\":\"canary\xff\"}", want: isUnknown},
		{name: "A145 invalid UTF-8 in the name", body: "{\"access_token\xff\":\"canary\"}", want: isUnknown},
		{name: "A145 a web page", contentType: "text/html", body: `<html><a href="/x?a=b&access_token=canary&b=c">`, want: isUnknown},
		{name: "A145 byte order mark", body: "\ufeff" + `{"access_token":"a","expires_in":60}`, want: isToken, life: time.Minute},
		{name: "A145 form-encoded as JSON", body: "access_token=a&expires_in=60", want: isToken, life: time.Minute},
		{name: "A145 JSON as a form", contentType: "application/x-www-form-urlencoded", body: `{"access_token":"a","expires_in":60}`, want: isToken, life: time.Minute},
		{name: "A145 JSON as a web page", contentType: "text/html; charset=utf-8", body: `{"access_token":"a","expires_in":60}`, want: isToken, life: time.Minute},

		{name: "A146 bomb", encoding: "gzip", body: gzipped(make([]byte, 64<<20)), want: isUnknown},
		{name: "A146 whole answer in gzip", encoding: "gzip", body: gzipped([]byte(`{"access_token":"canary"}`)), want: isUnknown},
		{name: "A146 plain, said to be gzip", encoding: "gzip", body: `{"access_token":"canary"}`, want: isUnknown},
		{name: "A146 two encodings", encoding: "br, gzip", body: `{"access_token":"canary"}`, want: isUnknown},
		{name: "A146 refusal in gzip", status: 400, encoding: "gzip", body: gzipped([]byte(`{"error":"invalid_grant"}`)), want: isForNow},
		{name: "A146 identity", encoding: "identity", body: `{"access_token":"a","expires_in":60}`, want: isToken, life: time.Minute},

		{
			name: "A149 description with secrets", status: 400, want: isDead,
			body: `{"error":"invalid_grant","error_description":"` + oldRefresh + theCode + esc + `","error_uri":"https://evil.test/` + oldRefresh + `"}`,
		},
		{name: "A149 code with escapes", status: 400, body: `{"error":"invalid_grant` + esc + `"}`, want: isForNow},
		{name: "A149 code that is our token", status: 400, body: `{"error":"` + oldRefresh + `"}`, want: isForNow},
		{name: "A149 a page that echoes", status: 403, contentType: "text/html", body: "<p>" + oldRefresh + theCode, want: isForNow},
	}
}

// Every answer is met by one request, nothing of it is told, and what is not a
// token leaves none.
func TestHostileAnswers(t *testing.T) {
	for _, tt := range hostileAnswers() {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t, func(w http.ResponseWriter, r *http.Request) {
				if tt.encoding != "" {
					w.Header().Set("Content-Encoding", tt.encoding)
				}
				answering(max(tt.status, 200), cmp.Or(tt.contentType, "application/json"), tt.body)(w, r)
			})
			e := entryAt(l.URL)
			e.Errors.Dead = []string{"bad_refresh_token", "invalid_refresh_token"}
			p := newProvider(t, e)
			for what, ask := range asks() {
				before := len(l.all())
				a, err := ask(t.Context(), p)
				var tok tokenstore.Token
				if err == nil {
					tok, err = p.Parse(a, oldToken(), nil)
				}
				judge(t, what, tt, tok, err)
				if n := len(l.all()) - before; n != 1 {
					t.Errorf("%s: %d requests; want 1", what, n)
				}
			}
			for _, r := range l.all() {
				if got := r.Header.Get("Accept-Encoding"); got != "" {
					t.Errorf("Accept-Encoding: %s was sent", got)
				}
			}
		})
	}
}

// asks are the two ways to ask a token endpoint.
func asks() map[string]func(context.Context, *provider.Provider) (tokenstore.Answer, error) {
	return map[string]func(context.Context, *provider.Provider) (tokenstore.Answer, error){
		"exchange": exchange,
		"refresh": func(ctx context.Context, p *provider.Provider) (tokenstore.Answer, error) {
			return p.Refresh(ctx, oldToken())
		},
	}
}

func judge(t *testing.T, what string, tt hostile, tok tokenstore.Token, err error) {
	t.Helper()
	noSecrets(t, err)
	got := isToken
	if no, ok := errors.AsType[*tokenstore.RefusalError](err); ok {
		got = map[tokenstore.RefusalKind]string{tokenstore.RefusedGrant: isDead, tokenstore.RefusedForNow: isForNow}[no.Kind]
	} else if errors.Is(err, tokenstore.ErrOutcomeUnknown) && !errors.Is(err, tokenstore.ErrNotSent) {
		got = isUnknown
	}
	if got != tt.want || (err == nil) != (tt.want == isToken) {
		t.Errorf("%s: %v, taken for %q; want %q", what, err, got, tt.want)
		return
	}
	if err != nil {
		if !tok.AccessToken.IsZero() || !tok.RefreshToken.IsZero() {
			t.Errorf("%s: a token came with the error", what)
		}
		if strings.ContainsAny(err.Error(), "\x1b\n\r") || len(err.Error()) > 200 || strings.Contains(err.Error(), "EVIL") {
			t.Errorf("%s: the error tells of the answer: %q", what, err)
		}
		return
	}
	want := tt.life
	if want == -1 {
		want = time.Hour
	}
	if life := tok.ExpiresAt.Sub(tok.IssuedAt); life != want || tok.ExpiryUnknown != (tt.life == -1) {
		t.Errorf("%s: life %v, unknown %v; want %v, %v", what, life, tok.ExpiryUnknown, want, tt.life == -1)
	}
	if tok.AccessToken.Reveal() != "a" || tok.RefreshToken.Reveal() != oldRefresh {
		t.Errorf("%s: another token than the answer's, or another refresh token than the old", what)
	}
}

func TestA138PathInTwoPlaces(t *testing.T) {
	e := acme()
	e.Answer.Paths = map[string]string{"access_token": "data.access_token"}
	p := newProvider(t, e)
	for _, body := range []string{
		`{"data.access_token":"EVIL","data":{"access_token":"canary"}}`,
		`{"data":{"access_token":"canary","Access_Token":"EVIL"}}`,
	} {
		if _, err := p.Parse(answer(200, body), oldToken(), nil); !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
			t.Errorf("Parse() of %s = %v; want ErrOutcomeUnknown", body, err)
		}
	}
}

// What is kept of a list of scopes has a bound, and so has the time to read it:
// an answer may have 1 MiB.
func TestEndlessScopes(t *testing.T) {
	var list strings.Builder
	for i := 0; list.Len() < 1<<20-200; i++ {
		fmt.Fprintf(&list, "%x ", i)
	}
	body := `{"access_token":"a","scope":"` + list.String() + `"}`
	began := time.Now()
	tok, err := newProvider(t, acme()).Parse(answer(200, body), tokenstore.Token{}, []string{"read"})
	if err != nil {
		t.Fatal(err)
	}
	if kept := len(strings.Join(tok.Scopes, " ")); kept > 16<<10 || len(tok.Scopes) == 0 {
		t.Errorf("%d bytes of scopes are kept; want 16 KiB at most", kept)
	}
	if took := time.Since(began); took > 5*time.Second { // a search of the list for each would take a minute
		t.Errorf("reading %d bytes took %v", len(body), took)
	}
}

// A134's endless answer, and A147: what has an end of its own only because
// Lanyard sets one, and what must lead nowhere.
func TestHostileEndless(t *testing.T) {
	for what, ask := range asks() {
		t.Run("A134 endless answer to "+what, func(t *testing.T) {
			var mu sync.Mutex
			var written int
			l := newLedger(t, func(w http.ResponseWriter, _ *http.Request) {
				for {
					n, err := io.WriteString(w, strings.Repeat(" ", 64<<10))
					mu.Lock()
					written += n
					mu.Unlock()
					if err != nil {
						return
					}
				}
			})
			_, err := ask(t.Context(), newProvider(t, entryAt(l.URL)))
			if !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
				t.Errorf("%v; want ErrOutcomeUnknown", err)
			}
			l.Close() // waits for the handler
			mu.Lock()
			defer mu.Unlock()
			// What is beyond 1 MiB is in the buffers of two sockets.
			if written > 32<<20 {
				t.Errorf("%d MiB were taken", written>>20)
			}
		})
		t.Run("A134 endless header to "+what, func(t *testing.T) {
			l := newLedger(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
				_, _ = io.WriteString(w, okBody)
			})
			if _, err := ask(t.Context(), newProvider(t, entryAt(l.URL))); !errors.Is(err, tokenstore.ErrOutcomeUnknown) {
				t.Errorf("%v; want ErrOutcomeUnknown", err)
			}
		})
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run("A147 "+http.StatusText(status)+" to "+what, func(t *testing.T) {
				elsewhere := newLedger(t, answering(200, "application/json", okBody))
				l := newLedger(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Refresh", "0; url="+elsewhere.URL)
					http.Redirect(w, r, elsewhere.URL+"/token", status)
				})
				p := newProvider(t, entryAt(l.URL))
				a, err := ask(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				_, err = p.Parse(a, oldToken(), nil)
				if no, ok := errors.AsType[*tokenstore.RefusalError](err); !ok || no.Code != "redirect" || no.Kind != tokenstore.RefusedForNow {
					t.Errorf("Parse() = %v; want a refusal for now", err)
				}
				if n, here := len(elsewhere.all()), len(l.all()); n != 0 || here != 1 {
					t.Errorf("%d requests elsewhere, %d here; want 0 and 1", n, here)
				}
			})
		}
	}
}
