package tokenstore

import (
	"cmp"
	"crypto/rand"
	"errors"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lanyard-proxy/lanyard/secret"
)

// Status says what a connection is good for.
type Status string

// The statuses of a connection.
const (
	StatusInitiated Status = "INITIATED" // begun, not completed
	StatusActive    Status = "ACTIVE"    // ready to use
	StatusExpired   Status = "EXPIRED"   // the provider no longer takes the credential: the user must reconnect
	StatusFailed    Status = "FAILED"    // the flow ended without a credential
	StatusRevoked   Status = "REVOKED"   // revoked here; the credential is erased
)

// Reasons that stand beside a status (`status_reason`). The codes with which a
// flow fails are in package connect.
const (
	ReasonTimeout            = "timeout"             // not completed in time
	ReasonInvalidGrant       = "invalid_grant"       // the provider refused the refresh token for good
	ReasonRefreshInterrupted = "refresh_interrupted" // a refresh whose answer was never seen, then invalid_grant
	ReasonRestoredStale      = "restored_stale"      // it came from a backup, and its refresh token had been rotated since
	ReasonNoRefreshToken     = "no_refresh_token"    // the access token has expired and nothing can renew it
	ReasonUserMismatch       = "user_mismatch"       // completed for another user than the link's
	ReasonCompletionInvalid  = "completion_invalid"  // too many wrong completion codes
	ReasonRevoked            = "revoked"             // revoked through the API
	ReasonReplaced           = "replaced"            // a credential that nobody completed, when the next one came
	// ReasonIntegrationMissing is never stored: it is said of connections whose
	// integration is not configured now.
	ReasonIntegrationMissing = "integration_missing"
	// ReasonInvalidParameter is told, never stored: the connection's parameters
	// are not those that its integration's URLs need now.
	ReasonInvalidParameter = "invalid_parameter"
	// ReasonSchemeChanged is told, never stored: the integration has another auth
	// scheme by now, so that the credential would travel as what it is not.
	ReasonSchemeChanged = "auth_scheme_changed"
	// ReasonAPIUnknown is told, never stored: the provider has not told where the
	// connection's API is.
	ReasonAPIUnknown = "api_unknown"
)

// CompletionLife is how long a completion code may be used, and how long a
// used one is answered in the same way again.
const CompletionLife = 10 * time.Minute

// maxWrongCodes is how many wrong completion codes spend the right one.
const maxWrongCodes = 5

// Errors of Connection.Complete.
var (
	// ErrCompletionInvalid: the code is wrong, spent or too late.
	ErrCompletionInvalid = errors.New("completion code is wrong, used or too late")
	// ErrUserMismatch: the code is right, but for another user.
	ErrUserMismatch = errors.New("completion is for another user")
)

// Connection is one user's authorised account at one integration.
type Connection struct {
	ID          string // conn_…, see NewID
	Integration string // the name of the integration it was made at
	Provider    string // the catalogue's name of the integration's provider
	UserID      string // the app's own end user, opaque
	Name        string // a friendly name, may be empty
	Labels      map[string]string
	// Params are the connection parameters of the integration's URLs, such as a
	// shop's subdomain: name → value. Package provider checks them.
	Params map[string]string
	// Metadata is the app's own: a JSON object as it was given, at most 16 KiB;
	// empty for none.
	Metadata string
	// Account is the one at the provider, of the live credential, or of the last.
	Account Account

	Status       Status
	StatusReason string // a code, empty while ACTIVE or INITIATED
	Disabled     bool   // switched off through the API; the credential stays
	AuthScheme   string // one of AuthSchemes

	RequestedScopes []string // asked for, all connects of this connection together
	RedirectURL     string   // where the last flow returned to; reconnecting returns there

	CreatedAt       time.Time
	UpdatedAt       time.Time
	ConnectedAt     time.Time // when a credential last became live by connecting
	LastUsedAt      time.Time // when a request was last served, as far as written
	LastRefreshedAt time.Time
	// InitiatedUntil is when an INITIATED connection without a credential
	// becomes FAILED (timeout).
	InitiatedUntil time.Time

	Token  Token   // the live credential; zero if there is none
	Intent *Intent // a refresh that is under way, or whose outcome is unknown
	Staged *Staged // a credential that waits for completion

	// LastFlow is the flow that last gave this connection a credential, so
	// that finishing a flow twice does nothing.
	LastFlow string
	// LastCompletion lets the same completion call be answered again.
	LastCompletion Completion

	// Revision counts the writes of this record. The store sets it.
	Revision uint64
	// Damaged is set in lists, and where it is deleted, for a connection whose
	// record can't be opened: then only ID and CreatedAt are known. It is never
	// stored.
	Damaged bool
	// News are the events that a change of this record has brought about, see
	// Happened. They are written into the audit log with the change, and empty
	// in every record that a store returns.
	News []Event
}

