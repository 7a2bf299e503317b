package ui

import (
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

//go:embed scopes
var scopeFiles embed.FS

// scopeWords are the catalogue's scopes in plain words, in the languages that
// are not the catalogue's :: language → provider → scope → text.
var scopeWords = mustScopeWords()

func mustScopeWords() map[string]map[string]map[string]string {
	all := map[string]map[string]map[string]string{}
	entries, err := scopeFiles.ReadDir("scopes")
	for _, e := range entries {
		var body []byte
		if body, err = scopeFiles.ReadFile(path.Join("scopes", e.Name())); err != nil {
			break
		}
		var texts map[string]map[string]string
		if err = json.Unmarshal(body, &texts); err != nil {
			break
		}
		all[strings.TrimSuffix(e.Name(), ".json")] = texts
	}
	if err != nil {
		panic(fmt.Sprintf("ui: scopes: %v", err))
	}
	return all
}

// ScopeText returns what a scope allows in l. text is what the catalogue says of
// it, which is returned where there is nothing else: a provider of one's own may
// say it in any language. provider is its catalogue name.
func ScopeText(l *Lang, provider, scope, text string) string {
	if said := scopeWords[l.Tag][provider][scope]; text != "" && said != "" {
		return said
	}
	return text
}
