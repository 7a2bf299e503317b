package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"regexp"
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

// decodeObject reads one JSON object. Unlike encoding/json it takes names by
// their exact case, and refuses one that occurs twice: which of two tokens is
// meant must not be a guess. Numbers stay json.Number.
func decodeObject(b []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if err != nil {
		return nil, errNotObject
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotObject
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, errNotObject
	}
	return fields, nil
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
	for _, path := range p.entry.Answer.Paths {
		name, rest, _ := strings.Cut(path, ".")
		below, _ := fields[name].(map[string]any)
		if fields[path] != nil && lookup(below, rest) != nil {
			return true // it stands in two places
		}
		inner := fields
		for name := range strings.SplitSeq(path, ".") {
			next, ok := inner[name].(map[string]any)
			if !ok {
				break
			}
			if inner = next; foldedTwice(inner) {
				return true
			}
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

// lookup returns what stands at a path with dots, nil if nothing does.
func lookup(fields map[string]any, path string) any {
	if v, ok := fields[path]; ok {
		return v
	}
	name, rest, ok := strings.Cut(path, ".")
	if !ok {
		return nil
	}
	inner, ok := fields[name].(map[string]any)
	if !ok {
		return nil
	}
	return lookup(inner, rest)
}
