package api_test

import (
	"testing"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// TestIdempotentImportWithAnID: as TestIdempotencyAfterACrash, where the import
// says its `id`; one that was there before is still nobody's to claim.
func TestIdempotentImportWithAnID(t *testing.T) {
	s := &notesFail{fail: func(n int32) bool { return n == 2 || n == 6 }}
	b := newBench(t, func(c *api.Config) { s.Store, c.Store = c.Store.(*memstore.Store), s })
	body := `{"integration":"github","id":"conn_mine","access_token":"a"}`
	b.wants(b.do("POST", importPath, body, once("k")), 201, "")
	b.wants(b.do("POST", importPath, body, once("k")), 201, "") // its answer was not kept
	if _, err := s.Store.CreateConnection(t.Context(), tokenstore.Connection{ID: "conn_other"}); err != nil {
		t.Fatal(err)
	}
	body = `{"integration":"github","id":"conn_other","access_token":"a"}`
	b.wants(b.do("POST", importPath, body, once("k2")), 409, "connection_exists")
	b.wants(b.do("POST", importPath, body, once("k2")), 409, "connection_exists")
}
