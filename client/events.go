package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Event is a line of the audit log: what happened to which connection, by whom,
// or what was refused.
type Event struct {
	Seq  uint64    `json:"seq"` // its place in the log
	ID   string    `json:"id"`  // the cursor after it
	At   time.Time `json:"at"`
	Type string    `json:"type"` // such as connection.active
	// What it was about, where that is known.
	ConnectionID string `json:"connection_id"`
	Integration  string `json:"integration"`
	UserID       string `json:"user_id"`
	Actor        Actor  `json:"actor"`
	Allowed      bool   `json:"allowed"` // false: it was refused
	// Reason is a code, where the type does not say it all.
	Reason string `json:"reason"`
	Count  uint64 `json:"count"` // how many alike the line stands for
}

// Actor is who did it.
type Actor struct {
	Kind string `json:"kind"` // api_key, client, browser, lanyard, operator
	Name string `json:"name"` // which key
	From string `json:"from"` // the address
}

// EventFilter says which events are meant.
type EventFilter struct {
	// ConnectionID, empty: all connections'.
	ConnectionID string
	// Cursor is the ID of the event to go on after. Empty: from the first that is
	// kept; in Follow from now on.
	Cursor string
	// NewestFirst gives the events backwards: from the last one, or from the one
	// before Cursor. Follow refuses it.
	NewestFirst bool
}

func (f EventFilter) query() url.Values {
	q := url.Values{}
	if f.ConnectionID != "" {
		q.Set("connection_id", f.ConnectionID)
	}
	if f.Cursor != "" {
		q.Set("cursor", f.Cursor)
	}
	if f.NewestFirst {
		q.Set("order", "newest")
	}
	return q
}

// Events returns what is in the audit log, the oldest first unless f says
// otherwise, a page at a time. Keep the ID of the last event to go on after it later. After an error there is
// nothing more.
func (c *Client) Events(ctx context.Context, f EventFilter) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		q := f.query()
		q.Set("limit", "200")
		for {
			var page struct {
				Events     []*Event `json:"events"`
				NextCursor string   `json:"next_cursor"` // empty: there is nothing before
			}
			if err := c.do(ctx, call{method: http.MethodGet, path: "/v1/events", query: q}, &page); err != nil {
				yield(nil, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			if len(page.Events) == 0 || page.NextCursor == "" {
				return
			}
			q.Set("cursor", page.NextCursor)
		}
	}
}

// again is the pause before a stream that broke off is opened again.
const again = time.Second

// Follow returns events as they happen, after those that f.Cursor has not seen.
// A stream that breaks off is opened again where it ended, so that none is
// missed and none comes twice. It ends with ctx, whose error is the last thing
// it gives, or with the first answer that says no.
func (c *Client) Follow(ctx context.Context, f EventFilter) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		f := f
		for {
			more, err := c.stream(ctx, &f, yield)
			var none *noAnswerError
			switch {
			case !more:
				return
			case ctx.Err() != nil:
				yield(nil, fmt.Errorf("lanyard: following events: %w", ctx.Err()))
				return
			case err != nil && !errors.As(err, &none):
				yield(nil, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(again):
			}
		}
	}
}

// stream gives the events of one stream to yield, and reports whether yield
// wants more. It keeps in f where it is.
func (c *Client) stream(ctx context.Context, f *EventFilter, yield func(*Event, error) bool) (more bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header := http.Header{"Accept": {"text/event-stream"}}
	res, err := c.send(ctx, call{method: http.MethodGet, path: "/v1/events", query: f.query()}, header, nil)
	if err != nil {
		return true, err
	}
	defer func() { _ = res.Body.Close() }()
	// Lanyard says something every 15 seconds; who says nothing has gone.
	const silence = 45 * time.Second
	gone := time.AfterFunc(silence, cancel)
	defer gone.Stop()
	lines := bufio.NewReader(res.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return true, &noAnswerError{err}
		}
		gone.Reset(silence)
		// Before the first event there is an id alone: where the stream began.
		if id, ok := strings.CutPrefix(line, "id: "); ok && f.Cursor == "" {
			f.Cursor = strings.TrimRight(id, "\r\n")
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue // the name and cursor of an event are in its data as well
		}
		var e Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return true, errors.New("lanyard: an event is not JSON of the known form")
		}
		f.Cursor = e.ID
		if !yield(&e, nil) {
			return false, nil
		}
	}
}
