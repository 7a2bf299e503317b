package storetest

import (
	"strconv"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// listLabels: every combination of filters shows what Matches says, in order,
// and NewestConnection the last of that.
func (c contract) listLabels() {
	var all []tokenstore.Connection
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 24 {
		all = append(all, c.created(func(conn *tokenstore.Connection) {
			conn.CreatedAt = at.Add(time.Duration(i) * time.Nanosecond)
			conn.UserID = "user-" + strconv.Itoa(i%2)
			conn.Labels = map[string]string{"team": strconv.Itoa(i % 3), "env": []string{"prod", "test", "", "eprod"}[i%4]}
			if i%5 == 0 {
				conn.Labels, conn.Status = nil, tokenstore.StatusExpired
			}
		}))
	}
	for _, labels := range []map[string]string{
		nil,
		{},
		{"env": "prod"},
		{"env": ""},
		{"team": "1"},
		{"te": "am1"},
		{"none": ""},
		{"env": "prod", "team": "2"},
		{"env": "test", "team": "none"},
	} {
		for _, user := range []string{"", "user-1", "nobody"} {
			for _, status := range []tokenstore.Status{"", tokenstore.StatusActive, tokenstore.StatusRevoked} {
				f := tokenstore.Filter{UserID: user, Status: status, Labels: labels}
				var want []string
				for i := range all {
					if f.Matches(&all[i]) {
						want = append(want, all[i].ID)
					}
				}
				for _, limit := range []int{1, 2, 100} {
					c.same("the list", c.pages(f, limit), want)
				}
				c.newest(f, want)
			}
		}
	}
}

// pages returns the IDs on all pages together.
func (c contract) pages(f tokenstore.Filter, limit int) (ids []string) {
	c.Helper()
	for cursor := ""; ; {
		page, next, err := c.s.ListConnections(c.Context(), f, cursor, limit)
		if err != nil || len(page) > limit {
			c.Fatalf("ListConnections = %d connections, %v", len(page), err)
		}
		for _, conn := range page {
			ids = append(ids, conn.ID)
		}
		if cursor = next; cursor == "" {
			return ids
		}
	}
}

// newest checks that NewestConnection finds the last of want.
func (c contract) newest(f tokenstore.Filter, want []string) {
	c.Helper()
	got, err := c.s.NewestConnection(c.Context(), f)
	if len(want) == 0 {
		c.want("NewestConnection of none", err, tokenstore.ErrNotFound)
		return
	}
	if err != nil || got.ID != want[len(want)-1] {
		c.Errorf("NewestConnection = %q, %v; want %q", got.ID, err, want[len(want)-1])
		return
	}
	c.stored(got)
}

func (c contract) labelsFollow() {
	old := c.created(func(conn *tokenstore.Connection) { conn.CreatedAt = time.Now().Add(-time.Hour).UTC() })
	conn := c.created(func(conn *tokenstore.Connection) { conn.Labels = map[string]string{"env": "test", "a": "b"} })
	_, err := c.s.UpdateConnection(c.Context(), conn.ID, func(conn *tokenstore.Connection) error {
		conn.Labels = map[string]string{"env": "prod", "a": "b"}
		return nil
	})
	if err != nil {
		c.Fatalf("UpdateConnection = %v", err)
	}
	label := func(key, value string) tokenstore.Filter {
		return tokenstore.Filter{Labels: map[string]string{key: value}}
	}
	c.same("the old label", c.list(label("env", "test")), []string(nil))
	c.same("the new label", c.list(label("env", "prod")), []string{conn.ID})
	c.same("the label that stayed", c.list(label("a", "b")), []string{conn.ID})
	c.newest(tokenstore.Filter{UserID: conn.UserID}, []string{old.ID, conn.ID})
	if _, err := c.s.DeleteConnection(c.Context(), conn.ID); err != nil {
		c.Fatalf("DeleteConnection = %v", err)
	}
	c.same("the label of what was deleted", c.list(label("env", "prod")), []string(nil))
	c.newest(tokenstore.Filter{UserID: conn.UserID}, []string{old.ID})
	c.newest(label("a", "b"), nil)
}
