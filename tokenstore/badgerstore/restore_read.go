package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// found is what could be read of a store's files.
type found struct {
	connections int             // that open
	revoked     map[string]bool // IDs
	deleted     map[string]bool // IDs
	damaged     []string        // IDs of connections that don't open
	unnamed     int             // connections that are gone, of which no ID is known
	events      int             // that open
	lostEvents  int             // that are gone
	unread      error           // why not everything could be read
}

// source is a store to read, which may be damaged.
type source struct {
	files   string // Badger's, in force
	mark    string // file
	id      identity
	problem error // why id is not from the identity file
}

// findSource finds the files in force of the store in dir, or the newest where
// that isn't known, and the identity in them where its file is lost.
func findSource(dir string) (source, error) {
	id, err := readIdentity(dir)
	if isRefused(err) || errors.Is(err, errOtherVersion) {
		return source{}, err
	}
	if err == nil {
		return source{files: filesOf(dir, id.Generation), mark: markOf(dir, id.Generation), id: id}, nil
	}
	numbers, unlisted := generations(dir)
	if len(numbers) == 0 {
		return source{}, errors.Join(err, unlisted)
	}
	n := slices.Max(numbers)
	src := source{files: filesOf(dir, n), mark: markOf(dir, n), problem: err}
	r, err := newReader(src.files, false)
	if err != nil {
		return source{}, errors.Join(src.problem, err)
	}
	err = catch(func() error {
		return r.each(keyIdentity, func(i item) (err error) {
			src.id, err = parseIdentity(i.value)
			return err
		})
	})
	if err = errors.Join(err, r.close()); err != nil || src.id.StoreID == "" {
		return source{}, errors.Join(src.problem, err, errors.New("the database has lost its identity, too"))
	}
	return src, nil
}

// read reads a store as far as it goes, and gives each connection and event that
// opens to use, if that is not nil, with an EventLost for each that is gone. It
// leaves the files as they are. An error says nothing
// about them.
func (src source) read(codec tokenstore.Codec, use func(entry) bool) (f found, err error) {
	f = found{revoked: map[string]bool{}, deleted: map[string]bool{}}
	r, err := newReader(src.files, false)
	if err != nil {
		return f, err
	}
	defer func() { _ = r.close() }() // nothing was written
	f.unread = errors.Join(append(slices.Clone(r.problems), src.problem)...)
	// What is damaged may be anywhere, so that nothing is taken to be well made.
	err = catch(func() error { return f.read(r, src, codec, use) })
	f.unread = errors.Join(f.unread, err)
	if f.unread == nil {
		f.unread = catch(func() error { return src.compare(r, codec) })
	}
	if isRefused(f.unread) {
		return f, f.unread
	}
	return f, nil
}

// compare says what of a store, whose files could all be read, is gone.
func (src source) compare(r *reader, codec tokenstore.Codec) error {
	indexKey, err := src.id.openIndexKey(codec)
	if err != nil {
		return err
	}
	keys := keyMaker{indexKey: indexKey}
	marked, err := readMark(src.mark, keys.markKey())
	if err != nil {
		return err
	}
	_, err = r.compare(marked, src.id, keys)
	return err
}

// errEnough ends a reading that is not wanted any more.
var errEnough = errors.New("enough")

