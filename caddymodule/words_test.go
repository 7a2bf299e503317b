package caddymodule_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/provider"
)

// wordsFile has every word that a provider can be described with.
const wordsFile = "testdata/adapt/provider_words.caddyfiletest"

// TestEveryWordHasALine: what a catalogue file can say, a Caddyfile can say too.
// TestAdapt holds what becomes of it.
func TestEveryWordHasALine(t *testing.T) {
	b, err := os.ReadFile(wordsFile)
	if err != nil {
		t.Fatal(err)
	}
	input, _, _ := strings.Cut(string(b), "----------\n")
	adapted, err := adapt(t, input)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Apps struct {
			Lanyard struct {
				Providers map[string]provider.Entry `json:"providers"`
			} `json:"lanyard"`
		} `json:"apps"`
	}
	if err := json.Unmarshal([]byte(adapted), &config); err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, e := range config.Apps.Lanyard.Providers {
		eachWord(reflect.ValueOf(e), "", func(word string, set bool) { said[word] = said[word] || set })
	}
	delete(said, "$schema") // for editors of JSON
	for word, set := range said {
		if !set {
			t.Errorf("%s: no line of %s sets it: give it one, and the words of a provider block in caddyfile_provider.go too", word, wordsFile)
		}
	}
	if !said["refresh.headers"] || !said["params.*.host"] || !said["exchange.url"] {
		t.Errorf("the walk does not get everywhere: %v", said)
	}
}

// eachWord calls do for every field below v that has a value of its own, under
// its name in JSON.
func eachWord(v reflect.Value, path string, do func(word string, set bool)) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v = reflect.New(v.Type().Elem())
		}
		eachWord(v.Elem(), path, do)
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.Anonymous {
				name = strings.TrimPrefix(path+"."+name, ".")
			} else {
				name = path
			}
			eachWord(v.Field(i), name, do)
		}
	case reflect.Map:
		do(path, v.Len() > 0)
		if elem := v.Type().Elem(); elem.Kind() == reflect.Struct {
			for _, item := range v.Seq2() {
				eachWord(item, path+".*", do)
			}
			eachWord(reflect.Zero(elem), path+".*", do)
		}
	default:
		do(path, !v.IsZero())
	}
}

// TestCatalogueAsCaddyfile: each catalogue entry can be written as a provider of
// one's own, and says the same there.
func TestCatalogueAsCaddyfile(t *testing.T) {
	for _, name := range provider.Names() {
		e, _ := provider.Lookup(name)
		e.Schema = ""
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var words map[string]any
		if err := json.Unmarshal(want, &words); err != nil {
			t.Fatal(err)
		}
		text := "{\nlanyard {\nprovider own {\n" + asCaddyfile(words, "") + "}\n}\n}\n"
		b, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
		if err != nil {
			t.Errorf("%s: %v in\n%s", name, err, text)
			continue
		}
		var config struct {
			Apps struct {
				Lanyard struct {
					Providers struct {
						Own json.RawMessage `json:"own"`
					} `json:"providers"`
				} `json:"lanyard"`
			} `json:"apps"`
		}
		if err := json.Unmarshal(b, &config); err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(string(want), string(config.Apps.Lanyard.Providers.Own)); diff != "" {
			t.Errorf("%s: (-catalogue +Caddyfile)\n%s", name, diff)
		}
	}
}

// inCaddyfile are the words that a Caddyfile has for those of a catalogue file,
// where they differ.
var inCaddyfile = map[string]string{
	"inject.headers": "set", "inject.params": "query_param", "revoke.param": "param_name", "scope_texts": "scope_text",
	"params": "param", "headers": "header", "paths": "path", "notes": "note", "sources": "source",
}

// asCaddyfile writes an object of a catalogue entry as the lines of a block.
func asCaddyfile(object map[string]any, in string) string {
	var b strings.Builder
	line := func(words ...string) { fmt.Fprintln(&b, strings.Join(words, " ")) }
	for _, key := range slices.Sorted(maps.Keys(object)) {
		word := cmp.Or(inCaddyfile[in+"."+key], inCaddyfile[key], key)
		switch v := object[key].(type) {
		case bool:
			line(word)
		case float64:
			line(word, fmt.Sprint(v))
		case string:
			line(word, quoted(v))
		case []any:
			for _, item := range v {
				if word != key || key == "unchecked" {
					line(word, quoted(item.(string)))
				}
			}
			if word == key && key != "unchecked" {
				items := []string{word}
				for _, item := range v {
					items = append(items, quoted(item.(string)))
				}
				line(items...)
			}
		case map[string]any:
			b.WriteString(objectAsCaddyfile(word, key, in, v))
		}
	}
	return b.String()
}

// objectAsCaddyfile writes an object: a map as a line for each name, else a
// block.
func objectAsCaddyfile(word, key, in string, v map[string]any) string {
	var b strings.Builder
	take := func(name string) string {
		text, _ := v[name].(string)
		delete(v, name)
		if text == "" {
			return ""
		}
		return " " + quoted(text)
	}
	switch {
	case key == "params" && in == "":
		for _, name := range slices.Sorted(maps.Keys(v)) {
			param := v[name].(map[string]any)
			pattern, _ := param["pattern"].(string)
			delete(param, "pattern")
			if pattern != "" {
				pattern = quoted(pattern)
			}
			fmt.Fprintf(&b, "param %s %s {\n%s}\n", name, pattern, asCaddyfile(param, "param"))
		}
	case slices.Contains([]string{"params", "headers", "paths", "rename", "success", "scope_texts"}, key):
		for _, name := range slices.Sorted(maps.Keys(v)) {
			fmt.Fprintln(&b, word, quoted(name), quoted(v[name].(string)))
		}
	case key == "key" && v["query"] != nil:
		fmt.Fprintf(&b, "key query%s {\n%s}\n", take("query"), asCaddyfile(v, key))
	case key == "key":
		fmt.Fprintf(&b, "key header%s%s {\n%s}\n", take("header"), take("prefix"), asCaddyfile(v, key))
	case key == "account":
		fmt.Fprintf(&b, "account%s {\n%s}\n", take("url"), asCaddyfile(v, key))
	default:
		fmt.Fprintf(&b, "%s {\n%s}\n", word, asCaddyfile(v, key))
	}
	return b.String()
}

func quoted(s string) string {
	if strings.Contains(s, `"`) {
		return "`" + s + "`"
	}
	return `"` + s + `"`
}
