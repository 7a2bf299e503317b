// Package tokenstore is the vocabulary of Lanyard and the contract of its
// store: what is kept about a connection, which changes it may go through, and
// what every engine that keeps it must promise.
//
// The records here are plain values. The rules of a connection's life are
// methods on them (Stage, Complete, Expire, …), so that each rule stands once
// and runs inside the store's transaction, whoever calls it. The engines are
// one level below: tokenstore/badgerstore, tokenstore/memstore.
package tokenstore

import (
	"context"
	"errors"
	"time"
)

// Errors of a Store. An engine wraps them; callers ask with errors.Is.
var (
	// ErrNotFound is returned when there is no such record.
	ErrNotFound = errors.New("no such record")
	// ErrExists is returned when a record is created twice.
	ErrExists = errors.New("record exists already")
	// ErrUnchanged is returned by the function given to an update to say that
	// the record is to stay as it is. The update then succeeds without a write.
	ErrUnchanged = errors.New("record unchanged")
	// ErrCorrupt is returned when a record is there but can't be opened: it is
	// damaged, was moved to another place, or was sealed with another key.
	ErrCorrupt = errors.New("record is damaged")
	// ErrUnavailable is returned when the engine can't be asked at all.
	ErrUnavailable = errors.New("store unavailable")
	// ErrFull is returned for a write that was not made since the disk has too
	// little room left. New connections are refused first, tokens last.
	ErrFull = errors.New("store is full")
	// ErrBadCursor is returned for a cursor that no list gave out.
	ErrBadCursor = errors.New("cursor is not valid")
	// ErrKeyMissing is returned by an engine that finds a store but not the
	// keyset that sealed it.
	ErrKeyMissing = errors.New("the store's keyset is missing or is another one")
)

// Store keeps connections and flows. Every method is safe for concurrent use.
//
// A method that writes returns nil only when the write survives a crash of the
// machine. Records that are returned belong to the caller: changing one does
// not change the store.
//
// A context that has ended already is an error. One that ends during a write
// may end the wait, and the write may still happen.
//
// The functions given to the updates run inside the engine's transaction, or
// before it, and again there if the record has changed since: the run that counts
// has seen the newest record. So they may run more than once and in another
// goroutine (but never after the update has returned, nor two at a time), must not
// block, and must not call the store. Nothing is written if they return an error, which the
// update returns as it is (ErrUnchanged: no error).
type Store interface {
	// CreateConnection stores a new connection with Revision 1. CreatedAt is
	// set if it is zero, UpdatedAt always. It returns ErrExists if the ID is
	// taken, or ever was.
	CreateConnection(ctx context.Context, c Connection) (Connection, error)
	// Connection returns the connection with this ID, or ErrNotFound.
	Connection(ctx context.Context, id string) (Connection, error)
	// UpdateConnection changes one connection atomically, adds one to its
	// Revision, sets UpdatedAt, and returns it as it now is. An ID can't be
	// changed.
	UpdateConnection(ctx context.Context, id string, change func(*Connection) error) (Connection, error)
	// DeleteConnection removes the connection for good and returns what it
	// was. It returns ErrNotFound if there is none. One that can't be opened is
	// removed too, and returned as Damaged. The events are written with it.
	DeleteConnection(ctx context.Context, id string, news ...Event) (Connection, error)
	// ListConnections returns one page of the connections that f matches,
	// oldest first, and the cursor of the next page, empty at the end. An empty
	// cursor is the first page; limit is at least 1. A connection that is there
	// while all pages are read is shown once, whatever comes and goes beside
	// it. It costs the same however many connections there are: with several
	// labels, or labels beside other filters, a page may hold fewer than limit,
	// none even, and its cursor still goes on. A connection whose record can't be
	// opened is shown as Damaged.
	ListConnections(ctx context.Context, f Filter, cursor string, limit int) (page []Connection, next string, err error)
	// NewestConnection returns the connection that was made last of those that f
	// matches, ErrNotFound, or ErrCorrupt if its record can't be opened. It costs
	// the same however many there are, but with several labels or labels beside
	// other filters, which cost what the rarest of them has.
	NewestConnection(ctx context.Context, f Filter) (Connection, error)
	// DueConnections returns the IDs of the connections whose Due is set and
	// not after t, the most overdue first.
	DueConnections(ctx context.Context, t time.Time) ([]string, error)

	// CreateFlow stores a new flow, or returns ErrExists. It is gone, as if it
	// had never been, once its KeepUntil has passed.
	CreateFlow(ctx context.Context, f Flow) error
	// Flow returns the flow with this ID, or ErrNotFound.
	Flow(ctx context.Context, id string) (Flow, error)
	// UpdateFlow changes one flow atomically and returns it as it now is.
	// Taking a flow for its one use is an update (Flow.Take).
	UpdateFlow(ctx context.Context, id string, change func(*Flow) error) (Flow, error)
	// TakenFlows returns the flows that were taken and not finished: code
	// exchanges that were under way when the program last ended. With an error
	// it returns those that it could open all the same.
	TakenFlows(ctx context.Context) ([]Flow, error)

	// AppendEvents adds events to the audit log, in their order. Those of a
	// record's change are written with it instead (Connection.Happened,
	// Flow.Happened). It is refused with ErrFull as new connections are: tokens
	// come last. An error may come when the first of many are written already.
	AppendEvents(ctx context.Context, events ...Event) error
	// ListEvents returns one page of the events that f matches, oldest first
	// where f does not say otherwise, and the cursor after the last of them, with which a later list goes on; it
	// is the given one if there is none. An empty cursor is the log's beginning;
	// limit is at least 1. A cursor beyond the newest event is ErrBadCursor: the
	// log was put back to what it was before. An event that can't be opened is
	// shown as EventLost. It costs the same however many events there are.
	ListEvents(ctx context.Context, f EventFilter, cursor string, limit int) (page []Event, next string, err error)

	// Note returns the note with this ID, or ErrNotFound.
	Note(ctx context.Context, id string) (Note, error)
	// UpdateNote changes one note atomically and returns it as it now is. One that
	// is not there is given as empty, with its ID, and is made.
	UpdateNote(ctx context.Context, id string, change func(*Note) error) (Note, error)
	// DeleteNote removes a note. One that is not there is no error.
	DeleteNote(ctx context.Context, id string) error
	// ListNotes returns the notes whose IDs begin with prefix, by ID. It is for
	// kinds of which there are few. One that can't be opened is left out.
	ListNotes(ctx context.Context, prefix string) ([]Note, error)

	// Close flushes and closes the engine. Nothing may be called after it.
	Close() error
}

// Filter says which connections a list shows. Empty fields match everything;
// together they mean and.
type Filter struct {
	UserID      string
	Integration string
	Status      Status
	Labels      map[string]string // each of them
}

// Matches reports whether f shows c.
func (f Filter) Matches(c *Connection) bool {
	return (f.UserID == "" || f.UserID == c.UserID) &&
		(f.Integration == "" || f.Integration == c.Integration) &&
		(f.Status == "" || f.Status == c.Status) &&
		f.matchesLabels(c)
}

func (f Filter) matchesLabels(c *Connection) bool {
	for k, v := range f.Labels {
		if have, ok := c.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
