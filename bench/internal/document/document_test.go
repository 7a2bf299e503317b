package document_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lanyard-proxy/lanyard/bench/internal/document"
)

func TestPut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.md")
	const doc = "# Speed\n\n<!-- a -->\nold\n<!-- /a -->\n\n<!-- b -->\n<!-- /b -->\n\nend\n"
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "a"} {
		if err := document.Put(file, name, "\nnew "+name+"\n\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if want := "# Speed\n\n<!-- a -->\nnew a\n<!-- /a -->\n\n<!-- b -->\nnew b\n<!-- /b -->\n\nend\n"; err != nil || string(got) != want {
		t.Errorf("the document is %q, %v; want %q", got, err, want)
	}
	if err := document.Put(file, "c", "new"); err == nil {
		t.Error("Put to a place that is not there = nil, want an error")
	}
	if err := document.Put("", "c", "new"); err != nil {
		t.Errorf("Put to no file = %v, want nil", err)
	}
}

func TestBetween(t *testing.T) {
	for _, doc := range []string{"", "<!-- a -->\n", "<!-- /a --> <!-- a -->"} {
		if got, err := document.Between(doc, "a", "new"); err == nil {
			t.Errorf("Between(%q) = %q, want an error", doc, got)
		}
	}
}
