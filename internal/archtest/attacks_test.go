package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	caseRow  = regexp.MustCompile(`(?m)^\| (A\d{3}) \| (P\d) \| .* \| (.*) \|$`)
	caseName = regexp.MustCompile(`\b(?:Test)?(A\d{3})(?:\b|[A-Z])`)
)

// TestAttacksAreTested: each case of docs/attacks.md is carried by a test, or
// says why not, and none that the tests carry is missing there.
func TestAttacksAreTested(t *testing.T) {
	doc, err := os.ReadFile("../../docs/attacks.md")
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range caseName.FindAllSubmatch(text, -1) {
			tested[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := caseRow.FindAllSubmatch(doc, -1)
	if len(rows) < 100 {
		t.Fatalf("docs/attacks.md has %d cases that can be read", len(rows))
	}
	for _, row := range rows {
		id, priority := string(row[1]), string(row[2])
		without := strings.HasPrefix(string(row[3]), "No test:")
		switch {
		case !without && !tested[id]:
			t.Errorf("no test carries %s", id)
		case without && priority == "P0":
			t.Errorf("%s is P0 and has no test", id)
		case without && tested[id]:
			t.Errorf("docs/attacks.md says that %s has no test, but one carries it", id)
		}
		delete(tested, id)
	}
	for id := range tested {
		t.Errorf("a test carries %s, which docs/attacks.md does not know", id)
	}
}
