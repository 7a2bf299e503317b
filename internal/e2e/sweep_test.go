package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newJar(t *testing.T) http.CookieJar {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return jar
}

// spellings returns the ways in which a secret could stand somewhere.
func spellings(s string) map[string][]byte {
	utf16 := make([]byte, 0, 2*len(s))
	for _, c := range []byte(s) {
		utf16 = append(utf16, c, 0)
	}
	// Base64 of a longer text holds the secret at one of three offsets: of
	// each, the part that does not depend on its neighbours.
	out := map[string][]byte{
		"plain": []byte(s), "hex": []byte(hex.EncodeToString([]byte(s))),
		"url-encoded": []byte(url.QueryEscape(s)), "utf-16": utf16,
	}
	for off := range 3 {
		enc := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", off) + s))
		start := (off*8 + 5) / 6
		end := len(enc) - 1
		if end-start > 12 {
			out["base64 at "+string(rune('0'+off))] = []byte(enc[start:end])
			out["base64url at "+string(rune('0'+off))] = []byte(strings.NewReplacer("+", "-", "/", "_").Replace(enc[start:end]))
		}
	}
	return out
}

// sweep looks for every secret of the run in all that came out of Lanyard:
// answers and pages, logs at debug level, its output, the admin API's
// configuration, autosave.json, and the bytes of the data directory.
func (w *world) sweep() {
	w.t.Helper()
	secrets := append(append(w.fake.Secrets(), w.secret), w.secrets...)
	keys := []string{w.apiKey, w.clientKey}

	w.mu.Lock()
	w.look("an answer", w.seen.Bytes(), append(secrets, keys...))
	w.mu.Unlock()
	err := filepath.WalkDir(w.site.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() || filepath.Base(path) == "Caddyfile" {
			return err
		}
		if filepath.Base(path) == "lanyard-ballast" { // 32 MiB, never written to
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		w.look(path, b, append(secrets, keys...))
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

// config returns what the admin API shows of the running configuration.
func (w *world) config() []byte {
	w.t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.path("admin.sock"))
	}}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://localhost/config/")
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) look(where string, in []byte, secrets []string) {
	w.t.Helper()
	for _, s := range secrets {
		for how, b := range spellings(s) {
			if i := bytes.Index(in, b); i >= 0 {
				w.t.Errorf("%s holds a secret of the run (%s): …%s…", where, how, around(in, i, len(b)))
				break
			}
		}
	}
}

// around shows where a secret was found, without it.
func around(b []byte, i, n int) string {
	return strings.ToValidUTF8(string(b[max(0, i-60):i])+"[HERE]"+string(b[i+n:min(len(b), i+n+20)]), "?")
}
