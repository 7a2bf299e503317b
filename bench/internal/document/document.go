// Package document writes what was measured into the documents.
package document

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Marks returns what stands before and behind the place of that name.
func Marks(name string) (begin, end string) {
	return "<!-- " + name + " -->", "<!-- /" + name + " -->"
}

// Put writes text to a file: in a Markdown file that exists, to the place of that
// name. Without a file it does nothing.
func Put(file, name, text string) error {
	if file == "" {
		return nil
	}
	if filepath.Ext(file) == ".md" {
		doc, err := os.ReadFile(file)
		if err == nil {
			if text, err = Between(string(doc), name, text); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		} else if !os.IsNotExist(err) {
			return err
		}
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// Between puts text between the marks of a Markdown document.
func Between(doc, name, text string) (string, error) {
	begin, end := Marks(name)
	before, rest, ok := strings.Cut(doc, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("it has no %s … %s to put the figures in between", begin, end)
	}
	return before + begin + "\n" + strings.TrimSpace(text) + "\n" + end + after, nil
}
