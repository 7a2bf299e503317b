// Package secret holds the type in which every credential of this program
// travels: it cannot be printed, logged or encoded by accident.
package secret

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
)

const redacted = "[REDACTED]"

// String is a credential: an access token, refresh token, authorization code,
// code verifier, client secret or key.
//
// The value sits behind a pointer on purpose. fmt cannot call methods on
// unexported struct fields and prints their memory instead; for a pointer it
// prints the address, never the text. The zero String is empty and usable.
type String struct {
	_ [0]func() // not comparable: == would compare addresses; use Equal
	p *string
}

// New wraps s. The caller should not keep s.
func New(s string) String { return String{p: &s} }

// Reveal returns the credential in clear text. Only code that puts it on the
// wire to its owner, or seals it for the store, may call this; the linter
// (forbidigo) keeps the list.
func (s String) Reveal() string {
	if s.p == nil {
		return ""
	}
	return *s.p
}

// IsZero reports whether s holds no credential.
func (s String) IsZero() bool { return s.p == nil || *s.p == "" }

// Equal reports whether s and other hold the same text, in a time that
// depends on their lengths only.
func (s String) Equal(other String) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// Hash returns the SHA-256 of the credential in lower-case hexadecimal: what is
// kept or logged where the credential itself must not be. It is only safe for
// values with the entropy of a key, as tokens, states and codes have.
func (s String) Hash() string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:])
}

// MAC returns the HMAC-SHA256 of message under the credential as key, 32 bytes:
// for packages that sign or derive keys and have no need to see the credential.
func (s String) MAC(message string) []byte {
	h := hmac.New(sha256.New, []byte(s.Reveal()))
	_, _ = h.Write([]byte(message)) // never fails
	return h.Sum(nil)
}

// DecodeJSON reads the credential as JSON into v: for packages that keep a
// record of their own where only secrets are kept (tokenstore.Note). It is not
// for what a provider or a user gave. The error repeats nothing of it.
func (s String) DecodeJSON(v any) error {
	if json.Unmarshal([]byte(s.Reveal()), v) != nil {
		return errors.New("secret: not the JSON that was expected")
	}
	return nil
}

// Format implements fmt.Formatter for every verb.
func (s String) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// String implements fmt.Stringer.
func (s String) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (s String) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (s String) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, and with it JSON and XML.
func (s String) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// GobEncode implements gob.GobEncoder by refusing: a credential is sealed
// explicitly, never encoded as a side effect.
func (s String) GobEncode() ([]byte, error) { return nil, errors.New("secret: refusing to encode") }
