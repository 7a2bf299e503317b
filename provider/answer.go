package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// maxDepth is how deep an answer may be nested.
const maxDepth = 10

var errNotObject = errors.New("not one JSON object with unique names")

// formName is the name of a field in a form-encoded answer. A page of HTML
// that happens to split at its ampersands has others.
var formName = regexp.MustCompile(`^[A-Za-z0-9_.\[\]-]{1,128}$`)

// decodeBody reads a JSON object or a form, whatever its content type says
// (answers come under all of them), or returns nil.
func decodeBody(body string) map[string]any {
	body = strings.TrimSpace(strings.TrimPrefix(body, "\ufeff"))
	if strings.HasPrefix(body, "{") {
		fields, err := decodeObject([]byte(body))
		if err != nil {
			return nil
		}
		return fields
	}
	values, err := url.ParseQuery(body)
	if err != nil || len(values) == 0 {
		return nil
	}
	fields := make(map[string]any, len(values))
	for name, vs := range values {
		// RFC 6749 section 3.2: "Request and response parameters MUST NOT be
		// included more than once."
		if len(vs) != 1 || !formName.MatchString(name) {
			return nil
		}
		fields[name] = vs[0]
	}
	return fields
}

// decodeObject reads one JSON object, as decodeJSON does.
func decodeObject(b []byte) (map[string]any, error) {
	v, err := decodeJSON(b)
	if err != nil {
		return nil, err
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, errNotObject
	}
	return fields, nil
}

// decodeJSON reads one JSON value. Unlike encoding/json it takes names by their
// exact case, and refuses one that occurs twice: which of two tokens is meant
// must not be a guess. Numbers stay json.Number.
func decodeJSON(b []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if err != nil {
		return nil, errNotObject
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotObject
	}
	return v, nil
}

func decodeValue(dec *json.Decoder, depth int) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if depth == maxDepth {
		return nil, errNotObject
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			v, err := decodeValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	}
	fields := map[string]any{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := tok.(string)
		if !ok {
			return nil, errNotObject
		}
		if _, twice := fields[name]; twice {
			return nil, errNotObject
		}
		if fields[name], err = decodeValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = dec.Token()
	return fields, err
}

// ambiguous reports whether an object that is read has two names that differ
// in nothing but their letters' case, by Unicode's rules (U+017F is an s, U+212A
// a k), or a credential under a name in another case: other readers of the same
// answer, such as encoding/json, would take the one for the other.
func (p *Provider) ambiguous(fields map[string]any) bool {
	if foldedTwice(fields) {
		return true
	}
	for path := range p.readPaths() {
		if foldedAlong(fields, path) {
			return true
		}
		if step, rest := cutPath(path); rest != "" && fields[path] != nil && lookup(fields[step], rest) != nil {
			return true // it stands in two places
		}
	}
	return false
}

// readPaths returns the paths that are read of a token endpoint's answer.
func (p *Provider) readPaths() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, path := range p.entry.Answer.Paths {
			if !yield(path) {
				return
			}
		}
		for path := range p.entry.Answer.Success {
			if !yield(path) {
				return
			}
		}
		for _, told := range p.params.declared {
			if told.from == fromAnswer && !yield(told.path) {
				return
			}
		}
	}
}

// foldedAlong reports whether one of the objects that a path leads through is
// foldedTwice.
func foldedAlong(v any, path string) bool {
	for path != "" {
		var step string
		step, path = cutPath(path)
		list, _ := v.([]any)
		for _, one := range list { // any of which the step may take
			if fields, ok := one.(map[string]any); ok && foldedTwice(fields) {
				return true
			}
		}
		v = lookup(v, step)
		if fields, ok := v.(map[string]any); ok && foldedTwice(fields) {
			return true
		}
	}
	return false
}

func foldedTwice(fields map[string]any) bool {
	seen := make(map[string]bool, len(fields))
	for name := range fields {
		folded := fold(name)
		credential := folded == "access_token" || folded == "refresh_token"
		if seen[folded] || credential && name != folded {
			return true
		}
		seen[folded] = true
	}
	return false
}

// fold returns one writing for all that strings.EqualFold takes for the same,
// in lower case where it is ASCII.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		if 'A' <= least && least <= 'Z' {
			least += 'a' - 'A'
		}
		return least
	}, s)
}

// cutPath returns the first step of a path, and what follows. A dot in brackets
// is none between steps.
func cutPath(path string) (step, rest string) {
	depth := 0
	for i, c := range path {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == '.' && depth <= 0:
			return path[:i], path[i+1:]
		}
	}
	return path, ""
}

// lookup returns what stands at a path (AnswerEntry), nil if nothing does. A name
// that has dots of its own is found, too.
func lookup(v any, path string) any {
	step, rest := cutPath(path)
	var inner any
	switch v := v.(type) {
	case map[string]any:
		if whole, ok := v[path]; ok {
			return whole
		}
		inner = v[step]
	case []any:
		inner = item(v, step)
	}
	if rest == "" || inner == nil {
		return inner
	}
	return lookup(inner, rest)
}

// item returns the item of a list that a step takes: by its number, or the first
// that has a value at a path.
func item(list []any, step string) any {
	if test, ok := strings.CutPrefix(step, "["); ok {
		path, want, _ := strings.Cut(strings.TrimSuffix(test, "]"), "=")
		for _, one := range list {
			if text, ok := plainText(lookup(one, path)); ok && text == want {
				return one
			}
		}
		return nil
	}
	if n, err := strconv.ParseUint(step, 10, 31); err == nil && n < uint64(len(list)) {
		return list[n]
	}
	return nil
}

// plainText returns a text, a number or a truth value as it is written.
func plainText(v any) (text string, ok bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}
