package tokenstore

import (
	"errors"
	"fmt"
	"time"
)

// Grant is what a proxied call needs of a connection: a snapshot that is never
// changed and may be shared. Its token has no refresh token.
type Grant struct {
	ConnectionID string
	Integration  string
	UserID       string
	Params       map[string]string // as Connection.Params
	AuthScheme   string            // as Connection.AuthScheme
	Status       Status
	StatusReason string
	Disabled     bool
	Renewable    bool // there is a refresh token to renew it with
	Token        Token
	Requested    []string // the scopes that were asked for, as Connection.RequestedScopes
	// Uses are those of this token generation, shared by all its snapshots.
	Uses *Uses

	// When the snapshot was taken, by the monotonic clock (SeenAt) and by the
	// wall clock (SeenWall): a token ages, whatever the wall clock does.
	SeenAt   time.Time
	SeenWall time.Time
}

// Errors of getting a token that a provider still takes.
var (
	// ErrReconnect: the connection is EXPIRED or REVOKED; its user has to
	// connect again, and trying again will not help.
	ErrReconnect = errors.New("connection must be reconnected")
	// ErrNotActive: the connection is INITIATED, FAILED or disabled, or its
	// integration is gone from the configuration.
	ErrNotActive = errors.New("connection is not active")
	// ErrNotRenewed: the token was not renewed and the call may as well pass
	// on the answer it has: nothing can renew it, or it was renewed for
	// another refusal less than a minute ago.
	ErrNotRenewed = errors.New("token was not renewed")
)

// UnavailableError says that there is no valid token now and that trying again
// later may help.
type UnavailableError struct {
	RetryAfter time.Duration // from 1 to 900 seconds
	Cause      error         // what went wrong at the token endpoint; holds no secret
}

// Error implements error.
func (e *UnavailableError) Error() string { return fmt.Sprintf("no valid token now: %v", e.Cause) }

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Cause }

// Errors of one request to a token endpoint. They decide what may be done with
// the code or refresh token that was in it.
var (
	// ErrNotSent: the request provably never left. The same token may be sent.
	ErrNotSent = errors.New("token request was not sent")
	// ErrOutcomeUnknown: the request left, and no readable answer came back:
	// a time-out, a reset, a 5xx, an unreadable 200. The provider may or may
	// not have redeemed the token.
	ErrOutcomeUnknown = errors.New("outcome of the token request is unknown")
)

// RefusalKind says what a token endpoint's refusal is about.
type RefusalKind int

// The kinds of refusal.
const (
	RefusedForNow RefusalKind = iota // later it may work: 429, slow_down, temporarily_unavailable
	RefusedGrant                     // the code or refresh token is dead: invalid_grant and the catalogue's own
	RefusedClient                    // our client is refused: invalid_client, unauthorized_client
	RefusedScope                     // invalid_scope
)

// RefusalError is a token endpoint's readable no: the token in the request was
// not redeemed.
type RefusalError struct {
	Kind       RefusalKind
	Code       string        // the `error` of the answer, made safe for logs
	Status     int           // HTTP status
	RetryAfter time.Duration // what the provider asked for, zero if nothing
}

// Error implements error.
func (e *RefusalError) Error() string {
	return fmt.Sprintf("token endpoint refused: %s (HTTP %d)", e.Code, e.Status)
}

// UnreadableError is a token endpoint's answer that tells nothing about the
// token: a 5xx, or a success that can't be read. It is an ErrOutcomeUnknown.
type UnreadableError struct {
	Status     int           // HTTP status
	Why        string        // holds nothing of the answer
	RetryAfter time.Duration // what the provider asked for, zero if nothing
}

// Error implements error.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("%v: HTTP %d, %s", ErrOutcomeUnknown, e.Status, e.Why)
}

// Unwrap returns ErrOutcomeUnknown.
func (e *UnreadableError) Unwrap() error { return ErrOutcomeUnknown }
