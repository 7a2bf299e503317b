package badgerstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// ErrStoreExists is returned by Restore for a directory that has a store, unless
// it is to be replaced.
var ErrStoreExists = errors.New("there is a store already")

// RestoreConfig is what Restore and AcceptLoss need.
type RestoreConfig struct {
	// Codec has to have every key that sealed something in what is restored.
	// The new store is sealed with its primary key alone. Required.
	Codec tokenstore.Codec
	// Replace allows Restore to put the backup in place of a store.
	Replace bool
	// Own opens what Codec doesn't in the store that is replaced, which is read for
	// what was deleted or revoked in it. Default: none.
	Own tokenstore.Codec
	// LockWait is how long another process is waited for that has the directory
	// open. Default: 10 seconds.
	LockWait time.Duration
}

// Restored says what a restore did.
type Restored struct {
	CreatedAt   time.Time // when the backup was taken; zero without one
	Connections int       // in the store now
	Unproven    int       // of them, those whose refresh token may be spent
	// Deleted and Revoked count the connections of the backup that the replaced
	// store knew as deleted, which were left out, and as revoked, whose
	// credentials were erased.
	Deleted, Revoked int
	// Damaged are the IDs of connections that could not be opened and are gone.
	Damaged []string
	// Unnamed counts what was lost besides, of which no ID is known.
	Unnamed int
	// LostEvents counts the events that could not be read: the log has an
	// EventLost in the place of each.
	LostEvents int
	// Kept is the directory in which the replaced store's files are, empty if
	// there was none.
	Kept string
	// Unread says why not all of the replaced store could be read, and so not
	// everything known that was deleted or revoked there; nil if all could.
	Unread error
	// Unfinished says what went wrong after the new store was in force: something
	// of the old one is left, or a loss of power may bring it back. Nil if nothing.
	Unfinished error
}

// Restore makes the store in dir from a backup, under a new epoch. The whole
// backup is read and checked first, then a new generation is built, then that is
// put in force: if anything fails, or the process is killed, the store in dir is
// what it was. dir must have no store, unless cfg.Replace; then what was deleted
// in that one stays deleted, what was revoked stays revoked, and its files are
// kept beside.
//
// Refresh tokens are marked as unproven; the events are the backup's; what was
// under way at the time of the backup is dropped, unless its answer was there.
// There are no notes.
//
// Errors wrap ErrBadBackup, tokenstore.ErrKeyMissing, ErrStoreExists, or
// tokenstore.ErrUnavailable if another process has the directory.
func Restore(dir string, backup io.ReadSeeker, cfg RestoreConfig) (Restored, error) {
	done, err := locked(dir, cfg, func(dir string) (Restored, error) {
		if hasStore(dir) && !cfg.Replace {
			return Restored{}, fmt.Errorf("%w in %s", ErrStoreExists, dir)
		}
		return restore(dir, backup, cfg.Codec, cfg.Own)
	})
	if err != nil {
		return Restored{}, fmt.Errorf("badgerstore: restore: %w", err)
	}
	return done, nil
}

// locked runs do while it holds the directory's lock.
func locked(dir string, cfg RestoreConfig, do func(dir string) (Restored, error)) (Restored, error) {
	if cfg.Codec == nil {
		return Restored{}, errors.New("no codec to open records with")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Restored{}, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Restored{}, fmt.Errorf("making the data directory: %w", err)
	}
	if cfg.LockWait == 0 {
		cfg.LockWait = defaultLockWait
	}
	lock, err := lockDir(dir, cfg.LockWait)
	if err != nil {
		return Restored{}, err
	}
	defer lock.release()
	if err := removeTemporary(dir); err != nil {
		return Restored{}, err
	}
	return do(dir)
}

