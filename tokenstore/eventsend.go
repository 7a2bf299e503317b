package tokenstore

import (
	"context"
	"fmt"
)

// eventLister is what EventsEnd needs of a Store.
type eventLister interface {
	ListEvents(ctx context.Context, f EventFilter, cursor string, limit int) (page []Event, next string, err error)
}

// EventsEnd returns the cursor after the newest event of s, with which a list
// shows what happens from now on. The error is the store's.
func EventsEnd(ctx context.Context, s eventLister) (cursor string, err error) {
	page, _, err := s.ListEvents(ctx, EventFilter{NewestFirst: true}, "", 1)
	if err != nil {
		return "", fmt.Errorf("looking for the end of the events: %w", err)
	}
	if len(page) == 0 {
		return EventCursor(0), nil
	}
	return EventCursor(page[0].Seq), nil
}
