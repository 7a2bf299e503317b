package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// storeFiles returns the directory of Badger's files that are in force.
func (w *world) storeFiles() string {
	w.t.Helper()
	dirs, err := filepath.Glob(w.path("data/badger/*"))
	if err != nil || len(dirs) != 1 {
		w.t.Fatalf("the store's files are in %q, %v", dirs, err)
	}
	return dirs[0]
}

// tamper changes a connection's value in the stopped program's store as somebody
// does who can write its files but has no key: by a client of Badger, which mends
// all sums. What is written takes the old one's place, with its number of change.
// It returns what was there.
func (w *world) tamper(id, other string, change func(value, other []byte) []byte) (old []byte) {
	w.t.Helper()
	db, err := badger.OpenManaged(badger.DefaultOptions(w.storeFiles()).WithLogger(nil).WithMemTableSize(8 << 20))
	if err != nil {
		w.t.Fatal(err)
	}
	get := func(id string) (value []byte, version uint64, err error) {
		txn := db.NewTransactionAt(math.MaxUint64, false)
		defer txn.Discard()
		item, err := txn.Get([]byte("c/" + id))
		if err != nil {
			return nil, 0, err
		}
		value, err = item.ValueCopy(nil)
		return value, item.Version(), err
	}
	old, version, err := get(id)
	others, _, otherErr := get(other)
	txn := db.NewTransactionAt(version, true)
	defer txn.Discard()
	err = errors.Join(err, otherErr, txn.Set([]byte("c/"+id), change(bytes.Clone(old), others)), txn.CommitAt(version, nil), db.Close())
	if err != nil {
		w.t.Fatal(err)
	}
	return old
}

// A value begins with its format and revision, in clear. What comes after is
// sealed.
const clearHead = 1 + 8

// TestTamperedRecords changes records in the stopped program's files, so that
// all of Badger's own sums fit. (Badger's encryption is not used: against this it
// does nothing, as A169 says. The records are sealed as they are.) Where it is
// the sealed part, the record is damaged and nothing else; where what stands in
// clear no longer fits the store's own digest, the store is refused as a whole.
func TestTamperedRecords(t *testing.T) {
	w := newWorld(t)
	sealed := map[string]func(value, whole []byte) []byte{
		"A167 a flip in the head":   func(v, _ []byte) []byte { v[clearHead] ^= 1; return v },
		"A167 a flip in the nonce":  func(v, _ []byte) []byte { v[clearHead+8] ^= 0x80; return v },
		"A167 a flip in the middle": func(v, _ []byte) []byte { v[len(v)/2] ^= 1; return v },
		"A167 a flip in the tag":    func(v, _ []byte) []byte { v[len(v)-1] ^= 1; return v },
		"A167 cut off":              func(v, _ []byte) []byte { return v[:len(v)-5] },
		"A169 XOR of known text": func(v, _ []byte) []byte { // a cipher without a tag would give what the attacker wants
			for i := len(v) / 4; i < len(v)/2; i++ {
				v[i] ^= "attacker"[i%8] ^ "provider"[i%8]
			}
			return v
		},
		"A169 another's sealed part": func(v, whole []byte) []byte { return append(v[:clearHead], whole[clearHead:]...) },
	}
	inClear := map[string]func(value, whole []byte) []byte{
		"A167 a flip in the format":   func(v, _ []byte) []byte { v[0] ^= 2; return v },
		"A167 a flip in the revision": func(v, _ []byte) []byte { v[clearHead-1] ^= 1; return v },
		"A167 empty":                  func([]byte, []byte) []byte { return nil },
	}
	whole := w.join("whole")
	members := map[string]*member{}
	for name := range sealed {
		members[name] = w.join(name)
	}
	victim := w.join("victim")
	w.stop()
	for name, change := range inClear {
		w.in(t, name+": the store is refused", func(t *testing.T) {
			old := w.tamper(victim.id, whole.id, change)
			if said, err := w.tryRun(); err == nil || !strings.Contains(said, "the store is incomplete") || !strings.Contains(said, "restore --accept-loss") {
				t.Errorf("started: %v, %s", err, said)
			}
			w.tamper(victim.id, whole.id, func([]byte, []byte) []byte { return old })
		})
	}
	for name, change := range sealed {
		value := w.tamper(members[name].id, whole.id, change)
		if bytes.Contains(value, []byte("user_id")) || bytes.Contains(value, []byte(members[name].account)) {
			t.Errorf("%s: the record stands in clear", name)
		}
	}
	asked := w.posts()
	w.start()
	for name := range sealed {
		w.in(t, name+": the record is damaged", func(_ *testing.T) { w.wantCorrupt(members[name].id) })
	}
	w.in(t, "A167 A169 the others go on", func(t *testing.T) {
		for _, m := range []*member{whole, victim} {
			if err := w.served(m); err != nil {
				t.Error(err)
			}
			w.mustRefresh(m)
		}
		if err := w.wantReady(http.StatusOK); err != nil {
			t.Error(err)
		}
		w.wantPostsSince(asked, 2)
		if err := w.wantCall(w.connect("new"), http.StatusOK); err != nil {
			t.Error(err)
		}
	})
}

