package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/lanyard-proxy/lanyard/internal/nearest"
)

// wordReader goes through the JSON of an entry beside its Go types, and says
// where a word is not of the language.
type wordReader struct {
	text  []byte
	dec   *json.Decoder
	lines map[string]int // :: path such as refresh.rotation → its line
}

// readWords checks the words of an entry, but not their values. It returns on
// which line each stands, as far as it came.
func readWords(b []byte) (map[string]int, error) {
	r := &wordReader{text: b, dec: json.NewDecoder(bytes.NewReader(b)), lines: map[string]int{}}
	if err := r.value(reflect.TypeFor[Entry](), ""); err != nil {
		return r.lines, fmt.Errorf("line %d: %w", r.line(), err)
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return r.lines, fmt.Errorf("line %d: more follows behind the entry, which is one JSON object", r.line())
	}
	return r.lines, nil
}

// line returns the line that was read last.
func (r *wordReader) line() int {
	return 1 + bytes.Count(r.text[:min(int(r.dec.InputOffset()), len(r.text))], []byte("\n"))
}

// value reads one value of a type, at a path.
func (r *wordReader) value(t reflect.Type, path string) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	tok, err := r.dec.Token()
	if err != nil {
		return notJSON(err)
	}
	var ok bool
	var want string
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		want = "an object"
		if tok == json.Delim('{') {
			return r.object(t, path)
		}
	case reflect.Slice:
		want = "a list"
		if tok == json.Delim('[') {
			return r.list(t, path)
		}
	case reflect.Bool:
		_, ok = tok.(bool)
		want = "true or false"
	case reflect.Int:
		var n float64
		n, ok = tok.(float64)
		ok = ok && n == float64(int(n))
		want = "a whole number"
	default:
		_, ok = tok.(string)
		want = "a text in quotes"
	}
	switch {
	case ok:
		return nil
	case path == "":
		return errors.New("an entry is one JSON object")
	}
	return fmt.Errorf("%s has to be %s", path, want)
}

func (r *wordReader) list(t reflect.Type, path string) error {
	for r.dec.More() {
		if err := r.value(t.Elem(), path); err != nil {
			return err
		}
	}
	_, err := r.dec.Token()
	return notJSON(err)
}

func (r *wordReader) object(t reflect.Type, path string) error {
	for r.dec.More() {
		tok, err := r.dec.Token()
		if err != nil {
			return notJSON(err)
		}
		name, _ := tok.(string)
		at := strings.TrimPrefix(path+"."+name, ".")
		if r.lines[at] != 0 {
			return fmt.Errorf("%s is given twice, first on line %d", at, r.lines[at])
		}
		r.lines[at] = r.line()
		var inner reflect.Type
		if t.Kind() == reflect.Map {
			inner = t.Elem()
		} else {
			inner = wordsOf(t)[name]
		}
		if inner == nil {
			return unknownWord(t, path, name)
		}
		if err := r.value(inner, at); err != nil {
			return err
		}
	}
	_, err := r.dec.Token()
	return notJSON(err)
}

// notJSON returns the error of a text that is none; nil for nil.
func notJSON(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not JSON: it ends too early")
	}
	return fmt.Errorf("not JSON: %w", err)
}

// wordsOf returns the words of a part of the language, and of what type each is.
func wordsOf(t reflect.Type) map[string]reflect.Type {
	words := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			words[name] = f.Type
		}
	}
	return words
}

// unknownWord names a word that the language does not have there, and the
// nearest that it has.
func unknownWord(t reflect.Type, path, name string) error {
	known := wordsOf(t)
	words := slices.Sorted(maps.Keys(known))
	at := strings.TrimPrefix(path+"."+name, ".")
	if near := nearest.Word(name, words); near != "" {
		return fmt.Errorf("%q is no word of the language; did you mean %q?", at, strings.TrimPrefix(path+"."+near, "."))
	}
	if elsewhere := findWord(reflect.TypeFor[Entry](), "", name); elsewhere != "" {
		return fmt.Errorf("%q is no word of the language; did you mean %q?", at, elsewhere)
	}
	if path == "" {
		return fmt.Errorf("%q is no word of the language; it has %s", at, strings.Join(words, ", "))
	}
	return fmt.Errorf("%q is no word of the language; %s has %s", at, path, strings.Join(words, ", "))
}

// findWord returns where the language has a word, or `part_name` for part.name.
func findWord(t reflect.Type, path, name string) string {
	words := wordsOf(t)
	for _, word := range slices.Sorted(maps.Keys(words)) {
		inner := words[word]
		at := strings.TrimPrefix(path+"."+word, ".")
		if path != "" && (word == name || strings.ReplaceAll(at, ".", "_") == name) {
			return at
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			if found := findWord(inner, at, name); found != "" {
				return found
			}
		}
	}
	return ""
}
