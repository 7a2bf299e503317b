package api

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/secret"
)

// maxMetadata bounds the metadata of a connection in bytes, without white space.
const maxMetadata = 16 << 10

// flag takes a field that is true or false.
func (in *input) flag(name string) (value, given bool) {
	raw, given := in.body[name]
	delete(in.body, name)
	switch string(raw) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	if given {
		in.refuse(invalidRequest("Field `%s` has to be true or false.", name))
	}
	return false, given
}

// null takes a field that is null. It leaves one that is not.
func (in *input) null(name string) bool {
	if string(in.body[name]) != "null" {
		return false
	}
	delete(in.body, name)
	return true
}

// metadata takes the field `metadata`, a JSON object of the app's own. It is
// empty if it is not there, or has no members.
func (in *input) metadata() string {
	raw, given := in.body["metadata"]
	delete(in.body, "metadata")
	if !given {
		return ""
	}
	members, p := object(raw, "Field `metadata`")
	if p != nil {
		in.refuse(p)
		return ""
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil || b.Len() > maxMetadata {
		in.refuse(invalidRequest("Field `metadata` has more than %d bytes.", maxMetadata))
		return ""
	}
	if len(members) == 0 {
		return ""
	}
	return b.String()
}

// labelFilter takes the query parameter `label`, k=v, which may be repeated.
func (in *input) labelFilter() map[string]string {
	if _, given := in.query["label"]; !given {
		return nil
	}
	delete(in.query, "label")
	labels := map[string]string{}
	for _, pair := range in.labels {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			in.refuse(invalidRequest("Query parameter `label` is not name=value."))
			continue
		}
		in.check("Query parameter `label`: the name", k, maxLabelKey)
		in.check("Query parameter `label`: the value", v, maxLabelValue)
		if have, twice := labels[k]; twice && have != v {
			in.refuse(invalidRequest("Query parameter `label` says two values of one name: no connection has both."))
		}
		labels[k] = v
	}
	if len(labels) > maxLabels {
		in.refuse(invalidRequest("Query parameter `label` is given more than %d times.", maxLabels))
	}
	return labels
}

// token takes a field that holds an access or refresh token.
func (in *input) token(name string) (value secret.String, given bool) {
	raw, given := in.body[name]
	delete(in.body, name)
	if !given {
		return secret.String{}, false
	}
	text, ok := str(raw)
	// RFC 6749 appendix A.12: visible characters. A space is none either: nothing
	// that is read out of a header has one.
	if !ok || text == "" || len(text) > maxSecret || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		in.refuse(invalidRequest("Field `%s` has to be a token: a string of visible ASCII.", name))
		return secret.String{}, true
	}
	return secret.New(text), true
}

// instant takes a field that holds a time, in RFC 3339.
func (in *input) instant(name string) time.Time {
	text, given := in.text(name, maxName)
	if !given {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		in.refuse(invalidRequest("Field `%s` is not a time in RFC 3339, such as 2026-11-22T10:00:00Z.", name))
	}
	if t = t.UTC(); t.Year() < 1970 || t.Year() > 9999 { // which no JSON could say (RFC 3339)
		in.refuse(invalidRequest("Field `%s` is in no year from 1970 to 9999.", name))
	}
	return t
}

// truth takes a query parameter that is true or false.
func (in *input) truth(name string, otherwise bool) bool {
	switch value, given := in.param(name, maxName); {
	case !given:
		return otherwise
	case value == "true":
		return true
	case value != "false":
		in.refuse(invalidRequest("Query parameter `%s` is neither true nor false.", name))
	}
	return false
}

// badID is said of an ID that is given as a field and has not its form.
func badID() *guard.Problem {
	return invalidRequest("Field `id` has not the form of a connection's ID: conn_ and 1 to 64 letters and digits.")
}
