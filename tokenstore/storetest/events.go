package storetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// events returns all events that f matches, read in pages, and checks what is
// true of every list: the order, and that it goes on where it has ended.
func (c contract) events(f tokenstore.EventFilter) (all []tokenstore.Event) {
	c.Helper()
	cursor := ""
	for {
		page, next, err := c.s.ListEvents(c.Context(), f, cursor, 3)
		if err != nil {
			c.Fatalf("ListEvents = %v", err)
		}
		for _, e := range page {
			if n := len(all); n > 0 && e.Seq <= all[n-1].Seq {
				c.Errorf("event %d comes after event %d", e.Seq, all[n-1].Seq)
			}
			all = append(all, e)
		}
		if len(page) == 0 {
			if next != cursor {
				c.Errorf("the cursor after an empty page is %q, want %q as before", next, cursor)
			}
			return all
		}
		if want := tokenstore.EventCursor(page[len(page)-1].Seq); next != want {
			c.Errorf("the cursor after event %d is %q, want %q", page[len(page)-1].Seq, next, want)
		}
		cursor = next
	}
}

// eventsBackwards returns the same as events, read from the newest on.
func (c contract) eventsBackwards(f tokenstore.EventFilter) (all []tokenstore.Event) {
	c.Helper()
	f.NewestFirst = true
	for cursor := ""; ; {
		page, next, err := c.s.ListEvents(c.Context(), f, cursor, 3)
		if err != nil {
			c.Fatalf("ListEvents, newest first = %v", err)
		}
		all = append(all, page...)
		if next == "" {
			slices.Reverse(all)
			return all
		}
		if len(page) != 3 || next != tokenstore.EventCursor(page[2].Seq) {
			c.Fatalf("ListEvents, newest first = %d events and a cursor that is not the last's", len(page))
		}
		cursor = next
	}
}

// reasons returns what the lists show of events that only differ in that.
func reasons(events []tokenstore.Event) (said []string) {
	for _, e := range events {
		said = append(said, e.Reason)
	}
	return said
}

func (c contract) appended(events ...tokenstore.Event) {
	c.Helper()
	if err := c.s.AppendEvents(c.Context(), events...); err != nil {
		c.Fatalf("AppendEvents = %v", err)
	}
}

func (c contract) eventOrder() {
	c.same("the events of an empty store", c.events(tokenstore.EventFilter{}), []tokenstore.Event(nil))
	before := time.Now().Add(-time.Second)
	given := []tokenstore.Event{{Reason: "1", Seq: 77}, {Reason: "2"}}
	c.appended(given...)
	c.appended()
	c.created(func(conn *tokenstore.Connection) {
		conn.Happened(tokenstore.Event{Reason: "3"})
		conn.Happened(tokenstore.Event{Reason: "4"})
	})
	c.createdFlow("flow", func(f *tokenstore.Flow) { f.Happened(tokenstore.Event{Reason: "5"}) })
	c.appended(tokenstore.Event{Reason: "6"})
	all := c.events(tokenstore.EventFilter{})
	c.same("the events", reasons(all), []string{"1", "2", "3", "4", "5", "6"})
	seq := uint64(0)
	for _, e := range all {
		if seq++; e.Seq != seq || e.At.Before(before) || e.At.After(time.Now().Add(time.Second)) || e.At.Location() != time.UTC {
			c.Errorf("event %d has Seq %d and happened at %v", seq, e.Seq, e.At)
		}
	}
	if given[0].Seq != 77 || given[1].Seq != 0 || !given[1].At.IsZero() {
		c.Error("AppendEvents has changed what it was given")
	}
	page, next, err := c.s.ListEvents(c.Context(), tokenstore.EventFilter{}, tokenstore.EventCursor(4), 100)
	if err != nil || len(page) != 2 || page[0].Reason != "5" {
		c.Errorf("ListEvents after event 4 = %d events, %v", len(page), err)
	}
	c.appended(tokenstore.Event{Reason: "7"})
	page, _, err = c.s.ListEvents(c.Context(), tokenstore.EventFilter{}, next, 100)
	if err != nil || len(page) != 1 || page[0].Reason != "7" {
		c.Errorf("ListEvents with the cursor of the last page = %d events, %v; want what came since", len(page), err)
	}
}

func (c contract) everyEventField() {
	want := FullEvent()
	c.appended(want)
	want.Seq = 1
	c.same("the events", c.events(tokenstore.EventFilter{}), []tokenstore.Event{want})
	c.same("its connection's", c.events(tokenstore.EventFilter{ConnectionID: want.ConnectionID}), []tokenstore.Event{want})
}