// wantCorrupt checks that a connection's record is not served, in no form.
func (w *world) wantCorrupt(id string) {
	w.t.Helper()
	if a := w.call(id, "/me"); a.Status != http.StatusServiceUnavailable || a.Header.Get("Lanyard-Error") != "store_corrupt" {
		w.t.Errorf("a call got HTTP %d: %s", a.Status, a.Body)
	}
	a := w.api(http.MethodGet, "/v1/connections/"+id, nil, nil)
	if a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, `"store_corrupt"`) || strings.Contains(a.Body, "user_id") {
		w.t.Errorf("the API answers HTTP %d: %s", a.Status, a.Body)
	}
}

// TestFilesAreTheOwnersAlone: under a umask that forbids nothing.
func TestFilesAreTheOwnersAlone(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	w := newWorld(t)
	id, gone := w.connect("stays"), w.connect("gone")
	w.mustLanyard("backup", w.path("lanyard.backup"))
	w.api(http.MethodPost, "/v1/connections/"+id+"/refresh", nil, nil)
	w.in(t, "A158 modes", func(t *testing.T) {
		seen := 0
		for _, top := range []string{"data", "xdg/caddy/autosave.json", "lanyard.backup", "caddy.log"} {
			err := filepath.WalkDir(w.path(top), func(name string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := d.Info()
				if err != nil {
					return err
				}
				seen++
				want := fs.FileMode(0o600)
				if d.IsDir() {
					want = 0o700
				}
				if info.Mode().Perm() != want && info.Mode().Perm() != want&^0o200 {
					t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		if seen < 10 {
			t.Errorf("looked at %d files", seen)
		}
		// Whoever may connect to the admin API's socket may change all.
		if info, err := os.Stat(w.path("admin.sock")); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("the admin socket: %v, %v", info.Mode(), err)
		}
	})
	w.in(t, "A157 what was deleted stands nowhere in clear", func(t *testing.T) {
		if a := w.api(http.MethodDelete, "/v1/connections/"+gone, nil, nil); a.Status != http.StatusOK {
			t.Fatalf("HTTP %d: %s", a.Status, a.Body)
		}
		w.noLeaks("before compaction")
		w.stop() // which compacts
		w.noLeaks("after it")
	})
	w.in(t, "A171 a backup holds no key and nothing in clear", func(t *testing.T) {
		b, err := os.ReadFile(w.path("lanyard.backup"))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"primaryKeyId", `"user_id"`, "stays", "localhost"} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("the backup holds %q", word)
			}
		}
		w.noLeaks("with the backup") // also looks for the keyset in it
	})
	w.in(t, "A158 what others may look into is told of", func(t *testing.T) {
		for name, mode := range map[string]fs.FileMode{"data": 0o755, "data/lanyard-keys.json": 0o640} {
			if err := os.Chmod(w.path(name), mode); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		for name, mode := range map[string]string{"data": "-rwxr-xr-x", "data/lanyard-keys.json": "-rw-r-----"} {
			if want := fmt.Sprintf(`"file":%q,"mode":%q`, w.path(name), mode); !strings.Contains(string(w.logged()), want) {
				t.Errorf("the log says nothing of %s", want)
			}
		}
	})
}

// noLeaks sweeps before the end.
func (w *world) noLeaks(when string) {
	w.t.Helper()
	for _, l := range w.leaks() {
		w.t.Errorf("%s: %s", when, l)
	}
}
