// Package archtest checks the direction of imports, so that the layout in
// docs/architecture.md stays true without a linter.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lanyard-proxy/lanyard"

// allowed lists, for each package of this module, the packages of this module
// it may import. A package that is missing here may import none.
var allowed = map[string][]string{
	".":                      {"caddymodule"},
	"tokenstore":             {"secret"},
	"tokenstore/badgerstore": {"internal/failpoint", "internal/resident", "secret", "tokenstore"},
	"tokenstore/memstore":    {"secret", "tokenstore"},
	"tokenstore/pgstore":     {"internal/failpoint", "secret", "tokenstore"},
	"tokenstore/storetest":   {"secret", "tokenstore"},
	"seal":                   {"secret", "tokenstore"},
	"guard":                  {"secret"},
	"provider":               {"internal/failpoint", "internal/nearest", "internal/uuid", "secret", "tokenstore"},
	"refresh":                {"internal/failpoint", "internal/spans", "metrics", "secret", "tokenstore"},
	"connect":                {"guard", "internal/failpoint", "internal/spans", "metrics", "secret", "tokenstore", "ui"},
	"proxy":                  {"guard", "internal/spans", "internal/uuid", "metrics", "secret", "tokenstore"},
	"api":                    {"guard", "revoke", "secret", "tokenstore"},
	"audit":                  {"guard", "tokenstore"},
	"webhook":                {"metrics", "secret", "tokenstore"},
	"revoke":                 {"seal", "tokenstore"},
	"dashboard":              {"guard", "revoke", "secret", "tokenstore", "ui"},
	"bench":                  {"bench/internal/build", "bench/internal/child", "bench/internal/document", "bench/internal/machine"},
	"bench/nodes":            {"bench/internal/build", "bench/internal/child", "bench/internal/document", "bench/internal/machine"},
	"bench/scale":            {"bench/internal/build", "bench/internal/child", "bench/internal/document", "bench/internal/machine", "refresh", "seal", "secret", "tokenstore", "tokenstore/badgerstore"},
	"bench/schedule":         {"provider", "refresh", "secret", "tokenstore"},
	"bench/streams":          {"bench/internal/build", "bench/internal/child", "bench/internal/document", "bench/internal/machine"},
	"internal/catalogdoc":    {"provider"},
	"internal/demo":          {"internal/fakeprovider"},
	"internal/dialect":       {"provider", "tokenstore"},
	"internal/soak":          {"internal/fakeprovider", "internal/pgtest"},
	"caddymodule": {
		"api", "audit", "connect", "dashboard", "guard", "internal/demo", "internal/failpoint", "internal/fakeprovider", "internal/http1", "internal/nearest", "metrics", "internal/resident", "provider", "proxy",
		"refresh", "revoke", "seal", "secret", "tokenstore", "tokenstore/badgerstore", "tokenstore/pgstore", "ui", "webhook",
	},
	"cmd/lanyard":     {"caddymodule"},
	"examples/go-app": {"client"}, // modules of their own
}

// only lists the packages that may import a heavy dependency.
var only = map[string][]string{
	"github.com/caddyserver/": {"caddymodule", "cmd/lanyard"},
	"github.com/dgraph-io/":   {"bench/scale", "tokenstore/badgerstore"},
	"github.com/getkin/":      {"internal/openapitest"},
	"github.com/jackc/pgx":    {"tokenstore/pgstore"},
	"github.com/tink-crypto/": {"seal"},
	"github.com/prometheus/":  {"caddymodule"},
	"golang.org/x/oauth2":     {"provider"},
	"go.opentelemetry.io/":    {"internal/spans"},
	"go.uber.org/zap": {
		"api", "audit", "caddymodule", "connect", "dashboard", "internal/demo", "proxy", "refresh", "revoke", "tokenstore/badgerstore", "tokenstore/pgstore", "webhook",
	},
}

// testOnly may stand in no program.
var testOnly = []string{"internal/dialect", "internal/openapitest", "tokenstore/memstore", "tokenstore/storetest"}

func TestImportDirections(t *testing.T) {
	seen := map[string]bool{}
	err := fs.WalkDir(os.DirFS("../.."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && foreign(name) {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", name), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		from := path.Dir(name)
		seen[from] = true
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, name, from, imp)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, must := range []string{".", "caddymodule", "cmd/lanyard", "proxy", "tokenstore"} {
		if !seen[must] {
			t.Errorf("no Go file found in %s: wrong directory?", must)
		}
	}
}

func checkImport(t *testing.T, name, from, imp string) {
	t.Helper()
	if to, ok := strings.CutPrefix(imp, module+"/"); ok {
		if !slices.Contains(allowed[from], to) || slices.Contains(testOnly, to) {
			t.Errorf("%s: package %s must not import %s", name, from, to)
		}
	}
	for dep, who := range only {
		if strings.HasPrefix(imp, dep) && !slices.Contains(who, from) {
			t.Errorf("%s: package %s must not import %s", name, from, imp)
		}
	}
}

// foreign reports whether a folder holds what is no package of this module.
func foreign(name string) bool {
	base := path.Base(name)
	return base != "." && strings.HasPrefix(base, ".") || base == "node_modules" || base == "testdata" || name == "tools" || name == "client"
}
