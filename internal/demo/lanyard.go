package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// connection is what the demo reads of a connection.
type connection struct {
	ID                   string    `json:"id"`
	UserID               string    `json:"user_id"`
	Status               string    `json:"status"`
	StatusReason         string    `json:"status_reason"`
	Generation           uint64    `json:"generation"`
	AccessTokenExpiresAt time.Time `json:"access_token_expires_at"`
	ConnectURL           string    `json:"connect_url"`
	Scopes               struct {
		Granted []string `json:"granted"`
	} `json:"scopes"`
}

const statusActive = "ACTIVE"

// worked reports whether the connection has ever been active.
func (c connection) worked() bool { return c.Status != "INITIATED" && c.Status != "FAILED" }

// errNoConnection: the demo user has not connected an account yet.
var errNoConnection = errors.New("no connection yet")

// call is one request through the proxy and what came of it.
type call struct {
	Method, Path string
	Status       int
	Code         string // Lanyard-Error; empty: the provider's own answer
	Body         string
	ConnectURL   string // where an answer of Lanyard's has one
	Took         time.Duration
}

// problem is what the demo reads of an application/problem+json answer.
type problem struct {
	Code       string `json:"code"`
	Detail     string `json:"detail"`
	ConnectURL string `json:"connect_url"`
}

// connection returns the demo user's connection, the newest one.
func (c *Config) connection(ctx context.Context) (connection, error) {
	var list struct {
		Connections []connection `json:"connections"`
		NextCursor  string       `json:"next_cursor"`
	}
	var found connection
	q := url.Values{"user_id": {userID}, "integration": {Integration}}
	for range 20 { // far more pages than one user of a demo fills
		if err := c.api(ctx, http.MethodGet, "/v1/connections?"+q.Encode(), nil, &list); err != nil {
			return connection{}, err
		}
		for _, one := range list.Connections {
			// One that never came to work hides none that did.
			if found.ID == "" || !found.worked() || one.worked() {
				found = one
			}
		}
		if list.NextCursor == "" {
			break
		}
		q.Set("cursor", list.NextCursor)
		list.Connections, list.NextCursor = nil, ""
	}
	if found.ID == "" {
		return connection{}, errNoConnection
	}
	return found, nil
}

// complete ends the connect flow.
func (c *Config) complete(ctx context.Context, id, code string) error {
	body := map[string]string{"completion_code": code, "user_id": userID}
	return c.api(ctx, http.MethodPost, "/v1/connections/"+url.PathEscape(id)+"/complete", body, nil)
}

// api asks Lanyard's management API. An answer that is not 2xx is an error
// with the problem's code and detail.
func (c *Config) api(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("writing the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.APIURL+path, body) //nolint:gosec // G704: the configuration names the host, and IDs in the path are escaped
	if err != nil {
		return fmt.Errorf("asking Lanyard: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.APIKey)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	status, _, answer, err := c.do(req)
	if err != nil {
		return fmt.Errorf("asking Lanyard: %w", err)
	}
	if status < 200 || status > 299 {
		return refusal(status, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("reading Lanyard's answer: %w", err)
	}
	return nil
}

// call makes one request to the provider's API through the proxy, by
// connection ID, without a token.
func (c *Config) call(ctx context.Context, id, path string) (call, error) {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.ProxyURL+path, nil)
	if err != nil {
		return call{}, fmt.Errorf("calling the API: %w", err)
	}
	req.Header.Set("Lanyard-Key", c.ClientKey)
	req.Header.Set("Connection-Id", id)
	status, header, body, err := c.do(req)
	if err != nil {
		return call{}, fmt.Errorf("calling the API: %w", err)
	}
	out := call{
		Method: req.Method, Path: path, Status: status, Code: header.Get("Lanyard-Error"),
		Body: string(body), Took: time.Since(began),
	}
	if out.Code != "" {
		var p problem
		if err := json.Unmarshal(body, &p); err != nil {
			return call{}, fmt.Errorf("reading Lanyard's answer: %w", err)
		}
		out.ConnectURL = p.ConnectURL
	}
	return out, nil
}

func (c *Config) do(req *http.Request) (status int, header http.Header, body []byte, err error) {
	resp, err := c.Client.Do(req) //nolint:gosec // G704: the configuration names the host
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("reading the answer: %w", err)
	}
	return resp.StatusCode, resp.Header, body, nil
}

func refusal(status int, answer []byte) error {
	var p problem
	if err := json.Unmarshal(answer, &p); err != nil || p.Code == "" {
		return fmt.Errorf("answer %d from Lanyard", status)
	}
	return fmt.Errorf("answer %d %s from Lanyard: %s", status, p.Code, p.Detail)
}
