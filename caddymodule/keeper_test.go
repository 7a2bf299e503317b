package caddymodule_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/api"
	"github.com/lanyard-proxy/lanyard/caddymodule"
	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func keysOf(t *testing.T, text string) []uint32 {
	t.Helper()
	ks, err := seal.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return ks.Keys()
}

// rekey begins one and waits for its end.
func (in *instance) rekey(key string) api.Rekeying {
	in.t.Helper()
	method, want := http.MethodPost, http.StatusAccepted
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var now api.Rekeying
		w := in.api(method, "/v1/rekey", key, "")
		if err := json.Unmarshal(w.Body.Bytes(), &now); err != nil || w.Code != want {
			in.t.Fatalf("%s /v1/rekey = %d %s", method, w.Code, w.Body)
		}
		if now.State != "running" {
			return now
		}
		if time.Now().After(end) {
			in.t.Fatalf("it never ends: %+v", now)
		}
		method, want = http.MethodGet, http.StatusOK
	}
}

// TestRekeyOfOwnKeyset: where Lanyard made the keyset, it makes a new key, and
// the old one is gone at the end.
func TestRekeyOfOwnKeyset(t *testing.T) {
	dir := t.TempDir()
	in := started(t, config(dir, github), both)
	key := read(t, dir, "lanyard-api-key")
	begin := func() {
		t.Helper()
		if w := in.api(http.MethodPost, "/v1/connections", key, `{"integration": "github"}`); w.Code != http.StatusCreated {
			t.Fatalf("begin: %d %s", w.Code, w.Body)
		}
	}
	begin()
	before := keysOf(t, read(t, dir, "lanyard-keys.json"))
	// The events of begin and rekey are records, too.
	if now := in.rekey(key); now != (api.Rekeying{State: "done", Total: 3, Done: 3}) {
		t.Errorf("rekey = %+v", now)
	}
	begin()
	after := keysOf(t, read(t, dir, "lanyard-keys.json"))
	if len(after) != 1 || after[0] == before[0] {
		t.Errorf("the keyset has %v, and had %v", after, before)
	}
	if fi, err := os.Stat(filepath.Join(dir, "lanyard-keys.json")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the keyset's file: %v, %v; want 0600", fi.Mode(), err)
	}
	// A reload finds the keyset as it is in force, and a restart finds everything.
	started(t, config(dir, github), both).end()
	in.end()
	in = started(t, config(dir, github), both)
	if w := in.api(http.MethodGet, "/v1/connections", key, ""); w.Code != http.StatusOK || strings.Count(w.Body.String(), `"INITIATED"`) != 2 {
		t.Errorf("after a restart: %d %s", w.Code, w.Body)
	}
	if now := in.rekey(key); now != (api.Rekeying{State: "done", Total: 6, Done: 6}) {
		t.Errorf("another rekey = %+v", now)
	}
}

