package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Bounds of what a request may hold. Lengths are in characters.
const (
	maxBody       = 1 << 20 // bytes
	maxUserID     = 256
	maxName       = 256
	maxURL        = 2048 // longer URLs break in browsers and proxies
	maxState      = 512  // bytes, as in a link
	maxCode       = 256
	maxCursor     = 1024
	maxScopes     = 4096 // bytes, all together
	maxLabels     = 32
	maxLabelKey   = 64
	maxLabelValue = 256
)

// input is what a request says, each name at most once. A route takes the names
// it knows; done then refuses what is left, or the first that was wrong.
type input struct {
	id      string // the connection ID in the path
	by      tokenstore.Actor
	key     secret.String // the API key it came with
	query   map[string]string
	labels  []string // all of the query parameter `label`, the one that may be repeated
	body    map[string]json.RawMessage
	lines   string         // the media type of a body of JSON lines, which is not read yet
	problem *guard.Problem // the first
	once    once
}

// read reads the query and the body of a request.
func read(w http.ResponseWriter, r *http.Request, rt *route, id string) (*input, *guard.Problem) {
	in := &input{id: id, query: map[string]string{}}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidRequest("The query is not form-encoded.")
	}
	in.labels = values["label"]
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if len(values[name]) > 1 && name != "label" {
			return nil, invalidRequest("Query parameter %s is given more than once.", quote(name))
		}
		in.query[name] = values[name][0]
	}
	if r.Method == http.MethodPost {
		if p := in.once.take(r); p != nil {
			return nil, p
		}
	}
	if rt.path == importPath {
		if in.lines = linesOf(r.Header.Values("Content-Type")); in.lines != "" {
			return in, nil
		}
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, bodyTooLarge("The body")
	}
	if err != nil {
		return nil, invalidRequest("The body could not be read to its end.")
	}
	if in.once.key != "" {
		in.once.digest = secret.New(r.URL.RawQuery + "\n" + string(b)).Hash()
	}
	if len(b) == 0 {
		return in, nil
	}
	if !isJSON(r.Header.Values("Content-Type")) {
		detail := "A body has to be sent with `Content-Type: application/json`."
		if rt.path == importPath {
			detail = "A body has to be sent with `Content-Type: application/json`, or many lines with `application/jsonl`."
		}
		return nil, &guard.Problem{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Detail: detail}
	}
	var p *guard.Problem
	in.body, p = object(b, "The body")
	return in, p
}

func bodyTooLarge(what string) *guard.Problem {
	return &guard.Problem{
		Status: http.StatusRequestEntityTooLarge, Code: "body_too_large", Detail: what + " is over 1 MiB.",
	}
}

func isJSON(contentType []string) bool {
	if len(contentType) != 1 {
		return false
	}
	media, params, err := mime.ParseMediaType(contentType[0])
	charset, given := params["charset"]
	return err == nil && media == "application/json" && (!given || strings.EqualFold(charset, "utf-8"))
}

// object splits a JSON object into its members. encoding/json would take the
// last of two members with one name, and turn bytes that are not UTF-8 into
// replacement characters: one user into another.
func object(b []byte, what string) (map[string]json.RawMessage, *guard.Problem) {
	if !utf8.Valid(b) {
		return nil, invalidRequest("%s is not UTF-8.", what)
	}
	notJSON := invalidRequest("%s is not a single JSON object.", what)
	dec := json.NewDecoder(bytes.NewReader(b))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, notJSON
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, notJSON
		}
		if _, twice := members[name]; twice {
			return nil, invalidRequest("%s has %s more than once.", what, quote(name))
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, notJSON
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, notJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, notJSON
	}
	return members, nil
}

// quote makes a name that a stranger sent fit for a text.
func quote(name string) string {
	if r := []rune(name); len(r) > 64 {
		name = string(r[:64]) + "…"
	}
	return strconv.Quote(name)
}

// refuse keeps the first problem.
func (in *input) refuse(p *guard.Problem) {
	if in.problem == nil {
		in.problem = p
	}
}

