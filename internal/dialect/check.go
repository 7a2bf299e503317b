package dialect

import (
	"encoding/json"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	wordPattern = regexp.MustCompile(`\$[a-z_]+`)
	uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	// challengePattern is what S256 makes (RFC 7636 section 4.2).
	challengePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
)

// check is one look at a request.
type check struct {
	b         *books
	kind      string
	now       time.Time
	grant     *grant            // whose code or token it has
	presented string            // that code or token
	found     map[string]string // :: word → what stood there
	wrong     []string
}

// place is a URL cut into what is compared.
func place(u string) (host, path string) {
	rest := strings.TrimPrefix(u, "https://")
	host, path, _ = strings.Cut(rest, "/")
	return host, "/" + path
}

// at reports whether a request came to a URL, in which there may be words.
func (in *incoming) at(u string) bool {
	host, path := place(u)
	return in.host == host && match(in.path, path) != nil
}

// match returns what stands at the words of a pattern, nil if value is not of it.
func match(value, pattern string) map[string]string {
	var names []string
	var expr strings.Builder
	for {
		at := wordPattern.FindStringIndex(pattern)
		if at == nil {
			break
		}
		expr.WriteString(regexp.QuoteMeta(pattern[:at[0]]) + "(.*)")
		names, pattern = append(names, pattern[at[0]:at[1]]), pattern[at[1]:]
	}
	m := regexp.MustCompile("^" + expr.String() + regexp.QuoteMeta(pattern) + "$").FindStringSubmatch(value)
	if m == nil {
		return nil
	}
	found := map[string]string{}
	for i, name := range names {
		found[name] = m[i+1]
	}
	return found
}

// value checks one text against what it has to be, and returns why it is not.
func (c *check) value(value, pattern string) string {
	found := match(value, pattern)
	if found == nil {
		return "is not " + pattern
	}
	for w, v := range found {
		if why := c.word(w, v); why != "" {
			return why
		}
		c.found[w] = v
	}
	return ""
}

// word checks what stands in the place of a word.
func (c *check) word(w, v string) string {
	fixed := map[string]string{"$client": c.b.client, "$secret": c.b.secret, "$redirect": c.b.redirect}
	if want, ok := fixed[w]; ok {
		if v != want {
			return "is not " + w
		}
		return ""
	}
	switch w {
	case "$code", "$refresh", "$access", "$token":
		g, ok := c.b.given[v]
		c.presented = v
		if !ok || w != "$token" && g.kind != w[1:] && g.kind != "credential" {
			return "is not " + w
		}
		c.grant = g.grant
	case "$offline_scopes":
		if !slices.Contains(strings.Fields(v), "offline_access") {
			return "has no offline_access"
		}
	case "$uuid":
		if !uuidPattern.MatchString(v) {
			return "is no UUID"
		}
	case "$challenge":
		if !challengePattern.MatchString(v) {
			return "is no S256 challenge"
		}
	case "$assertion":
		if strings.Count(v, ".") != 2 {
			return "is no signed assertion"
		}
	default:
		if v == "" {
			return "is empty"
		}
	}
	return ""
}

func (c *check) say(word, format string, args ...any) {
	before := len(c.b.complaints)
	c.b.complain(c.kind, format, args...)
	if word != "" {
		c.b.complaints[before] += ": see " + word
	}
	c.wrong = append(c.wrong, c.b.complaints[before])
}

// request checks all of a request.
func (c *check) request(in *incoming, r *Request) {
	w := words[c.kind]
	if method := r.method(); in.method != method && c.kind != "call" {
		c.say(w.method, "the method is %s, want %s", in.method, method)
	}
	_, path := place(r.URL)
	if why := c.value(in.path, path); why != "" && c.kind != "call" {
		c.say(w.url, "the path %s", why)
	}
	params := c.params(in, r)
	for _, name := range slices.Sorted(maps.Keys(r.Params)) {
		value, ok := params[name]
		switch want := r.Params[name]; {
		case want == "" && ok:
			c.say(w.params, "the parameter %s must not be there", name)
		case want == "":
		case !ok:
			c.say(w.params, "the parameter %s is missing; there are %v", name, slices.Sorted(maps.Keys(params)))
		default:
			if why := c.value(value, want); why != "" {
				c.say(w.params, "the parameter %s %s", name, why)
			}
		}
	}
	for name, value := range params {
		if r.uses("$secret") && r.Params[name] == "" && c.b.secret != "" && value == c.b.secret {
			c.say(w.params, "the client's secret is in the parameter %s, where it does not belong", name)
		}
	}
	c.headers(in, r)
}

func (c *check) headers(in *incoming, r *Request) {
	w := words[c.kind]
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		values := in.header.Values(name)
		if len(values) != 1 {
			c.say(w.headers, "the header %s is there %d times", name, len(values))
			continue
		}
		if why := c.value(values[0], r.Headers[name]); why != "" {
			c.say(w.headers, "the header %s %s", name, why)
		}
	}
	if r.Headers["Authorization"] == "" && in.header.Get("Authorization") != "" {
		c.say(w.headers, "there is a header Authorization, and must be none")
	}
}

// params returns the parameters of a request from where they have to stand.
func (c *check) params(in *incoming, r *Request) map[string]string {
	w := words[c.kind]
	if c.kind == "call" || c.kind == "account" { // requests as an app makes them
		if r.JSON != "" && !sameJSON(in.body, r.JSON) {
			c.say(w.body, "the body is not %s", r.JSON)
		}
		return flat(in.query)
	}
	media := map[string]string{bodyForm: "application/x-www-form-urlencoded", bodyJSON: "application/json"}[r.body()]
	switch {
	case media != "" && in.media != media && (in.body != "" || len(r.Params) > 0):
		c.say(w.body, "the body is %q, want %q", in.media, media)
	case media == "" && in.body != "":
		c.say(w.body, "there is a body, and must be none")
	}
	if r.body() == bodyQuery {
		return flat(in.query)
	}
	if r.body() == bodyNone {
		return nil
	}
	return in.fields
}

func sameJSON(a, b string) bool {
	var got, want any
	return json.Unmarshal([]byte(a), &got) == nil && json.Unmarshal([]byte(b), &want) == nil && reflect.DeepEqual(got, want)
}

func flat(values url.Values) map[string]string {
	out := map[string]string{}
	for name := range values {
		out[name] = values.Get(name)
	}
	return out
}

func (r *Request) method() string {
	if r.Method != "" {
		return r.Method
	}
	return "POST"
}

func (r *Request) body() string {
	switch {
	case r.Body != "":
		return r.Body
	case r.method() == "GET":
		return bodyQuery
	}
	return bodyForm
}
