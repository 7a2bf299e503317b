package badgerstore

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	identityFile   = "lanyard-store.json"
	badgerDir      = "badger"
	identityFormat = 1
)

// ErrIncomplete is returned by Open when the identity file and Badger's files
// don't belong together: one was lost, emptied, or brought from elsewhere.
var ErrIncomplete = errors.New("the store is incomplete")

// identity says which store this is. It stands in a file beside Badger and in
// Badger: Badger opens an empty database without a word when its MANIFEST is
// gone, and deletes the tables it then doesn't know.
type identity struct {
	Format  int    `json:"format"`
	StoreID string `json:"store_id"`
	Epoch   string `json:"epoch"` // renewed by each restore
	// IndexKey is the key of the digests in index keys, sealed. That it opens
	// shows that the keyset is the store's.
	IndexKey []byte `json:"index_key"`
	// Creating is set until the first Open has succeeded: there is nothing in
	// the store then, and Badger may be missing.
	Creating bool `json:"creating,omitempty"`
}

func (id identity) associatedData(kind tokenstore.Kind, record string, revision uint64) []byte {
	return tokenstore.AssociatedData(id.StoreID, id.Epoch, kind, record, revision)
}

// prepareIdentity reads the store's identity, or makes one where there is no
// store, and opens the index key. It leaves Badger's files alone.
func (s *Store) prepareIdentity() (id identity, indexKey []byte, err error) {
	path := filepath.Join(s.dir, identityFile)
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the directory
	if errors.Is(err, os.ErrNotExist) {
		return s.newIdentity()
	}
	if err != nil {
		return identity{}, nil, fmt.Errorf("reading the store's identity: %w", err)
	}
	if err := json.Unmarshal(text, &id); err != nil || id.StoreID == "" || id.Epoch == "" {
		return identity{}, nil, fmt.Errorf("%w: %s is damaged: restore it from a backup", ErrIncomplete, path)
	}
	if id.Format != identityFormat {
		return identity{}, nil, fmt.Errorf("%w: %s has format %d, and this version knows format %d only",
			ErrIncomplete, path, id.Format, identityFormat)
	}
	indexKey, err = s.codec.OpenBytes(id.IndexKey, id.associatedData(tokenstore.KindIdentity, "", 0))
	if err != nil || len(indexKey) == 0 {
		return identity{}, nil, fmt.Errorf(
			"%w: the store in %s was sealed with another keyset: start with that one (nothing was changed)",
			tokenstore.ErrKeyMissing, s.dir)
	}
	if id.Creating {
		return id, indexKey, nil
	}
	manifest := filepath.Join(s.dir, badgerDir, badger.ManifestFilename)
	if fi, err := os.Stat(manifest); err != nil || fi.Size() == 0 {
		return identity{}, nil, fmt.Errorf(
			"%w: %s says that there is a store, but %s is missing or empty: restore %s from a backup, or move both away to begin with an empty store",
			ErrIncomplete, path, manifest, filepath.Dir(manifest))
	}
	return id, indexKey, nil
}

// newIdentity begins a new store, if nothing is there of an old one.
func (s *Store) newIdentity() (identity, []byte, error) {
	files, err := os.ReadDir(filepath.Join(s.dir, badgerDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return identity{}, nil, fmt.Errorf("looking for a store: %w", err)
	}
	if len(files) > 0 {
		return identity{}, nil, fmt.Errorf(
			"%w: there is a database in %s, but %s beside it is missing: restore that file from a backup, or move the directory away to begin with an empty store",
			ErrIncomplete, filepath.Join(s.dir, badgerDir), identityFile)
	}
	id := identity{Format: identityFormat, StoreID: randomHex(), Epoch: randomHex(), Creating: true}
	indexKey := make([]byte, 32)
	_, _ = rand.Read(indexKey) // never fails
	id.IndexKey, err = s.codec.SealBytes(indexKey, id.associatedData(tokenstore.KindIdentity, "", 0))
	if err != nil {
		return identity{}, nil, fmt.Errorf("sealing the store's identity: %w", err)
	}
	return id, indexKey, s.writeIdentity(id)
}

// confirmIdentity checks that the open database is this store's, and finishes
// the making of a new one.
func (s *Store) confirmIdentity() error {
	var found identity
	empty := true
	err := s.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		it.Rewind()
		empty = !it.Valid()
		item, err := txn.Get([]byte(keyIdentity))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return item.Value(func(text []byte) error { return json.Unmarshal(text, &found) })
	})
	if err != nil {
		return fmt.Errorf("reading the database's identity: %w: %w", ErrIncomplete, err)
	}
	switch {
	case found.StoreID == s.id.StoreID && found.Epoch == s.id.Epoch:
	case found.StoreID != "":
		return fmt.Errorf("%w: %s and the database beside it are of two stores: restore both from one backup",
			ErrIncomplete, filepath.Join(s.dir, identityFile))
	case !empty || !s.id.Creating:
		return fmt.Errorf("%w: the database in %s has lost its identity: restore it from a backup",
			ErrIncomplete, filepath.Join(s.dir, badgerDir))
	}
	if !s.id.Creating {
		return nil
	}
	s.id.Creating = false
	text, err := json.Marshal(s.id)
	if err != nil {
		return fmt.Errorf("encoding the store's identity: %w", err)
	}
	if err := s.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(keyIdentity), text) }); err != nil {
		return fmt.Errorf("writing the store's identity: %w: %w", tokenstore.ErrUnavailable, err)
	}
	return s.writeIdentity(s.id)
}

// writeIdentity replaces the identity file: after a crash it is the old one or
// the new one, whole.
func (s *Store) writeIdentity(id identity) error {
	text, err := json.MarshalIndent(id, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding the store's identity: %w", err)
	}
	if err := replaceFile(filepath.Join(s.dir, identityFile), append(text, '\n')); err != nil {
		return fmt.Errorf("writing the store's identity: %w", err)
	}
	return nil
}

func replaceFile(path string, text []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir) //nolint:gosec // the operator names the directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func randomHex() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
