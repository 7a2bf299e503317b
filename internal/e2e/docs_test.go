package e2e_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/format"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/connect"
	"github.com/lanyard-proxy/lanyard/provider"
	"github.com/lanyard-proxy/lanyard/secret"
)

// root is the top of the repository.
const root = "../.."

// block is a fenced block of a Markdown file.
type block struct {
	file string // from root
	line int    // of its fence
	info string // what stands behind the fence
	text string // without the fence's indentation
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

func readDoc(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// docFiles are the project's pages: those at the top, and all of docs.
func docFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		if files[i], err = filepath.Rel(root, f); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// blocksOf returns the fenced blocks of a file.
func blocksOf(t *testing.T, file string) []block {
	t.Helper()
	t.Helper()
	var all []block
	var open *block
	indent := ""
	for i, line := range strings.Split(readDoc(t, file), "\n") {
		trimmed := strings.TrimLeft(line, " ")
		switch fence, isFence := strings.CutPrefix(trimmed, "```"); {
		case isFence && open == nil:
			indent = line[:len(line)-len(trimmed)]
			open = &block{file: file, line: i + 1, info: fence}
		case isFence:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		}
	}
	if open != nil {
		t.Errorf("%v: a block without an end", *open)
	}
	return all
}

// docBlocks returns the blocks of all pages that have this info string.
func docBlocks(t *testing.T, info string) []block {
	t.Helper()
	var found []block
	for _, file := range docFiles(t) {
		for _, b := range blocksOf(t, file) {
			if b.info == info {
				found = append(found, b)
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("no block %q in the documentation", info)
	}
	return found
}

// TestDocsKnowTheirBlocks keeps a block from escaping all the tests here.
func TestDocsKnowTheirBlocks(t *testing.T) {
	known := []string{"caddyfile", "caddyfile fragment", "json", "json caddy", "json entry", "sh", "text", "go", "html"}
	for _, file := range docFiles(t) {
		for _, b := range blocksOf(t, file) {
			if !slices.Contains(known, b.info) {
				t.Errorf("%v: a block of %q, which nothing checks", b, b.info)
			}
			if b.info == "sh" && file != "README.md" && file != "docs/api.md" && file != "docs/operations.md" {
				t.Errorf("%v: commands that no test runs", b)
			}
		}
	}
}

var placeholder = regexp.MustCompile(`\{env\.(\w+)\}`)

// caddyRuns runs the program under test on a configuration from the
// documentation, with the placeholders in it good for something.
func caddyRuns(t *testing.T, dir, config string, args ...string) error {
	t.Helper()
	config = strings.ReplaceAll(config, "{file./run/secrets/", "{file."+dir+"/")
	name := filepath.Join(dir, args[len(args)-1])
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	args[len(args)-1] = name
	cmd := exec.CommandContext(t.Context(), binary(t), args...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	for _, env := range placeholder.FindAllStringSubmatch(config, -1) {
		value := env[1] + strings.Repeat("-", 32)
		switch {
		case strings.Contains(env[1], "WEBHOOK"):
			value = webhookSecret
		case env[1] == "DATABASE_URL":
			value = "postgres://lanyard:password@127.0.0.1/lanyard" // which nobody asks
		}
		cmd.Env = append(cmd.Env, env[1]+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// configDir returns a directory that holds the keyset of the documentation.
func configDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	keys, err := exec.CommandContext(t.Context(), binary(t), "lanyard", "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lanyard-keys.json"), keys, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// whole makes a Caddyfile of a fragment: lines of the lanyard block, or of a
// site.
func whole(fragment string) string {
	const begin = "{\n\tlanyard {\n\t\tpublic_url https://connect.example.com\n"
	if word := strings.Fields(fragment)[0]; slices.Contains([]string{"provider", "integration", "webhook"}, word) {
		return begin + fragment + "}\n}\n"
	}
	return begin + "integration github {\nclient_id x\n}\n}\n}\n\n:9080 {\n" + fragment + "}\n"
}

func TestDocsCaddyfiles(t *testing.T) {
	dir := configDir(t)
	fragments := docBlocks(t, "caddyfile fragment")
	for _, b := range append(docBlocks(t, "caddyfile"), fragments...) {
		if err := caddyRuns(t, dir, b.text, "fmt", "--diff", "Caddyfile"); err != nil {
			t.Errorf("%v is not formatted: %v", b, err)
		}
		if b.info != "caddyfile" {
			b.text = whole(b.text)
		}
		if err := caddyRuns(t, dir, b.text, "validate", "--adapter", "caddyfile", "--config", "Caddyfile"); err != nil {
			t.Errorf("%v: %v", b, err)
		}
	}
}

func TestDocsJSON(t *testing.T) {
	dir := configDir(t)
	for _, b := range docBlocks(t, "json caddy") {
		if err := caddyRuns(t, dir, b.text, "validate", "--config", "caddy.json"); err != nil {
			t.Errorf("%v: %v", b, err)
		}
	}
	for _, b := range docBlocks(t, "json entry") {
		if _, err := provider.ParseEntry(b.String(), []byte(b.text)); err != nil {
			t.Error(err)
		}
	}
	for _, b := range docBlocks(t, "json") {
		if !json.Valid([]byte(b.text)) {
			t.Errorf("%v is not JSON", b)
		}
	}
}

func TestDocsGo(t *testing.T) {
	for _, b := range docBlocks(t, "go") {
		if made, err := format.Source([]byte(b.text)); err != nil || string(made) != b.text {
			t.Errorf("%v is not formatted Go: %v", b, err)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notSlug = regexp.MustCompile(`[^\w\- ]`)
	fenced  = regexp.MustCompile("(?ms)^ *```.*?^ *```")
)

// anchors returns the names under which the headings of a file are reached.
func anchors(t *testing.T, file string) []string {
	t.Helper()
	var names []string
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(readDoc(t, file), ""), -1) {
		names = append(names, strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}

func TestDocsLinks(t *testing.T) {
	known := map[string][]string{} // :: file → its anchors
	anchorsOf := func(file string) []string {
		if _, ok := known[file]; !ok {
			known[file] = anchors(t, file)
		}
		return known[file]
	}
	for _, file := range docFiles(t) {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(readDoc(t, file), ""), -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: link %q: %v", file, m[1], err)
				continue
			}
			if u.IsAbs() {
				continue
			}
			to := file
			if u.Path != "" {
				to = filepath.Join(filepath.Dir(file), u.Path)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s: link %q: %v", file, m[1], err)
			} else if u.Fragment != "" && !slices.Contains(anchorsOf(to), u.Fragment) {
				t.Errorf("%s: link %q: %s has no such heading", file, m[1], to)
			}
		}
	}
}

// TestDocsLinkRecipe runs the recipe for signing a link and checks the worked
// example.
func TestDocsLinkRecipe(t *testing.T) {
	const doc = "docs/connect-flow.md"
	var vectors []struct {
		PublicURL string `json:"public_url"`
		APIKey    string `json:"api_key"`
		Query     string `json:"query"`
		Signature string `json:"signature"`
	}
	if err := json.Unmarshal([]byte(readDoc(t, "connect/testdata/link_vectors.json")), &vectors); err != nil {
		t.Fatal(err)
	}
	v := vectors[0]
	key := hex.EncodeToString(secret.New(v.APIKey).MAC("lanyard link v1"))
	for _, want := range []string{v.PublicURL, v.APIKey, v.Query, v.Signature, key} {
		if !strings.Contains(readDoc(t, doc), " "+want+"\n") {
			t.Errorf("%s: the worked example lacks %s", doc, want)
		}
	}

	recipe := ""
	for _, b := range blocksOf(t, doc) {
		if b.info == "go" {
			recipe = b.text
		}
	}
	dir := t.TempDir()
	program := strings.Replace(recipe, "package links", "package main", 1) +
		`func main() { print(ConnectLink(` + "`" + v.PublicURL + "/`, `" + v.APIKey + "`, " + `url.Values{"user_id": {"Zoë & co"}})) }`
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "main.go")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0")
	made, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: the recipe: %v\n%s", doc, err, made)
	}
	publicURL, err := url.Parse(v.PublicURL)
	if err != nil {
		t.Fatal(err)
	}
	_, query, _ := strings.Cut(string(made), "?")
	p, err := connect.NewSigner(publicURL, []secret.String{secret.New(v.APIKey)}).Verify(query, time.Now())
	if err != nil || p.UserID != "Zoë & co" || time.Until(p.Expires) > 15*time.Minute {
		t.Errorf("the recipe's link says %+v, %v", p, err)
	}
}
