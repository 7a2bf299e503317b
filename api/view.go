package api

import (
	"cmp"
	"encoding/json"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// connectionView is a connection as the API shows it. It has no place for a
// token.
type connectionView struct {
	ID                    string            `json:"id"`
	Integration           string            `json:"integration"`
	Provider              string            `json:"provider"`
	UserID                string            `json:"user_id"`
	Name                  string            `json:"name"`
	Labels                map[string]string `json:"labels"`
	Params                map[string]string `json:"params"`
	ProviderMetadata      map[string]string `json:"provider_metadata"`
	Metadata              json.RawMessage   `json:"metadata"`
	Status                tokenstore.Status `json:"status"`
	StatusReason          *string           `json:"status_reason"`
	AuthScheme            string            `json:"auth_scheme"`
	Scopes                scopesView        `json:"scopes"`
	Account               *accountView      `json:"account"`
	CreatedAt             *time.Time        `json:"created_at"`
	UpdatedAt             *time.Time        `json:"updated_at"`
	ConnectedAt           *time.Time        `json:"connected_at"`
	LastUsedAt            *time.Time        `json:"last_used_at"`
	LastRefreshedAt       *time.Time        `json:"last_refreshed_at"`
	AccessTokenExpiresAt  *time.Time        `json:"access_token_expires_at"`
	RefreshTokenExpiresAt *time.Time        `json:"refresh_token_expires_at"`
	Generation            uint64            `json:"generation"`
	Disabled              bool              `json:"disabled"`
	ConnectURL            string            `json:"connect_url,omitempty"`
}

type scopesView struct {
	Requested []string `json:"requested"`
	Granted   []string `json:"granted"`
	Missing   []string `json:"missing"`
}

// accountView is the account at the provider, as far as it is known.
type accountView struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// damagedView is a connection whose record can't be opened.
type damagedView struct {
	ID        string     `json:"id"`
	CreatedAt *time.Time `json:"created_at"`
	Error     string     `json:"error"` // store_corrupt
}

func viewDamaged(c tokenstore.Connection) damagedView {
	return damagedView{ID: c.ID, CreatedAt: instant(c.CreatedAt), Error: codeCorrupt}
}

// view returns c as lists show it.
func (h *Handler) view(c tokenstore.Connection) connectionView {
	v := connectionView{
		ID: c.ID, Integration: c.Integration, Provider: c.Provider, UserID: c.UserID, Name: c.Name,
		Labels: c.Labels, Params: c.Params, ProviderMetadata: c.Token.Metadata, Metadata: json.RawMessage(cmp.Or(c.Metadata, "{}")),
		Status: c.Status, AuthScheme: c.AuthScheme,
		Scopes: scopesView{
			Requested: notNil(c.RequestedScopes), Granted: notNil(c.Token.Scopes), Missing: notNil(c.MissingScopes()),
		},
		CreatedAt: instant(c.CreatedAt), UpdatedAt: instant(c.UpdatedAt), ConnectedAt: instant(c.ConnectedAt),
		LastRefreshedAt:       instant(c.LastRefreshedAt),
		RefreshTokenExpiresAt: instant(c.Token.RefreshExpiresAt),
		Generation:            c.Token.Generation, Disabled: c.Disabled,
	}
	for _, m := range []*map[string]string{&v.Labels, &v.Params, &v.ProviderMetadata} {
		if *m == nil {
			*m = map[string]string{}
		}
	}
	if c.Account != (tokenstore.Account{}) {
		account := accountView(c.Account)
		v.Account = &account
	}
	if reason := h.reason(c); reason != "" {
		v.StatusReason = &reason
	}
	used := c.LastUsedAt
	if t := h.cfg.Refresher.LastUsed(c.ID); t.After(used) {
		used = t
	}
	v.LastUsedAt = instant(used)
	if !c.Token.ExpiryUnknown {
		v.AccessTokenExpiresAt = instant(c.Token.ExpiresAt)
	}
	return v
}

// single returns c as it is shown alone: with a connect link where connecting
// would help.
func (h *Handler) single(c tokenstore.Connection) connectionView {
	v := h.view(c)
	if c.Connectable() || v.StatusReason != nil && *v.StatusReason == tokenstore.ReasonAPIUnknown {
		v.ConnectURL = h.connectURL(c)
	}
	return v
}

// reason returns why c is in its state: a code, or nothing.
func (h *Handler) reason(c tokenstore.Connection) string {
	integration, ok := h.cfg.Integrations[c.Integration]
	switch {
	case !ok:
		return tokenstore.ReasonIntegrationMissing
	case integration.bind(c.Params) != nil:
		return tokenstore.ReasonInvalidParameter
	case cmp.Or(c.AuthScheme, tokenstore.AuthOAuth2) != integration.scheme():
		return tokenstore.ReasonSchemeChanged
	case c.Status == tokenstore.StatusActive && integration.CheckToken != nil && integration.CheckToken(c.Params, &c.Token) != nil:
		return tokenstore.ReasonAPIUnknown
	}
	return c.StatusReason
}

// connectURL returns a link that connects c again, or nothing where no link
// can.
func (h *Handler) connectURL(c tokenstore.Connection) string {
	if integration, ok := h.cfg.Integrations[c.Integration]; !ok || c.Disabled || integration.bind(c.Params) != nil {
		return ""
	}
	link, _ := h.cfg.Links.Link(c, c.ReturnTo(h.cfg.RedirectURLs), "", nil, false)
	return link
}

// instant returns t for JSON: UTC, or null where it is not known.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// notNil makes an empty list [] in JSON.
func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
