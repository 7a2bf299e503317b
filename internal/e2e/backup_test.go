package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/fakeprovider"
)

// lanyard runs `caddy lanyard` with these arguments beside the running one.
func (w *world) lanyard(args ...string) (string, error) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), binary(w.t), append([]string{"lanyard"}, args...)...)
	cmd.Env = append(w.env(), "LANYARD_URL="+w.proxyURL(""))
	cmd.Dir = w.site.Dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	w.note(out)
	w.note(stderr.Bytes())
	if err != nil {
		return string(out), errors.Join(err, errors.New(stderr.String()))
	}
	return string(out), nil
}

func (w *world) mustLanyard(args ...string) string {
	w.t.Helper()
	out, err := w.lanyard(args...)
	if err != nil {
		w.t.Fatalf("lanyard %v: %v", args, err)
	}
	return out
}

// wantStale checks that a call and the API say that the connection's token came
// from a backup and was spent.
func (w *world) wantStale(id string) {
	w.t.Helper()
	if a := w.call(id, "/me"); a.Status != http.StatusFailedDependency || !strings.Contains(a.Body, `"restored_stale"`) {
		w.t.Errorf("a call with a spent refresh token: HTTP %d: %s", a.Status, a.Body)
	}
	if c := w.connection(id); c.Status != "EXPIRED" || c.StatusReason != "restored_stale" || c.ConnectURL == "" {
		w.t.Errorf("the connection is %+v, want EXPIRED (restored_stale) with a link", c)
	}
}

// TestRestoreOfAnOlderBackup (F065, F066, A170): a backup is taken under load, tokens
// rotate, connections come and go, the backup is restored. Nothing is tried in
// bulk: the connections whose token was rotated end one by one, when their time
// comes; the others go on.
func TestRestoreOfAnOlderBackup(t *testing.T) {
	w := newWorld(t)
	stays, first, second, gone := w.connect("stays"), w.connect("first"), w.connect("second"), w.connect("gone")
	name := w.path("lanyard.backup")
	w.whileCalling(stays, func() { w.mustLanyard("backup", name) })
	if _, err := w.lanyard("backup", name); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("backup over a file that is there: %v", err)
	}
	if out := w.mustLanyard("backup", "-"); !strings.HasPrefix(out, "lanyard backup ") {
		t.Errorf("backup to the standard output: %.40q", out)
	}
	for _, id := range []string{first, second} {
		if a := w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil); a.Status != http.StatusOK {
			t.Fatalf("refresh: HTTP %d: %s", a.Status, a.Body)
		}
	}
	if a := w.api(http.MethodDelete, "/v1/connections/"+gone, nil, nil); a.Status != http.StatusOK {
		t.Fatalf("delete: HTTP %d: %s", a.Status, a.Body)
	}
	since := w.connect("since")

	data := w.path("data")
	if _, err := w.lanyard("restore", "--data", data, "--replace", name); err == nil || !strings.Contains(err.Error(), "another process has "+data+" open") {
		t.Errorf("restore beside the running one: %v", err)
	}
	w.stop()
	if _, err := w.lanyard("restore", "--data", data, name); err == nil || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("restore over a store: %v", err)
	}
	out := w.mustLanyard("restore", "--data", data, "--replace", name)
	for _, want := range []string{"3 connections, 3 of them unproven", "1 left out: deleted since", data + "/badger-replaced-"} {
		if !strings.Contains(out, want) {
			t.Errorf("restore says nothing of %q:\n%s", want, out)
		}
	}
	asked := len(w.fake.Ledger().Posts)
	w.start()

	for _, id := range []string{stays, first, second} {
		if err := w.wantCall(id, http.StatusOK); err != nil {
			t.Errorf("with an access token that is still valid: %v", err)
		}
	}
	if n := len(w.fake.Ledger().Posts); n != asked {
		t.Errorf("%d token requests without need", n-asked)
	}
	for _, id := range []string{gone, since} {
		if a := w.api(http.MethodGet, "/v1/connections/"+id, nil, nil); a.Status != http.StatusNotFound {
			t.Errorf("one that is not in the backup, or was deleted since: HTTP %d: %s", a.Status, a.Body)
		}
	}
	w.fake.ExpireAccessTokens()
	w.wantStale(first)
	if c := w.connection(second); c.Status != "ACTIVE" {
		t.Errorf("the one that nobody called is %+v, want ACTIVE", c)
	}
	if err := w.wantCall(stays, http.StatusOK); err != nil {
		t.Errorf("the one whose token was not rotated since: %v", err)
	}
	w.wantStale(second)
	// Proven again, it is a connection as all others.
	if a := w.api(http.MethodPost, "/v1/connections/"+stays+"/refresh", nil, nil); a.Status != http.StatusOK {
		t.Errorf("another refresh: HTTP %d: %s", a.Status, a.Body)
	}
	if n := len(w.fake.Ledger().Posts); n != asked+4 {
		t.Errorf("%d token requests after the restore, want 4: one each, and one more", n-asked)
	}
	c := w.connection(first)
	back := w.follow(newBrowser(t), c.ConnectURL)
	w.complete(first, back.Get("completion_code"), "first")
	if err := w.wantCall(first, http.StatusOK); err != nil {
		t.Errorf("after connecting again: %v", err)
	}
}

