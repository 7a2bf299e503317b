package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
)

var coded = regexp.MustCompile("`([^`]+)`")

// codes returns what a cell of a table has as code.
func codes(cell string) []string {
	var words []string
	for _, m := range coded.FindAllStringSubmatch(cell, -1) {
		words = append(words, m[1])
	}
	return words
}

// TestLanguageNamesItsProviders: those that a rule of docs/providers.md says made
// it necessary do use its word.
func TestLanguageNamesItsProviders(t *testing.T) {
	page, err := os.ReadFile("../../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), tableEnd)
	text, _, _ = strings.Cut(text, "\n## What is read of an answer")
	rules, word := 0, ""
	for line := range strings.SplitSeq(text, "\n") {
		cells := strings.Split(strings.ReplaceAll(line, `\|`, ""), "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		words, value := codes(cells[1]), ""
		if strings.Contains(cells[1], "…") { // what the word above may say
			words, value = []string{word}, words[0]
		}
		word = words[0]
		for _, name := range codes(cells[3]) {
			e, ok := provider.Lookup(name)
			if !ok {
				continue // no provider's name
			}
			rules++
			if !slices.ContainsFunc(words, func(word string) bool { return says(t, &e, word, value) }) {
				t.Errorf("docs/providers.md says that %s made %s %s necessary: it does not say it", name, words, value)
			}
		}
	}
	if rules < 100 {
		t.Errorf("%d names of providers are in the tables", rules)
	}
}

// says reports whether an entry has a word, with a value if there is one.
func says(t *testing.T, e *provider.Entry, word, value string) bool {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var at any
	if err := json.Unmarshal(b, &at); err != nil {
		t.Fatal(err)
	}
	return has(at, strings.Split(word, "."), value)
}

func has(at any, path []string, value string) bool {
	if len(path) == 0 {
		text, _ := at.(string)
		return value == "" || text == value
	}
	fields, _ := at.(map[string]any)
	for name, inner := range fields {
		if (name == path[0] || path[0] == "*") && has(inner, path[1:], value) {
			return true
		}
	}
	return false
}
