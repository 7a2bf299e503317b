package badgerstore

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// backupBatch is how many bytes of records a backup reads at a time. In between
// it holds nothing that Close or a writer would wait for.
const backupBatch = 256 << 10

// errSnapshotGone ends a backup whose store was closed or reopened.
var errSnapshotGone = fmt.Errorf("%w: it was closed or reopened in the middle of a backup", tokenstore.ErrUnavailable)

// snapshot is the store as it stood at one moment.
type snapshot struct {
	store  *Store
	db     *badger.DB
	txn    *badger.Txn
	head   head // with seq 0 if there is none
	header backupHeader
	codec  tokenstore.Codec
}

// stored is a key and its value, copied.
type stored struct{ key, value []byte }

// Backup writes a backup of the store as it stands when Backup is called:
// connections and events as they are sealed, and the IDs of the deleted. Flows,
// which live for minutes, and notes, which speak of now, are not in it. Reads and writes go on meanwhile; what
// is written after the beginning is not in the backup.
//
// A w that never returns keeps Badger from forgetting old versions of records,
// so its writes must have a time limit.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	if err := s.backup(ctx, w, false); err != nil {
		return fmt.Errorf("badgerstore: backup: %w", err)
	}
	return nil
}

// Export writes what the store is moved to another place with: a backup with the
// flows and notes. It is of use while the store is frozen (Freeze) and no longer.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	if err := s.backup(ctx, w, true); err != nil {
		return fmt.Errorf("badgerstore: export: %w", err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, w io.Writer, all bool) error {
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	defer snap.end()
	magic := backupMagic
	if all {
		magic = exportMagic
	}
	out := newBackupWriter(w, magic, snap.header)
	err = snap.each(ctx, keyDeleted, func(r stored) error {
		out.deleted(string(r.key))
		return out.err
	})
	records := func(prefix string, kind byte) {
		if err == nil {
			err = snap.each(ctx, prefix, func(r stored) error {
				out.record(kind, string(r.key), r.value)
				return out.err
			})
		}
	}
	records(keyConnection, frameConnection)
	if err == nil {
		err = snap.each(ctx, keyEvent, func(r stored) error {
			out.event(r.key, r.value)
			return out.err
		})
	}
	if all {
		records(keyFlow, frameFlow)
		records(keyNote, frameNote)
	}
	if err != nil {
		return err
	}
	return out.end(snap.header, snap.codec)
}

// snapshot begins to read the store as it stands.
func (s *Store) snapshot() (*snapshot, error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	s.sealer.mu.Lock() // so that the header names the keys of just this moment
	defer s.sealer.mu.Unlock()
	codec, id := s.sealing()
	snap := &snapshot{store: s, db: s.db, txn: s.db.NewTransaction(false), codec: codec}
	snap.header = backupHeader{
		StoreID: id.StoreID, Epoch: id.Epoch, CreatedAt: time.Now().UTC(), IndexKeys: id.sealedIndexKeys(),
	}
	if item, err := snap.txn.Get([]byte(keyHead)); err == nil {
		_ = item.Value(func(value []byte) error { // without one, whoever opens the store next finds that
			snap.head, _ = parseHead(s.keys.headKey(), value)
			snap.header.Sequence = snap.head.seq
			return nil
		})
	}
	return snap, nil
}

// end lets go of the snapshot. A database that was closed in between has
// nothing left to let go of.
func (s *snapshot) end() {
	s.store.reading.RLock()
	defer s.store.reading.RUnlock()
	if !s.store.closed && s.store.db == s.db {
		s.txn.Discard()
	}
}

// each calls use with everything under a prefix, without the prefix, in the
// order of the keys.
func (s *snapshot) each(ctx context.Context, prefix string, use func(stored) error) error {
	from := []byte(prefix)
	for from != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, next, err := s.read([]byte(prefix), from)
		if err != nil {
			return err
		}
		for _, r := range batch {
			r.key = r.key[len(prefix):]
			if err := use(r); err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}

// read reads some of what is under prefix, and returns the key to go on from,
// nil at the end.
func (s *snapshot) read(prefix, from []byte) (batch []stored, next []byte, err error) {
	s.store.reading.RLock()
	defer s.store.reading.RUnlock()
	if s.store.closed || s.store.db != s.db {
		return nil, nil, errSnapshotGone
	}
	if err := s.store.usable(); err != nil {
		return nil, nil, err
	}
	err = catch(func() error {
		batch, next = readBatch(s.txn, prefix, from, backupBatch)
		return nil
	})
	if err != nil {
		err = fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	return batch, next, err
}

// readBatch reads what is under prefix, from a key on, until it has so many
// bytes. A value that Badger can't read is empty, which none is otherwise.
func readBatch(txn *badger.Txn, prefix, from []byte, limit int) (batch []stored, next []byte) {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
	defer it.Close()
	size := 0
	for it.Seek(from); it.Valid(); it.Next() {
		if size >= limit {
			return batch, it.Item().KeyCopy(nil)
		}
		value, err := it.Item().ValueCopy(nil)
		if err != nil { // damaged: one record must not keep the others from being read
			value = nil
		}
		size += len(it.Item().Key()) + len(value)
		batch = append(batch, stored{it.Item().KeyCopy(nil), value})
	}
	return batch, nil
}
