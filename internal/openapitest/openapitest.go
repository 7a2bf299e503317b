// Package openapitest holds requests and answers of the management API against
// its description. It is for tests.
package openapitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// Checker knows one description.
type Checker struct {
	Doc    *openapi3.T
	router routers.Router
}

// New reads a description, or says what is wrong with it.
func New(document []byte) (*Checker, error) {
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, fmt.Errorf("reading the description: %w", err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, fmt.Errorf("the description is not valid: %w", err)
	}
	doc.Servers = nil // tests listen anywhere
	router, err := legacy.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("the description's paths: %w", err)
	}
	return &Checker{Doc: doc, router: router}, nil
}

// Exchange is a request and its answer, with their whole bodies.
type Exchange struct {
	Request     *http.Request
	RequestBody []byte
	Status      int
	Header      http.Header
	Body        []byte
}

// Check returns what does not go with the description: of the answer, and of the
// request where it was accepted. One that is wrong on purpose is refused.
func (c *Checker) Check(x Exchange) error {
	r := x.Request.Clone(context.Background())
	r.Body = io.NopCloser(bytes.NewReader(x.RequestBody))
	head := r.Method == http.MethodHead
	if head {
		r.Method = http.MethodGet
	}
	route, params, err := c.router.FindRoute(r)
	if err == nil && strings.HasSuffix(r.URL.Path, "/") {
		err = routers.ErrPathNotFound // the router doesn't mind
	}
	if err != nil {
		return c.unknown(x, err)
	}
	in := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route, QueryParams: r.URL.Query(),
		Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true,
		},
	}
	if x.Status < http.StatusBadRequest {
		err = c.checkRequest(in, x)
	}
	if head || x.Status == http.StatusNotModified {
		return err
	}
	return errors.Join(err, c.checkAnswer(in, x))
}

// unknown judges an answer at a path, or to a method, that is not described.
func (c *Checker) unknown(x Exchange, err error) error {
	if x.Status < http.StatusBadRequest {
		return fmt.Errorf("%s %s was answered %d and is not described: %w", x.Request.Method, x.Request.URL.Path, x.Status, err)
	}
	if x.Request.Method == http.MethodHead {
		return nil
	}
	return c.Value("Problem", x.Body)
}

func (c *Checker) checkRequest(in *openapi3filter.RequestValidationInput, x Exchange) error {
	for name := range in.QueryParams {
		if in.Route.Operation.Parameters.GetByInAndName("query", name) == nil {
			return fmt.Errorf("query parameter %q was accepted and is not described", name)
		}
	}
	// An empty body counts as none.
	in.Options.ExcludeRequestBody = len(x.RequestBody) == 0 || !isJSON(x.Request.Header)
	if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
		return fmt.Errorf("the request was accepted and is not as described: %w", err)
	}
	return nil
}

func (c *Checker) checkAnswer(in *openapi3filter.RequestValidationInput, x Exchange) error {
	described := in.Route.Operation.Responses.Status(x.Status)
	if described == nil {
		return fmt.Errorf("status %d is not described: %s", x.Status, x.Body)
	}
	media, _, err := mime.ParseMediaType(x.Header.Get("Content-Type"))
	if err != nil || described.Value.Content.Get(media) == nil {
		return fmt.Errorf("status %d with Content-Type %q is not described", x.Status, x.Header.Get("Content-Type"))
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: x.Status, Header: x.Header, Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true,
			ExcludeResponseBody: !isJSON(x.Header),
		},
	}
	out.SetBodyBytes(x.Body)
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		return fmt.Errorf("the answer is not as described: %w", err)
	}
	return c.checkLines(in.Route.Operation.OperationID, media, x.Body)
}

// checkLines judges answers that are more than one JSON value.
func (c *Checker) checkLines(operation, media string, body []byte) error {
	schema, prefix := map[string]string{"events": "Event", "import": "ImportLine"}[operation], ""
	switch media {
	case "application/jsonl", "application/x-ndjson":
	case "text/event-stream":
		prefix = "data: "
	default:
		return nil
	}
	for line := range strings.Lines(string(body)) {
		text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), prefix)
		if !ok || text == "" {
			continue
		}
		if err := c.Value(schema, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// Value returns why text is no JSON of the schema with this name.
func (c *Checker) Value(schema string, text []byte) error {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return fmt.Errorf("no JSON: %w: %s", err, text)
	}
	ref, ok := c.Doc.Components.Schemas[schema]
	if !ok {
		return fmt.Errorf("no schema %s", schema)
	}
	if err := ref.Value.VisitJSON(value, openapi3.EnableJSONSchema2020(), openapi3.MultiErrors()); err != nil {
		return fmt.Errorf("not as schema %s: %w: %s", schema, err, text)
	}
	return nil
}

func isJSON(h http.Header) bool {
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (media == "application/json" || media == "application/problem+json")
}