// done returns what was wrong with the names that were taken, or refuses a
// name that nobody took.
func (in *input) done() *guard.Problem {
	for _, name := range slices.Sorted(maps.Keys(in.query)) {
		in.refuse(invalidRequest("Query parameter %s is not known here.", quote(name)))
	}
	for _, name := range slices.Sorted(maps.Keys(in.body)) {
		in.refuse(invalidRequest("Field %s is not known here.", quote(name)))
	}
	return in.problem
}

// param takes a query parameter. One that is given must not be empty: an empty
// filter would match everything.
func (in *input) param(name string, limit int) (string, bool) {
	value, given := in.query[name]
	delete(in.query, name)
	if given && value == "" {
		in.refuse(invalidRequest("Query parameter `%s` is empty.", name))
	}
	in.check("Query parameter `"+name+"`", value, limit)
	return value, given
}

// limit takes the query parameter `limit`, the size of a page.
func (in *input) limit() int {
	text, given := in.param("limit", maxName)
	if !given {
		return defaultLimit
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n < 1 || n > maxLimit {
		in.refuse(invalidRequest("Query parameter `limit` is not a number from 1 to %d.", maxLimit))
	}
	return int(n)
}

// text takes a field that holds a string.
func (in *input) text(name string, limit int) (string, bool) {
	raw, given := in.body[name]
	delete(in.body, name)
	if !given {
		return "", false
	}
	value, ok := str(raw)
	if !ok {
		in.refuse(invalidRequest("Field `%s` has to be a string.", name))
	}
	in.check("Field `"+name+"`", value, limit)
	return value, true
}

// state takes the field `state`, the app's own, which travels in URLs.
func (in *input) state() string {
	value, _ := in.text("state", maxState)
	if len(value) > maxState {
		in.refuse(invalidRequest("Field `state` has more than %d bytes.", maxState))
	}
	return value
}

// required takes a field that holds a string that is not empty.
func (in *input) required(name string, limit int) string {
	value, _ := in.text(name, limit)
	if value == "" {
		in.refuse(invalidRequest("Field `%s` is required.", name))
	}
	return value
}

// list takes a field that holds a list of strings.
func (in *input) list(name string) []string {
	raw, given := in.body[name]
	delete(in.body, name)
	if !given {
		return nil
	}
	var items []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		in.refuse(invalidRequest("Field `%s` has to be a list of strings.", name))
		return nil
	}
	values := make([]string, 0, len(items))
	for _, item := range items {
		value, ok := str(item)
		if !ok {
			in.refuse(invalidRequest("Field `%s` has to be a list of strings.", name))
			return nil
		}
		values = append(values, value)
	}
	return values
}

// object takes a field that holds an object of strings, `labels` or `params`,
// which have the same bounds.
func (in *input) object(field string) map[string]string {
	raw, given := in.body[field]
	delete(in.body, field)
	if !given {
		return nil
	}
	what := "Field `" + field + "`"
	members, p := object(raw, what)
	if p != nil {
		in.refuse(p)
		return nil
	}
	if len(members) > maxLabels {
		in.refuse(invalidRequest("%s has more than %d members.", what, maxLabels))
		return nil
	}
	all := make(map[string]string, len(members))
	for _, key := range slices.Sorted(maps.Keys(members)) {
		value, ok := str(members[key])
		if !ok {
			in.refuse(invalidRequest("%s: %s has to be a string.", what, quote(key)))
		}
		// In a link, they are written k=v,k=v.
		if key == "" || strings.ContainsAny(key, "=,") {
			in.refuse(invalidRequest("%s: the name %s is empty, or has a = or a comma.", what, quote(key)))
		}
		in.check(what+": a name", key, maxLabelKey)
		in.check(what+": "+quote(key), value, maxLabelValue)
		all[key] = value
	}
	return all
}

// check refuses a value that is too long or that is not text. The replacement
// character is what a lone surrogate is decoded to: two users would become one.
func (in *input) check(what, value string, limit int) {
	if utf8.RuneCountInString(value) > limit {
		in.refuse(invalidRequest("%s has more than %d characters.", what, limit))
	}
	if !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) {
		in.refuse(invalidRequest("%s has a control character, or is not Unicode text.", what))
	}
}

// str decodes a JSON string; encoding/json alone would take null for "".
func str(raw json.RawMessage) (string, bool) {
	var value string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &value) != nil {
		return "", false
	}
	return value, true
}