func (c contract) connectionNews() {
	conn := c.created(func(conn *tokenstore.Connection) { conn.Happened(tokenstore.Event{Reason: "created"}) })
	none := func(what string, got tokenstore.Connection) {
		c.Helper()
		if got.News != nil {
			c.Errorf("the connection that %s returned has news", what)
		}
	}
	none("CreateConnection", conn)
	c.stored(conn)
	var kept *tokenstore.Connection
	updated, err := c.s.UpdateConnection(c.Context(), conn.ID, func(conn *tokenstore.Connection) error {
		conn.UserID = "user-2"
		conn.Happened(tokenstore.Event{Reason: "updated", Actor: tokenstore.Actor{Kind: tokenstore.ActorAPIKey, Name: "app"}})
		conn.Happened(tokenstore.Event{Reason: "twice", ConnectionID: "another", UserID: "another", Denied: true, Count: 3})
		kept = conn
		return nil
	})
	c.want("UpdateConnection", err, nil)
	kept.Happened(tokenstore.Event{Reason: "too late"})
	none("UpdateConnection", updated)
	c.stored(updated)
	deleted, err := c.s.DeleteConnection(c.Context(), conn.ID, tokenstore.Event{Reason: "deleted"})
	c.want("DeleteConnection", err, nil)
	none("DeleteConnection", deleted)

	want := []tokenstore.Event{
		{Seq: 1, Reason: "created", UserID: "user-1"},
		{Seq: 2, Reason: "updated", UserID: "user-2", Actor: tokenstore.Actor{Kind: tokenstore.ActorAPIKey, Name: "app"}},
		{Seq: 3, Reason: "twice", UserID: "user-2", Denied: true, Count: 3},
		{Seq: 4, Reason: "deleted", UserID: "user-2"},
	}
	got := c.events(tokenstore.EventFilter{ConnectionID: conn.ID})
	for i := range want {
		want[i].ConnectionID, want[i].Integration = conn.ID, "github"
		if i < len(got) {
			want[i].At = got[i].At
		}
	}
	c.same("the connection's events", got, want)
	c.same("all events", c.events(tokenstore.EventFilter{}), want)
}

func (c contract) flowNews() {
	f := c.createdFlow("flow", func(f *tokenstore.Flow) {
		f.Happened(tokenstore.Event{Reason: "created", ConnectionID: f.ConnectionID})
	})
	updated, err := c.s.UpdateFlow(c.Context(), f.ID, func(f *tokenstore.Flow) error {
		f.Happened(tokenstore.Event{Reason: "taken", ConnectionID: f.ConnectionID})
		return f.Take()
	})
	c.want("UpdateFlow", err, nil)
	got, err := c.s.Flow(c.Context(), f.ID)
	c.want("Flow", err, nil)
	if updated.News != nil || got.News != nil {
		c.Error("a flow that was returned has news")
	}
	c.same("the events of the flow's connection",
		reasons(c.events(tokenstore.EventFilter{ConnectionID: f.ConnectionID})), []string{"created", "taken"})
	_, err = c.s.UpdateFlow(c.Context(), f.ID, func(f *tokenstore.Flow) error {
		f.Happened(tokenstore.Event{Reason: "taken again"})
		return f.Take()
	})
	c.want("UpdateFlow of one that was taken", err, tokenstore.ErrFlowUsed)
	unchanged, err := c.s.UpdateFlow(c.Context(), f.ID, func(f *tokenstore.Flow) error {
		f.Happened(tokenstore.Event{Reason: "nothing"})
		return tokenstore.ErrUnchanged
	})
	c.want("UpdateFlow without a change", err, nil)
	if unchanged.News != nil {
		c.Error("a flow that was not changed has news")
	}
	f.Happened(tokenstore.Event{Reason: "created again"})
	c.want("CreateFlow of one that is there", c.s.CreateFlow(c.Context(), f), tokenstore.ErrExists)
	c.same("the events", reasons(c.events(tokenstore.EventFilter{})), []string{"created", "taken"})
}

func (c contract) noNews() {
	conn, refused := c.created(nil), errors.New("refused")
	for _, end := range []error{tokenstore.ErrUnchanged, refused} {
		got, err := c.s.UpdateConnection(c.Context(), conn.ID, func(conn *tokenstore.Connection) error {
			conn.Happened(tokenstore.Event{Reason: "nothing"})
			return end
		})
		if (err != nil) != errors.Is(end, refused) || got.News != nil {
			c.Errorf("UpdateConnection = %d events, %v", len(got.News), err)
		}
	}
	again := conn.Clone()
	again.Happened(tokenstore.Event{Reason: "created again"})
	_, err := c.s.CreateConnection(c.Context(), again)
	c.want("CreateConnection of one that is there", err, tokenstore.ErrExists)
	_, err = c.s.DeleteConnection(c.Context(), tokenstore.NewID(), tokenstore.Event{Reason: "deleted"})
	c.want("DeleteConnection of none", err, tokenstore.ErrNotFound)
	c.stored(conn)
	c.same("the events", c.events(tokenstore.EventFilter{}), []tokenstore.Event(nil))
	c.appended(tokenstore.Event{Reason: "first"})
	if all := c.events(tokenstore.EventFilter{}); len(all) != 1 || all[0].Seq != 1 {
		c.Errorf("the first event is not number 1: %+v", all)
	}
}

