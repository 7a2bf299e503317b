package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/go-cmp/cmp"

	_ "github.com/lanyard-proxy/lanyard/caddymodule"
)

// TestAdapt adapts each file's Caddyfile and compares with what stands below
// its line of dashes: JSON, or text that the error contains. With
// UPDATE_ADAPT=1 it writes that part.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, ok := strings.Cut(string(b), "----------\n")
			if !ok {
				t.Fatal("the file has no line of dashes")
			}
			got, err := adapt(t, input)
			if os.Getenv("UPDATE_ADAPT") != "" {
				out := got
				if err != nil {
					out = err.Error()
				}
				if err := os.WriteFile(file, []byte(input+"----------\n"+strings.TrimSpace(out)+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want = strings.TrimSpace(want)
			if strings.HasPrefix(want, "{") {
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("adapted with error %v, and otherwise (-want +got):\n%s", err, diff)
				}
				return
			}
			if err == nil || want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("error = %v\nwant one with: %s", err, want)
			}
		})
	}
}

// adapt adapts a Caddyfile, which has to be formatted, to indented JSON.
func adapt(t *testing.T, input string) (string, error) {
	t.Helper()
	b, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	for _, w := range warnings {
		t.Errorf("warning: %s", w.String())
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return out.String(), nil
}
