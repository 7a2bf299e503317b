package e2e_test

import (
	"os"
	"strings"
	"testing"
)

// What the access log's filters that we ship keep out: a signed link is in an
// answer's header since there are hints.
func TestFiltersKnowTheLink(t *testing.T) {
	for _, name := range []string{"Caddyfile.example", "examples/github/Caddyfile", "docs/configuration.md", "internal/demo/Caddyfile"} {
		text, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "resp_headers>Lanyard-Connect-Url delete") {
			t.Errorf("%s: signed links stand in the access log", name)
		}
	}
}
