package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// primaryKey returns the ID of the only key in Lanyard's own keyset.
func (w *world) primaryKey() (id uint32, keys int) {
	w.t.Helper()
	text, err := os.ReadFile(w.path("data/lanyard-keys.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	var ks struct {
		PrimaryKeyID uint32            `json:"primaryKeyId"`
		Key          []json.RawMessage `json:"key"`
	}
	if err := json.Unmarshal(text, &ks); err != nil {
		w.t.Fatal(err)
	}
	return ks.PrimaryKeyID, len(ks.Key)
}

// TestRekeyWhileRunning (F063): a few hundred connections get a new key while
// calls go on and tokens are refreshed. It is killed in the middle, again and
// again, and goes on by itself.
func TestRekeyWhileRunning(t *testing.T) {
	w := newWorld(t, withLife(3*time.Second), withGrace(time.Minute))
	ids := []string{w.connect("u1"), w.connect("u2")}
	var wg sync.WaitGroup
	for part := range 10 {
		wg.Go(func() {
			for n := range 30 {
				w.begin(fmt.Sprintf("u%d-%d", part, n))
			}
		})
	}
	wg.Wait()
	before, _ := w.primaryKey()
	old, err := os.ReadFile(w.path("data/lanyard-keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	for round, inTheMiddle := 0, 0; inTheMiddle < 2; round++ {
		if round == 20 {
			t.Fatalf("of %d kills %d came in the middle", round, inTheMiddle)
		}
		if a := w.api(http.MethodPost, "/v1/rekey", nil, nil); a.Status != http.StatusAccepted {
			t.Fatalf("POST /v1/rekey: HTTP %d: %s", a.Status, a.Body)
		}
		time.Sleep(time.Duration(rand.IntN(15)) * time.Millisecond) // any moment will do
		a := w.api(http.MethodGet, "/v1/rekey", nil, nil)
		w.kill()
		if strings.Contains(a.Body, `"running"`) {
			inTheMiddle++
		}
		w.start()
		t.Logf("killed at %s", strings.TrimSpace(a.Body))
		w.eventually("it has gone on and ended by itself", func() error {
			if _, n := w.primaryKey(); n != 1 {
				return fmt.Errorf("%d keys are in the keyset", n)
			}
			return nil
		})
		for _, id := range ids {
			w.eventually("a call", func() error { return w.wantCall(id, http.StatusOK) })
		}
	}
	w.whileCalling(ids[0], func() {
		refreshes := len(w.fake.Ledger().Refreshes())
		if out := w.mustLanyard("rekey"); !strings.Contains(out, " records are sealed with the primary key, and nothing with another one.") {
			t.Errorf("rekey: %s", out)
		}
		w.eventually("refreshes go on", func() error { return atLeast(len(w.fake.Ledger().Refreshes()), refreshes+1) })
	})
	after, n := w.primaryKey()
	if n != 1 || after == before {
		t.Errorf("the keyset has %d keys, the primary is %d and was %d", n, after, before)
	}
	var page struct{ Connections []connection }
	if w.api(http.MethodGet, "/v1/connections?status=INITIATED&limit=200", nil, &page); len(page.Connections) != 200 {
		t.Errorf("%d connections on the page, want 200", len(page.Connections))
	}

	// The key that it began with opens nothing any more, a backup neither.
	w.mustLanyard("backup", w.path("lanyard.backup"))
	if err := os.WriteFile(w.path("old.json"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, keys := range []string{w.path("old.json"), w.path("data/lanyard-keys.json")} {
		_, err := w.lanyard("restore", "--data", w.path("elsewhere"), "--keyset", keys, w.path("lanyard.backup"))
		if opens := err == nil; opens != (keys != w.path("old.json")) {
			t.Errorf("restore with %s: %v", keys, err)
		}
	}
	w.stop()
	w.start()
	for _, id := range ids {
		if err := w.wantCall(id, http.StatusOK); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
}

// TestWrongKeyset (F062): other, empty and cut keys are a clear error at the
// start, which changes nothing.
func TestWrongKeyset(t *testing.T) {
	w := newWorld(t)
	w.connect("u1")
	w.stop()
	name := w.path("data/lanyard-keys.json")
	right, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before := w.dataBytes(name)
	for what, text := range map[string]string{
		"another": w.mustLanyard("keygen"), "empty": "", "cut": string(right[:len(right)/2]), "none": "-",
	} {
		want := name
		switch what {
		case "another":
			want = "was sealed with another keyset"
		case "none":
			want = "was sealed with keys that are not here"
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if what != "none" {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		said, err := w.tryRun()
		if err == nil || !strings.Contains(said, want) {
			t.Errorf("%s keyset: caddy run ended with %v, and didn't say %q:\n%s", what, err, want, tail([]byte(said)))
		}
		if err := os.WriteFile(name, right, 0o600); err != nil {
			t.Fatal(err)
		}
		if after := w.dataBytes(name); !maps.Equal(before, after) {
			t.Errorf("%s keyset: the data directory was changed", what)
		}
	}
	w.start()
}

// tryRun runs ./caddy, which is not expected to start.
func (w *world) tryRun() (said string, err error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.bin, "run", "--config", w.path("Caddyfile"), "--adapter", "caddyfile")
	cmd.Env, cmd.Dir = w.env(), w.site.Dir
	out, err := cmd.CombinedOutput()
	log, _ := os.ReadFile(w.path("caddy.log"))
	return string(out) + string(tail(log)), err
}

// dataBytes returns the digests of all files in the data directory but one.
func (w *world) dataBytes(but string) map[string][sha256.Size]byte {
	w.t.Helper()
	sums := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(w.path("data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == but {
			return err
		}
		b, err := os.ReadFile(path)
		sums[path] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return sums
}
