package storetest

import (
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func (c contract) listFilters() {
	var all []tokenstore.Connection
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, user := range []string{"user-1", "user-2", "user-1github", ""} {
		for _, integration := range []string{"github", "hub", "1github"} {
			for _, status := range []tokenstore.Status{tokenstore.StatusActive, tokenstore.StatusExpired} {
				all = append(all, c.created(func(conn *tokenstore.Connection) {
					conn.UserID, conn.Integration, conn.Status = user, integration, status
					conn.CreatedAt = at.Add(time.Duration(len(all)/2) * time.Nanosecond) // pairs of equal age
				}))
			}
		}
	}
	for _, user := range []string{"", "user-1", "user-2", "user-1github", "nobody"} {
		for _, integration := range []string{"", "github", "hub", "none"} {
			for _, status := range []tokenstore.Status{"", tokenstore.StatusActive, tokenstore.StatusRevoked} {
				f := tokenstore.Filter{UserID: user, Integration: integration, Status: status}
				want := map[string]bool{}
				for i := range all {
					if f.Matches(&all[i]) {
						want[all[i].ID] = true
					}
				}
				got := map[string]bool{}
				for _, id := range c.list(f) {
					got[id] = true
				}
				c.same("the list", got, want)
			}
		}
	}
}

func (c contract) listFollows() {
	conn := c.created(nil)
	_, err := c.s.UpdateConnection(c.Context(), conn.ID, func(conn *tokenstore.Connection) error {
		conn.Expire(tokenstore.ReasonInvalidGrant)
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateConnection = %v", err)
	}
	c.same("ACTIVE", c.list(tokenstore.Filter{Status: tokenstore.StatusActive}), []string(nil))
	c.same("EXPIRED", c.list(tokenstore.Filter{Status: tokenstore.StatusExpired}), []string{conn.ID})
	c.same("the user's", c.list(tokenstore.Filter{UserID: conn.UserID}), []string{conn.ID})
}

func (c contract) listPages() {
	var ids []string
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 5 {
		ids = append(ids, c.created(func(conn *tokenstore.Connection) {
			conn.CreatedAt = at.Add(time.Duration(i) * time.Nanosecond)
		}).ID)
	}
	for limit, pages := range map[int]int{1: 5, 2: 3, 4: 2, 5: 1, 6: 1} {
		var got []string
		var cursor string
		for n := 1; ; n++ {
			page, next, err := c.s.ListConnections(c.Context(), tokenstore.Filter{}, cursor, limit)
			if err != nil {
				c.Fatalf("ListConnections = %v", err)
			}
			for _, conn := range page {
				got = append(got, conn.ID)
			}
			if next == "" {
				if n != pages {
					c.Errorf("5 connections in %d pages of %d, want %d", n, limit, pages)
				}
				break
			}
			cursor = next
		}
		c.same("the pages together", got, ids)
	}
}

func (c contract) listWhileChanging() {
	var conns []tokenstore.Connection
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	create := func(age time.Duration) tokenstore.Connection {
		return c.created(func(conn *tokenstore.Connection) { conn.CreatedAt = at.Add(age) })
	}
	for i := range 6 {
		conns = append(conns, create(time.Duration(i)*time.Hour))
	}
	page, cursor, err := c.s.ListConnections(c.Context(), tokenstore.Filter{}, "", 3)
	if err != nil || len(page) != 3 {
		c.Fatalf("ListConnections = %d connections, %v", len(page), err)
	}
	// The one the cursor came from goes, as does one before and one after it.
	for _, i := range []int{0, 2, 3} {
		if _, err := c.s.DeleteConnection(c.Context(), conns[i].ID); err != nil {
			c.Fatalf("DeleteConnection = %v", err)
		}
	}
	create(-time.Hour)
	newest := create(24 * time.Hour)
	page, next, err := c.s.ListConnections(c.Context(), tokenstore.Filter{}, cursor, 3)
	if err != nil || next != "" {
		c.Fatalf("ListConnections = next %q, %v; want the last page", next, err)
	}
	var got []string
	for _, conn := range page {
		got = append(got, conn.ID)
	}
	c.same("the second page", got, []string{conns[4].ID, conns[5].ID, newest.ID})
}

func (c contract) listMisuse() {
	c.created(nil)
	for _, cursor := range []string{"x", "%%%", "AAAA", "MS4y", "conn_abc"} {
		_, _, err := c.s.ListConnections(c.Context(), tokenstore.Filter{}, cursor, 10)
		c.want("ListConnections with cursor "+cursor, err, tokenstore.ErrBadCursor)
	}
	for _, limit := range []int{0, -1} {
		if _, _, err := c.s.ListConnections(c.Context(), tokenstore.Filter{}, "", limit); err == nil {
			c.Errorf("ListConnections with limit %d succeeded", limit)
		}
	}
}