func (f *found) read(r *reader, src source, codec tokenstore.Codec, use func(entry) bool) error {
	err := r.each(keyDeleted, func(i item) error {
		f.deleted[string(i.key[len(keyDeleted):])] = true
		return nil
	})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	err = r.each(keyConnection, func(i item) error {
		cid := string(i.key[len(keyConnection):])
		if f.deleted[cid] { // its end is what is lost
			return nil
		}
		seen[cid] = true
		c, ok := openItem(codec, src.id, cid, i)
		if !ok {
			f.damaged = append(f.damaged, cid)
			return nil
		}
		f.connections++
		if c.Status == tokenstore.StatusRevoked {
			f.revoked[cid] = true
		}
		if use != nil && !use(entry{connection: &c}) {
			return errEnough
		}
		return nil
	})
	if err == nil {
		err = f.readEvents(r, src, codec, use)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return errors.Join(err, f.name(r, seen), f.countLost(r, src, codec))
}

// openItem opens a connection, if it can be.
func openItem(codec tokenstore.Codec, id identity, connectionID string, i item) (c tokenstore.Connection, ok bool) {
	if i.damaged != nil {
		return c, false
	}
	c, err := openValue(codec, id, connectionID, i.value)
	return c, err == nil
}

// name finds the IDs of connections that are gone, but that an index names.
func (f *found) name(r *reader, seen map[string]bool) error {
	lost := map[string]bool{}
	for prefix, length := range map[string]int{keyList: digestLen + timeLen, keyDue: timeLen} {
		err := r.each(prefix, func(i item) error {
			if rest := i.key[len(prefix):]; len(rest) > length {
				if id := string(bytes.Clone(rest[length:])); !seen[id] && !f.deleted[id] {
					lost[id] = true
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	f.damaged = append(f.damaged, slices.Sorted(maps.Keys(lost))...)
	return nil
}

// countLost compares with what the store's mark and head say that there should
// be.
func (f *found) countLost(r *reader, src source, codec tokenstore.Codec) error {
	indexKey, err := src.id.openIndexKey(codec)
	if err != nil {
		return nil //nolint:nilerr // then nobody can tell
	}
	keys := keyMaker{indexKey: indexKey}
	if marked, err := readMark(src.mark, keys.markKey()); err == nil && marked > r.last {
		f.unread = errors.Join(f.unread, fmt.Errorf("the last %d transactions are gone", marked-r.last))
	}
	h, err := r.head(keys)
	if known := uint64(f.connections + len(f.damaged)); h.connections > known { //nolint:gosec // a count
		f.unnamed = int(h.connections - known) //nolint:gosec // a count
	}
	return err
}

// AcceptLoss restores the store in dir from what can be read of itself, under a
// new epoch, as Restore does from a backup: what can't be read is gone, and
// named in the result as far as that is known. The files of the damaged store
// are kept beside.
//
// A store without damage is refused: it has nothing to lose.
func AcceptLoss(dir string, cfg RestoreConfig) (Restored, error) {
	done, err := locked(dir, cfg, func(dir string) (Restored, error) { return acceptLoss(dir, cfg.Codec) })
	if err != nil {
		return Restored{}, fmt.Errorf("badgerstore: accepting loss: %w", err)
	}
	return done, nil
}

func acceptLoss(dir string, codec tokenstore.Codec) (Restored, error) {
	var done Restored
	src, err := findSource(dir)
	if err != nil {
		return done, err
	}
	// Once before anything is built: the deleted come first, and a keyset that
	// opens nothing is the wrong one.
	f, err := src.read(codec, nil)
	if err != nil {
		return done, err
	}
	if _, err := src.id.openIndexKey(codec); err != nil && f.connections == 0 {
		return done, fmt.Errorf("none of %d connections in it opens: %w", len(f.damaged), err)
	}
	if len(f.damaged) == 0 && f.unnamed == 0 && f.unread == nil {
		return done, fmt.Errorf("the store in %s is whole", dir)
	}
	logs, tables, err := sizes(src.files)
	if err == nil {
		err = enoughRoom(dir, logs+tables)
	}
	if err != nil {
		return done, err
	}
	entries := func(yield func(entry, error) bool) {
		done.Connections, done.Unproven = 0, 0
		f.again(src, codec, &done, yield)
	}
	if err := replace(dir, identity{Format: identityFormat, StoreID: src.id.StoreID}, codec, entries, &done); err != nil {
		return Restored{}, err
	}
	done.Damaged, done.Unnamed, done.LostEvents, done.Unread = f.damaged, f.unnamed, f.lostEvents, f.unread
	return done, nil
}

// again reads the store once more, for what goes into the new one. It must find
// what was found before.
func (f found) again(src source, codec tokenstore.Codec, done *Restored, yield func(entry, error) bool) {
	for id := range f.deleted {
		if !yield(entry{deleted: id}, nil) {
			return
		}
	}
	enough := false
	second, err := src.read(codec, func(e entry) bool {
		if e.connection != nil {
			e = done.restored(*e.connection, false)
		}
		enough = !yield(e, nil)
		return !enough
	})
	if enough {
		return
	}
	if err == nil && (second.connections != f.connections || second.events != f.events) {
		err = fmt.Errorf("%w: %d connections and %d events could be read at first, and then %d and %d: %w",
			tokenstore.ErrUnavailable, f.connections, f.events, second.connections, second.events, second.unread)
	}
	if err != nil {
		yield(entry{}, err)
	}
}
