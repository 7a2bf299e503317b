// Command catalogdoc writes what is generated from the catalogue of providers
// and the language it is written in: the JSON schema for editors, and the tables
// of docs/providers.md. A test compares what is committed with what it writes.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := write(root); err != nil {
		fmt.Fprintln(os.Stderr, "catalogdoc:", err)
		os.Exit(1)
	}
}

// write writes every generated file below root, the repository.
func write(root string) error {
	files, err := generate(root)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil { //nolint:gosec // for everybody
			return err
		}
	}
	return nil
}
