package storetest

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

var errRefused = errors.New("refused by the change")

func (c contract) create() {
	before := time.Now()
	conn := c.created(nil)
	if conn.Revision != 1 {
		c.Errorf("Revision of a new connection = %d, want 1", conn.Revision)
	}
	if conn.CreatedAt.Before(before) || conn.UpdatedAt.Before(before) {
		c.Errorf("a new connection has CreatedAt %v, UpdatedAt %v; want them set", conn.CreatedAt, conn.UpdatedAt)
	}
	c.stored(conn)

	at := time.Date(2020, 2, 29, 12, 0, 0, 1, time.UTC)
	imported := c.created(func(conn *tokenstore.Connection) { conn.CreatedAt = at })
	if !imported.CreatedAt.Equal(at) {
		c.Errorf("CreatedAt = %v, want %v as given", imported.CreatedAt, at)
	}

	again := conn
	again.UserID = "another"
	_, err := c.s.CreateConnection(c.Context(), again)
	c.want("CreateConnection with a taken ID", err, tokenstore.ErrExists)
	c.stored(conn)
}

func (c contract) unknownConnection() {
	for _, id := range []string{tokenstore.NewID(), "conn_x", "", "no ID at all\x00/"} {
		_, err := c.s.Connection(c.Context(), id)
		c.want("Connection", err, tokenstore.ErrNotFound)
		_, err = c.s.UpdateConnection(c.Context(), id, func(*tokenstore.Connection) error {
			c.Error("a change ran on nothing")
			return nil
		})
		c.want("UpdateConnection", err, tokenstore.ErrNotFound)
		_, err = c.s.DeleteConnection(c.Context(), id)
		c.want("DeleteConnection", err, tokenstore.ErrNotFound)
	}
}

func (c contract) everyField() {
	full := FullConnection()
	created, err := c.s.CreateConnection(c.Context(), full)
	if err != nil {
		c.Fatalf("CreateConnection = %v", err)
	}
	full.Revision, full.UpdatedAt = created.Revision, created.UpdatedAt
	c.same("the created connection", created, full)
	c.stored(full)

	bare := c.created(func(conn *tokenstore.Connection) {
		*conn = tokenstore.Connection{ID: tokenstore.NewID(), Intent: &tokenstore.Intent{}, Staged: &tokenstore.Staged{}}
	})
	c.stored(bare)
	if got, err := c.s.Connection(c.Context(), bare.ID); err != nil || !got.ConnectedAt.IsZero() || !got.Token.ExpiresAt.IsZero() {
		c.Errorf("zero times were not kept: %v, %v, %v", got.ConnectedAt, got.Token.ExpiresAt, err)
	}
}

func (c contract) update() {
	conn := c.created(nil)
	updated, err := c.s.UpdateConnection(c.Context(), conn.ID, func(got *tokenstore.Connection) error {
		c.same("what the change sees", *got, conn)
		got.Name = "renamed"
		got.Revision, got.UpdatedAt = 99, time.Time{} // the store's business
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateConnection = %v", err)
	}
	if updated.Revision != 2 || updated.Name != "renamed" {
		c.Errorf("updated connection has revision %d, name %q; want 2, renamed", updated.Revision, updated.Name)
	}
	if updated.UpdatedAt.Before(conn.UpdatedAt) {
		c.Errorf("UpdatedAt went back from %v to %v", conn.UpdatedAt, updated.UpdatedAt)
	}
	c.stored(updated)
}

func (c contract) refusedUpdate() {
	conn := c.created(nil)
	_, err := c.s.UpdateConnection(c.Context(), conn.ID, func(got *tokenstore.Connection) error {
		got.Name, got.Labels = "changed", map[string]string{"a": "b"}
		return errRefused
	})
	if err != errRefused { //nolint:errorlint // as it is, not wrapped
		c.Errorf("UpdateConnection = %v, want the change's own error as it is", err)
	}
	c.stored(conn)

	_, err = c.s.UpdateConnection(c.Context(), conn.ID, func(got *tokenstore.Connection) error {
		got.ID = tokenstore.NewID()
		return nil
	})
	if err == nil {
		c.Error("an update changed an ID")
	}
	c.stored(conn)
}

func (c contract) unchanged() {
	conn := c.created(nil)
	got, err := c.s.UpdateConnection(c.Context(), conn.ID, func(got *tokenstore.Connection) error {
		got.Name = "changed"
		return tokenstore.ErrUnchanged
	})
	if err != nil {
		c.Errorf("UpdateConnection with ErrUnchanged = %v, want success", err)
	}
	c.same("the connection returned", got, conn)
	c.stored(conn)
}

func (c contract) copies() {
	labels := map[string]string{"a": "1"}
	given := c.created(func(conn *tokenstore.Connection) { conn.Labels = labels })
	want := given.Clone()
	labels["a"] = "changed what was given"
	c.stored(want)
	given.Labels["a"] = "changed what was returned"
	c.stored(want)
	read, _ := c.s.Connection(c.Context(), given.ID)
	read.Labels["a"] = "changed what was read"
	c.stored(want)
	page, _, _ := c.s.ListConnections(c.Context(), tokenstore.Filter{}, "", 1)
	page[0].Labels["a"] = "changed what was listed"
	c.stored(want)

	var kept *tokenstore.Connection
	_, err := c.s.UpdateConnection(c.Context(), given.ID, func(got *tokenstore.Connection) error {
		kept = got
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateConnection = %v", err)
	}
	kept.Labels["a"] = "changed what the change saw"
	if got, _ := c.s.Connection(c.Context(), given.ID); got.Labels["a"] != "1" {
		c.Errorf("label = %q, want 1", got.Labels["a"])
	}
}

func (c contract) concurrentUpdates() {
	const writers, each = 64, 8
	conn := c.created(nil)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				_, err := c.s.UpdateConnection(c.Context(), conn.ID, func(got *tokenstore.Connection) error {
					n, _ := strconv.Atoi(got.Labels["count"])
					got.Labels = map[string]string{"count": strconv.Itoa(n + 1)}
					return nil
				})
				if err != nil {
					c.Errorf("UpdateConnection = %v", err)
				}
				// One that refuses must not take others with it.
				_, err = c.s.UpdateConnection(c.Context(), conn.ID, func(got *tokenstore.Connection) error {
					got.Labels = nil
					return errRefused
				})
				c.want("refused UpdateConnection", err, errRefused)
			}
		})
	}
	wg.Wait()
	got, err := c.s.Connection(c.Context(), conn.ID)
	if err != nil {
		c.Fatalf("Connection = %v", err)
	}
	if want := strconv.Itoa(writers * each); got.Labels["count"] != want || got.Revision != writers*each+1 {
		c.Errorf("after %s updates count = %s, revision = %d", want, got.Labels["count"], got.Revision)
	}
}

