package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/lanyard-proxy/lanyard/tokenstore/badgerstore"
)

// fileSystem is what is known of the one that a directory is on.
type fileSystem struct {
	known    bool
	free     int64 // bytes that we may use
	readOnly bool
	lost     string // why it does not last, empty if it may
}

// What the store wants to be free (docs/operations.md, Space).
const (
	freeForNew    = 64 << 20
	freeForWrites = 16 << 20
)

// checkData looks at the data directory and the keyset.
func (d *doctor) checkData() {
	if d.app.Store.isPostgres() {
		d.checkDatabase()
		return
	}
	place := d.at("store")
	dir := filepath.Join(caddy.AppDataDir(), "lanyard")
	if d.app.Store != nil && d.app.Store.Dir != "" {
		text, ok := d.resolve("store", "", d.app.Store.Dir, place)
		if !ok {
			return
		}
		dir = text
	}
	var err error
	if dir, err = filepath.Abs(dir); err != nil {
		d.problem("store", "data_directory", place, err.Error(), "write an absolute path")
		return
	}
	d.settings.dir = dir
	there := nearestDirectory(dir)
	info, err := os.Stat(there)
	switch {
	case err != nil:
		d.problem("store", "data_directory", place, reason(err), "make the directory, for Lanyard's user: install -d -m 700 "+dir)
		return
	case !info.IsDir():
		d.problem("store", "data_directory", place, there+" is no directory", "name another one with `store badger DIR`")
		return
	}
	d.checkFileSystem(dir, statFileSystem(there), canWrite(there), place)
	d.checkStore(dir)
	d.checkPermissions(dir)
	d.checkKeyset(dir)
}

// nearestDirectory returns dir, or what is there of the way to it.
func nearestDirectory(dir string) string {
	for {
		_, err := os.Lstat(dir)
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return dir
		}
		dir = up
	}
}

func (d *doctor) checkFileSystem(dir string, f fileSystem, writable bool, place string) {
	switch {
	case f.readOnly || !writable:
		d.problem("store", "data_read_only", place, "nothing can be written to "+dir, "mount it writable, and give it to Lanyard's user: chown, chmod 700")
	case f.known && f.free < freeForWrites:
		d.problem("store", "no_space", place, fmt.Sprintf("%d MiB are free for %s: no token can be renewed", f.free>>20, dir), "make room: 450 MB at least")
	case f.known && f.free < freeForNew:
		d.warning("store", "no_space", place, fmt.Sprintf("%d MiB are free for %s: no account can be connected", f.free>>20, dir), "make room: 450 MB at least")
	}
	if f.lost != "" {
		d.warning("store", "data_ephemeral", place, fmt.Sprintf("%s is on %s", dir, f.lost), "put it on a volume that lasts: `store badger DIR`")
	}
}

// checkStore looks at the store that is there, without its lock.
func (d *doctor) checkStore(dir string) {
	s, err := badgerstore.Describe(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !badgerstore.Exists(dir):
		d.ok("store", "store", "badger "+dir+", which the first start makes")
	case err != nil:
		d.problem("store", "store_unreadable", "", err.Error(), "docs/operations.md says what to do when the store refuses to open")
	case s.Format < s.Newest:
		d.warning("store", "store_old_format", "", fmt.Sprintf("%s has format %d; starting this version makes it %d, and older versions refuse it then", dir, s.Format, s.Newest),
			"take a backup with the version that made it, before you start this one")
	default:
		d.ok("store", "store", "badger "+dir)
	}
	if err == nil && (s.OlderKeys > 0 || s.Rekeying) {
		d.warning("store", "key_old", "", "some of the store is still sealed with an older key", "caddy lanyard rekey")
	}
}

// checkPermissions looks for files that other users may read.
func (d *doctor) checkPermissions(dir string) {
	for _, name := range []string{"", keysetFile, apiKeyFile, clientKeyFile} {
		file := filepath.Join(dir, name)
		info, err := os.Stat(file)
		if err != nil || info.Mode()&forOthers == 0 {
			continue
		}
		mode := info.Mode().Perm()
		if name == "" {
			d.warning("store", "file_permissions", "", fmt.Sprintf("other users have access to %s (%s)", file, mode), "chmod 700 "+file)
		} else {
			d.problem("store", "file_permissions", "", fmt.Sprintf("other users have access to the key in %s (%s)", file, mode), "chmod 600 "+file+", and have a new key made if others may have read it")
		}
	}
}

// checkKeyset looks where the keyset is, and whether it is one. The directory is
// the data's, empty where there is none.
func (d *doctor) checkKeyset(dir string) {
	place := d.at("keyset")
	text := d.app.Keyset
	if text == "" && dir == "" {
		d.problem("key", "keyset_missing", d.at(), "there is no keyset, which PostgreSQL requires: every Lanyard needs the same", "make one with `caddy lanyard keygen`, and write `keyset {file./run/secrets/lanyard-keys.json}`")
		return
	}
	if text == "" {
		d.warning("key", "keyset_beside_data", cmp.Or(d.at("store"), d.at()), "the keyset is in the data directory, beside what it seals: a copy of the directory opens itself",
			"keep it elsewhere: `caddy lanyard keygen`, then `keyset {file./run/secrets/lanyard-keys.json}`")
		if _, err := os.Stat(filepath.Join(dir, keysetFile)); errors.Is(err, fs.ErrNotExist) && badgerstore.Exists(dir) {
			d.problem("key", "keyset_missing", "", "there is a store in "+dir+", and no "+keysetFile, "put the store's keyset back, or configure `keyset`")
		}
		return
	}
	for _, m := range filePlaceholder.FindAllStringSubmatch(text, -1) {
		if rel, err := filepath.Rel(dir, m[1]); dir != "" && err == nil && !strings.HasPrefix(rel, "..") {
			d.warning("key", "keyset_beside_data", place, "the keyset is in the data directory, beside what it seals", "move it elsewhere")
		}
	}
	if strings.HasPrefix(strings.TrimSpace(text), "{\"") { // braces of its own
		d.warning("key", "secret_literal", place, "the keyset stands in the configuration itself, where Caddy's admin API and autosave show it",
			"use a placeholder, {env.NAME} or {file./path}, and rekey")
	} else {
		var ok bool
		if text, ok = d.resolve("key", "keyset", text, place); !ok {
			return
		}
	}
	if _, err := parseKeyset(strings.TrimSpace(text)); err != nil {
		d.problem("key", "keyset_invalid", place, err.Error(), "make one with `caddy lanyard keygen`")
		return
	}
	d.ok("key", "keyset", "the keyset can be read")
}

// checkLock looks who has the store open.
func (d *doctor) checkLock() {
	if d.settings.dir == "" {
		return
	}
	pid := lockHolder(d.settings.dir)
	switch {
	case pid == 0:
		if d.answers {
			d.warning("store", "store_other", d.at("store"), "Lanyard runs, and does not have this data directory open", "compare its `store`, user and environment with these")
		}
	case d.answers || d.offline || d.mute:
		d.ok("store", "store_lock", fmt.Sprintf("open in process %d", pid))
	default:
		d.problem("store", "store_lock", d.at("store"), fmt.Sprintf("process %d%s has the store open, and no Lanyard of this configuration answers: a start would be refused", pid, programOf(pid)),
			"end that process, or give this Lanyard a directory of its own")
	}
}
