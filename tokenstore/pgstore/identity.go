package pgstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// identity says which store this is.
type identity struct {
	StoreID string `json:"store_id"`
	Epoch   string `json:"epoch"`
	// IndexKeys is the key of the digests, once as each key sealed it that may have
	// sealed something in the store: a keyset that lacks one of them is refused.
	IndexKeys [][]byte `json:"index_keys"`
	// Rekeying is set while everything is being sealed with the primary key.
	Rekeying bool `json:"rekeying,omitempty"`

	// revision is that of its row: who changes it has seen what is there.
	revision int64
}

func (id identity) associatedData(kind tokenstore.Kind, record string, revision uint64) []byte {
	return tokenstore.AssociatedData(id.StoreID, id.Epoch, kind, record, revision)
}

// same reports whether the two are of one store.
func (id identity) same(other identity) bool {
	return id.StoreID == other.StoreID && id.Epoch == other.Epoch
}

// openIndexKey opens the index key with each of the keys that the store needs, or
// returns an error that wraps tokenstore.ErrKeyMissing and says which isn't there.
func (id identity) openIndexKey(codec tokenstore.Codec) (indexKey []byte, err error) {
	if len(id.IndexKeys) == 0 {
		return nil, fmt.Errorf("%w: its identity is damaged", tokenstore.ErrKeyMissing)
	}
	for _, sealed := range id.IndexKeys {
		plain, err := codec.OpenBytes(sealed, id.associatedData(tokenstore.KindIdentity, "", 0))
		if err != nil || len(plain) == 0 || (indexKey != nil && !bytes.Equal(plain, indexKey)) {
			key, ok := codec.KeyOf(sealed)
			if !ok {
				return nil, fmt.Errorf("%w: its index key is damaged", tokenstore.ErrKeyMissing)
			}
			return nil, fmt.Errorf("%w: something in it is sealed with key %d, and the keyset has %v", tokenstore.ErrKeyMissing, key, codec.Keys())
		}
		indexKey = plain
	}
	return indexKey, nil
}

// names reports whether something in the store may be sealed with this key.
func (id identity) names(codec tokenstore.Codec, key uint32) bool {
	return slices.ContainsFunc(id.IndexKeys, func(sealed []byte) bool {
		k, ok := codec.KeyOf(sealed)
		return ok && k == key
	})
}

// addPrimary notes the codec's primary key as one that seals, and reports whether
// that changed the identity. It has to be written before anything is sealed.
func (id *identity) addPrimary(codec tokenstore.Codec, indexKey []byte) (changed bool, err error) {
	if id.names(codec, codec.Keys()[0]) {
		return false, nil
	}
	sealed, err := codec.SealBytes(indexKey, id.associatedData(tokenstore.KindIdentity, "", 0))
	if err != nil {
		return false, fmt.Errorf("sealing the store's identity: %w", err)
	}
	id.IndexKeys = append(slices.Clone(id.IndexKeys), sealed)
	return true, nil
}

// needsOthers reports whether something may be sealed with another key than the
// codec's primary one.
func (id identity) needsOthers(codec tokenstore.Codec) bool {
	return slices.ContainsFunc(id.IndexKeys, func(sealed []byte) bool {
		key, ok := codec.KeyOf(sealed)
		return !ok || key != codec.Keys()[0]
	})
}

// dropOthers lets go of all keys but the primary one.
func (id *identity) dropOthers(codec tokenstore.Codec) {
	id.IndexKeys = slices.DeleteFunc(slices.Clone(id.IndexKeys), func(sealed []byte) bool {
		key, ok := codec.KeyOf(sealed)
		return !ok || key != codec.Keys()[0]
	})
}

const (
	selectIdentity = `select revision, record from lanyard_identity where one = 1`
	insertIdentity = `insert into lanyard_identity (one, revision, record) values (1, 1, $1) on conflict (one) do nothing`
	updateIdentity = `update lanyard_identity set revision = revision + 1, record = $2 where one = 1 and revision = $1`
)

