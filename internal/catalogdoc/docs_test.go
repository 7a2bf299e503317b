package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is generated and committed is what the catalogue says today.
func TestGeneratedFiles(t *testing.T) {
	const root = "../.."
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the catalogue says: run `go generate ./provider` and commit it (%v)\n%s",
				name, err, cmp.Diff(string(got), string(want)))
		}
	}
}
