package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// binary returns the program under test: $LANYARD_BIN, or ./caddy at the top
// of the repository, which must not be older than what it is built from.
func binary(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("LANYARD_BIN")
	given := bin != ""
	if !given {
		bin = "../../caddy"
	}
	abs, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	built, err := os.Stat(abs)
	if err != nil {
		t.Fatalf("the program under test is not built: run ./xcaddy.sh, or ./test.sh for everything (%v)", err)
	}
	if given {
		return abs
	}
	last := lastChange()
	if last.err != nil {
		t.Fatalf("what the program under test is built from: %v", last.err)
	}
	if built.ModTime().Before(last.at) {
		t.Fatalf("the program under test is older than %s: run ./xcaddy.sh, or ./test.sh for everything", last.file)
	}
	return abs
}

// change is when a file was changed.
type change struct {
	file string
	at   time.Time
	err  error // why that is not known
}

// lastChange returns the last change to what ./caddy is built from.
var lastChange = sync.OnceValue(func() change {
	const files = `{{if and .Module .Module.Main}}{{range .GoFiles}}{{$.Dir}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$.Dir}}/{{.}}
{{end}}{{.Module.GoMod}}{{end}}`
	out, err := exec.Command("go", "list", "-deps", "-tags", "nobadger,nomysql,nopgx", "-f", files, "../../cmd/lanyard").Output()
	if err != nil {
		return change{err: fmt.Errorf("go list: %w", err)}
	}
	var last change
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSpace(file)
		info, err := os.Stat(file)
		if err != nil {
			return change{err: err}
		}
		if info.ModTime().After(last.at) {
			last = change{file: file, at: info.ModTime()}
		}
	}
	return last
})
