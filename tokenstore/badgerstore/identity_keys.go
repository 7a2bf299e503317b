package badgerstore

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// sealedIndexKeys returns the index key as each key sealed it that is needed:
// the primary's first.
func (id identity) sealedIndexKeys() [][]byte {
	return append([][]byte{id.IndexKey}, id.OlderKeys...)
}

// openIndexKey opens the index key with each of the keys that the store needs,
// or returns an error that wraps tokenstore.ErrKeyMissing and says which isn't
// there: a key is the store's if it opens what it sealed, whatever its ID.
func (id identity) openIndexKey(codec tokenstore.Codec) (indexKey []byte, err error) {
	for _, sealed := range id.sealedIndexKeys() {
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

// addPrimary notes the codec's primary key as one that seals, and reports
// whether that changed the identity. It has to be written before anything is
// sealed.
func (id *identity) addPrimary(codec tokenstore.Codec, indexKey []byte) (changed bool, err error) {
	primary := codec.Keys()[0]
	if key, ok := codec.KeyOf(id.IndexKey); ok && key == primary {
		return false, nil
	}
	sealed, err := codec.SealBytes(indexKey, id.associatedData(tokenstore.KindIdentity, "", 0))
	if err != nil {
		return false, fmt.Errorf("sealing the store's identity: %w", err)
	}
	older := slices.DeleteFunc(id.sealedIndexKeys(), func(b []byte) bool {
		key, ok := codec.KeyOf(b)
		return ok && key == primary // which was primary before
	})
	id.IndexKey, id.OlderKeys = sealed, older
	return true, nil
}
