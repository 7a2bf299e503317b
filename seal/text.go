package seal

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// ConnectionText returns c with its credentials as a text that may stand in a
// sealed record of another kind (tokenstore.Note), and nowhere else.
func ConnectionText(c *tokenstore.Connection) (secret.String, error) {
	text, err := json.Marshal(newConnectionWire(c))
	if err != nil {
		return secret.String{}, fmt.Errorf("seal: encoding a connection: %w", err)
	}
	return secret.New(string(text)), nil
}

// ParseConnectionText reads what ConnectionText wrote. The error repeats nothing
// of it.
func ParseConnectionText(text secret.String) (tokenstore.Connection, error) {
	var w connectionWire
	if json.Unmarshal([]byte(text.Reveal()), &w) != nil {
		return tokenstore.Connection{}, errors.New("seal: text is no connection")
	}
	return w.connection(), nil
}
