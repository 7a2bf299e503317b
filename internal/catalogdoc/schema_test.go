package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lanyard-proxy/lanyard/provider"
)

// schema returns what is generated, for use.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	files, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(files[schemaFile]))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("entry.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("entry.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, entry string) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(entry))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestSchemaTakesTheCatalogue(t *testing.T) {
	s := schema(t)
	files, err := filepath.Glob("../../provider/catalog/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no catalogue: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, string(b)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// What the schema refuses Lanyard refuses too: an editor must not complain of an
// entry that is good.
func TestSchemaRefuses(t *testing.T) {
	s := schema(t)
	const rest = `"token_url": "https://a.example/t", "authorize_url": "https://a.example/a"`
	for name, entry := range map[string]string{
		"no API":                 `{` + rest + `}`,
		"unknown word":           `"tokens_url": "https://a.example/t"`,
		"unknown word below":     `"refresh": {"rotate": "grace"}`,
		"one of a few":           `"refresh": {"rotation": "twice"}`,
		"a name of a few":        `"answer": {"paths": {"token": "a"}}`,
		"one of a few, embedded": `"exchange": {"method": "PUT"}`,
		"not a duration":         `"refresh": {"life": "30 days"}`,
		"never in a wrong place": `"refresh": {"life": "never"}`,
		"life":                   `"answer": {"life": "always"}`,
		"text for a list":        `"scopes": "a b"`,
		"number for a text":      `"authorize": {"params": {"v": 1}}`,
		"text for a flag":        `"refresh": {"send_scope": "true"}`,
		"below none":             `"refresh": {"concurrency": -1}`,
		"param":                  `"params": {"shop": {"form": "x"}}`,
		"param as text":          `"params": {"shop": "x"}`,
		"not an object":          `[]`,
	} {
		if !strings.HasPrefix(entry, "{") && !strings.HasPrefix(entry, "[") {
			entry = `{"api_url": "https://a.example", ` + rest + `, ` + entry + `}`
		}
		if err := validate(t, s, entry); err == nil {
			t.Errorf("%s: the schema takes %s", name, entry)
		}
		if _, err := provider.ParseEntry(name, []byte(entry)); err == nil {
			t.Errorf("%s: Lanyard takes %s", name, entry)
		}
	}
}

// Every word that takes one of a few says so in the schema: none of the table is
// of another name than a field's.
func TestSchemaHasAllWords(t *testing.T) {
	files, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	for path, right := range provider.Words() {
		if !bytes.Contains(files[schemaFile], []byte(`"`+right[0]+`"`)) {
			t.Errorf("the schema has no %s of %s", right[0], path)
		}
	}
	if n := bytes.Count(files[schemaFile], []byte(`"enum"`)); n != len(provider.Words()) {
		t.Errorf("the schema has %d lists of words; provider.Words has %d", n, len(provider.Words()))
	}
}

func TestMarked(t *testing.T) {
	for text, want := range map[string]string{
		"client_id and client_secret": "client_id and client_secret",
		"_a_ and a_":                  `\_a\_ and a\_`,
		"<b> *x* | [y] {z}":           `&lt;b> \*x\* \| \[y\] \{z\}`,
	} {
		if got := marked(text); got != want {
			t.Errorf("marked(%q) = %q; want %q", text, got, want)
		}
	}
}
