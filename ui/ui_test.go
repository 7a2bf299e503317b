package ui_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/ui"
)

func TestAccent(t *testing.T) {
	for accent, want := range map[string]string{
		"#4a3fd1": "", "#000000": "", "#B3261E": "",
		"#ffcc00": `has a contrast of 1.3:1 to the pages' light background, and text needs 4.5:1; "#`,
		"#888888": "has a contrast of 3.", "#4a3": "is no color", "red": "is no color",
	} {
		b, err := ui.NewBrand(ui.BrandConfig{Accent: accent})
		switch {
		case want == "" && (err != nil || b.Style == nil):
			t.Errorf("%s: %v", accent, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", accent, err, want)
		}
	}
}

// TestAccentOffer: the color that an error names is taken.
func TestAccentOffer(t *testing.T) {
	offered := regexp.MustCompile(`"(#[0-9a-f]{6})"`)
	for _, accent := range []string{"#ffcc00", "#ffffff", "#00ffff", "#ff7f50", "#888888"} {
		_, err := ui.NewBrand(ui.BrandConfig{Accent: accent})
		if err == nil {
			t.Fatalf("%s is taken", accent)
		}
		m := offered.FindStringSubmatch(err.Error())
		if m == nil {
			t.Fatal(err)
		}
		if _, err := ui.NewBrand(ui.BrandConfig{Accent: m[1]}); err != nil {
			t.Errorf("%s instead of %s: %v", m[1], accent, err)
		}
	}
}

func TestLogo(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct{ body, want string }{
		"a.png":   {"\x89PNG\r\n\x1a\n....", "image/png"},
		"a.svg":   {`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`, "image/svg+xml"},
		"big.png": {"\x89PNG\r\n\x1a\n" + strings.Repeat("x", 256<<10), ""},
		"a.html":  {`<html xmlns="http://www.w3.org/1999/xhtml"></html>`, ""},
		"cut.svg": {`<svg xmlns="http://www.w3.org/2000/svg">`, ""},
		"a.gif":   {"GIF89a", ""},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(tt.body), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := ui.NewBrand(ui.BrandConfig{Logo: path})
		if tt.want == "" {
			if err == nil {
				t.Errorf("%s is taken", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		w := httptest.NewRecorder()
		b.Logo.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		h := w.Header()
		if h.Get("Content-Type") != tt.want || h.Get("X-Content-Type-Options") != "nosniff" || w.Body.String() != tt.body {
			t.Errorf("%s: %v", name, h)
		}
		if csp := h.Get("Content-Security-Policy"); tt.want == "image/svg+xml" && (!strings.Contains(csp, "sandbox") || strings.Contains(csp, "script-src")) {
			t.Errorf("%s: Content-Security-Policy = %q", name, csp)
		}
	}
	if _, err := ui.NewBrand(ui.BrandConfig{Logo: filepath.Join(dir, "none.png")}); err == nil {
		t.Error("a logo that is not there is taken")
	}
}

func TestLinks(t *testing.T) {
	for link, ok := range map[string]bool{
		"https://acme.example/help": true, "http://localhost:3000": true, "http://127.0.0.1/": true, "mailto:help@acme.example": true,
		"http://acme.example/": false, "javascript:alert(1)": false, "/help": false, "https://u:p@acme.example/": false,
	} {
		if _, err := ui.NewBrand(ui.BrandConfig{Help: link}); (err == nil) != ok {
			t.Errorf("%s: %v", link, err)
		}
	}
}

// TestStyle: the sheet fetches nothing, and is ready for right-to-left.
func TestStyle(t *testing.T) {
	w := httptest.NewRecorder()
	ui.Style.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	css := w.Body.String()
	for _, no := range []string{"url(", "@import", "http:", "https:", "margin-left", "padding-right", "text-align:left", "text-align:right"} {
		if strings.Contains(css, no) {
			t.Errorf("the stylesheet has %s", no)
		}
	}
	if !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("%v", w.Header())
	}
}

func TestHeaders(t *testing.T) {
	for want, p := range map[string]ui.Policy{
		"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'":                                        {},
		"default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'": {Script: true, Live: true, FormAction: "'self'"},
	} {
		h := http.Header{}
		ui.SetHeaders(h, p)
		if got := h.Get("Content-Security-Policy"); got != want {
			t.Errorf("%+v: %q", p, got)
		}
	}
}

func TestWords(t *testing.T) {
	words, err := ui.ReadWords(fstest.MapFS{
		"w/en.json": {Data: []byte(`{"n.one": "{n} key", "n.other": "{n} keys", "hi": "Hi {name}", "date": "{day} {month} {year}", "month.2": "February"}`)},
		"w/ar.json": {Data: []byte(`{"n.zero": "0", "n.two": "2", "n.few": "few", "n.other": "other", "hi": "{name}"}`)},
	}, "w")
	if err != nil {
		t.Fatal(err)
	}
	get := func(accept string) *ui.Lang {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept-Language", accept)
		return words.For(r)
	}
	en, ar := get("fr"), get("ar-EG")
	for got, want := range map[string]string{
		en.Count("n", 1): "1 key", en.Count("n", 0): "0 keys", ar.Count("n", 2): "2", ar.Count("n", 3): "few", ar.Count("n", 1): "other",
		en.Say("hi", "name", "{name}"): "Hi {name}", en.Say("none"): "none", en.Dir + ar.Dir: "ltrrtl",
		en.Date(time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC)): "3 February 2026",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, bad := range []fstest.MapFS{{"w/de.json": {Data: []byte(`{}`)}}, {"w/en.json": {Data: []byte(`[]`)}}, {"w/en.json": {Data: []byte(`{}`)}, "w/q!.json": {Data: []byte(`{}`)}}} {
		if _, err := ui.ReadWords(bad, "w"); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestTiles(t *testing.T) {
	if tile := ui.ProviderTile("github", "GitHub"); tile.Path == "" || tile.Class != "pic b-github" {
		t.Errorf("%+v", tile)
	}
	if tile := ui.ProviderTile("acme", "ärzte"); tile.Path != "" || tile.Initial != "Ä" || ui.Initial("…") != "·" {
		t.Errorf("%+v", tile)
	}
}

// TestScopeWords: what is translated is in the catalogue. What is not is shown as
// it stands there, so that a new provider is one file.
func TestScopeWords(t *testing.T) {
	for lang, providers := range ui.ScopeWords() {
		for _, name := range provider.Names() {
			entry, _ := provider.Lookup(name)
			for scope := range providers[name] {
				if entry.ScopeTexts[scope] == "" {
					t.Errorf("%s: %s's %s is not in the catalogue", lang, name, scope)
				}
			}
		}
	}
}