// TestRekeyOfConfiguredKeyset (F061, F063): the operator's keyset is changed by
// the operator, and taken over by a reload if it has the keys that are needed.
func TestRekeyOfConfiguredKeyset(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "keys.json")
	text, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	put := func(change func([]byte) ([]byte, error)) {
		t.Helper()
		if text, err = change(text); err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(func(b []byte) ([]byte, error) { return b, nil })
	configured := config(dir, github+`, "keyset": "{file.`+file+`}"`)
	in := started(t, configured, both)
	key := read(t, dir, "lanyard-api-key")
	if w := in.api(http.MethodPost, "/v1/connections", key, `{"integration": "github"}`); w.Code != http.StatusCreated {
		t.Fatalf("begin: %d %s", w.Code, w.Body)
	}
	if now := in.rekey(key); now.State != "idle" {
		t.Errorf("rekey where nothing is to do = %+v", now)
	}
	reload := func() error {
		next, err := provision(t, configured, both)
		if err != nil {
			t.Fatal(err)
		}
		if err := next.app.Start(); err != nil {
			next.end()
			return err
		}
		in.end()
		in = next
		return nil
	}
	put(seal.AddPrimary)
	if err := reload(); err != nil {
		t.Fatalf("reload with a new key: %v", err)
	}
	withBoth := text
	put(seal.DropOld)
	if err := reload(); !errors.Is(err, tokenstore.ErrKeyMissing) {
		t.Errorf("reload without a key that is needed = %v, want ErrKeyMissing", err)
	}
	// One connection, the event of its beginning, and those of two rekeys.
	if now := in.rekey(key); now != (api.Rekeying{State: "done", Total: 4, Done: 4}) {
		t.Errorf("rekey = %+v", now)
	}
	if onDisk, err := os.ReadFile(file); err != nil || string(onDisk) != string(text) || string(text) == string(withBoth) {
		t.Errorf("the operator's file was changed: %v", err)
	}
	if err := reload(); err != nil {
		t.Errorf("reload without the old key, once nothing needs it: %v", err)
	}
	if w := in.api(http.MethodGet, "/v1/connections", key, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"INITIATED"`) {
		t.Errorf("after the reload: %d %s", w.Code, w.Body)
	}
}

// TestRekeyGoesOnAfterARestart: nobody has to ask again, and the own keyset
// loses its old keys even if the program ended just before.
func TestRekeyGoesOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	in := started(t, config(dir, github), both)
	key := read(t, dir, "lanyard-api-key")
	name := filepath.Join(dir, "lanyard-keys.json")
	in.rekey(key)
	in.end()
	// As if it had ended between the last record and the keyset's file.
	text, err := os.ReadFile(name)
	if err == nil {
		text, err = seal.AddPrimary(text)
	}
	if err == nil {
		err = os.WriteFile(name, text, 0o600)
	}
	id := read(t, dir, "lanyard-store.json")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "lanyard-store.json"), []byte(strings.Replace(id, "{", `{"rekeying": true,`, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	started(t, config(dir, github), both)
	for end := time.Now().Add(20 * time.Second); len(keysOf(t, read(t, name))) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the old key is still in the keyset")
		}
	}
	if got, want := keysOf(t, read(t, name))[0], keysOf(t, string(text))[0]; got != want {
		t.Errorf("the key that is left is %d, want %d", got, want)
	}
}

// TestOtherDirectoryInAReload (F061): one engine per directory: a reload with
// another one opens the store that is there, or a new one, and closes the first.
// The connections stay where they are.
func TestOtherDirectoryInAReload(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	in := started(t, config(first, github), both)
	key := read(t, first, "lanyard-api-key")
	if w := in.api(http.MethodPost, "/v1/connections", key, `{"integration": "github"}`); w.Code != http.StatusCreated {
		t.Fatalf("begin: %d %s", w.Code, w.Body)
	}
	next := started(t, config(second, github), both)
	in.end()
	if w := next.api(http.MethodGet, "/v1/connections", read(t, second, "lanyard-api-key"), ""); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "INITIATED") {
		t.Errorf("the other directory's store: %d %s", w.Code, w.Body)
	}
	back := started(t, config(first, github), both)
	next.end()
	if w := back.api(http.MethodGet, "/v1/connections", key, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "INITIATED") {
		t.Errorf("back at the first: %d %s", w.Code, w.Body)
	}
}

// TestRekeyCommandGivesUp: where sealing doesn't get on the command shows why, and
// ends with an error.
func TestRekeyCommandGivesUp(t *testing.T) {
	t.Setenv("LANYARD_API_KEY", "key")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusAccepted)
		}
		_ = json.NewEncoder(w).Encode(api.Rekeying{State: "running", Total: 3, Done: 2, Error: "the store is full"})
	}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := caddymodule.RekeyCommand(ctx, srv.URL, time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "the store is full") || !strings.Contains(err.Error(), "2 of 3") {
		t.Errorf("rekey = %v, want what keeps it from getting on", err)
	}
}

// TestKeysetStaysWithTheStore: after a failure that is not of the keys, the store's
// identity may name the new key already, and so its file must have it.
func TestKeysetStaysWithTheStore(t *testing.T) {
	dir := t.TempDir()
	in := started(t, config(dir, github), both)
	key := read(t, dir, "lanyard-api-key")
	id, away := filepath.Join(dir, "lanyard-store.json"), filepath.Join(dir, "away")
	if err := errors.Join(os.Rename(id, away), os.MkdirAll(filepath.Join(id, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if w := in.api(http.MethodPost, "/v1/rekey", key, ""); w.Code == http.StatusAccepted {
		t.Errorf("rekey where the identity can't be written = %d %s", w.Code, w.Body)
	}
	if n := len(keysOf(t, read(t, dir, "lanyard-keys.json"))); n != 2 {
		t.Errorf("the keyset has %d keys, want the old and the new", n)
	}
	if err := errors.Join(os.RemoveAll(id), os.Rename(away, id)); err != nil {
		t.Fatal(err)
	}
	if now := in.rekey(key); now.State != "done" {
		t.Errorf("rekey = %+v", now)
	}
}

// TestTemporaryFilesOfAKill: what was about to become a key file is removed, but
// not what another process may be making now.
func TestTemporaryFilesOfAKill(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, ".new-1"), filepath.Join(dir, ".new-2")
	for _, name := range []string{old, young} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	started(t, config(dir, github), both)
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", old, err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("%s: %v", young, err)
	}
}