// TestRestoreElsewhere restores into an empty directory, with the keyset named.
func TestRestoreElsewhere(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	w.mustLanyard("backup", w.path("lanyard.backup"))
	w.stop()
	keys := w.path("data/lanyard-keys.json")
	other := w.path("other")
	if _, err := w.lanyard("restore", "--data", other, w.path("lanyard.backup")); err == nil || !strings.Contains(err.Error(), "--keyset") {
		t.Errorf("restore without a keyset: %v", err)
	}
	w.mustLanyard("restore", "--data", other, "--keyset", keys, w.path("lanyard.backup"))
	if err := os.Rename(keys, filepath.Join(other, "lanyard-keys.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.path("data"), w.path("lost")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, w.path("data")); err != nil {
		t.Fatal(err)
	}
	w.start()
	if err := w.wantCall(id, http.StatusOK); err != nil {
		t.Error(err)
	}
	// F067, the documented limit: nobody notices a second copy. What it costs is
	// one connection's refresh token, named.
	if a := w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil); a.Status != http.StatusOK {
		t.Errorf("refresh: HTTP %d: %s", a.Status, a.Body)
	}
	if !strings.Contains(readDoc(t, "docs/operations.md"), "Never run two stores of one backup at a time") {
		t.Error("docs/operations.md does not say so")
	}
}

// TestAcceptLoss: a store that refuses to open is restored from itself.
func TestAcceptLoss(t *testing.T) {
	w := newWorld(t)
	id := w.connect("u1")
	w.stop()
	data := w.path("data")
	if _, err := w.lanyard("restore", "--data", data, "--accept-loss"); err == nil || !strings.Contains(err.Error(), "is whole") {
		t.Errorf("accepting the loss of nothing: %v", err)
	}
	if err := os.Remove(filepath.Join(data, "lanyard-store.json")); err != nil {
		t.Fatal(err)
	}
	if out := w.mustLanyard("restore", "--data", data, "--accept-loss"); !strings.Contains(out, "1 connections, 1 of them unproven") {
		t.Errorf("accepting loss: %s", out)
	}
	w.start()
	if err := w.wantCall(id, http.StatusOK); err != nil {
		t.Error(err)
	}
	w.fake.ExpireAccessTokens()
	if err := w.wantCall(id, http.StatusOK); err != nil {
		t.Errorf("with a refresh token that was not spent: %v", err)
	}
	if err := w.generation(id, 2); err != nil {
		t.Error(err)
	}
}

