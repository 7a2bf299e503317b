package dialect

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// object is a JSON object that is written by paths.
type object map[string]any

// put writes a value at a path, none of which is nothing.
func (o object) put(path, value string) {
	if path == "" || strings.HasPrefix(path, "{") {
		return
	}
	parts := strings.Split(path, ".")
	if parts[0] == "0" { // the answer is a list
		o["0"] = putIn(o["0"], parts, value)
		return
	}
	putIn(o, parts, value)
}

func putIn(at any, path []string, value string) any {
	if len(path) == 0 {
		return value
	}
	name := path[0]
	if n, err := strconv.Atoi(name); err == nil {
		items, _ := at.([]any)
		for len(items) <= n {
			items = append(items, nil)
		}
		items[n] = putIn(items[n], path[1:], value)
		return items
	}
	if cond, ok := strings.CutPrefix(name, "["); ok {
		key, want, _ := strings.Cut(strings.TrimSuffix(cond, "]"), "=")
		items, _ := at.([]any)
		if len(items) == 0 {
			items = []any{map[string]any{key: "another"}, map[string]any{key: want}}
		}
		items[1] = putIn(items[1], path[1:], value)
		return items
	}
	var fields map[string]any
	switch at := at.(type) {
	case object:
		fields = at
	case map[string]any:
		fields = at
	default:
		fields = map[string]any{}
	}
	fields[name] = putIn(fields[name], path[1:], value)
	return fields
}

// String returns the object as JSON. Numbers and truths are such.
func (o object) String() string {
	var out any = map[string]any(o)
	if list, ok := o["0"]; ok && len(o) == 1 {
		out = list
	}
	b, err := json.Marshal(plain(out))
	if err != nil {
		panic(fmt.Sprintf("an answer: %v", err)) // of texts alone
	}
	return strings.ReplaceAll(string(b), `"$life"`, "$life")
}

func plain(v any) any {
	switch v := v.(type) {
	case string:
		switch v {
		case "true":
			return true
		case "false":
			return false
		}
		if n, err := strconv.Atoi(v); err == nil && len(v) < 10 {
			return n
		}
	case map[string]any:
		for name, inner := range v {
			v[name] = plain(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = plain(inner)
		}
	}
	return v
}
