package seal

import (
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// eventWire is the stored format of an event, as those in wire.go.
type eventWire struct {
	Seq          uint64               `json:"seq"`
	At           time.Time            `json:"at,omitzero"`
	Type         tokenstore.EventType `json:"type"`
	ConnectionID string               `json:"connection_id,omitzero"`
	Integration  string               `json:"integration,omitzero"`
	UserID       string               `json:"user_id,omitzero"`
	Actor        actorWire            `json:"actor,omitzero"`
	Denied       bool                 `json:"denied,omitzero"`
	Reason       string               `json:"reason,omitzero"`
	Count        uint64               `json:"count,omitzero"`
}

type actorWire struct {
	Kind string `json:"kind,omitzero"`
	Name string `json:"name,omitzero"`
	From string `json:"from,omitzero"`
}

// SealEvent implements tokenstore.Codec. A text in e that is not UTF-8 is sealed
// with U+FFFD in place of what isn't: what is worth an event must not go
// unwritten for how a stranger spelled it.
func (k *Keyset) SealEvent(e *tokenstore.Event, ad []byte) ([]byte, error) {
	return sealJSON(k, &eventWire{
		Seq: e.Seq, At: instant(e.At), Type: tokenstore.EventType(validText(string(e.Type))),
		ConnectionID: validText(e.ConnectionID), Integration: validText(e.Integration), UserID: validText(e.UserID),
		Actor:  actorWire{validText(e.Actor.Kind), validText(e.Actor.Name), validText(e.Actor.From)},
		Denied: e.Denied, Reason: validText(e.Reason), Count: e.Count,
	}, ad)
}

// OpenEvent implements tokenstore.Codec.
func (k *Keyset) OpenEvent(sealed, ad []byte) (tokenstore.Event, error) {
	var w eventWire
	if err := k.openJSON(sealed, ad, &w); err != nil {
		return tokenstore.Event{}, err
	}
	return tokenstore.Event{
		Seq: w.Seq, At: w.At, Type: w.Type,
		ConnectionID: w.ConnectionID, Integration: w.Integration, UserID: w.UserID,
		Actor: tokenstore.Actor(w.Actor), Denied: w.Denied, Reason: w.Reason, Count: w.Count,
	}, nil
}

// validText returns s as valid UTF-8.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