// Staged is a credential that a flow brought and the app has not completed.
type Staged struct {
	Token           Token
	Account         Account
	AuthScheme      string // of Token; empty: the connection's
	RequestedScopes []string
	FlowID          string    // the flow that brought it
	CodeHash        string    // secret.String.Hash of the completion code
	Until           time.Time // the code's end; then the credential is erased
	WrongCodes      int       // how many wrong codes were tried
}

// Completion remembers a completion that succeeded.
type Completion struct {
	CodeHash string
	Until    time.Time
}

// NewID returns a fresh connection ID with 130 random bits.
func NewID() string { return "conn_" + rand.Text() }

// IsID reports whether s has the form of a connection ID.
func IsID(s string) bool {
	rest, ok := strings.CutPrefix(s, "conn_")
	if !ok || rest == "" || len(rest) > 64 {
		return false
	}
	for i := range len(rest) {
		if !inID[rest[i]] {
			return false
		}
	}
	return true
}

// inID are the bytes that an ID may have: in a random one, comparing them with
// the ends of ranges is what no processor can foresee.
var inID = func() (in [256]bool) {
	for _, b := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") {
		in[b] = true
	}
	return in
}()

// Clone returns a copy that shares nothing with c.
func (c Connection) Clone() Connection {
	c.Labels, c.Params = maps.Clone(c.Labels), maps.Clone(c.Params)
	c.RequestedScopes = slices.Clone(c.RequestedScopes)
	c.News = slices.Clone(c.News)
	c.Token = c.Token.Clone()
	if c.Intent != nil {
		in := *c.Intent
		in.Answer = in.Answer.Clone()
		c.Intent = &in
	}
	if c.Staged != nil {
		st := *c.Staged
		st.Token = st.Token.Clone()
		st.RequestedScopes = slices.Clone(st.RequestedScopes)
		c.Staged = &st
	}
	return c
}

// MissingScopes returns the scopes that were asked for and not granted.
func (c *Connection) MissingScopes() []string {
	var missing []string
	for _, s := range c.RequestedScopes {
		if !slices.Contains(c.Token.Scopes, s) {
			missing = append(missing, s)
		}
	}
	return missing
}

// Connectable reports whether a connect link would help this connection.
func (c *Connection) Connectable() bool {
	return !c.Disabled && c.Status != StatusActive
}

// ReturnTo returns where a new link for c leads back to: where its last flow
// returned, if that is still registered, else the first that is, else nowhere.
func (c *Connection) ReturnTo(registered []string) string {
	switch {
	case slices.Contains(registered, c.RedirectURL):
		return c.RedirectURL
	case len(registered) > 0:
		return registered[0]
	}
	return ""
}

// Due returns when the store's keeper has to look at this connection, or the
// zero time if never: an INITIATED one that nobody finishes, a credential that
// nobody completes, a refresh whose outcome is not known, a refresh token that
// would die unused, a token that is only provisional. A refresh of a disabled connection waits until it is enabled.
func (c *Connection) Due() time.Time {
	var due time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	if c.Staged != nil {
		earlier(c.Staged.Until)
	}
	if c.Status == StatusInitiated && c.Staged == nil {
		earlier(c.InitiatedUntil)
	}
	if c.Intent != nil && !c.Disabled {
		earlier(c.Intent.Deadline)
	}
	earlier(c.KeepAliveAt())
	return due
}

// minKeepAlive is the least life of a refresh token that is kept alive: the
// life that is left after each renewal shrinks where renewing prolongs nothing.
const minKeepAlive = time.Minute

// KeepAliveAt returns when the refresh token of a connection that nobody uses
// should be renewed before it dies, or the zero time if never: between seven
// and nine tenths of its life, another time for each connection. A provisional
// token is to be renewed at once, unless that was begun and its outcome is open.
func (c *Connection) KeepAliveAt() time.Time {
	t := &c.Token
	if c.Status != StatusActive || c.Disabled || t.RefreshToken.IsZero() {
		return time.Time{}
	}
	if t.Provisional && c.Intent == nil {
		return t.IssuedAt
	}
	life := t.RefreshExpiresAt.Sub(t.IssuedAt)
	if t.RefreshExpiresAt.IsZero() || life < minKeepAlive {
		return time.Time{}
	}
	return t.IssuedAt.Add(time.Duration((0.7 + 0.2*Share(c.ID)) * float64(life)))
}

