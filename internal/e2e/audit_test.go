package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// auditLines returns the events of lines, each with who brought it about.
func auditLines(t *testing.T, text, id string) []string {
	t.Helper()
	lines := []string{}
	for line := range strings.Lines(text) {
		var e struct {
			Type         string `json:"type"`
			ConnectionID string `json:"connection_id"`
			Reason       string `json:"reason"`
			Allowed      bool   `json:"allowed"`
			Actor        struct{ Kind, Name, From string }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if id != "" && e.ConnectionID != id {
			continue
		}
		what := e.Type
		if e.Reason != "" {
			what += " (" + e.Reason + ")"
		}
		if !e.Allowed {
			what += " refused"
		}
		lines = append(lines, what+" by "+strings.TrimSpace(e.Actor.Kind+" "+e.Actor.Name))
	}
	return lines
}

// TestAuditLog walks through a connection's life and reads it in the audit log
// after a crash, by the script of docs/operations.md.
func TestAuditLog(t *testing.T) {
	w := newWorld(t)
	id := w.connect("audited")
	w.call(id, "/me")
	w.call(id, "/me")
	w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil)
	w.call(id, "/me")
	w.api(http.MethodPost, "/v1/connections/"+id+"/connect", nil, nil)
	w.api(http.MethodGet, "/v1/backup", nil, nil)
	stranger, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.proxyURL("/v1/connections"), nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger.Header.Set("Authorization", "Bearer "+w.clientKey)
	if a := w.do(stranger); a.Status != http.StatusUnauthorized {
		t.Errorf("the API with a client key = %d, want 401", a.Status)
	}
	w.kill()
	w.start()

	ship := w.shipping()
	want := []string{
		"connection.begun by api_key api_key 1", "connection.authorized by browser", "connection.active by api_key api_key 1",
		"connection.used by client app", "connection.refreshed by api_key api_key 1", "connection.used by client app",
		"connection.linked by api_key api_key 1",
	}
	all := ship()
	if diff := cmp.Diff(want, auditLines(t, all, id)); diff != "" {
		t.Errorf("events after a crash (-want +got)\n%s", diff)
	}
	for _, must := range []string{"store.backup by api_key api_key 1", "key.refused (api) refused by"} {
		if !strings.Contains(strings.Join(auditLines(t, all, ""), "\n"), must) {
			t.Errorf("no event %q in\n%s", must, all)
		}
	}
	if again := ship(); again != all {
		t.Errorf("nothing happened, and %d bytes were shipped", len(again)-len(all))
	}
	w.api(http.MethodDelete, "/v1/connections/"+id, nil, nil)
	more, ok := strings.CutPrefix(ship(), all)
	if diff := cmp.Diff([]string{"connection.deleted by api_key api_key 1"}, auditLines(t, more, id)); diff != "" || !ok {
		t.Errorf("events shipped later (-want +got)\n%s", diff)
	}
	w.note([]byte(ship()))
}

// shipping returns how to run the script of docs/operations.md and read what it
// has put together so far.
func (w *world) shipping() func() string {
	w.t.Helper()
	_, script, found := strings.Cut(readDoc(w.t, "docs/operations.md"), "```sh\n#!/bin/sh\n")
	script, _, closed := strings.Cut(script, "```")
	if !found || !closed {
		w.t.Fatal("docs/operations.md has no script")
	}
	dir := w.t.TempDir()
	return func() string {
		w.t.Helper()
		cmd := exec.CommandContext(w.t.Context(), "sh", "-c", script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "LANYARD="+w.proxyURL(""), "API_KEY="+w.apiKey)
		if out, err := cmd.CombinedOutput(); err != nil {
			w.t.Fatalf("the script: %v: %s", err, out)
		}
		b, err := os.ReadFile(filepath.Join(dir, "audit.jsonl"))
		if err != nil {
			w.t.Fatal(err)
		}
		return string(b)
	}
}
