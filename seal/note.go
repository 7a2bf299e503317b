package seal

import "github.com/lanyard-proxy/lanyard/tokenstore"

// SealNote implements tokenstore.Codec.
func (k *Keyset) SealNote(n *tokenstore.Note, ad []byte) ([]byte, error) {
	return sealJSON(k, newNoteWire(n), ad)
}

// OpenNote implements tokenstore.Codec.
func (k *Keyset) OpenNote(sealed, ad []byte) (tokenstore.Note, error) {
	var w noteWire
	if err := k.openJSON(sealed, ad, &w); err != nil {
		return tokenstore.Note{}, err
	}
	return w.note(), nil
}