// Share returns a number from 0 to 1 that is always the same for an ID, and
// spreads IDs evenly: what is done for many at once is done at other times for each.
func Share(id string) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return float64(h.Sum32()) / float64(math.MaxUint32)
}

// Stage keeps a credential until the app completes it. The live credential,
// if there is one, stays live.
func (c *Connection) Stage(st Staged) {
	c.Staged = &st
	c.LastFlow = st.FlowID
}

// Replace makes t the live credential, one generation further, and ends what was
// begun with the one before. What the provider told with it takes the place of
// parameters of that name, which an import gave.
func (c *Connection) Replace(t Token) {
	t.Generation = c.Token.Generation + 1
	c.Token, c.Intent = t, nil
	c.Params = maps.Clone(c.Params)
	maps.DeleteFunc(c.Params, func(name, _ string) bool { _, told := t.Metadata[name]; return told })
}

// Activate makes t, which connecting has brought, the live credential at now.
func (c *Connection) Activate(t Token, requested []string, now time.Time) {
	c.Replace(t)
	c.Staged = nil
	c.RequestedScopes = requested
	c.Status, c.StatusReason = StatusActive, ""
	c.ConnectedAt = now
	c.InitiatedUntil = time.Time{}
}

// Complete makes the staged credential live if code is the staged one's and
// userID the connection's user.
//
// It returns ErrCompletionInvalid for a wrong, spent or late code, and
// ErrUserMismatch for the right code with another user. Both may have changed
// c (the fifth wrong code and the wrong user erase the staged credential): the
// caller stores c and then returns the error. The same code and user again
// within CompletionLife succeed without a change.
func (c *Connection) Complete(code secret.String, userID string, now time.Time) error {
	hash := code.Hash()
	if c.LastCompletion.CodeHash == hash && now.Before(c.LastCompletion.Until) {
		if userID != c.UserID {
			return ErrUserMismatch
		}
		return nil
	}
	st := c.Staged
	if st == nil || !now.Before(st.Until) {
		return ErrCompletionInvalid
	}
	if !sameHash(st.CodeHash, hash) {
		if st.WrongCodes++; st.WrongCodes >= maxWrongCodes {
			c.Unstage(ReasonCompletionInvalid)
		}
		return ErrCompletionInvalid
	}
	if userID != c.UserID {
		c.Unstage(ReasonUserMismatch)
		return ErrUserMismatch
	}
	c.Activate(st.Token, st.RequestedScopes, now)
	c.Account = st.Account
	c.AuthScheme = cmp.Or(st.AuthScheme, c.AuthScheme)
	c.LastCompletion = Completion{CodeHash: hash, Until: now.Add(CompletionLife)}
	return nil
}

func sameHash(a, b string) bool { return secret.New(a).Equal(secret.New(b)) }

// Unstage erases the staged credential. A connection that has no other becomes
// FAILED with this reason; one that was live stays as it was.
func (c *Connection) Unstage(reason string) {
	c.Staged = nil
	if c.Status == StatusInitiated {
		c.Fail(reason)
	}
}

// Fail ends a connection that never got a credential. One that has a credential,
// or had one, is left as it is: a flow that fails takes nothing away.
func (c *Connection) Fail(reason string) {
	if c.Status != StatusInitiated && c.Status != StatusFailed {
		return
	}
	c.Status, c.StatusReason = StatusFailed, reason
	c.InitiatedUntil = time.Time{}
}

// LoseRefreshToken says that the provider refused the refresh token for good
// while the access token is still valid: the connection serves until that one
// ends, and says why it will not go on.
func (c *Connection) LoseRefreshToken(reason string) {
	c.Token.RefreshToken, c.Intent = secret.String{}, nil
	c.Token.Provisional = false // nothing can make one that lasts of it any more
	c.StatusReason = reason
}

// Expire says that the provider no longer takes the credential. The dead
// tokens are erased; the scopes, what the provider told, and the generation stay.
func (c *Connection) Expire(reason string) {
	c.Status, c.StatusReason = StatusExpired, reason
	c.eraseToken()
}

// Revoke erases every credential.
func (c *Connection) Revoke() {
	c.Status, c.StatusReason = StatusRevoked, ReasonRevoked
	c.Staged = nil
	c.InitiatedUntil = time.Time{}
	c.eraseToken()
}

func (c *Connection) eraseToken() {
	c.Intent = nil
	c.Token = Token{Scopes: c.Token.Scopes, Metadata: c.Token.Metadata, Generation: c.Token.Generation}
}
