package tokenstore

import (
	"maps"
	"slices"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
)

// Token is one token response as kept (RFC 6749 section 5.1).
type Token struct {
	// AccessToken is what goes on a request: an access token, an API key, a token
	// that was made by hand, or for BASIC the user name and password as they stand
	// in the header (RFC 7617 section 2: base64).
	AccessToken secret.String
	// RefreshToken is what the access token is renewed with: a refresh token, or
	// for JWT_BEARER the private key, or ClientCredentials. Zero if nothing can.
	RefreshToken secret.String
	TokenType    string    // as the provider wrote it; empty means Bearer
	IssuedAt     time.Time // when the request for it was sent, UTC
	// ExpiresAt is the end of the access token's life. Zero: it does not expire.
	ExpiresAt time.Time
	// RefreshExpiresAt is the end of the refresh token's life, zero if unknown.
	RefreshExpiresAt time.Time
	Scopes           []string // granted (RFC 6749 section 3.3)
	// Metadata is what the provider told with the credential of the connection's
	// parameters, such as the host of its API: name → value.
	Metadata map[string]string
	// Margin is the longest time before the access token's end at which it is
	// renewed, where the provider has one of its own; zero: as SoftAt says.
	Margin     time.Duration
	Generation uint64 // counts the credentials of the connection, from 1
	// ExpiryUnknown says that the provider did not tell the life and
	// ExpiresAt is a guess: the token is renewed by it, but served on past it,
	// and a 401 decides.
	ExpiryUnknown bool
	// Provisional says that the code brought this token, and that a second
	// request is to make one that lasts of it, at once.
	Provisional bool
	// Unproven says that the token came from a backup: its refresh token may
	// have been rotated since, and be spent.
	Unproven bool
}

// Clone returns a copy that shares nothing with t.
func (t Token) Clone() Token {
	t.Scopes = slices.Clone(t.Scopes)
	t.Metadata = maps.Clone(t.Metadata)
	return t
}

// SameScopes reports whether t and other grant the same, in whatever order.
func (t *Token) SameScopes(other *Token) bool {
	return slices.Equal(slices.Sorted(slices.Values(t.Scopes)), slices.Sorted(slices.Values(other.Scopes)))
}

// The margins before a token's end (docs/proxying.md).
const (
	maxSoftMargin = 5 * time.Minute
	maxHardMargin = 10 * time.Second
	minHardMargin = time.Second
)

// SoftAt returns when a renewal of t should begin behind the requests that use
// it: a fifth of its life before its end, at most five minutes; or Margin, never
// over half the life; or at once where it is Provisional. Zero: never.
func (t *Token) SoftAt() time.Time {
	switch {
	case t.Provisional:
		return t.IssuedAt
	case t.ExpiresAt.IsZero():
		return time.Time{}
	case t.Margin > 0:
		return t.ExpiresAt.Add(-min(t.Margin, t.life()/2))
	}
	return t.ExpiresAt.Add(-min(t.life()/5, maxSoftMargin))
}

// HardAt returns when a request has to wait for a renewal of t: a tenth of its
// life before its end, between one and ten seconds, never over half the life or
// over Margin. Zero: never, since t does not expire or its end is only guessed.
func (t *Token) HardAt() time.Time {
	if t.ExpiresAt.IsZero() || t.ExpiryUnknown {
		return time.Time{}
	}
	life := t.life()
	margin := min(max(life/10, minHardMargin), maxHardMargin, life/2)
	if t.Margin > 0 {
		margin = min(margin, t.Margin)
	}
	return t.ExpiresAt.Add(-margin)
}

func (t *Token) life() time.Duration { return max(t.ExpiresAt.Sub(t.IssuedAt), 0) }

// Answer is what a token endpoint answered, before anything has read it. It is
// stored before it is parsed, since a rotated refresh token may be in it.
type Answer struct {
	SentAt      time.Time // when the request was sent
	ReceivedAt  time.Time
	Status      int           // HTTP status code
	ContentType string        // header Content-Type
	RetryAfter  string        // header Retry-After
	Body        secret.String // at most 1 MiB
	// Callback is what of the authorization response belongs to a code's answer:
	// name → value.
	Callback map[string]string
}

// Clone returns a copy that shares nothing with a; nil of nil.
func (a *Answer) Clone() *Answer {
	if a == nil {
		return nil
	}
	other := *a
	other.Callback = maps.Clone(a.Callback)
	return &other
}

// Intent is the promise to redeem a refresh token, stored before the token is
// sent. While it is there, the outcome of that request is open.
type Intent struct {
	RefreshTokenHash string    // secret.String.Hash of the token that is sent
	Generation       uint64    // the generation that is to be replaced
	StartedAt        time.Time // UTC
	// Deadline is the request's own limit, or, after an unknown outcome, when
	// the same token is tried again. Zero: once an API refuses the access
	// token, which else never ends.
	Deadline time.Time
	// Unknown counts the requests that were sent and not answered readably.
	Unknown int
	// Answer is what came back, nil until it did.
	Answer *Answer
}
