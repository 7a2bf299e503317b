package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// ErrHostNotAllowed ends a request of an HTTPClient to a host that is none of
// the connection's API. Nothing was sent.
var ErrHostNotAllowed = errors.New("lanyard: the host is none of the connection's API")

// ErrState is returned by Callback for a request whose state is missing or is
// not the one that this browser was sent away with.
var ErrState = errors.New("lanyard: the state is not this browser's")

// ReconnectRequired says that the provider no longer takes a connection's
// credential: its user has to connect again. An app that takes the browser back
// with Callback makes a link of its own, with this ConnectionID and a State.
type ReconnectRequired struct { //nolint:errname // it is a condition, and reads as one: errors.As(err, &reconnect)
	ConnectionID string
	// Reason is a code, such as invalid_grant or revoked.
	Reason string
	// URL is a connect link without a state that lives 15 minutes: to be shown,
	// or sent to the user. Empty where no link can be made.
	URL string
}

// Error implements error. It does not hold the URL, which opens the flow.
func (e *ReconnectRequired) Error() string {
	return "lanyard: connection " + e.ConnectionID + ": reconnect_required (" + e.Reason + ")"
}

// APIError is an answer of Lanyard's that says no.
type APIError struct {
	Status int // of HTTP
	// Code is stable: decide by it. Empty: the answer was none of Lanyard's.
	Code   string
	Detail string // for people
	// Reason says more where Code does not say it all, such as disabled.
	Reason string
	// ConnectURL is there where connecting would help. It lives 15 minutes.
	ConnectURL string
	// RetryAfter is when the same may succeed. 0: it was not said.
	RetryAfter time.Duration
}

// Error implements error.
func (e *APIError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("lanyard: HTTP %d that is none of Lanyard's answers", e.Status)
	}
	return fmt.Sprintf("lanyard: %s (HTTP %d): %s", e.Code, e.Status, e.Detail)
}

// CallbackError says how a flow ended that did not connect the account.
type CallbackError struct {
	// Code is user_denied, source_error, provisioning_failed, timeout or
	// invalid_scope.
	Code        string
	Description string // for people
}

// Error implements error.
func (e *CallbackError) Error() string { return "lanyard: not connected: " + e.Code }

// maxProblem bounds the answers that say no, in bytes.
const maxProblem = 1 << 20

// refusal turns an answer of Lanyard's about a connection into an error. An
// answer to HEAD has its code alone.
func refusal(res *http.Response, connectionID string) error {
	e := &APIError{Status: res.StatusCode, Code: res.Header.Get("Lanyard-Error")}
	var p struct {
		Detail, Reason string
		ConnectURL     string `json:"connect_url"`
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if e.Code == "" || err != nil || json.Unmarshal(b, &p) != nil {
		p.Detail, p.Reason, p.ConnectURL = "", "", ""
	}
	if e.Code == "reconnect_required" {
		return &ReconnectRequired{ConnectionID: connectionID, Reason: p.Reason, URL: p.ConnectURL}
	}
	e.Detail, e.Reason, e.ConnectURL = p.Detail, p.Reason, p.ConnectURL
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}
