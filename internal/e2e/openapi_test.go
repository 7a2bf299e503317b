package e2e_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/openapitest"
)

var description = sync.OnceValues(func() (*openapitest.Checker, error) {
	document, err := os.ReadFile("../../api/openapi.json")
	if err != nil {
		return nil, err
	}
	return openapitest.New(document)
})

// described fails the test if a call of the API, and its answer, are not as
// openapi.json says.
func (w *world) described(req *http.Request, res *http.Response, body []byte) {
	w.t.Helper()
	h := req.Header
	if !strings.HasPrefix(req.URL.Path, "/v1/") || h.Get("Authorization") != "Bearer "+w.apiKey ||
		h.Get("Connection-Id") != "" || h.Get("User-Id") != "" {
		return
	}
	check, err := description()
	if err != nil {
		w.t.Error(err)
		return
	}
	x := openapitest.Exchange{Request: req, Status: res.StatusCode, Header: res.Header, Body: body}
	if req.GetBody != nil {
		if sent, err := req.GetBody(); err == nil {
			x.RequestBody, _ = io.ReadAll(sent)
		}
	}
	if err := check.Check(x); err != nil {
		w.t.Errorf("%s %s = %d: %v", req.Method, req.URL.Path, res.StatusCode, err)
	}
}

func TestDescriptionIsServed(t *testing.T) {
	w := newWorld(t)
	res, err := http.Get(w.proxyURL("/v1/openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openapitest.New(text); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("HTTP %d, %v", res.StatusCode, err)
	}
}
