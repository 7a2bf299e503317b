package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// ImportParams is a connection whose tokens or key were obtained elsewhere.
type ImportParams struct {
	// ID keeps an ID of Lanyard's own form, conn_…. Empty: a new one.
	ID          string            `json:"id,omitempty"`
	UserID      string            `json:"user_id,omitempty"`
	Integration string            `json:"integration,omitempty"`
	Name        string            `json:"name,omitempty"`
	Scopes      []string          `json:"scopes,omitempty"` // that were granted; nil: the integration's
	Labels      map[string]string `json:"labels,omitempty"`
	Params      map[string]string `json:"params,omitempty"`
	Metadata    json.RawMessage   `json:"metadata,omitempty"`
	Disabled    bool              `json:"disabled,omitempty"` // its calls are refused until it is enabled

	// With OAUTH2, one token or both. ExpiresAt is the access token's end; zero:
	// not known.
	AccessToken  string    `json:"access_token,omitempty"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	ExpiresAt    time.Time `json:"expires_at,omitzero"`
	// Provisional: the access token is still to be exchanged for one that lasts.
	Provisional bool `json:"provisional,omitempty"`
	// With any other scheme, as in BeginWithCredentials.
	Credentials map[string]string `json:"credentials,omitempty"`

	// Unverified leaves out the one refresh that proves the tokens. Not for
	// ImportAll, which takes it for all.
	Unverified bool `json:"-"`
}

// Format implements fmt.Formatter: no verb prints the tokens.
func (p ImportParams) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "{ID:%s UserID:%s Integration:%s}", p.ID, p.UserID, p.Integration)
}

// Imported is a connection that was imported.
type Imported struct {
	Connection
	// Verified: the provider has taken the credential (true) or refused it
	// (false); nil: nobody asked, or it did not say.
	Verified *bool `json:"verified"`
}

func verifying(unverified bool) url.Values {
	if unverified {
		return url.Values{"verify": {"false"}}
	}
	return nil
}

// Import stores a connection and then verifies it: by one refresh, after which
// nobody else may use the old refresh token.
func (c *Client) Import(ctx context.Context, p ImportParams) (*Imported, error) {
	var got Imported
	r := call{method: http.MethodPost, path: "/v1/connections/import", query: verifying(p.Unverified), body: p}
	return only(&got, c.do(ctx, r, &got))
}

// ImportLine is what came of one of many.
type ImportLine struct {
	Line     int    `json:"line"` // which, from 1
	ID       string `json:"id"`   // empty: it was not stored
	Status   Status `json:"status"`
	Verified *bool  `json:"verified"` // as in Imported
	Error    *struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"error"` // nil: it was stored
}

// ImportAll imports many connections, each by itself, and tells of each as it is
// done, in their order. It is not sent again if it breaks off: what has an ID is
// not stored twice then. After an error there is nothing more.
func (c *Client) ImportAll(ctx context.Context, all iter.Seq[ImportParams], unverified bool) iter.Seq2[*ImportLine, error] {
	return func(yield func(*ImportLine, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		body, lines := io.Pipe()
		written := make(chan struct{})
		defer context.AfterFunc(ctx, func() { _ = body.CloseWithError(ctx.Err()) })() // the transport waits for it
		go func() {                                                                   // ends with all, or when body is closed
			defer close(written)
			to := json.NewEncoder(lines)
			for p := range all {
				if err := to.Encode(p); err != nil { //nolint:gosec // the tokens are what Lanyard is to get
					_ = lines.CloseWithError(errors.New("a line can't be written as JSON")) // err may quote it
					return
				}
			}
			_ = lines.Close()
		}()
		defer func() { // all is not walked any more when this has returned
			cancel()
			_ = body.Close()
			<-written
		}()
		r := call{method: http.MethodPost, path: "/v1/connections/import", query: verifying(unverified)}
		res, err := c.send(ctx, r, http.Header{"Content-Type": {"application/jsonl"}}, body)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = res.Body.Close() }()
		results := json.NewDecoder(bufio.NewReader(res.Body))
		for {
			var line ImportLine
			switch err := results.Decode(&line); {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(nil, fmt.Errorf("lanyard: import broke off: %w", err))
				return
			}
			if !yield(&line, nil) {
				return
			}
		}
	}
}
