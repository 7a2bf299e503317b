package client

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Connection is one user's account at one integration. Times that are not known
// are zero.
type Connection struct {
	ID          string            `json:"id"` // names it, opens nothing
	Integration string            `json:"integration"`
	Provider    string            `json:"provider"`
	UserID      string            `json:"user_id"`
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Params      map[string]string `json:"params"` // of the provider's URLs
	// ProviderMetadata is what the provider told of the account: realm_id, say.
	ProviderMetadata map[string]string `json:"provider_metadata"`
	Metadata         json.RawMessage   `json:"metadata"` // a JSON object of the app's own
	Status           Status            `json:"status"`
	// StatusReason is a code that says why, such as invalid_grant. Often empty.
	StatusReason string  `json:"status_reason"`
	AuthScheme   string  `json:"auth_scheme"` // OAUTH2, API_KEY, …
	Scopes       Scopes  `json:"scopes"`
	Account      Account `json:"account"` // zero: not known

	CreatedAt             time.Time `json:"created_at"`
	UpdatedAt             time.Time `json:"updated_at"`
	ConnectedAt           time.Time `json:"connected_at"`
	LastUsedAt            time.Time `json:"last_used_at"`
	LastRefreshedAt       time.Time `json:"last_refreshed_at"`
	AccessTokenExpiresAt  time.Time `json:"access_token_expires_at"`
	RefreshTokenExpiresAt time.Time `json:"refresh_token_expires_at"`

	Generation uint64 `json:"generation"` // counts its credentials
	Disabled   bool   `json:"disabled"`
	// ConnectURL is a link of 15 minutes, where connecting would help. Not in
	// lists.
	ConnectURL string `json:"connect_url"`
	// Error is store_corrupt in lists, for a connection whose record can't be
	// opened. It has an ID and CreatedAt and nothing else then. Else empty.
	Error string `json:"error"`
}

// Status is where a connection stands.
type Status string

// The statuses. Connecting again leads from each back to Active.
const (
	Initiated Status = "INITIATED" // begun, not connected or not completed yet
	Active    Status = "ACTIVE"    // ready to use
	Expired   Status = "EXPIRED"   // the provider no longer takes its credential
	Failed    Status = "FAILED"    // its flow ended without a credential
	Revoked   Status = "REVOKED"   // revoked through Lanyard
)

// Scopes are what was asked for in all flows together, what the provider has
// granted, and what is missing of it.
type Scopes struct {
	Requested []string `json:"requested"`
	Granted   []string `json:"granted"`
	Missing   []string `json:"missing"`
}

// Account is the account at the provider, as the provider names it.
type Account struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Link connects a connection.
type Link struct {
	ID         string    `json:"id"` // of the connection
	Status     Status    `json:"status"`
	ConnectURL string    `json:"connect_url"`
	ExpiresAt  time.Time `json:"expires_at"` // of the link
}

// Device is what a user needs to connect on another device (RFC 8628).
type Device struct {
	ID                      string `json:"-"`         // of the connection
	UserCode                string `json:"user_code"` // to be typed in
	VerificationURI         string `json:"verification_uri"`
	VerificationURIComplete string `json:"verification_uri_complete"` // with the code in it; may be empty
	// ExpiresAt is when the code ends.
	ExpiresAt time.Time `json:"expires_at"`
	// Interval is how many seconds to leave between two looks at the connection.
	Interval int `json:"interval"`
}

// Begin makes a connection, INITIATED, and a link that connects it. With a
// ConnectionID it makes a link for that one; of the others, Scopes, RedirectURL,
// State and ResponseMode count then, and the empty RedirectURL is that of its
// last flow.
func (c *Client) Begin(ctx context.Context, p ConnectParams) (*Link, error) {
	var link Link
	return only(&link, c.begin(ctx, p, map[string]any{}, &link))
}

// BeginDevice is Begin for a device without a browser: show the user the code,
// and look at the connection every Interval until it is ACTIVE. RedirectURL,
// State and ResponseMode stay empty.
func (c *Client) BeginDevice(ctx context.Context, p ConnectParams) (*Device, error) {
	var got struct {
		ID     string `json:"id"`
		Device Device `json:"device"`
	}
	err := c.begin(ctx, p, map[string]any{"device": true}, &got)
	got.Device.ID = got.ID
	return only(&got.Device, err)
}

// BeginWithCredentials makes a connection that is ACTIVE at once, of an
// integration whose auth scheme is not OAUTH2: credentials are API_KEY
// `api_key`, BASIC `username` and `password`, BEARER_TOKEN `token`, JWT_BEARER
// `key`; none for OAUTH2_CLIENT_CREDENTIALS. They are tried once where the
// provider has a request to try them with: *APIError credentials_refused. With a
// ConnectionID that connection gets them. RedirectURL, State and ResponseMode
// stay empty.
func (c *Client) BeginWithCredentials(ctx context.Context, p ConnectParams, credentials map[string]string) (*Connection, error) {
	more := map[string]any{}
	if len(credentials) > 0 {
		more["credentials"] = credentials
	}
	var got Connection
	return only(&got, c.begin(ctx, p, more, &got))
}

func (c *Client) begin(ctx context.Context, p ConnectParams, body map[string]any, out any) error {
	if !p.Expires.IsZero() {
		return errors.New("lanyard: Expires is for CreateConnectURL: links that Lanyard makes live 15 minutes")
	}
	text := func(name, value string) {
		if value != "" {
			body[name] = value
		}
	}
	text("redirect_url", p.RedirectURL)
	text("state", p.State)
	text("response_mode", p.ResponseMode)
	if p.Scopes != nil {
		body["scopes"] = p.Scopes
	}
	if p.ConnectionID != "" {
		return c.about(ctx, http.MethodPost, p.ConnectionID, "/connect", body, out)
	}
	text("integration", p.Integration)
	text("user_id", p.UserID)
	text("name", p.ConnectionName)
	if p.Metadata != nil {
		body["metadata"] = p.Metadata
	}
	if len(p.Labels) > 0 {
		body["labels"] = p.Labels
	}
	if len(p.Params) > 0 {
		body["params"] = p.Params
	}
	return c.do(ctx, call{method: http.MethodPost, path: "/v1/connections", body: body}, out)
}

