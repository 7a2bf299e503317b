package connect_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/lanyard-proxy/lanyard/connect"
)

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

// TestWordsAgree: each text is there in each language, with the same values in
// it, and each page code has its texts.
func TestWordsAgree(t *testing.T) {
	langs := connect.Words().Langs()
	if len(langs) < 2 || langs[0].Tag != "en" {
		t.Fatalf("languages: %v", langs)
	}
	english := langs[0]
	for _, l := range langs[1:] {
		for _, key := range slices.Concat(english.Keys(), l.Keys()) {
			switch {
			case !l.Has(key) || !english.Has(key):
				t.Errorf("%s: %s is not in both languages", l.Tag, key)
			case strings.Contains(key, ".next"): // says the way back in its own words
			default:
				want, got := placeholder.FindAllString(english.Say(key), -1), placeholder.FindAllString(l.Say(key), -1)
				for _, p := range slices.Concat(want, got) {
					if p != "{app}" && (!slices.Contains(want, p) || !slices.Contains(got, p)) {
						t.Errorf("%s: %s has %v, in English %v", l.Tag, key, got, want)
					}
				}
			}
		}
	}
	for _, code := range connect.Codes() {
		if code == "state_used" {
			code = "used"
		}
		if !english.Has(code+".title") || !english.Has(code+".next") {
			t.Errorf("page code %s has no texts", code)
		}
	}
}

// TestNoHardCodedText: what stands on a page comes from the table of words,
// from the configuration, or from the provider.
func TestNoHardCodedText(t *testing.T) {
	defer connect.UsePseudo()()
	given := regexp.MustCompile(`^(Acme Planner|GitHub|G|A|O|T|u1|.*Scopetext.*|[a-z_.]+|[a-z2-7]{10}|conn_[A-Z2-7]+|<svg.*)$`)
	for _, app := range []bool{true, false} {
		for name, w := range everyPage(t, say(""), app) {
			root, err := html.Parse(strings.NewReader(w.Body.String()))
			if err != nil {
				t.Fatal(err)
			}
			for n := range root.Descendants() {
				text := strings.TrimSpace(n.Data)
				if n.Type != html.TextNode || text == "" || strings.Contains(text, "⟦") || given.MatchString(text) || strings.Contains(text, "name") {
					continue
				}
				t.Errorf("%s says %q, which is in no table", name, text)
			}
		}
	}
}

// TestLanguages: pages speak the language that the browser asks for, and
// English to all others.
func TestLanguages(t *testing.T) {
	b := newBench(t)
	for accept, want := range map[string]string{
		"": "en", "de": "de", "de-AT,de;q=0.9,en;q=0.5": "de", "fr, en;q=0.5": "en", "fr": "en", "*": "en", ";;;": "en",
		"en-GB,de;q=0.9": "en", strings.Repeat("de,", 1000): "de", "de-DE,de;q=0.9,bad_tag!": "de", strings.Repeat("d", 1000): "en",
	} {
		r := httptest.NewRequest(http.MethodGet, public+"/connect/none", nil)
		r.Header.Set("Accept-Language", accept)
		body := b.browser().do(r).Body.String()
		title := map[string]string{"en": "There is no page here", "de": "Hier ist keine Seite"}[want]
		if !strings.Contains(body, `<html lang="`+want+`"`) || !strings.Contains(body, "<h1>"+title+"</h1>") {
			t.Errorf("%q gets\n%s", accept, body)
		}
	}
}

// TestButton: the custom element is for pages of other origins, and asked for
// again with its tag.
func TestButton(t *testing.T) {
	b := newBench(t)
	w := b.browser().get(public + "/connect/button.js")
	tag := w.Header().Get("ETag")
	if w.Code != 200 || tag == "" || w.Header().Get("Cross-Origin-Resource-Policy") != "cross-origin" ||
		w.Header().Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(w.Body.String(), `customElements.define("connect-button"`) {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	r := httptest.NewRequest(http.MethodGet, public+"/connect/button.js", nil)
	r.Header.Set("If-None-Match", tag)
	if w := b.browser().do(r); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("asked again: %d", w.Code)
	}
}
