package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
)

// moved is how many connections are moved.
const moved = 2000

// shown returns every connection as the API shows it.
func (w *world) shown() map[string]map[string]any {
	w.t.Helper()
	all, cursor := map[string]map[string]any{}, ""
	for {
		var page struct {
			Connections []map[string]any
			NextCursor  string `json:"next_cursor"`
		}
		if a := w.api(http.MethodGet, "/v1/connections?limit=200"+cursor, nil, &page); a.Status != http.StatusOK {
			w.t.Fatalf("list: HTTP %d: %s", a.Status, a.Body)
		}
		for _, c := range page.Connections {
			delete(c, "last_used_at")
			all[c["id"].(string)] = c
		}
		if page.NextCursor == "" {
			return all
		}
		cursor = "&cursor=" + url.QueryEscape(page.NextCursor)
	}
}

// wantReadOnly checks that valid tokens are served and that nothing is renewed.
func (w *world) wantReadOnly(id string) {
	w.t.Helper()
	a := w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil)
	if a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, `"store_readonly"`) || a.Header.Get("Retry-After") == "" {
		w.t.Errorf("refresh in a frozen store: HTTP %d: %s", a.Status, a.Body)
	}
	if err := w.wantCall(id, http.StatusOK); err != nil {
		w.t.Errorf("a call with a valid token: %v", err)
	}
}

func (w *world) wantRefreshed(id string) {
	w.t.Helper()
	if a := w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil); a.Status != http.StatusOK {
		w.t.Errorf("refresh: HTTP %d: %s", a.Status, a.Body)
	}
	if err := w.wantCall(id, http.StatusOK); err != nil {
		w.t.Errorf("a call after it: %v", err)
	}
}

// TestMigrate moves a store to PostgreSQL and back, while calls go on.
func TestMigrate(t *testing.T) {
	db := pgtest.Shared(t)
	dsn := db.Database(t)
	w := newWorld(t)
	w.environ = append(w.environ, "DATABASE_URL="+dsn)
	if u, err := url.Parse(dsn); err == nil {
		password, _ := u.User.Password()
		w.secrets = append(w.secrets, password)
	}
	stays, other := w.connect("stays"), w.connect("other")
	var lines strings.Builder
	for i := range moved {
		fmt.Fprintf(&lines, `{"integration":"fake","user_id":"user-%d","access_token":"at-%d","refresh_token":"rt-%d","expires_at":"2030-01-01T00:00:00Z","labels":{"n":"%d"}}`+"\n", i, i, i, i%7)
	}
	if a := w.importLines(lines.String()); a.Status >= 300 {
		t.Fatalf("import: HTTP %d: %.500s", a.Status, a.Body)
	}
	before := w.shown()
	if len(before) != moved+2 {
		t.Fatalf("%d connections, want %d", len(before), moved+2)
	}
	data := w.path("data")

	// One that is killed leaves nothing behind.
	killed := exec.Command(w.bin, "lanyard", "migrate", "--to", "postgres", "--data", data)
	killed.Env, killed.Dir = append(w.env(), "LANYARD_URL="+w.proxyURL("")), w.site.Dir
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	w.eventually("the store is frozen", func() error {
		var now struct{ State string }
		if w.api(http.MethodGet, "/v1/freeze", nil, &now); now.State != "frozen" {
			return errors.New(now.State)
		}
		return nil
	})
	_ = killed.Process.Kill()
	_ = killed.Wait()
	w.wantReadOnly(other)

	w.whileCalling(stays, func() {
		out := w.mustLanyard("migrate", "--to", "postgres", "--data", data)
		if !strings.Contains(out, fmt.Sprintf("%d connections", moved+2)) || !strings.Contains(out, "store postgres {env.DATABASE_URL}") {
			t.Errorf("migrate: %s", out)
		}
	})
	w.wantReadOnly(other)
	if _, err := w.lanyard("migrate", "--to", "postgres", "--data", data); err == nil || !strings.Contains(err.Error(), "store_moved") {
		t.Errorf("migrate again: %v", err)
	}
	w.stop()
	if out, err := w.startAndEnd(); err == nil || !strings.Contains(out, "the store was moved to PostgreSQL at") {
		t.Errorf("the old store opens: %v: %s", err, out)
	}

	keyset, err := os.ReadFile(data + "/lanyard-keys.json")
	if err != nil {
		t.Fatal(err)
	}
	w.environ = append(w.environ, "LANYARD_KEYSET="+string(keyset))
	w.secrets = append(w.secrets, keysetSecrets(keyset)...)
	w.site.Store = "postgres {env.DATABASE_URL}\n\t\tkeyset {env.LANYARD_KEYSET}"
	w.writeCaddyfile()
	w.start()
	if diff := cmp.Diff(before, w.shown()); diff != "" {
		t.Errorf("in PostgreSQL (-before +after):\n%.2000s", diff)
	}
	w.wantRefreshed(other)

	before = w.shown()
	back := w.path("back")
	w.whileCalling(stays, func() {
		out := w.mustLanyard("migrate", "--to", "badger", "--data", back, "--keyset", data+"/lanyard-keys.json")
		if !strings.Contains(out, fmt.Sprintf("%d connections", moved+2)) || !strings.Contains(out, "store badger "+back) {
			t.Errorf("migrate back: %s", out)
		}
	})
	w.wantReadOnly(other)
	w.stop()
	if out, err := w.startAndEnd(); err == nil || !strings.Contains(out, "the store was moved to Badger in") {
		t.Errorf("the database opens: %v: %s", err, out)
	}
	w.site.Store = "badger " + back + "\n\t\tkeyset {env.LANYARD_KEYSET}"
	w.writeCaddyfile()
	w.start()
	if diff := cmp.Diff(before, w.shown()); diff != "" {
		t.Errorf("back in Badger (-before +after):\n%.2000s", diff)
	}
	w.wantRefreshed(other)
	w.wantRefreshed(stays)
}

// startAndEnd starts a Lanyard that can't start, and returns what it says.
func (w *world) startAndEnd() (string, error) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), w.bin, "run", "--config", w.path("Caddyfile"), "--adapter", "caddyfile")
	cmd.Env, cmd.Dir = w.env(), w.site.Dir
	out, err := cmd.CombinedOutput()
	w.note(out)
	log, _ := os.ReadFile(w.path("caddy.log"))
	return string(out) + string(tail(log)), err
}

// importLines imports JSON lines.
func (w *world) importLines(lines string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.proxyURL("/v1/connections/import?verify=false"), strings.NewReader(lines))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.apiKey)
	req.Header.Set("Content-Type", "application/jsonl")
	return w.do(req)
}
