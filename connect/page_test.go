package connect_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const xss = `"'><svg onload=alert(1)>{{7*7}}{env.SECRET}`

func TestHostileText(t *testing.T) {
	b := newBench(t)
	b.cfg.AppName = "App" + xss
	b.integration(func(in *connect.Integration) { in.Title, in.Review = "Title"+xss, true })(b)
	b.cfg.Integrations["other"] = connect.Integration{Title: "Other" + xss, Provider: b.p}
	b.p.texts = map[string]string{"read": "Read" + xss}
	b.p.scopes = []string{"read", "<svg/onload=alert(2)>"}
	b.remake()
	br := b.browser()
	hostile := func(p *connect.Params) {
		p.UserID, p.ConnectionName, p.State = "user"+xss, "name"+xss, "state"+xss
		p.Labels, p.Scopes = map[string]string{"k" + xss: "v" + xss}, []string{"read", "<svg/onload=alert(2)>"}
	}
	bodies := []string{
		br.get(b.link(hostile)).Body.String(),
		br.get(b.link(hostile, func(p *connect.Params) { p.Integration = "" })).Body.String(),
		br.get(b.link(hostile, func(p *connect.Params) { p.Integration = "x" + xss })).Body.String(),
		b.browser().callback(br.open(b.link(hostile))).Body.String(),
		br.get(callbackURL("state", "state"+xss, "error", "<svg/onload=alert(2)>", "error_description", xss, "error_uri", "javascript:alert(1)")).Body.String(),
		br.get(public + "/connect/" + url.PathEscape(xss)).Body.String(),
	}
	state := br.open(b.link(hostile))
	loc := br.callback(state, "error", "<svg/onload=alert(2)>", "error_description", xss, "error_uri", "javascript:alert(1)").Header().Get("Location")
	if strings.Contains(loc, "svg%2Fonload") || strings.Contains(loc, "javascript") {
		t.Errorf("the provider's words reach the app: %s", loc)
	}
	bodies = append(bodies, br.callback(state).Body.String())
	b.cfg.RedirectURLs = nil
	b.remake()
	bodies = append(bodies, br.callback(br.open(b.link(hostile))).Body.String())
	for i, body := range bodies {
		if strings.Contains(body, "<svg onload") || strings.Contains(body, "<svg/onload") || strings.Contains(body, "javascript:") ||
			!strings.Contains(body, "</html>") {
			t.Errorf("page %d:\n%s", i, body)
		}
	}
}

func TestPageHeaders(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	state := br.open(b.link())
	answers := map[string]*httptest.ResponseRecorder{
		"start":    br.get(b.link()),
		"mismatch": b.browser().callback(state, "error", "x"),
		"callback": br.callback(state),
		"used":     br.callback(state),
		"denied":   br.callback(br.open(b.link()), "error", "access_denied"),
		"bad link": br.get(public + "/connect?x"),
		"404":      br.get(public + "/connect/x"),
		"421":      br.get("https://evil.example/connect"),
	}
	for name, r := range map[string]*http.Request{
		"HEAD": httptest.NewRequest(http.MethodHead, b.link(), nil), "POST": httptest.NewRequest(http.MethodPost, callbackURL(), nil),
	} {
		answers[name] = br.do(r)
	}
	b.cfg.RedirectURLs = nil
	b.remake()
	answers["review"] = br.get(b.link())
	answers["success"] = br.callback(br.open(b.link()))
	for name, w := range answers {
		h := w.Header()
		for key, want := range map[string]string{
			"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
			"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin", "Server": "",
		} {
			if got := h.Get(key); got != want {
				t.Errorf("%s: %s = %q, want %q", name, key, got, want)
			}
		}
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
			if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: Content-Security-Policy = %q", name, csp)
			}
		}
		body := w.Body.String()
		for _, no := range []string{"<script", "style=", "<form", "<style", "http-equiv", " onload"} {
			if strings.Contains(body, no) {
				t.Errorf("%s: page has %s", name, no)
			}
		}
		if body != "" && (h.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(body, `<html lang="en">`)) {
			t.Errorf("%s: %s\n%s", name, h.Get("Content-Type"), body)
		}
	}
}

func TestAssets(t *testing.T) {
	b := newBench(t)
	body := b.browser().get(public + "/connect/x").Body.String()
	for _, m := range regexp.MustCompile(`href="(/connect/[^"]+)"`).FindAllStringSubmatch(body, -1) {
		w := b.browser().get(public + m[1])
		if w.Code != 200 || w.Body.Len() == 0 || !strings.HasPrefix(w.Header().Get("Cache-Control"), "public, max-age=") {
			t.Errorf("%s = %d %v", m[1], w.Code, w.Header())
		}
		if strings.HasSuffix(m[1], ".css") && !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s may not be kept: %v", m[1], w.Header())
		}
	}
	if b.browser().get(public+"/connect/ui-000000000000.css").Code != 404 {
		t.Error("a stylesheet of another version is served")
	}
}

// TestWords: no page asks, apologises or blames.
func TestWords(t *testing.T) {
	files, _ := filepath.Glob("page/*.html")
	for _, name := range append(files, "errors.go") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts := regexp.MustCompile(`"[A-Z{][^"\n]*"|>[^<{]+<`).FindAllString(string(b), -1)
		for _, text := range texts {
			for _, word := range []string{"please", "sorry", "invalid", "oops", "technical difficult", "unfortunately", "forbidden"} {
				if strings.Contains(strings.ToLower(text), word) {
					t.Errorf("%s says %q in %s", name, word, text)
				}
			}
		}
	}
}

// TestNoSecretComesOut: after flows of every kind, nothing secret is in a log,
// a page or a header, but what belongs there.
func TestNoSecretComesOut(t *testing.T) {
	b := newBench(t)
	secrets := []string{apiKey, codeText, "token-canary", "denied-description"}
	for range 2 {
		br := b.browser()
		for _, more := range [][]string{
			nil,
			{"error", "access_denied", "error_description", "denied-description"},
			{"error", codeText + " x"},
			{"access_token", "token-canary-q"},
			{"code", codeText, "iss", "https://evil.example"},
		} {
			b.p.issuer = ""
			if slices.Contains(more, "iss") {
				b.p.issuer = "https://idp.example"
			}
			state := br.open(b.link())
			f := b.flow(state)
			secrets = append(secrets, f.CodeVerifier.Reveal())
			for _, v := range br.jar {
				secrets = append(secrets, "="+v+"\x00") // a cookie goes to its browser; it stands in no page or log
			}
			br.callback(state, more...)
			br.callback(state, more...)
			b.browser().callback(state)
			assertNotLogged(t, b, state)
		}
		b.p.parseErr = &tokenstore.RefusalError{Kind: tokenstore.RefusedGrant, Code: "invalid_grant", Status: 400}
	}
	if err := b.h.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range b.connections() {
		if c.Staged != nil {
			secrets = append(secrets, c.Staged.Token.AccessToken.Reveal(), c.Staged.CodeHash)
		}
	}
	out := b.bodies.String()
	for _, s := range secrets {
		if strings.Contains(out, s) {
			t.Errorf("an answer holds %q", s)
		}
		assertNotLogged(t, b, strings.Trim(s, "=\x00"))
	}
}

func assertNotLogged(t *testing.T, b *bench, s string) {
	t.Helper()
	for _, e := range b.logs.All() {
		if line := fmt.Sprintf("%s %v", e.Message, e.ContextMap()); strings.Contains(line, s) {
			t.Errorf("log holds %q: %s", s, line)
		}
	}
}
