package e2e_test

import (
	"os"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/provider"
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

// Providers have codes under names of their own, and each is a code.
func TestFiltersKnowEveryCode(t *testing.T) {
	for _, file := range []string{"Caddyfile.example", "examples/github/Caddyfile", "docs/configuration.md", "internal/demo/Caddyfile"} {
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range provider.Names() {
			e, _ := provider.Lookup(name)
			if code := e.Callback.Code; code != "" && !strings.Contains(string(text), "replace "+code+" REDACTED") {
				t.Errorf("%s: the codes of %s stand in the access log, as %s", file, name, code)
			}
		}
	}
}
