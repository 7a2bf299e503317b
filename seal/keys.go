package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Sealed bytes begin with Tink's prefix: this byte, then the key's ID.
const (
	tinkPrefix    = 1
	tinkPrefixLen = 1 + 4
)

// Keys implements tokenstore.Codec.
func (k *Keyset) Keys() []uint32 { return append([]uint32(nil), k.keys...) }

// KeyOf implements tokenstore.Codec.
func (*Keyset) KeyOf(sealed []byte) (uint32, bool) {
	if len(sealed) < tinkPrefixLen || sealed[0] != tinkPrefix {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[1:tinkPrefixLen]), true
}

// Reseal implements tokenstore.Codec.
func (k *Keyset) Reseal(sealed, ad []byte) ([]byte, error) {
	inside, err := k.aead.Decrypt(sealed, ad)
	if err != nil {
		return nil, fmt.Errorf("seal: decrypting: %w", tokenstore.ErrCorrupt)
	}
	out, err := k.aead.Encrypt(inside, ad)
	if err != nil {
		return nil, fmt.Errorf("seal: encrypting: %w", err)
	}
	return out, nil
}

// AddPrimary returns the keyset with a new key, which seals from then on. The
// others stay, to open what they have sealed.
func AddPrimary(keysetJSON []byte) ([]byte, error) {
	return change(keysetJSON, func(m *keyset.Manager, _ *tinkpb.Keyset) error {
		id, err := m.Add(aead.AES256GCMKeyTemplate())
		if err != nil {
			return err
		}
		return m.SetPrimary(id)
	})
}

// AddNext returns the keyset with a new key that only opens, until Promote: for
// programs that share a store, each of which has to have a key before one of them
// seals with it.
func AddNext(keysetJSON []byte) ([]byte, error) {
	return change(keysetJSON, func(m *keyset.Manager, _ *tinkpb.Keyset) error {
		_, err := m.Add(aead.AES256GCMKeyTemplate())
		return err
	})
}

// Promote returns the keyset with its newest key as the one that seals.
func Promote(keysetJSON []byte) ([]byte, error) {
	return change(keysetJSON, func(m *keyset.Manager, ks *tinkpb.Keyset) error {
		keys := ks.GetKey()
		newest := keys[len(keys)-1].GetKeyId()
		if newest == ks.GetPrimaryKeyId() {
			return errors.New("its newest key seals already")
		}
		return m.SetPrimary(newest)
	})
}

// DropOld returns the keyset with its primary key alone. What the others have
// sealed is lost, unless it was sealed again.
func DropOld(keysetJSON []byte) ([]byte, error) {
	return change(keysetJSON, func(m *keyset.Manager, ks *tinkpb.Keyset) error {
		for _, k := range ks.GetKey() {
			if k.GetKeyId() == ks.GetPrimaryKeyId() {
				continue
			}
			if err := m.Delete(k.GetKeyId()); err != nil {
				return err
			}
		}
		return nil
	})
}

// change returns a keyset with its keys changed. A keyset that Parse refuses is
// refused here, before and after.
func change(keysetJSON []byte, do func(*keyset.Manager, *tinkpb.Keyset) error) ([]byte, error) {
	if _, err := Parse(keysetJSON); err != nil {
		return nil, err
	}
	ks, err := readKeyset(keysetJSON).Read()
	if err != nil {
		return nil, errors.New("seal: reading the keyset")
	}
	handle, err := insecurecleartextkeyset.Read(readKeyset(keysetJSON))
	if err != nil {
		return nil, errors.New("seal: reading the keyset")
	}
	m := keyset.NewManagerFromHandle(handle)
	if err := do(m, ks); err != nil {
		return nil, fmt.Errorf("seal: changing the keyset: %w", err)
	}
	if handle, err = m.Handle(); err != nil {
		return nil, fmt.Errorf("seal: changing the keyset: %w", err)
	}
	text, err := writeKeyset(handle)
	if err != nil {
		return nil, err
	}
	if _, err := Parse(text); err != nil {
		return nil, err
	}
	return text, nil
}

func readKeyset(keysetJSON []byte) *keyset.JSONReader {
	return keyset.NewJSONReader(bytes.NewReader(keysetJSON))
}

func writeKeyset(handle *keyset.Handle) ([]byte, error) {
	var out bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&out)); err != nil {
		return nil, fmt.Errorf("seal: writing the keyset: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

// openingKeys returns the IDs of the keys that open, the primary one first. A
// key without Tink's prefix is refused: what it sealed could not be told from
// what another one did.
func openingKeys(ks *tinkpb.Keyset) ([]uint32, error) {
	ids := []uint32{ks.GetPrimaryKeyId()}
	for _, k := range ks.GetKey() {
		if k.GetStatus() != tinkpb.KeyStatusType_ENABLED {
			continue
		}
		if k.GetOutputPrefixType() != tinkpb.OutputPrefixType_TINK {
			return nil, fmt.Errorf("seal: keyset's key %d has no TINK output prefix", k.GetKeyId())
		}
		if k.GetKeyId() != ks.GetPrimaryKeyId() {
			ids = append(ids, k.GetKeyId())
		}
	}
	return ids, nil
}
