package tokenstore

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Event is one line of the audit log: what happened, to which connection, by
// whom, and whether it was allowed. Events are only ever added; a store keeps
// the newest MaxEvents of them. They hold no secret.
type Event struct {
	// Seq is the event's place in the log: 1, 2, …, without gaps. The store
	// sets it.
	Seq  uint64
	At   time.Time // set by the store if it is zero
	Type EventType
	// ConnectionID, Integration and UserID may be empty. The store sets them for
	// the events of a connection's change, from the record.
	ConnectionID string
	Integration  string
	UserID       string
	Actor        Actor
	// Denied says that it was refused and changed nothing but what Reason tells.
	Denied bool
	Reason string // a code; empty where Type says it all
	// Count is how many alike this line stands for, where they were too many
	// for a line each. Zero means one.
	Count uint64
}

// Actor is who did something.
type Actor struct {
	// Kind is what Name is of: "api_key", "client" (of the proxy), "browser" (in
	// the connect flow), "operator" (of the dashboard), "lanyard" (by itself), or empty where a key was wrong.
	Kind string
	Name string // the key's name in the configuration, or the operator's; empty for the other kinds
	From string // the address the request came from, without its port; may be empty
}

// The kinds of actors.
const (
	ActorAPIKey  = "api_key"
	ActorClient  = "client"
	ActorBrowser = "browser"
	ActorLanyard = "lanyard"
	// ActorOperator is somebody at the dashboard. Name is whom the Caddyfile's
	// authentication says it is; empty for anybody on this machine.
	ActorOperator = "operator"
)

// EventType says what happened.
type EventType string

// The types of events. Reason tells more where that is said.
const (
	EventBegun         EventType = "connection.begun"          // by the API
	EventLinked        EventType = "connection.linked"         // a connect link was made for it
	EventAuthorized    EventType = "connection.authorized"     // a flow brought a credential, which waits for completion
	EventActive        EventType = "connection.active"         // a credential has become live by connecting
	EventFailed        EventType = "connection.failed"         // Reason: why it has none
	EventDropped       EventType = "connection.dropped"        // a credential that was not completed is erased. Reason
	EventRefreshed     EventType = "connection.refreshed"      // a new token, from its provider
	EventRefreshFailed EventType = "connection.refresh_failed" // Reason: the kind of failure. The first of several in a row
	EventExpired       EventType = "connection.expired"        // Reason: as its status_reason
	EventScopes        EventType = "connection.scopes_changed" // what is granted is not what was granted before
	EventRevoked       EventType = "connection.revoked"
	EventDeleted       EventType = "connection.deleted"
	EventChanged       EventType = "connection.changed" // its name, labels or metadata, or it was disabled or enabled (Reason)
	EventUsed          EventType = "connection.used"    // the first call with this token generation by this client key
	EventDamaged       EventType = "connection.damaged" // its record can't be opened
	EventFlowEnded     EventType = "flow.ended"         // a flow ended without a credential. Reason: its code
	EventCompletion    EventType = "completion.refused" // Reason
	EventCallRefused   EventType = "call.refused"       // a proxied call. Reason: the answer's code, or more exactly
	EventKeyRefused    EventType = "key.refused"        // a missing or wrong key. Reason: at which side, api or proxy
	EventBackup        EventType = "store.backup"       // a backup was read by the API
	EventRekey         EventType = "store.rekey"        // everything is to be sealed anew
	EventFrozen        EventType = "store.frozen"       // it takes no writes until it is moved or thawed
	EventThawed        EventType = "store.thawed"       // it takes writes again
	EventWebhookLost   EventType = "webhook.given_up"   // a webhook was not taken for too long. Reason: of which event
	// EventLost stands in lists where an event is damaged or was lost: of it only
	// Seq is known, and ConnectionID in a list of that connection's.
	EventLost EventType = "damaged"
)

// MaxEvents is how many events a store keeps. Each new one takes the place of
// the oldest.
const MaxEvents = 500_000

// EventFilter says which events a list shows. Empty fields match everything.
type EventFilter struct {
	ConnectionID string
	// NewestFirst lists backwards: an empty cursor is then the log's end, and a
	// page holds what is before its cursor. The cursor after it is empty at the
	// log's beginning.
	NewestFirst bool
}

// TakeNews returns c's News, said to be of c, and leaves it without. It is for
// engines.
func (c *Connection) TakeNews() []Event {
	news := slices.Clone(c.News)
	for i := range news {
		news[i].ConnectionID, news[i].Integration, news[i].UserID = c.ID, c.Integration, c.UserID
	}
	c.News = nil
	return news
}

// EventCursor returns the cursor with which a list goes on after the event with
// this Seq.
func EventCursor(seq uint64) string {
	return base64.RawURLEncoding.EncodeToString([]byte("e" + strconv.FormatUint(seq, 10)))
}

// ParseEventCursor reads what EventCursor wrote, or returns an error that wraps
// ErrBadCursor. An empty cursor is the log's beginning.
func ParseEventCursor(cursor string) (seq uint64, err error) {
	if cursor == "" {
		return 0, nil
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(text) < 2 || text[0] != 'e' {
		return 0, fmt.Errorf("%w: it is no cursor of events", ErrBadCursor)
	}
	if seq, err = strconv.ParseUint(string(text[1:]), 10, 64); err != nil {
		return 0, fmt.Errorf("%w: no number in it", ErrBadCursor)
	}
	return seq, nil
}

// Happened notes an event that is to be written with this change of c, in the
// same transaction: either both are in the store, or neither.
func (c *Connection) Happened(e Event) { c.News = append(c.News, e) }

// Happened notes an event that is to be written with this change of f, in the
// same transaction.
func (f *Flow) Happened(e Event) { f.News = append(f.News, e) }
