package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/provider"
)

// durations are the words that say how long, by their path; answer.life may say
// `never`, too.
var durations = []string{"jwt.life", "refresh.interval", "refresh.life", "refresh.margin", "refresh.pause"}

const duration = `([0-9]+(\.[0-9]+)?(ms|s|m|h))+` // Go's, without what nobody writes

// comments are the doc comments of struct fields, by type and field.
type comments map[string]string

// readComments reads the comments of the package in dir.
func readComments(dir string) (comments, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	all := comments{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					for _, ident := range field.Names {
						all[spec.Name.Name+"."+ident.Name] = oneLine(field.Doc.Text())
					}
				}
			}
			return false
		})
	}
	return all, nil
}

// oneLine returns a comment as text for people.
func oneLine(comment string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(comment), " "), " :: ", ": ")
}

// schemaOf returns the JSON Schema (draft 2020-12) of a catalogue file.
func schemaOf(docs comments) ([]byte, error) {
	g := &generator{docs: docs, words: provider.Words()}
	root := g.object(reflect.TypeFor[provider.Entry](), "")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "A provider of Lanyard's catalogue"
	root["anyOf"] = []any{map[string]any{"required": []string{"api_url"}}, map[string]any{"required": []string{"issuer"}}}
	b, err := json.MarshalIndent(root, "", "\t")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

type generator struct {
	docs  comments
	words map[string][]string // :: word, by its path in an entry → what it may say
}

// object returns the schema of a struct that stands at a path.
func (g *generator) object(t reflect.Type, path string) map[string]any {
	properties := map[string]any{}
	g.fields(t, path, properties)
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

func (g *generator) fields(t reflect.Type, path string, properties map[string]any) {
	for f := range t.Fields() {
		if f.Anonymous {
			g.fields(f.Type, path, properties)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		at := strings.TrimPrefix(path+"."+name, ".")
		s := g.value(f.Type, at)
		doc := g.docs[t.Name()+"."+f.Name]
		if doc == "" {
			panic(fmt.Sprintf("%s.%s has no comment", t.Name(), f.Name))
		}
		s["description"] = doc
		properties[name] = s
	}
}

// value returns the schema of what stands at a path.
func (g *generator) value(t reflect.Type, path string) map[string]any {
	if right, ok := g.words[path]; ok {
		return map[string]any{"enum": right}
	}
	switch t.Kind() {
	case reflect.String:
		switch {
		case slices.Contains(durations, path):
			return map[string]any{"type": "string", "pattern": "^" + duration + "$"}
		case path == "answer.life":
			return map[string]any{"type": "string", "pattern": "^(" + duration + "|never)$"}
		}
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Pointer:
		return g.value(t.Elem(), path)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.value(t.Elem(), path+".*")}
	case reflect.Map:
		if names, ok := g.words[path+".*"]; ok { // its names are fixed, not what they say
			return map[string]any{
				"type": "object", "propertyNames": map[string]any{"enum": names}, "additionalProperties": map[string]any{"type": "string"},
			}
		}
		return map[string]any{"type": "object", "additionalProperties": g.value(t.Elem(), path+".*")}
	case reflect.Struct:
		return g.object(t, path)
	default:
		panic("no schema for " + t.String() + " at " + path)
	}
}
