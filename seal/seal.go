// Package seal turns the store's records into sealed bytes and back, with a
// Tink keyset. It is the only home of Tink, and next to provider and proxy the
// only code that sees credentials in clear text.
package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// The formats of what is inside sealed bytes, in their first byte.
const (
	formatJSON  = 1 // a record, as JSON in the words of wire.go
	formatBytes = 2 // bytes, as SealBytes was given them
)

// Keyset seals with its primary key and opens with any of its keys. It is safe
// for concurrent use.
type Keyset struct {
	aead tink.AEAD
	keys []uint32 // IDs of the keys that open; the first is the primary's
}

var _ tokenstore.Codec = (*Keyset)(nil)

// Generate returns a new keyset with one AES-256-GCM key, as Tink's JSON in
// clear text: whoever reads it can open the store.
func Generate() ([]byte, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("seal: making a key: %w", err)
	}
	return writeKeyset(handle)
}

// Parse reads a keyset, as Generate or Tink's own tools write it. Its errors
// say what is wrong and quote nothing of the keyset.
func Parse(keysetJSON []byte) (*Keyset, error) {
	keysetJSON = bytes.TrimSpace(keysetJSON)
	if len(keysetJSON) == 0 {
		return nil, errors.New("seal: keyset is empty")
	}
	if !json.Valid(keysetJSON) {
		return nil, errors.New("seal: keyset is not JSON")
	}
	// Tink's own errors are dropped: those of its JSON parser quote the input.
	ks, err := readKeyset(keysetJSON).Read()
	if err != nil || len(ks.GetKey()) == 0 {
		return nil, errors.New("seal: keyset is JSON, but not a Tink keyset in clear text")
	}
	if !hasPrimary(ks) {
		return nil, errors.New("seal: keyset has no enabled primary key")
	}
	handle, err := insecurecleartextkeyset.Read(readKeyset(keysetJSON))
	if err != nil {
		return nil, errors.New("seal: keyset has a key that can't be read")
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("seal: keyset has a key that is not for authenticated encryption (AEAD)")
	}
	ids, err := openingKeys(ks)
	if err != nil {
		return nil, err
	}
	return &Keyset{aead: primitive, keys: ids}, nil
}

func hasPrimary(ks *tinkpb.Keyset) bool {
	for _, k := range ks.GetKey() {
		if k.GetKeyId() == ks.GetPrimaryKeyId() && k.GetStatus() == tinkpb.KeyStatusType_ENABLED {
			return true
		}
	}
	return false
}

// SealConnection implements tokenstore.Codec.
func (k *Keyset) SealConnection(c *tokenstore.Connection, ad []byte) ([]byte, error) {
	return sealJSON(k, newConnectionWire(c), ad)
}

// OpenConnection implements tokenstore.Codec.
func (k *Keyset) OpenConnection(sealed, ad []byte) (tokenstore.Connection, error) {
	var w connectionWire
	if err := k.openJSON(sealed, ad, &w); err != nil {
		return tokenstore.Connection{}, err
	}
	return w.connection(), nil
}

// SealFlow implements tokenstore.Codec.
func (k *Keyset) SealFlow(f *tokenstore.Flow, ad []byte) ([]byte, error) {
	return sealJSON(k, newFlowWire(f), ad)
}

// OpenFlow implements tokenstore.Codec.
func (k *Keyset) OpenFlow(sealed, ad []byte) (tokenstore.Flow, error) {
	var w flowWire
	if err := k.openJSON(sealed, ad, &w); err != nil {
		return tokenstore.Flow{}, err
	}
	return w.flow(), nil
}

// SealBytes implements tokenstore.Codec.
func (k *Keyset) SealBytes(plain, ad []byte) ([]byte, error) {
	return k.seal(slices.Concat([]byte{formatBytes}, plain), ad)
}

// OpenBytes implements tokenstore.Codec.
func (k *Keyset) OpenBytes(sealed, ad []byte) ([]byte, error) {
	return k.open(formatBytes, sealed, ad)
}

// sealJSON is for the wire structs only: they hold credentials in clear text.
func sealJSON[T any](k *Keyset, w *T, ad []byte) ([]byte, error) {
	inside, err := appendJSON([]byte{formatJSON}, w)
	if err != nil {
		return nil, fmt.Errorf("seal: encoding a record: %w", err)
	}
	// encoding/json replaces what is not UTF-8 by this escape. A record that
	// would come back changed is refused; the first look only spares the second.
	if bytes.Contains(inside, []byte(`\ufffd`)) {
		var back T
		if err := json.Unmarshal(inside[1:], &back); err != nil || !reflect.DeepEqual(w, &back) {
			return nil, errors.New("seal: encoding a record: a text in it is not valid UTF-8")
		}
	}
	return k.seal(inside, ad)
}

// openJSON passes over fields it doesn't know, so that a release can read what
// the next one wrote.
func (k *Keyset) openJSON(sealed, ad []byte, w any) error {
	text, err := k.open(formatJSON, sealed, ad)
	if err != nil {
		return err
	}
	if unmarshal(text, w) != nil { // its error may quote the record
		return fmt.Errorf("seal: decoding a record: %w", tokenstore.ErrCorrupt)
	}
	return nil
}

// appendJSON appends what encoding/json writes of w.
func appendJSON(b []byte, w any) ([]byte, error) {
	if l, ok := w.(lister); ok {
		if text, ok := appendMembers(slices.Grow(b, typicalLen), l); ok {
			return text, nil
		}
	}
	text, err := json.Marshal(w)
	return append(b, text...), err
}

// typicalLen is what most records have at most, in bytes.
const typicalLen = 2300

// unmarshal reads text into w, which is zero.
func unmarshal(text []byte, w any) error {
	if l, ok := w.(lister); ok {
		if readMembers(text, l) {
			return nil
		}
		reflect.ValueOf(w).Elem().SetZero()
	}
	return json.Unmarshal(text, w)
}

// seal seals what is inside: the format, and what is of it.
func (k *Keyset) seal(inside, ad []byte) ([]byte, error) {
	sealed, err := k.aead.Encrypt(inside, ad)
	if err != nil {
		return nil, fmt.Errorf("seal: encrypting: %w", err)
	}
	return sealed, nil
}

func (k *Keyset) open(format byte, sealed, ad []byte) ([]byte, error) {
	inside, err := k.aead.Decrypt(sealed, ad)
	if err != nil {
		return nil, fmt.Errorf("seal: decrypting: %w", tokenstore.ErrCorrupt)
	}
	if len(inside) == 0 || inside[0] != format {
		return nil, fmt.Errorf("seal: sealed in an unknown format: %w", tokenstore.ErrCorrupt)
	}
	return inside[1:], nil
}
