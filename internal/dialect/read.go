package dialect

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// incoming is a request as it came.
type incoming struct {
	method, host, path string // path is escaped
	query              url.Values
	header             http.Header
	media              string // of the body
	body               string
	fields             map[string]string // of the body
}

// maxBody bounds what is read of a request, in bytes.
const maxBody = 1 << 20

func readRequest(r *http.Request) (*incoming, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	in := &incoming{
		method: r.Method, host: r.Host, path: r.URL.EscapedPath(), query: r.URL.Query(), header: r.Header,
		body: string(b), fields: map[string]string{},
	}
	in.media, _, _ = mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch in.media {
	case "application/x-www-form-urlencoded":
		values, err := url.ParseQuery(in.body)
		if err != nil {
			return nil, err
		}
		for name := range values {
			in.fields[name] = values.Get(name)
		}
	case "application/json":
		var object map[string]any
		if json.Unmarshal(b, &object) == nil {
			for name, v := range object {
				in.fields[name] = fmt.Sprint(v)
			}
		}
	}
	if user, password, ok := r.BasicAuth(); ok {
		in.header = r.Header.Clone()
		in.header.Set("Authorization", "Basic "+unescape(user)+":"+unescape(password))
	}
	return in, nil
}

// unescape undoes the encoding of RFC 6749 section 2.3.1, where there is one.
func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

// tellings returns every text of a request that may be a word of the books.
func (in *incoming) tellings() []string {
	var all []string
	for _, vs := range in.query {
		all = append(all, vs...)
	}
	for _, v := range in.fields {
		all = append(all, v)
	}
	for _, vs := range in.header {
		for _, v := range vs {
			all = append(all, v, strings.TrimPrefix(v, "Basic "))
			all = append(all, strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(" ,:=\"", r) })...)
		}
	}
	for segment := range strings.SplitSeq(in.path, "/") {
		if plain, err := url.PathUnescape(segment); err == nil {
			all = append(all, plain)
		}
	}
	for _, v := range all {
		for part := range strings.SplitSeq(v, ".") { // the claims of an assertion
			claims := map[string]any{}
			if b, err := base64.RawURLEncoding.DecodeString(part); err == nil && json.Unmarshal(b, &claims) == nil {
				for _, claim := range claims {
					all = append(all, fmt.Sprint(claim))
				}
			}
		}
	}
	return all
}