func restore(dir string, backup io.ReadSeeker, codec, own tokenstore.Codec) (Restored, error) {
	header, err := checkBackup(backup, backups, codec)
	if err != nil {
		return Restored{}, err
	}
	size, err := backup.Seek(0, io.SeekEnd)
	if err == nil {
		err = enoughRoom(dir, size)
	}
	if err != nil {
		return Restored{}, err
	}
	var gone found
	if hasStore(dir) {
		if gone, err = readReplaced(dir, codec, own); err != nil {
			return Restored{}, fmt.Errorf("reading the store that is replaced: %w", err)
		}
	}
	done := Restored{CreatedAt: header.CreatedAt, Unread: gone.unread}
	entries := func(yield func(entry, error) bool) {
		done.Connections, done.Unproven, done.Deleted, done.Revoked, done.Damaged, done.LostEvents = 0, 0, 0, 0, nil, 0
		restoreEntries(backup, codec, gone, &done, yield)
	}
	if err := replace(dir, identity{Format: identityFormat, StoreID: header.StoreID}, codec, entries, &done); err != nil {
		return Restored{}, err
	}
	return done, nil
}

// readReplaced reads the store in dir for what was deleted and revoked in it.
func readReplaced(dir string, codec, own tokenstore.Codec) (gone found, err error) {
	src, err := findSource(dir)
	if isRefused(err) || errors.Is(err, errOtherVersion) {
		return gone, err
	}
	if err != nil {
		return found{unread: err}, nil //nolint:nilerr // it is part of what was found
	}
	if own != nil {
		codec = either{codec, own}
	}
	gone, err = src.read(codec, nil)
	if n := len(gone.damaged); n > 0 {
		gone.unread = errors.Join(gone.unread, fmt.Errorf("%d connections don't open with this keyset", n))
	}
	return gone, err
}

// either opens with one codec or the other.
type either struct {
	tokenstore.Codec
	other tokenstore.Codec
}

func (e either) OpenConnection(sealed, ad []byte) (tokenstore.Connection, error) {
	c, err := e.Codec.OpenConnection(sealed, ad)
	if err != nil {
		c, err = e.other.OpenConnection(sealed, ad)
	}
	return c, err
}

func (e either) OpenBytes(sealed, ad []byte) ([]byte, error) {
	plain, err := e.Codec.OpenBytes(sealed, ad)
	if err != nil {
		plain, err = e.other.OpenBytes(sealed, ad)
	}
	return plain, err
}

// checkBackup reads a backup to its end.
func checkBackup(backup io.ReadSeeker, magics []string, codec tokenstore.Codec) (backupHeader, error) {
	r, err := rewind(backup, magics)
	if err != nil {
		return backupHeader{}, err
	}
	if _, err := r.header.identity().openIndexKey(codec); err != nil {
		return backupHeader{}, fmt.Errorf("the backup: %w", err)
	}
	for _, err := range r.records(codec) {
		if err != nil {
			return backupHeader{}, err
		}
	}
	return r.header, nil
}

func rewind(backup io.ReadSeeker, magics []string) (*backupReader, error) {
	if _, err := backup.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading the backup: %w", err)
	}
	return newBackupReader(backup, magics)
}

// restoreEntries reads the backup again, and says what of it goes into the new
// store.
func restoreEntries(
	backup io.ReadSeeker, codec tokenstore.Codec, gone found, done *Restored, yield func(entry, error) bool,
) {
	r, err := rewind(backup, backups)
	if err != nil {
		yield(entry{}, err)
		return
	}
	for id := range gone.deleted {
		if !yield(entry{deleted: id}, nil) {
			return
		}
	}
	id := r.header.identity()
	for rec, err := range r.records(codec) {
		switch {
		case err != nil:
			yield(entry{}, err)
			return
		case rec.ID == "":
			e, err := openEventValue(codec, id, rec.Seq, rec.Value)
			if err != nil {
				e = done.lostEvent(rec.Seq)
			}
			if !yield(entry{event: &e}, nil) {
				return
			}
			continue
		case gone.deleted[rec.ID]:
			if !rec.Deleted {
				done.Deleted++
			}
			continue
		case rec.Deleted:
			if !yield(entry{deleted: rec.ID}, nil) {
				return
			}
			continue
		}
		c, err := openValue(codec, id, rec.ID, rec.Value)
		if err != nil {
			done.Damaged = append(done.Damaged, rec.ID)
			continue
		}
		if !yield(done.restored(c, gone.revoked[rec.ID]), nil) {
			return
		}
	}
}