// only returns v where there is no error.
func only[T any](v *T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// about makes a call about a connection.
func (c *Client) about(ctx context.Context, method, id, operation string, body, out any) error {
	if id == "" || strings.ContainsAny(id, "/?#%.") {
		return &APIError{Status: http.StatusNotFound, Code: "connection_not_found", Detail: "This is no ID of a connection."}
	}
	return c.do(ctx, call{method: method, path: "/v1/connections/" + id + operation, body: body, connectionID: id}, out)
}

// Complete makes what the user has connected usable; see Callback, which calls
// it. code came with the browser, userID comes from the app's own session. The
// same call again within 10 minutes gives the same connection. The error is an
// *APIError with the code completion_invalid or user_mismatch, or another.
func (c *Client) Complete(ctx context.Context, id, code, userID string) (*Connection, error) {
	var got Connection
	body := map[string]string{"completion_code": code, "user_id": userID}
	return only(&got, c.about(ctx, http.MethodPost, id, "/complete", body, &got))
}

// Get returns a connection. The error is an *APIError with the code
// connection_not_found, or another.
func (c *Client) Get(ctx context.Context, id string) (*Connection, error) {
	var got Connection
	return only(&got, c.about(ctx, http.MethodGet, id, "", nil, &got))
}

// Filter says which connections are meant: those for which all that is set is
// so. The zero value means all.
type Filter struct {
	UserID      string
	Integration string
	Status      Status
	Labels      map[string]string
}

// Connections returns the connections that f means, the oldest first, a page at
// a time. After an error there is nothing more.
func (c *Client) Connections(ctx context.Context, f Filter) iter.Seq2[*Connection, error] {
	q := url.Values{"limit": {"200"}}
	for name, value := range map[string]string{"user_id": f.UserID, "integration": f.Integration, "status": string(f.Status)} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, value := range f.Labels {
		q.Add("label", name+"="+value)
	}
	return func(yield func(*Connection, error) bool) {
		q := clone(q) // the sequence may be walked twice
		for {
			var page struct {
				Connections []*Connection `json:"connections"`
				NextCursor  string        `json:"next_cursor"`
			}
			if err := c.do(ctx, call{method: http.MethodGet, path: "/v1/connections", query: q}, &page); err != nil {
				yield(nil, err)
				return
			}
			for _, conn := range page.Connections {
				if !yield(conn, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			q.Set("cursor", page.NextCursor)
		}
	}
}

func clone(q url.Values) url.Values {
	all := url.Values{}
	for name, values := range q {
		all[name] = append([]string(nil), values...)
	}
	return all
}

// Change is what Update changes. Nil fields stay as they are.
type Change struct {
	Name *string
	// Labels and Metadata are replaced whole; empty ones are removed.
	Labels   map[string]string
	Metadata json.RawMessage // a JSON object
	// Disabled refuses the connection's calls, or serves them again.
	Disabled *bool
}

// Update changes what is the app's own of a connection.
func (c *Client) Update(ctx context.Context, id string, change Change) (*Connection, error) {
	body := map[string]any{}
	if change.Name != nil {
		body["name"] = *change.Name
	}
	if change.Labels != nil {
		body["labels"] = change.Labels
	}
	if change.Metadata != nil {
		body["metadata"] = change.Metadata
	}
	if change.Disabled != nil {
		body["disabled"] = *change.Disabled
	}
	var got Connection
	return only(&got, c.about(ctx, http.MethodPatch, id, "", body, &got))
}

// Refresh renews the token now, whatever its age. The proxy does so by itself
// when it is time. The error is a *ReconnectRequired, or an *APIError such as
// refresh_unavailable or not_refreshable.
func (c *Client) Refresh(ctx context.Context, id string) (*Connection, error) {
	var got Connection
	return only(&got, c.about(ctx, http.MethodPost, id, "/refresh", nil, &got))
}

// Revocation is what came of a connection that was revoked or deleted. Its
// credential is gone from Lanyard in any case.
type Revocation struct {
	Connection
	// ProviderRevoked: the provider has confirmed that it is gone there.
	ProviderRevoked bool
	// Pending: it has not yet, and Lanyard goes on trying.
	Pending bool
	// Reason is why it is neither, a code such as shared_grant or no_endpoint.
	Reason string
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Revocation) UnmarshalJSON(b []byte) error {
	var outcome struct {
		Revoked any    `json:"provider_revoked"` // true, false or "pending"
		Reason  string `json:"provider_revoked_reason"`
	}
	if err := json.Unmarshal(b, &r.Connection); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &outcome); err != nil {
		return err
	}
	r.ProviderRevoked, r.Pending, r.Reason = outcome.Revoked == true, outcome.Revoked == "pending", outcome.Reason
	return nil
}

// Revoke erases a connection's credential, revokes it at the provider, and
// keeps the record: REVOKED.
func (c *Client) Revoke(ctx context.Context, id string) (*Revocation, error) {
	var got Revocation
	return only(&got, c.about(ctx, http.MethodPost, id, "/revoke", nil, &got))
}

// Delete revokes a connection and removes its record.
func (c *Client) Delete(ctx context.Context, id string) (*Revocation, error) {
	var got Revocation
	return only(&got, c.about(ctx, http.MethodDelete, id, "", nil, &got))
}
