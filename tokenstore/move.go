package tokenstore

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
)

var (
	// ErrReadOnly is returned for a write to a store that takes none, since it is
	// being moved to another place or has been. It is an ErrUnavailable.
	ErrReadOnly = fmt.Errorf("%w: it takes no writes now", ErrUnavailable)
	// ErrMoved is returned by an engine for a store that was moved to another
	// place. What is there now may be newer.
	ErrMoved = errors.New("the store was moved")
	// ErrNotFrozen is returned for what needs a frozen store, where that is not, or
	// was thawed meanwhile.
	ErrNotFrozen = errors.New("the store is not frozen, or was thawed meanwhile")
	// ErrLoading is returned by an engine for a store that was taken in from another
	// one and not put in force yet.
	ErrLoading = errors.New("moving a store to here has not ended")
	// ErrNotEmpty is returned by an engine that was to take in another store and
	// has something already.
	ErrNotEmpty = errors.New("there is something in the store already")
)

// Record is one of a store's records, as another store takes it in: as it is,
// with its revision, its times, and an event with its place in the log. One of
// the fields is set. A store's are told in the order of the fields, connections
// by ID, events by Seq, without gaps.
type Record struct {
	Deleted    string // the ID of a connection that was deleted, and is never given again
	Connection *Connection
	Event      *Event
	Flow       *Flow
	Note       *Note
}

// Counts is how many records of each kind there are.
type Counts struct {
	Deleted     int `json:"deleted"`
	Connections int `json:"connections"`
	Events      int `json:"events"`
	Flows       int `json:"flows"`
	Notes       int `json:"notes"`
}

// Add counts r.
func (n *Counts) Add(r Record) {
	switch {
	case r.Connection != nil:
		n.Connections++
	case r.Event != nil:
		n.Events++
	case r.Flow != nil:
		n.Flows++
	case r.Note != nil:
		n.Notes++
	default:
		n.Deleted++
	}
}

// All returns how many records there are.
func (n *Counts) All() int { return n.Deleted + n.Connections + n.Events + n.Flows + n.Notes }

// id returns what tells r from other records of its kind.
func (r *Record) id() string {
	switch {
	case r.Connection != nil:
		return "connection " + r.Connection.ID
	case r.Event != nil:
		return fmt.Sprintf("event %d", r.Event.Seq)
	case r.Flow != nil:
		return "a flow"
	case r.Note != nil:
		return "note " + r.Note.ID
	}
	return "deleted connection " + r.Deleted
}

// CompareRecords reads two stores side by side, and returns an error unless each
// has what the other has. told is called with each record.
func CompareRecords(want, got iter.Seq2[Record, error], told func(Record)) error {
	next, stop := iter.Pull2(got)
	defer stop()
	for w, err := range want {
		if err != nil {
			return err
		}
		g, err, more := next()
		if err != nil {
			return err
		}
		if !more {
			return fmt.Errorf("%s is missing in the new store", w.id())
		}
		if !reflect.DeepEqual(w, g) {
			return fmt.Errorf("%s is not the same in the new store, which has %s", w.id(), g.id())
		}
		told(w)
	}
	if g, err, more := next(); err != nil || more {
		return errors.Join(err, fmt.Errorf("there is more in the new store: %s", g.id()))
	}
	return nil
}