func (c contract) concurrentCreates() {
	conn := tokenstore.Connection{ID: tokenstore.NewID(), Status: tokenstore.StatusInitiated}
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			_, err := c.s.CreateConnection(c.Context(), conn)
			if err == nil {
				won.Add(1)
				return
			}
			c.want("CreateConnection", err, tokenstore.ErrExists)
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		c.Errorf("%d creates of one ID succeeded, want 1", won.Load())
	}
}

func (c contract) deletion() {
	conn, other := c.created(nil), c.created(nil)
	was, err := c.s.DeleteConnection(c.Context(), conn.ID)
	if err != nil {
		c.Fatalf("DeleteConnection = %v", err)
	}
	c.same("what was deleted", was, conn)
	_, err = c.s.Connection(c.Context(), conn.ID)
	c.want("Connection after its deletion", err, tokenstore.ErrNotFound)
	_, err = c.s.DeleteConnection(c.Context(), conn.ID)
	c.want("second DeleteConnection", err, tokenstore.ErrNotFound)
	_, err = c.s.CreateConnection(c.Context(), conn)
	c.want("CreateConnection with the ID of a deleted one", err, tokenstore.ErrExists)
	c.same("the list", c.list(tokenstore.Filter{}), []string{other.ID})
}

func (c contract) due() {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	initiated := func(until time.Time) tokenstore.Connection {
		return c.created(func(conn *tokenstore.Connection) {
			conn.Status, conn.InitiatedUntil = tokenstore.StatusInitiated, until
		})
	}
	third, first, later := initiated(at), initiated(at.AddDate(-80, 0, 0)), initiated(at.Add(1))
	second := c.created(func(conn *tokenstore.Connection) {
		conn.Intent = &tokenstore.Intent{Deadline: at.Add(-1)}
	})
	c.created(nil) // never due
	check := func(what string, t time.Time, want ...string) {
		c.Helper()
		got, err := c.s.DueConnections(c.Context(), t)
		if err != nil {
			c.Fatalf("DueConnections = %v", err)
		}
		c.same("what is due "+what, got, want)
	}
	check("at first", at, first.ID, second.ID, third.ID)
	check("long before", at.AddDate(-100, 0, 0))

	if _, err := c.s.DeleteConnection(c.Context(), first.ID); err != nil {
		c.Fatalf("DeleteConnection = %v", err)
	}
	_, err := c.s.UpdateConnection(c.Context(), second.ID, func(conn *tokenstore.Connection) error {
		conn.Intent.Deadline = at.Add(time.Hour)
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateConnection = %v", err)
	}
	_, err = c.s.UpdateConnection(c.Context(), third.ID, func(conn *tokenstore.Connection) error {
		conn.Fail(tokenstore.ReasonTimeout)
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateConnection = %v", err)
	}
	check("after changes", at)
	check("an hour later", at.Add(time.Hour), later.ID, second.ID)
}

// list reads all pages and checks that they are in order.
func (c contract) list(f tokenstore.Filter) (ids []string) {
	c.Helper()
	var last tokenstore.Position
	for cursor := ""; ; {
		page, next, err := c.s.ListConnections(c.Context(), f, cursor, 2)
		if err != nil {
			c.Fatalf("ListConnections = %v", err)
		}
		for i := range page {
			if at := tokenstore.PositionOf(&page[i]); len(ids) > 0 && at.Compare(last) <= 0 {
				c.Errorf("the list is not in order: %v after %v", at, last)
			} else {
				last = at
			}
			ids = append(ids, page[i].ID)
		}
		if next == "" {
			return ids
		}
		if len(page) == 0 || slices.Contains(ids[:len(ids)-len(page)], page[0].ID) {
			c.Fatal("the list does not end")
		}
		cursor = next
	}
}
