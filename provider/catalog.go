package provider

import (
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

//go:generate go run ../internal/catalogdoc ..

//go:embed catalog/*.json
var catalog embed.FS

// Lookup returns the catalogue's entry with this name.
func Lookup(name string) (Entry, bool) {
	file := path.Join("catalog", name+".json")
	b, err := catalog.ReadFile(file)
	if err != nil || !slices.Contains(Names(), name) {
		return Entry{}, false
	}
	e, err := ParseEntry(file, b)
	if err != nil { // a test reads every file that is built in
		panic(err)
	}
	return e, true
}

// Names returns the names of the catalogue, sorted.
func Names() []string {
	files, err := catalog.ReadDir("catalog")
	if err != nil {
		panic(err) // the folder is built in
	}
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".json"))
	}
	slices.Sort(names)
	return names
}

// ParseEntry reads and validates one catalogue file. Its errors name the file,
// the line where it is known, the wrong word and the right ones.
func ParseEntry(file string, b []byte) (Entry, error) {
	lines, err := readWords(b)
	if err != nil {
		return Entry{}, fmt.Errorf("%s: %w", file, err)
	}
	var e Entry
	if err := json.Unmarshal(b, &e); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", file, err)
	}
	if err := e.Validate(); err != nil {
		if line := lineOf(err, lines); line > 0 {
			return Entry{}, fmt.Errorf("%s: line %d: %w", file, line, err)
		}
		return Entry{}, fmt.Errorf("%s: %w", file, err)
	}
	return e, nil
}

// lineOf returns the line of the word that an error of Validate begins with, or
// of what it is a part of; zero if it stands nowhere.
func lineOf(err error, lines map[string]int) int {
	word, _, _ := strings.Cut(err.Error(), " ")
	word = strings.TrimSuffix(word, ":")
	for word != "" && lines[word] == 0 {
		word = word[:max(strings.LastIndex(word, "."), 0)]
	}
	return lines[word]
}