func (c contract) eventFilter() {
	ids := []string{"conn_A", "conn_B", "conn_AB", "conn", "not even an ID", ""}
	want := map[string][]string{}
	for i := range 30 {
		id, reason := ids[i%len(ids)], fmt.Sprint(i)
		c.appended(tokenstore.Event{ConnectionID: id, Reason: reason})
		want[id] = append(want[id], reason)
		want["all"] = append(want["all"], reason)
	}
	for _, id := range ids[:len(ids)-1] {
		c.same("the events of "+id, reasons(c.events(tokenstore.EventFilter{ConnectionID: id})), want[id])
		c.same("the same, newest first", reasons(c.eventsBackwards(tokenstore.EventFilter{ConnectionID: id})), want[id])
	}
	c.same("all events", reasons(c.events(tokenstore.EventFilter{})), want["all"])
	c.same("the same, newest first", reasons(c.eventsBackwards(tokenstore.EventFilter{})), want["all"])
	c.same("the events of none", c.events(tokenstore.EventFilter{ConnectionID: "conn_"}), []tokenstore.Event(nil))
	// A cursor is a place in the log, whatever the list was of.
	page, _, err := c.s.ListEvents(c.Context(), tokenstore.EventFilter{ConnectionID: "conn_A"}, tokenstore.EventCursor(8), 1)
	if err != nil || len(page) != 1 || page[0].Reason != "12" {
		c.Errorf("ListEvents of conn_A after event 8 = %d events, %v; want number 13", len(page), err)
	}
}

func (c contract) eventMisuse() {
	c.appended(tokenstore.Event{})
	for _, cursor := range []string{
		"x", "%%%", "AAAA", "MQ", "ZQ", tokenstore.EventCursor(1) + "=", "ZS0x", // the last are 1, e, e-1
		tokenstore.EventCursor(2), tokenstore.EventCursor(math.MaxUint64),
	} {
		_, _, err := c.s.ListEvents(c.Context(), tokenstore.EventFilter{}, cursor, 10)
		c.want("ListEvents with cursor "+cursor, err, tokenstore.ErrBadCursor)
	}
	for _, limit := range []int{0, -1} {
		if _, _, err := c.s.ListEvents(c.Context(), tokenstore.EventFilter{}, "", limit); err == nil {
			c.Errorf("ListEvents with limit %d succeeded", limit)
		}
	}
	for _, limit := range []int{1, math.MaxInt} {
		if page, _, err := c.s.ListEvents(c.Context(), tokenstore.EventFilter{}, "", limit); err != nil || len(page) != 1 {
			c.Errorf("ListEvents with limit %d = %d events, %v", limit, len(page), err)
		}
	}
}

// concurrentEvents appends and changes at the same time, while somebody reads
// along: nobody may miss an event.
func (c contract) concurrentEvents() {
	const writers, each = 8, 20
	conn := c.created(nil)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e := tokenstore.Event{Reason: fmt.Sprint(w, " ", i), ConnectionID: conn.ID}
				var err error
				if w%2 == 0 {
					err = c.s.AppendEvents(c.Context(), e)
				} else {
					_, err = c.s.UpdateConnection(c.Context(), conn.ID, func(conn *tokenstore.Connection) error {
						conn.Happened(e)
						return nil
					})
				}
				if err != nil {
					c.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	seen, cursor, last := map[string]bool{}, "", uint64(0)
	for ended := false; ; {
		page, next, err := c.s.ListEvents(c.Context(), tokenstore.EventFilter{ConnectionID: conn.ID}, cursor, 7)
		if err != nil {
			c.Errorf("ListEvents = %v", err)
			break
		}
		for _, e := range page {
			seen[e.Reason] = true
			if last++; e.Seq != last {
				c.Errorf("event %d is the %dth that was seen", e.Seq, last)
			}
		}
		cursor = next
		if ended && len(page) == 0 {
			break
		}
		select {
		case <-done:
			ended = true
		default:
		}
	}
	<-done
	if len(seen) != writers*each || last != writers*each {
		c.Errorf("whoever read along saw %d events, %d of them different, want %d", last, len(seen), writers*each)
	}
	if got, err := c.s.Connection(c.Context(), conn.ID); err != nil || got.Revision != 1+writers/2*each {
		c.Errorf("Connection = revision %d, %v", got.Revision, err)
	}
}