// readIdentity returns the identity, or tokenstore.ErrNotFound.
func (s *Store) readIdentity(ctx context.Context) (id identity, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		id = identity{}
		var record string
		err := conn.QueryRow(ctx, selectIdentity).Scan(&id.revision, &record)
		if errors.Is(err, pgx.ErrNoRows) {
			return &ownError{tokenstore.ErrNotFound}
		}
		if err == nil && json.Unmarshal([]byte(record), &id) != nil {
			return &ownError{fmt.Errorf("%w: the store's identity can't be read", ErrIncomplete)}
		}
		return err
	})
	return id, err
}

// findIdentity reads the identity, and checks that the keyset is the store's. It
// returns tokenstore.ErrNotFound if there is none.
func (s *Store) findIdentity(ctx context.Context, codec tokenstore.Codec) (identity, error) {
	id, err := s.readIdentity(ctx)
	if err != nil {
		return id, err
	}
	indexKey, err := id.openIndexKey(codec)
	if err != nil {
		return id, fmt.Errorf("the store in the database was sealed with another keyset: start with the keyset that belongs to it (nothing was changed): %w", err)
	}
	s.keys = keyMaker{indexKey: indexKey}
	return id, nil
}

// prepareIdentity finds the identity, or makes one in an empty store, and has the
// codec's primary key noted in it.
func (s *Store) prepareIdentity(ctx context.Context, codec tokenstore.Codec) error {
	id, err := s.findIdentity(ctx, codec)
	if errors.Is(err, tokenstore.ErrNotFound) {
		if err = s.newIdentity(ctx, codec); err == nil {
			id, err = s.findIdentity(ctx, codec) // its own, or that of whoever was faster
		}
	}
	if err != nil {
		return err
	}
	s.sealer.now.Store(&sealing{codec: codec, id: id, since: time.Now()})
	return s.changeIdentity(ctx, func(id *identity) (bool, error) { return id.addPrimary(codec, s.keys.indexKey) })
}

func (s *Store) newIdentity(ctx context.Context, codec tokenstore.Codec) error {
	some, err := query(ctx, s, pgx.RowTo[int], `select 1 from lanyard_connections limit 1`)
	if err == nil && len(some) > 0 {
		err = fmt.Errorf("%w: there are connections in it, but no identity: restore a backup of the database", ErrIncomplete)
	}
	if err != nil {
		return err
	}
	id := identity{StoreID: randomHex(), Epoch: randomHex()}
	indexKey := make([]byte, 32)
	_, _ = rand.Read(indexKey) // never fails
	if _, err := id.addPrimary(codec, indexKey); err != nil {
		return err
	}
	record, err := json.Marshal(id)
	if err == nil {
		_, err = s.exec(ctx, insertIdentity, string(record))
	}
	if err != nil {
		return fmt.Errorf("making the store's identity: %w", err)
	}
	return nil
}

// changeIdentity changes the identity in the database, and takes it into use.
// change reports whether there is something to write; it may run more than once.
func (s *Store) changeIdentity(ctx context.Context, change func(id *identity) (bool, error)) error {
	s.sealer.mu.Lock()
	defer s.sealer.mu.Unlock()
	return s.changeIdentityLocked(ctx, change)
}

func (s *Store) changeIdentityLocked(ctx context.Context, change func(id *identity) (bool, error)) error {
	for t := newTries(); ; {
		id, err := s.readIdentity(ctx)
		if err != nil {
			return err
		}
		if !id.same(s.sealer.now.Load().id) {
			return fmt.Errorf("%w: the database has another store by now", tokenstore.ErrUnavailable)
		}
		changed, err := change(&id)
		if err != nil {
			return err
		}
		if changed {
			record, err := json.Marshal(id)
			if err != nil {
				return fmt.Errorf("encoding the store's identity: %w", err)
			}
			// Where the outcome was in doubt and it was done, the next look shows it.
			rows, err := s.exec(ctx, updateIdentity, id.revision, string(record))
			if err != nil {
				return err
			}
			if rows == 0 {
				if !t.pause(ctx) {
					return ctx.Err()
				}
				continue
			}
			id.revision++
		}
		now := *s.sealer.now.Load()
		now.id = id
		s.sealer.now.Store(&now)
		return nil
	}
}

func randomHex() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