// TestDocsOperations runs the commands of docs/operations.md one after the other,
// on a keyset of the operator's.
func TestDocsOperations(t *testing.T) {
	w := newWorld(t, func(w *world, _ *fakeprovider.Config) {
		w.site.Extra = "keyset {file." + filepath.Join(w.site.Dir, "lanyard-keys.json") + "}"
		keys, err := exec.CommandContext(w.t.Context(), binary(w.t), "lanyard", "keygen").Output()
		if err == nil {
			err = os.WriteFile(filepath.Join(w.site.Dir, "lanyard-keys.json"), keys, 0o600)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	})
	id := w.connect("u1")
	if err := os.Symlink(binary(t), w.path("caddy")); err != nil {
		t.Fatal(err)
	}
	run := func(command string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", command)
		cmd.Env, cmd.Dir = append(w.env(), "LANYARD_URL="+w.proxyURL(""), "LANYARD="+w.proxyURL(""), "API_KEY="+w.apiKey), w.site.Dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		w.note(out)
		return string(out)
	}
	ran := 0
	for _, b := range blocksOf(t, "docs/operations.md") {
		if b.info != "sh" {
			continue
		}
		ran++
		switch {
		case strings.Contains(b.text, "lanyard restore"):
			w.stop()
			run(strings.ReplaceAll(b.text, "--data /data/lanyard", "--keyset lanyard-keys.json --data "+w.path("data")))
			w.start()
		case strings.Contains(b.text, "keygen"):
			run(b.text)
			if err := w.reload(); err != nil {
				t.Error(err)
			}
			if out := run("./caddy lanyard rekey"); !strings.Contains(out, "nothing with another one") {
				t.Errorf("rekey after %s: %s", b.text, out)
			}
		default:
			run(b.text)
		}
		if err := w.wantCall(id, http.StatusOK); err != nil {
			t.Errorf("%v: afterwards: %v", b, err)
		}
	}
	if ran != 7 {
		t.Errorf("%d blocks of commands, want 7", ran)
	}
	var now struct{ State string }
	if a := w.api(http.MethodGet, "/v1/rekey", nil, nil); json.Unmarshal([]byte(a.Body), &now) != nil || now.State == "needed" {
		t.Errorf("GET /v1/rekey: %s", a.Body)
	}
}

// TestCommandsFindTheKey: from the environment, else from the data directory.
func TestCommandsFindTheKey(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), w.bin, append([]string{"lanyard"}, args...)...)
		cmd.Env, cmd.Dir = append(w.env(), "LANYARD_API_KEY="), w.site.Dir
		out, err := cmd.CombinedOutput()
		w.note(out)
		return string(out), err
	}
	if out, err := run("rekey", "--url", w.proxyURL(""), "--data", dir); err == nil || !strings.Contains(out, "no API key") {
		t.Errorf("without a key: %v\n%s", err, out)
	}
	for key, want := range map[string]string{"x": "key_required", w.apiKey + "\n": "nothing with another one"} {
		if err := os.WriteFile(filepath.Join(dir, "lanyard-api-key"), []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := run("rekey", "--url", w.proxyURL("/"), "--data", dir); !strings.Contains(out, want) {
			t.Errorf("with a key in its file: %v, want %q\n%s", err, want, out)
		}
	}
	for _, url := range []string{"localhost:9080", "ftp://localhost", "http://"} {
		if out, err := run("rekey", "--url", url, "--data", dir); err == nil || !strings.Contains(out, "http(s)://") {
			t.Errorf("--url %s: %v\n%s", url, err, out)
		}
	}
	if out, err := run("backup", "--url", "http://127.0.0.1:1", "--data", dir, "b"); err == nil || !strings.Contains(out, "--url") {
		t.Errorf("where nobody listens: %v\n%s", err, out)
	}
	if _, err := os.Stat(w.path("b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a backup that failed left a file: %v", err)
	}
}
