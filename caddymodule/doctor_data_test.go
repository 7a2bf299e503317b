//go:build linux

package caddymodule_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lanyard-proxy/lanyard/caddymodule"
)

// TestDoctorLooksAtData seeds mistakes around the data directory.
func TestDoctorLooksAtData(t *testing.T) {
	const identity = `{"format": %d, "store_id": "a", "epoch": "b", "generation": 1, "older_keys": ["AAAA"]}`
	for name, test := range map[string]struct {
		seed func(p *patient)
		want seeded
	}{
		"keys that others can read": {
			func(p *patient) { p.write("store/lanyard-api-key", doctorAPIKey, 0o644) },
			seeded{"file_permissions", "problem", "chmod 600", ""},
		},
		"keyset that all can read": {
			func(p *patient) {
				if err := os.Chmod(filepath.Join(p.dir, "keys.json"), 0o644); err != nil {
					p.t.Fatal(err)
				}
			},
			seeded{"file_permissions", "problem", "chmod 600", "keyset"},
		},
		"keyset in the data directory": {
			func(p *patient) {
				p.write("store/keys.json", read(p.t, p.dir, "keys.json"), 0o600)
				p.swap("{file.DATA/keys.json}", "{file.DATA/store/keys.json}")
			},
			seeded{"keyset_beside_data", "warning", "move it", "keyset"},
		},
		"keyset that is none": {
			func(p *patient) { p.write("keys.json", "no keyset", 0o600) },
			seeded{"keyset_invalid", "problem", "keygen", "keyset"},
		},
		"keyset that is gone": {
			func(p *patient) {
				p.swap("\t\tkeyset {file.DATA/keys.json}\n", "")
				p.write("store/lanyard-store.json", fmt.Sprintf(identity, 4), 0o600)
			},
			seeded{"keyset_missing", "problem", "put the store's keyset back", ""},
		},
		"old format": {
			func(p *patient) { p.write("store/lanyard-store.json", fmt.Sprintf(identity, 2), 0o600) },
			seeded{"store_old_format", "warning", "backup", ""},
		},
		"format of a later version": {
			func(p *patient) { p.write("store/lanyard-store.json", fmt.Sprintf(identity, 99), 0o600) },
			seeded{"store_unreadable", "problem", "docs/operations.md", ""},
		},
		"old key": {
			func(p *patient) { p.write("store/lanyard-store.json", fmt.Sprintf(identity, 4), 0o600) },
			seeded{"key_old", "warning", "caddy lanyard rekey", ""},
		},
		"data directory in memory": {
			func(p *patient) {
				p.swap("store badger DATA/store", "store badger /dev/shm/lanyard-doctor")
			},
			seeded{"data_ephemeral", "warning", "a volume that lasts", "store badger"},
		},
		"data directory is a file": {
			func(p *patient) { p.swap("store badger DATA/store", "store badger DATA/keys.json") },
			seeded{"data_directory", "problem", "store badger DIR", "store badger"},
		},
		"read-only data directory": {
			func(p *patient) { mount(p.t, filepath.Join(p.dir, "store"), syscall.MS_RDONLY) },
			seeded{"data_read_only", "problem", "writable", "store badger"},
		},
		"no space left": {
			func(p *patient) { mount(p.t, filepath.Join(p.dir, "store"), 0) },
			seeded{"no_space", "problem", "make room", "store badger"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t, "http://127.0.0.1:1")
			test.seed(p)
			before := contents(t, p.dir)
			p.expect(p.examine("--offline"), test.want)
			if after := contents(t, p.dir); after != before {
				t.Errorf("the doctor has changed the files from\n%s to\n%s", before, after)
			}
		})
	}
}

// mount mounts a disk of 1 MiB, or skips the test where that can't be done.
func mount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, "size=1m,mode=700"); err != nil {
		t.Skipf("may not mount a disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// contents lists what is in a directory, but for the configuration.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Name() != "Caddyfile" && path != dir {
			info, ierr := e.Info()
			if ierr != nil {
				return ierr
			}
			fmt.Fprintf(&all, "%s %s %d %s\n", path, info.Mode(), info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestDoctorSeesTheLock: a process that has the store open is a mistake only if
// it is not the Lanyard of this configuration.
func TestDoctorSeesTheLock(t *testing.T) {
	p := newPatient(t, "http://127.0.0.1:1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	p.swap(":2 {", fmt.Sprintf(":%d {", l.Addr().(*net.TCPAddr).Port))
	dir, err := os.Open(filepath.Join(p.dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}

	health := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTeapot) })}
	go func() { _ = health.Serve(l) }()
	defer func() { _ = health.Close() }()
	r := p.examine() // something else than Lanyard is where its API would be
	p.expect(r, seeded{"store_lock", "problem", "end that process", "store badger"})
	p.expect(r, seeded{"running", "problem", "use another port", ""})
	if !strings.Contains(fmt.Sprint(r.Findings), fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("the doctor does not say which process: %+v", r.Findings)
	}
}

// TestDoctorBesideLanyard: the doctor may be run beside the Lanyard that runs with
// the same configuration.
func TestDoctorBesideLanyard(t *testing.T) {
	p := newPatient(t, "http://127.0.0.1:1")
	in := started(t, config(filepath.Join(p.dir, "store"), ""), map[string]string{"lanyard_api": `{}`})
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = in.http["lanyard_api"].ServeHTTP(w, r, nil) })
	socket := filepath.Join(p.dir, "api.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(api)
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	p.swap(":2 {\n\tbind 127.0.0.1\n", "http:// {\n\tbind unix/"+socket+"\n")
	r := p.examine()
	p.expect(r, seeded{check: "store_lock", level: "ok"})
	p.expect(r, seeded{check: "running", level: "ok"})
	p.expect(p.examine("--offline"), seeded{check: "store_lock", level: "ok"})
	if _, err := caddymodule.Doctor(t.Context(), "--offline", "--config", filepath.Join(p.dir, "Caddyfile")); err != nil {
		t.Errorf("doctor beside Lanyard: %v", err)
	}
}
