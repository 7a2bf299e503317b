package badgerstore

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	identityFile   = "lanyard-store.json"
	badgerDir      = "badger"
	identityFormat = 4
	// formatBeforeEvents is what a store has that no version with an audit log
	// has opened, and formatBeforeLabels one that none with an index of labels
	// has. Opening it gives it identityFormat, so that the versions before, which
	// can't read a head that counts events and don't keep that index, refuse it by
	// its format.
	formatBeforeEvents = 2
	formatBeforeLabels = 3
)

// ErrIncomplete is returned by Open when a file of the store is damaged, lost or
// older than the others, or they are of two stores.
var ErrIncomplete = errors.New("the store is incomplete")

// identity says which store this is. It stands in a file beside Badger and in
// Badger: Badger opens an empty database without a word when its MANIFEST is
// gone, and deletes the tables it then doesn't know.
type identity struct {
	Format  int    `json:"format"`
	StoreID string `json:"store_id"`
	Epoch   string `json:"epoch"` // renewed by each restore
	// Generation names the directory of Badger's files that is in force.
	Generation uint64 `json:"generation,omitempty"`
	// IndexKey is the key of the digests in index keys, sealed. That it opens
	// shows that the keyset is the store's.
	IndexKey []byte `json:"index_key,omitempty"`
	// OlderKeys is the same index key as the keys sealed it that were primary
	// before, and may have sealed something that is still there: a keyset that
	// lacks one of them is refused.
	OlderKeys [][]byte `json:"older_keys,omitempty"`
	// Rekeying is set while everything is being sealed with the primary key.
	Rekeying bool `json:"rekeying,omitempty"`
	// Indexing is set while connections of a store from before the index of labels
	// are put into that.
	Indexing bool `json:"indexing,omitempty"`
	// Creating is set until the first generation is whole: there is nothing in
	// the store then.
	Creating bool `json:"creating,omitempty"`
	// Loading is set while a store that was moved here is not in force yet.
	Loading bool `json:"loading,omitempty"`
	// MovedTo says where the store was moved to, if it was: it does not open then.
	MovedTo string `json:"moved_to,omitempty"`
}

func (id identity) associatedData(kind tokenstore.Kind, record string, revision uint64) []byte {
	return tokenstore.AssociatedData(id.StoreID, id.Epoch, kind, record, revision)
}

// prepareIdentity reads the store's identity, or makes one where there is no
// store, and opens the index key. It leaves Badger's files alone.
func (s *Store) prepareIdentity(codec tokenstore.Codec) (id identity, err error) {
	id, err = readIdentity(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return s.newIdentity(codec)
	}
	if err != nil {
		return identity{}, err
	}
	if err := id.checkMoved(s.dir); err != nil && !s.loading {
		return identity{}, err
	}
	indexKey, err := id.openIndexKey(codec)
	if err != nil {
		return identity{}, fmt.Errorf(
			"the store in %s was sealed with another keyset, or %s is damaged: start with the keyset that belongs to it (nothing was changed): %w",
			s.dir, identityFile, err)
	}
	s.keys = keyMaker{indexKey: indexKey}
	// Written when the store is opened, and so before anything is sealed.
	_, err = id.addPrimary(codec, indexKey)
	return id, err
}

// mayBeInForce reports whether the identity file names the generation n, or can't
// be read. After an error of writeIdentity it is one file or the other: where
// only the sync of the directory has failed it is replaced already.
func mayBeInForce(dir string, n uint64) bool {
	id, err := readIdentity(dir)
	return err != nil || id.Generation == n
}

// readIdentity reads the identity file. Its error is os.ErrNotExist if there is
// none.
func readIdentity(dir string) (id identity, err error) {
	path := filepath.Join(dir, identityFile)
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the directory
	if err != nil {
		return identity{}, fmt.Errorf("reading the store's identity: %w", err)
	}
	id, err = parseIdentity(text)
	if err == nil && id.Generation == 0 {
		err = errDamaged
	}
	if err != nil {
		return identity{}, fmt.Errorf("%w: %s %w", ErrIncomplete, path, err)
	}
	return id, nil
}

var (
	errDamaged = errors.New("is damaged: restore a backup")
	// errOtherVersion: nothing is damaged, and nothing must be taken for lost.
	errOtherVersion = errors.New("is of another version of Lanyard")
)

// parseIdentity reads what the identity file or the database has of it.
func parseIdentity(text []byte) (id identity, err error) {
	switch err := json.Unmarshal(text, &id); {
	case err != nil:
		return identity{}, errDamaged
	case id.Format != 0 && (id.Format < formatBeforeEvents || id.Format > identityFormat):
		return identity{}, fmt.Errorf("%w: has format %d, and this one knows formats %d to %d only",
			errOtherVersion, id.Format, formatBeforeEvents, identityFormat)
	case id.Format == 0, id.StoreID == "", id.Epoch == "":
		return identity{}, errDamaged
	}
	return id, nil
}

// newIdentity begins a new store, if nothing is there of an old one.
func (s *Store) newIdentity(codec tokenstore.Codec) (identity, error) {
	files, err := os.ReadDir(filepath.Join(s.dir, badgerDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return identity{}, fmt.Errorf("looking for a store: %w", err)
	}
	if len(files) > 0 {
		return identity{}, fmt.Errorf(
			"%w: there is a database in %s, but %s beside it is missing: restore a backup, or move the directory away to begin with an empty store",
			ErrIncomplete, filepath.Join(s.dir, badgerDir), identityFile)
	}
	id := identity{Format: identityFormat, StoreID: randomHex(), Epoch: randomHex(), Generation: 1, Creating: true}
	indexKey := make([]byte, 32)
	_, _ = rand.Read(indexKey) // never fails
	id.IndexKey, err = codec.SealBytes(indexKey, id.associatedData(tokenstore.KindIdentity, "", 0))
	if err != nil {
		return identity{}, fmt.Errorf("sealing the store's identity: %w", err)
	}
	s.keys = keyMaker{indexKey: indexKey}
	return id, writeIdentity(s.dir, id)
}

// forDatabase returns what stands of the identity in the database itself. What
// changes in the file later is not changed here.
func (id identity) forDatabase() ([]byte, error) {
	id.Generation = 0
	text, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("encoding the store's identity: %w", err)
	}
	return text, nil
}

// checkIdentity checks that what r reads is the store of id.
func (r *reader) checkIdentity(id identity) error {
	var found identity
	err := r.each(keyIdentity, func(i item) (err error) {
		found, err = parseIdentity(i.value)
		return err
	})
	switch {
	case err != nil || found.StoreID == "":
		return errors.New("the database has lost its identity")
	case found.StoreID != id.StoreID || found.Epoch != id.Epoch:
		return fmt.Errorf("%s and the database beside it are of two stores", identityFile)
	}
	return nil
}

// writeIdentity replaces the identity file: after a crash it is the old one or
// the new one, whole.
func writeIdentity(dir string, id identity) error {
	text, err := json.MarshalIndent(id, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding the store's identity: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, identityFile), append(text, '\n')); err != nil {
		return fmt.Errorf("writing the store's identity: %w", err)
	}
	return nil
}

// removeTemporary removes what a kill has left of files that replaceFile was
// about to make in dir. The caller holds the directory's lock.
func removeTemporary(dir string) error {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "."+identityFile+"-") || strings.HasPrefix(f.Name(), ".lanyard-known-") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
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
	return syncDir(dir)
}

func randomHex() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
