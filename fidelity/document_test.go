package fidelity_test

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/fidelity.md")

const document = "../docs/fidelity.md"

//go:embed testdata/fidelity.md
var preamble string

// TestDocument: docs/fidelity.md is what the rows say.
func TestDocument(t *testing.T) {
	want := render()
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("run go test ./fidelity -update: docs/fidelity.md is not what the rows say (-want +got)\n%s", diff)
	}
}

// render writes the document: the preamble, the table, and the configurations
// of the peers.
func render() string {
	var table strings.Builder
	count := map[string]int{}
	total := 0
	for _, g := range groups() {
		if len(g.rows) == 0 {
			continue
		}
		fmt.Fprintf(&table, "\n### %s\n\n| what | Lanyard | Caddy | nginx |\n|---|---|---|---|\n", g.title)
		for _, r := range g.rows {
			total++
			fmt.Fprintf(&table, "| %s |", r.name)
			for _, proxy := range proxies {
				why, failed := r.fails[proxy]
				if failed {
					fmt.Fprintf(&table, " no: %s |", why)
					continue
				}
				count[proxy]++
				table.WriteString(" yes |")
			}
			table.WriteString("\n")
		}
	}
	sums := fmt.Sprintf("| rows | Lanyard | Caddy | nginx |\n|---|---|---|---|\n| %d | %d | %d | %d |\n", total, count["lanyard"], count["caddy"], count["nginx"])
	return strings.NewReplacer(
		"SUMS\n", sums,
		"TABLE\n", strings.TrimPrefix(table.String(), "\n"),
		"CADDYFILE\n", configFor("caddy", shown),
		"NGINXCONF\n", configFor("nginx", shown),
	).Replace(preamble)
}
