package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

// secretWord has all that is written otherwise somewhere.
const secretWord = `Qh7vT+/9<x>&"k'Zé2mWq`

// The sweep finds a secret in every spelling: one that finds nothing is worth
// something only after that.
func TestSweepSpellings(t *testing.T) {
	written := map[string]string{
		"plain": secretWord, "url": url.QueryEscape(secretWord), "path": url.PathEscape(secretWord), "url bytes": eachByte(secretWord, "%%%02X"),
		"json": jsonOf(t, secretWord), "go": strconv.Quote(secretWord), "html": html.EscapeString(secretWord),
		"hex": hex.EncodeToString([]byte(secretWord)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secretWord))),
		"UTF-16LE": inUTF16(secretWord, 0, 8), "UTF-16BE": inUTF16(secretWord, 8, 0), "Go bytes": fmt.Sprintf("%d", []byte(secretWord)),
	}
	for off := range 3 {
		long := []byte(strings.Repeat("y", off) + secretWord + "zzz")
		written[fmt.Sprint("base64 ", off)] = base64.StdEncoding.EncodeToString(long)
		written[fmt.Sprint("base64url ", off)] = base64.RawURLEncoding.EncodeToString(long)
	}
	f := newFinder(map[string]kind{secretWord: credential, "another word that is secret": key})
	for how, text := range written {
		for _, in := range []string{text, "before " + text + " after", strings.Repeat("\x00", 10000) + text + strings.Repeat("\x00", 10000)} {
			if got := f.find("here", []byte(in), 0); len(got) != 1 || strings.Contains(got[0], text) {
				t.Errorf("%s: %q", how, got)
			}
		}
		if got := f.find("here", []byte(text[:len(text)/2]), 0); len(got) != 0 {
			t.Errorf("%s: half of it was found: %q", how, got)
		}
	}
}

// TestSweepPlaces plants a secret of each kind in each place, and has the sweep
// find it where it doesn't belong, and only there.
func TestSweepPlaces(t *testing.T) {
	const all = credential | key | keyset | cookie | flowState | handed
	file := func(name string) func(*testing.T, *world, string) {
		return func(t *testing.T, w *world, text string) {
			if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask := func(o *outlets, in *bytes.Buffer, text string) {
		reads := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) })
		o.watch(in, reads).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/x", strings.NewReader(text)))
	}
	places := []struct {
		name  string
		not   kind // may not stand there
		plant func(*testing.T, *world, string)
	}{
		{"answer", credential | key | keyset | cookie, func(_ *testing.T, w *world, text string) { w.note([]byte(text)) }},
		{"inside", all, func(_ *testing.T, w *world, text string) { w.out.keep(&w.out.inside, []byte(text)) }},
		{"request to the app", credential | key | keyset | flowState, func(_ *testing.T, w *world, text string) {
			ask(&w.out, &w.out.toApp, text)
		}},
		{"request to the provider", key | keyset | cookie | handed, func(_ *testing.T, w *world, text string) {
			ask(&w.out, &w.out.toProvider, text)
		}},
		{"log", all, file("caddy.log")},
		{"output", all, file("output.log")},
		{"autosave.json", all, file("xdg/caddy/autosave.json")},
		{"data file", all, file("data/badger/1/000001.sst")},
		{"backup", all, file("lanyard.backup")},
		{"keyset's file", all &^ keyset, func(t *testing.T, w *world, text string) {
			file("data/lanyard-keys.json")(t, w, `{"primaryKeyId":1}`+text)
		}},
	}
	for _, p := range places {
		for k := credential; k <= handed; k <<= 1 {
			w := &world{t: t, site: site{Dir: t.TempDir()}}
			w.out.meet(k, secretWord, "another word of "+p.name)
			if got := w.leaks(); len(got) != 0 {
				t.Fatalf("found without having been planted: %q", got)
			}
			p.plant(t, w, "before "+secretWord+" after")
			if got := w.leaks(); (len(got) == 1) != (p.not&k != 0) || strings.Contains(fmt.Sprint(got), secretWord) {
				t.Errorf("%s, kind %d: %q", p.name, k, got)
			}
		}
	}
}

// The sweep knows the secrets that it is to look for.
func TestSweepMeets(t *testing.T) {
	var o outlets
	h := http.Header{"Location": {"https://as.example/authorize?code_challenge=x&state=STATE"}}
	h.Add("Set-Cookie", "flow=COOKIE; HttpOnly")
	o.meetAnswer(h, []byte(`{"connect_url":"http://localhost/connect?state=APPSTATE\u0026signature=SIGNATURE"}`))
	o.meetAnswer(http.Header{"Location": {"http://app/callback?completion_code=COMPLETION&state=APPSTATE"}}, nil)
	want := map[string]kind{"STATE": flowState, "COOKIE": cookie, "SIGNATURE": handed, "APPSTATE": handed, "COMPLETION": handed}
	for s, k := range want {
		if o.met[s] != k {
			t.Errorf("%s was met as kind %d, want %d", s, o.met[s], k)
		}
	}
	raw := []byte(strings.Repeat("k", 34))
	ks := keysetSecrets([]byte(`{"primaryKeyId":1,"key":[{"keyData":{"value":"` + base64.StdEncoding.EncodeToString(raw) + `"}}]}`))
	if len(ks) != 2 || ks[1] != string(raw[2:]) {
		t.Errorf("a keyset has the secrets %q", ks)
	}
}

func eachByte(s, format string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

func jsonOf(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func inUTF16(s string, first, second int) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u>>first), byte(u>>second))
	}
	return string(b)
}
