package e2e_test

import (
	"os"
	"strings"
	"testing"
)

// TestFiltersKnowTheLink: answers have a signed link in a header, which the
// access log's filters that come with Lanyard keep out.
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
