package seal

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// importLine is a connection as an import takes it (docs/api.md).
type importLine struct {
	ID           string            `json:"id"`
	Integration  string            `json:"integration"`
	UserID       string            `json:"user_id"`
	Name         string            `json:"name,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Params       map[string]string `json:"params,omitempty"`
	Metadata     json.RawMessage   `json:"metadata,omitempty"`
	Disabled     bool              `json:"disabled,omitempty"`
	AuthScheme   string            `json:"auth_scheme"`
	Scopes       []string          `json:"scopes,omitempty"`
	AccessToken  string            `json:"access_token,omitempty"`
	RefreshToken string            `json:"refresh_token,omitempty"`
	ExpiresAt    *time.Time        `json:"expires_at,omitempty"`
	Provisional  bool              `json:"provisional,omitempty"`
	Credentials  map[string]string `json:"credentials,omitempty"`
}

// ImportLine returns c with its credential in clear, as one JSON object that an
// import takes. What the provider told stands among the parameters, before what was given: it is
// the newer. It is for moving away, and nothing that runs calls it.
func ImportLine(c *tokenstore.Connection) ([]byte, error) {
	line := importLine{
		ID: c.ID, Integration: c.Integration, UserID: c.UserID, Name: c.Name, Labels: c.Labels, Params: c.Params,
		Metadata: json.RawMessage(c.Metadata), Disabled: c.Disabled, AuthScheme: c.AuthScheme,
	}
	if len(c.Token.Metadata) > 0 { // nobody tells it again where the user does not connect again
		line.Params = make(map[string]string, len(c.Params)+len(c.Token.Metadata))
		maps.Copy(line.Params, c.Params)
		maps.Copy(line.Params, c.Token.Metadata)
	}
	access, refresh := c.Token.AccessToken.Reveal(), c.Token.RefreshToken.Reveal()
	switch c.AuthScheme {
	case tokenstore.AuthAPIKey:
		line.Credentials = map[string]string{"api_key": access}
	case tokenstore.AuthBearerToken:
		line.Credentials = map[string]string{"token": access}
	case tokenstore.AuthJWTBearer:
		line.Credentials = map[string]string{"key": refresh}
	case tokenstore.AuthBasic:
		pair, err := base64.StdEncoding.DecodeString(access)
		username, password, ok := strings.Cut(string(pair), ":")
		if err != nil || !ok {
			return nil, fmt.Errorf("seal: %w: not a user name and a password", tokenstore.ErrCorrupt)
		}
		line.Credentials = map[string]string{"username": username, "password": password}
	case tokenstore.AuthClientCredentials: // the integration's own client
	default:
		line.AuthScheme, line.AccessToken, line.RefreshToken = tokenstore.AuthOAuth2, access, refresh
		line.Scopes, line.Provisional = c.Token.Scopes, c.Token.Provisional
		if c.Token.RefreshToken.Equal(c.Token.AccessToken) { // it renews itself, and an import takes it alone
			line.RefreshToken = ""
		}
		if access != "" && !c.Token.ExpiryUnknown && !c.Token.ExpiresAt.IsZero() {
			ends := c.Token.ExpiresAt.UTC()
			line.ExpiresAt = &ends
		}
	}
	b, err := json.Marshal(line) //nolint:gosec // G117: what an import takes is what an export writes
	if err != nil {
		return nil, fmt.Errorf("seal: encoding a connection: %w", err)
	}
	return b, nil
}
