package connect_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// TestPageHeaders: A058, A059. Every answer keeps itself out of caches, frames
// and the hands of other sites, and runs nothing.
func TestPageHeaders(t *testing.T) {
	b := newBench(t)
	br := b.browser()
	answers := everyPage(t, say(""), true)
	for name, w := range everyPage(t, say(""), false) {
		answers[name+" without an app"] = w
	}
	answers["start"] = br.get(b.link())
	answers["stylesheet"] = br.get(public + "/connect/" + regexp.MustCompile(`ui-[0-9a-f]+\.css`).FindString(answers["choose"].Body.String()))
	answers["icon"] = br.get(public + "/connect/favicon.svg")
	answers["HEAD"] = br.do(httptest.NewRequest(http.MethodHead, b.link(), nil))
	prefetch := httptest.NewRequest(http.MethodGet, b.link(), nil)
	prefetch.Header.Set("Sec-Purpose", "prefetch")
	answers["prefetch"] = br.do(prefetch)
	seen := map[int]bool{}
	for name, w := range answers {
		t.Run("A058 A059 "+name, func(t *testing.T) {
			seen[w.Code] = true
			h, asset := w.Header(), name == "stylesheet" || name == "icon"
			for key, want := range map[string]string{
				"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
				"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin", "Server": "", "Via": "",
			} {
				if got := h.Get(key); got != want {
					t.Errorf("%s = %q, want %q", key, got, want)
				}
			}
			if got := h.Get("Cache-Control"); got != "no-store" && !asset {
				t.Errorf("Cache-Control = %q", got)
			}
			csp := h.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action "} {
				if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
					t.Errorf("Content-Security-Policy = %q", csp)
				}
			}
			body := w.Body.String()
			for _, no := range []string{"<script", "style=", "<form", "<style", "http-equiv", " onload"} {
				if strings.Contains(body, no) {
					t.Errorf("page has %s", no)
				}
			}
			if body != "" && !asset && (h.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(body, `<html lang="en" dir="ltr">`)) {
				t.Errorf("%s\n%s", h.Get("Content-Type"), body)
			}
			if (w.Code == http.StatusSeeOther || w.Code == http.StatusNoContent) && body != "" {
				t.Errorf("%d with a body: %s", w.Code, body)
			}
		})
	}
	for _, code := range []int{200, 204, 303, 400, 404, 405, 410, 421, 429, 502, 503} {
		if !seen[code] {
			t.Errorf("no answer is %d", code)
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
	avoided := map[string][]string{
		"en": {"please", "sorry", "invalid", "oops", "technical difficult", "unfortunately", "forbidden"},
		"de": {"bitte ", "leider", "entschuldig", "ungültig", "hoppla", "verboten"},
	}
	for _, l := range connect.Words().Langs() {
		for _, key := range l.Keys() {
			for _, word := range avoided[l.Tag] {
				if strings.Contains(strings.ToLower(l.Say(key)), word) {
					t.Errorf("%s: %s says %q: %s", l.Tag, key, word, l.Say(key))
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
