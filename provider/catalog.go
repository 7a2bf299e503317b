package provider

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

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

// ParseEntry reads and validates one catalogue file. Its errors name the file
// and the wrong word; a word the language does not have is an error.
func ParseEntry(file string, b []byte) (Entry, error) {
	var e Entry
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := decodeObject(b); err != nil { // a word given twice, or more after the object
		return Entry{}, fmt.Errorf("%s: %w", file, err)
	}
	if err := e.Validate(); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", file, err)
	}
	return e, nil
}
