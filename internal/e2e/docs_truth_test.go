package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
	"github.com/lanyard-proxy/lanyard/provider"
)

// inSource returns the first group of what re matches in a package's sources.
func inSource(t *testing.T, re string, packages ...string) []string {
	t.Helper()
	found := map[string]bool{}
	for _, p := range packages {
		files, err := filepath.Glob(filepath.Join(root, p, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no sources in %s: %v", p, err)
		}
		for _, f := range files {
			name := filepath.Base(f)
			if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "command") || strings.HasPrefix(name, "doctor") {
				continue // what the commands print is no setting
			}
			if name == "caddyfile_provider.go" {
				continue // its words are those of the catalogue's language, below
			}
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(re).FindAllStringSubmatch(string(b), -1) {
				found[m[1]] = true
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("nothing like %s in %v", re, packages)
	}
	return slices.Sorted(maps.Keys(found))
}

// TestDocsAreComplete holds the tables against the code: each option, word and
// code there is stands in its table.
func TestDocsAreComplete(t *testing.T) {
	const problem = `Code:\s*"([a-z_]+)"`
	for _, c := range []struct {
		doc   string
		words []string
	}{
		{"docs/configuration.md", inSource(t, `(?m)^\s*(?:opts\[)?"([a-z_]+)"\]?(?: =|:)\s+(?:once|repeated|oneOf|list|flag|[a-z]\.parse)`, "caddymodule")},
		{"docs/configuration.md", inSource(t, `json:"([a-z_]+),omitempty"`, "caddymodule")},
		{"docs/providers.md", entryWords(reflect.TypeFor[provider.Entry](), "")},
		{"docs/providers.md", provider.Names()},
		{"docs/proxying.md", inSource(t, problem, "proxy", "guard")},
		{"docs/api.md", inSource(t, problem, "api", "guard")},
		{"docs/api.md", inSource(t, `Reason\w+\s+= "([a-z_]+)"`, "tokenstore")},
		{"docs/api.md", inSource(t, `Reason\w+\s+= "([a-z_]+)"`, "revoke")},
		{"docs/api.md", inSource(t, `json:"([a-z_]+)`, "api")},
		{"docs/connect-flow.md", inSource(t, `code\w+\s+= "([a-z_]+)"`, "connect")},
		{"docs/connect-flow.md", inSource(t, `case "([a-z_]+)":`, "connect")},
	} {
		text := readDoc(t, c.doc)
		for _, w := range c.words {
			if !strings.Contains(text, "`"+w) && !strings.Contains(text, `"`+w+`"`) && !strings.Contains(text, "."+w+"`") {
				t.Errorf("%s says nothing of `%s`", c.doc, w)
			}
		}
	}
}

// entryWords returns the words of the catalogue's language, nested ones with a
// dot.
func entryWords(t reflect.Type, prefix string) []string {
	var words []string
	for f := range t.Fields() {
		word, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case f.Anonymous:
			words = append(words, entryWords(inner, prefix)...)
			continue
		case inner.Kind() == reflect.Map && inner.Elem().Kind() == reflect.Struct:
			words = append(words, entryWords(inner.Elem(), word+".*.")...)
		case inner.Kind() == reflect.Struct:
			words = append(words, entryWords(inner, word+".")...)
			continue
		}
		words = append(words, prefix+word)
	}
	return words
}

var cell = regexp.MustCompile("`([^`]+)`")

// tableUnder returns the code words of one column of the table under a heading.
func tableUnder(t *testing.T, file, under string, column int) []string {
	t.Helper()
	_, text, ok := strings.Cut(readDoc(t, file), "\n## "+under+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", file, under)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var words []string
	for line := range strings.SplitSeq(text, "\n") {
		if cells := strings.Split(line, "|"); len(cells) > column && strings.HasPrefix(line, "|") {
			for _, m := range cell.FindAllStringSubmatch(cells[column], -1) {
				words = append(words, m[1])
			}
		}
	}
	return words
}

// TestDocsInventNothing holds the code against the tables: what they list is
// there.
func TestDocsInventNothing(t *testing.T) {
	all := []string{"api", "audit", "caddymodule", "connect", "guard", "proxy", "refresh", "revoke", "tokenstore", "tokenstore/badgerstore", "tokenstore/pgstore", "webhook"}
	texts := inSource(t, `"([a-z][^"\n]+)"`, all...)
	for _, c := range []struct {
		file, under string
		column      int
	}{
		{"docs/proxying.md", "What Lanyard answers itself", 1},
		{"docs/api.md", "Errors", 1},
		{"docs/connect-flow.md", "Error codes", 1},
		{"docs/connect-flow.md", "Page codes", 1},
		{"docs/operations.md", "Logs", 2},
	} {
		for _, word := range tableUnder(t, c.file, c.under, c.column) {
			word = strings.TrimSuffix(word, " …")
			if word == "error" || word == "error_id" {
				continue // a column's name
			}
			if !slices.ContainsFunc(texts, func(s string) bool { return strings.HasPrefix(s, strings.TrimSuffix(word, ";")) }) {
				t.Errorf("%s, %s: nothing in the code says %q", c.file, c.under, word)
			}
		}
	}
}

// TestDocsAPI runs the commands of docs/api.md one after the other and holds
// the answers against those that stand there.
func TestDocsAPI(t *testing.T) {
	w := newWorld(t, func(w *world, c *fakeprovider.Config) {
		c.Scopes = append(c.Scopes, "read_user", "api")
		c.RedirectURIs = append(c.RedirectURIs, fmt.Sprintf("http://localhost:%d/callback/gitlab", w.site.Connect))
	})
	w.site.Extra = strings.ReplaceAll(`provider gitlab {
		issuer ISSUER
		api_url ISSUER/api
		allow_private
	}
	integration gitlab {
		client_id {env.FAKE_CLIENT_ID}
		client_secret {env.FAKE_CLIENT_SECRET}
		scopes read_user
	}`, "ISSUER", w.site.Fake)
	if err := w.reload(); err != nil {
		t.Fatal(err)
	}
	env := append(w.env(), "LANYARD="+w.proxyURL(""), "API_KEY="+w.apiKey)
	last, begun := "", false
	for _, b := range blocksOf(t, "docs/api.md") {
		switch {
		case b.info == "sh":
			cmd := exec.CommandContext(t.Context(), "sh", "-euc", b.text)
			cmd.Env, cmd.Dir = env, w.site.Dir
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %v", b, err)
			}
			if last = string(out); strings.Contains(last, `"code":`) {
				t.Errorf("%v: answered with %s", b, last)
			}
			w.note(out)
		case b.info == "json" && last != "":
			if err := sameAnswer("", decode(t, b.text), decode(t, last)); err != nil {
				t.Errorf("%v: %v\nwas answered %s", b, err, last)
			}
			if !begun {
				var c connection
				if err := json.Unmarshal([]byte(last), &c); err != nil {
					t.Fatal(err)
				}
				back := w.follow(newBrowser(t), c.ConnectURL)
				env = append(env, "ID="+c.ID, "COMPLETION_CODE="+back.Get("completion_code"))
				begun = true
			}
			last = ""
		}
	}
	if n := len(w.fake.Ledger().Revocations); n == 0 {
		t.Error("nothing was revoked at the provider")
	}
	if a := w.api(http.MethodGet, "/v1/connections", nil, nil); strings.Contains(a.Body, `"gitlab"`) {
		t.Errorf("the connection is still there: %s", a.Body)
	}
}

func decode(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// exact are the members whose values are the same each time.
var exact = []string{"status", "status_reason", "auth_scheme", "user_id", "team", "code", "provider_revoked_reason"}

// sameAnswer returns where a documented answer differs from a real one: in its
// members, in the type of a value, or in one that does not vary.
func sameAnswer(at string, doc, got any) error {
	switch doc := doc.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is no object", at)
		}
		for _, name := range slices.Sorted(maps.Keys(doc)) {
			if _, ok := got[name]; !ok {
				return fmt.Errorf("%s.%s is not there", at, name)
			}
			if err := sameAnswer(at+"."+name, doc[name], got[name]); err != nil {
				return err
			}
		}
		if len(got) != len(doc) {
			return fmt.Errorf("%s has %d members, not %d", at, len(got), len(doc))
		}
	case []any:
		got, ok := got.([]any)
		if !ok || (len(got) == 0) != (len(doc) == 0) {
			return fmt.Errorf("%s is another list", at)
		}
		if len(doc) > 0 {
			return sameAnswer(at+"[0]", doc[0], got[0])
		}
	case string:
		got, ok := got.(string)
		if !ok || slices.Contains(exact, at[strings.LastIndexByte(at, '.')+1:]) && got != doc {
			return fmt.Errorf("%s is not %q", at, doc)
		}
	default: // null, a boolean, a number
		if doc != got {
			return errors.New(at + " is another value")
		}
	}
	return nil
}