// restored makes of a connection of another time what it is now, and counts it.
func (done *Restored) restored(c tokenstore.Connection, revoked bool) entry {
	if revoked && c.Status != tokenstore.StatusRevoked {
		c.Revoke()
		done.Revoked++
	}
	if c.Staged != nil {
		c.Unstage(tokenstore.ReasonTimeout)
	}
	if c.Status == tokenstore.StatusInitiated { // its flow is gone
		c.Fail(tokenstore.ReasonTimeout)
	}
	if c.Intent != nil && c.Intent.Answer == nil {
		c.Intent = nil
	}
	if !c.Token.RefreshToken.IsZero() {
		c.Token.Unproven = true
		done.Unproven++
	}
	done.Connections++
	return entry{connection: &c}
}

// lostEvent returns what stands for an event that can't be read, and counts it.
func (done *Restored) lostEvent(seq uint64) tokenstore.Event {
	done.LostEvents++
	return tokenstore.Event{Seq: seq, Type: tokenstore.EventLost}
}

// openValue opens a connection as it is stored.
func openValue(codec tokenstore.Codec, id identity, connectionID string, value []byte) (tokenstore.Connection, error) {
	revision, sealed, err := splitValue(value)
	if err != nil {
		return tokenstore.Connection{}, err
	}
	c, err := codec.OpenConnection(sealed, id.associatedData(tokenstore.KindConnection, connectionID, revision))
	if err == nil && (c.ID != connectionID || c.Revision != revision) {
		err = fmt.Errorf("%w: it is another record", tokenstore.ErrCorrupt)
	}
	return c, err
}

// hasStore reports whether there is a store in dir, or what is left of one. One
// that was never opened is none.
func hasStore(dir string) bool {
	id, err := readIdentity(dir)
	return Exists(dir) && (err != nil || !id.Creating)
}

// enoughRoom refuses to build a store of so many bytes where there may be too
// little room: Badger would end the process for it. With the indexes, and what
// sorts them, it takes up to three times as much.
func enoughRoom(dir string, size int64) error {
	return newSpace(dir, zap.NewNop()).look().refuse(3*size+roomForNew, "restoring")
}

// replace builds a store from entries and puts it in force, under a new epoch
// and with a new index key.
func replace(dir string, id identity, codec tokenstore.Codec, entries iter.Seq2[entry, error], done *Restored) (err error) {
	id.Epoch, id.Generation = randomHex(), 1
	indexKey := make([]byte, 32)
	_, _ = rand.Read(indexKey) // never fails
	if id.IndexKey, err = codec.SealBytes(indexKey, id.associatedData(tokenstore.KindIdentity, "", 0)); err != nil {
		return fmt.Errorf("sealing the store's identity: %w", err)
	}
	keep := ""
	if hasStore(dir) {
		keep = "badger-replaced-" + time.Now().UTC().Format("20060102T150405.000Z")
		done.Kept = filepath.Join(dir, keep)
	} else {
		// If the process is killed now, what it leaves is a store that was never
		// opened, and not one that has lost its identity.
		creating := id
		creating.Creating = true
		if err := writeIdentity(dir, creating); err != nil {
			return err
		}
		defer func() {
			if err != nil && !mayBeInForce(dir, id.Generation) {
				err = errors.Join(err, os.Remove(filepath.Join(dir, identityFile)), os.Remove(filepath.Join(dir, badgerDir)))
			}
		}()
	}
	if id, err = build(dir, id, indexKey, codec, entries); err != nil {
		return err
	}
	done.Unfinished, err = putInForce(dir, id, keep)
	return err
}
