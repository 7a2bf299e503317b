package api_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/internal/openapitest"
)

var description = sync.OnceValues(func() (*openapitest.Checker, error) {
	document, err := os.ReadFile("openapi.json")
	if err != nil {
		return nil, err
	}
	return openapitest.New(document)
})

func checker(t *testing.T) *openapitest.Checker {
	t.Helper()
	c, err := description()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// described fails the test if a request and its answer are not as openapi.json
// says.
func (b *bench) described(r *http.Request, body string, res *http.Response, text []byte) {
	b.t.Helper()
	err := checker(b.t).Check(openapitest.Exchange{
		Request: r, RequestBody: []byte(body), Status: res.StatusCode, Header: res.Header, Body: text,
	})
	if err != nil {
		b.t.Errorf("%s %s = %d: %v", r.Method, r.URL, res.StatusCode, err)
	}
}

func TestDescriptionHasEveryRoute(t *testing.T) {
	var got []string
	for path, item := range checker(t).Doc.Paths.Map() {
		for method := range item.Operations() {
			got = append(got, method+" "+path)
		}
	}
	slices.Sort(got)
	want := api.Routes()
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-in the table +described):\n%s", diff)
	}
}

// TestDescriptionHasEveryCode: codes and types of events are said where they are
// made, and described.
func TestDescriptionHasEveryCode(t *testing.T) {
	schemas := checker(t).Doc.Components.Schemas
	for _, tt := range []struct {
		schema, files, pattern string
	}{
		{"Code", "*.go", `Code: +"([a-z_]+)"`},
		{"Code", "../guard/*.go", `Code: +"([a-z_]+)"`},
		{"EventType", "../tokenstore/event.go", `EventType += "([a-z_.]+)"`},
	} {
		files, err := filepath.Glob(tt.files)
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		found := 0
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(tt.pattern).FindAllStringSubmatch(string(text), -1) {
				found++
				if !slices.Contains(schemas[tt.schema].Value.Enum, any(m[1])) {
					t.Errorf("%s says %q, which schema %s does not have", name, m[1], tt.schema)
				}
			}
		}
		if found == 0 {
			t.Errorf("nothing found in %s", tt.files)
		}
	}
}

func TestDescriptionHasExamples(t *testing.T) {
	for _, path := range []string{"/v1/connections", "/v1/connections/{id}/connect", "/v1/connections/{id}/complete"} {
		op := checker(t).Doc.Paths.Value(path).Post
		contents := []openapi3.Content{op.RequestBody.Value.Content}
		for status, res := range op.Responses.Map() {
			if status[0] == '2' {
				contents = append(contents, res.Value.Content)
			}
		}
		if len(contents) < 2 {
			t.Errorf("%s has no answer", path)
		}
		for i, c := range contents {
			if c.Get("application/json").Example == nil {
				t.Errorf("%s: body %d has no example", path, i)
			}
		}
	}
}

// TestCheckerFindsMistakes: what is not described is found, in answers and in
// requests that are accepted.
func TestCheckerFindsMistakes(t *testing.T) {
	const whole = `{"id":"conn_A","status":"INITIATED","connect_url":"https://a/connect","expires_at":"2026-11-22T00:38:58Z"}`
	for _, tt := range []struct {
		name, target, body string
		status             int
		answer             string
		ok                 bool
	}{
		{"right", "/v1/connections", `{"user_id":"u1"}`, 201, whole, true},
		{"a field too few", "/v1/connections", ``, 201, strings.Replace(whole, `"status":"INITIATED",`, "", 1), false},
		{"a field too many", "/v1/connections", ``, 201, strings.Replace(whole, `{`, `{"token":"t",`, 1), false},
		{"another type", "/v1/connections", ``, 201, strings.Replace(whole, `"INITIATED"`, `3`, 1), false},
		{"another status", "/v1/connections", ``, 202, whole, false},
		{"a field of the request", "/v1/connections", `{"user":"u1"}`, 201, whole, false},
		{"a query parameter", "/v1/connections?dry=true", ``, 201, whole, false},
		{"another path", "/v1/connectors", ``, 201, whole, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "http://localhost"+tt.target, nil)
			r.Header.Set("Content-Type", "application/json")
			err := checker(t).Check(openapitest.Exchange{
				Request: r, RequestBody: []byte(tt.body), Status: tt.status,
				Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(tt.answer),
			})
			if (err == nil) != tt.ok {
				t.Errorf("Check() = %v", err)
			}
		})
	}
}

func TestDocument(t *testing.T) {
	b := newBench(t)
	get := func(method string, change ...func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://localhost/v1/openapi.json", nil) // without a key
		for _, f := range change {
			f(r)
		}
		w := httptest.NewRecorder()
		b.h.ServeHTTP(w, r)
		return w
	}
	w := get(http.MethodGet)
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	tag := w.Header().Get("ETag")
	if w.Code != http.StatusOK || w.Body.String() != string(want) || w.Header().Get("Content-Type") != "application/json" ||
		!strings.Contains(w.Header().Get("Cache-Control"), "max-age") || tag == "" {
		t.Errorf("answer = %d, %v", w.Code, w.Header())
	}
	if w := get(http.MethodGet, header("If-None-Match", tag)); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("with its ETag: %d", w.Code)
	}
	if w := get(http.MethodHead); w.Code != http.StatusOK || w.Body.Len() > 0 {
		t.Errorf("HEAD: %d", w.Code)
	}
	if w := get(http.MethodPost); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
	if w := get(http.MethodGet, header("Origin", "https://evil.example")); w.Code != http.StatusForbidden {
		t.Errorf("from a web page: %d", w.Code)
	}
}
