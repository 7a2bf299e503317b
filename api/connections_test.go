package api_test

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

func TestGetShowsEveryField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		zone := time.FixedZone("", 3600)
		now := time.Now()
		c := b.put(func(c *tokenstore.Connection) {
			c.Name, c.Labels = "mine", map[string]string{"team": "a"}
			c.RequestedScopes = []string{"read:user", "repo"}
			active("a")(c)
			c.LastRefreshedAt, c.LastUsedAt = now.In(zone), now.Add(-time.Hour)
			c.Token.RefreshExpiresAt = now.Add(2 * time.Hour)
		})
		b.refresher.used = now.Add(-time.Minute)
		at := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
		want := map[string]any{
			"id": c.ID, "integration": "github", "provider": "github", "user_id": "u1", "name": "mine",
			"labels": map[string]any{"team": "a"}, "params": map[string]any{}, "provider_metadata": map[string]any{}, "metadata": map[string]any{},
			"status": "ACTIVE", "status_reason": nil, "auth_scheme": "OAUTH2",
			"scopes": map[string]any{
				"requested": []any{"read:user", "repo"}, "granted": []any{"read:user"}, "missing": []any{"repo"},
			},
			"account": nil, "created_at": at(0), "updated_at": at(0), "connected_at": at(0),
			"last_used_at": at(-time.Minute), "last_refreshed_at": at(0),
			"access_token_expires_at": at(time.Hour), "refresh_token_expires_at": at(2 * time.Hour),
			"generation": float64(1), "disabled": false,
		}
		if d := cmp.Diff(want, b.do("GET", "/v1/connections/"+c.ID, "").json); d != "" {
			t.Errorf("ACTIVE (-want +got):\n%s", d)
		}
		b.refresher.used = time.Time{}
		c = b.put(func(c *tokenstore.Connection) { c.RequestedScopes = nil; c.RedirectURL = "https://gone.example/" })
		got := b.do("GET", "/v1/connections/"+c.ID, "").json
		link, _ := got["connect_url"].(string)
		if !strings.Contains(link, url.QueryEscape(appURL)) {
			t.Errorf("connect_url = %q; want it to return to the first registered URL", link)
		}
		delete(got, "connect_url")
		want = map[string]any{
			"id": c.ID, "integration": "github", "provider": "github", "user_id": "u1", "name": "",
			"labels": map[string]any{}, "params": map[string]any{}, "provider_metadata": map[string]any{}, "metadata": map[string]any{},
			"status": "INITIATED", "status_reason": nil, "auth_scheme": "OAUTH2",
			"scopes":  map[string]any{"requested": []any{}, "granted": []any{}, "missing": []any{}},
			"account": nil, "created_at": at(0), "updated_at": at(0), "connected_at": nil,
			"last_used_at": nil, "last_refreshed_at": nil,
			"access_token_expires_at": nil, "refresh_token_expires_at": nil, "generation": float64(0), "disabled": false,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("INITIATED (-want +got):\n%s", d)
		}
	})
}

func TestConnectURLStandsWhereItHelps(t *testing.T) {
	b := newBench(t)
	expired := func(c *tokenstore.Connection) { active("a")(c); c.Expire(tokenstore.ReasonInvalidGrant) }
	tests := []struct {
		name   string
		change func(*tokenstore.Connection)
		reason any
		link   bool
	}{
		{"initiated", func(*tokenstore.Connection) {}, nil, true},
		{"active", active("a"), nil, false},
		{"expired", expired, "invalid_grant", true},
		{"revoked", func(c *tokenstore.Connection) { c.Revoke() }, "revoked", true},
		{"failed", func(c *tokenstore.Connection) { c.Fail(tokenstore.ReasonTimeout) }, "timeout", true},
		{"disabled", func(c *tokenstore.Connection) { expired(c); c.Disabled = true }, "invalid_grant", false},
		{"integration missing", func(c *tokenstore.Connection) { expired(c); c.Integration = "gone" }, "integration_missing", false},
		{"active, integration missing", func(c *tokenstore.Connection) { active("a")(c); c.Integration = "gone" }, "integration_missing", false},
	}
	for _, tt := range tests {
		c := b.put(tt.change)
		a := b.do("GET", "/v1/connections/"+c.ID, "")
		if _, got := a.json["connect_url"]; got != tt.link || a.json["status_reason"] != tt.reason {
			t.Errorf("%s: connect_url %v, status_reason %v; want %v, %v", tt.name, got, a.json["status_reason"], tt.link, tt.reason)
		}
	}
	a := b.do("GET", "/v1/connections", "")
	b.wants(a, 200, "")
	if n := len(a.json["connections"].([]any)); n != len(tests) || strings.Contains(a.text, "connect_url") {
		t.Errorf("list of %d: %s", n, a.text)
	}
}

func TestAGuessedExpiryIsNotShown(t *testing.T) {
	b := newBench(t)
	c := b.put(func(c *tokenstore.Connection) { active("a")(c); c.Token.ExpiryUnknown = true })
	if got := b.do("GET", "/v1/connections/"+c.ID, "").json["access_token_expires_at"]; got != nil {
		t.Errorf("access_token_expires_at = %v", got)
	}
}

func TestList(t *testing.T) {
	b := newBench(t)
	for i := range 60 {
		b.put(func(c *tokenstore.Connection) {
			c.UserID = fmt.Sprintf("u%d", i%3)
			c.CreatedAt = time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC)
			if i%2 == 0 {
				active("a")(c)
			}
			if i%5 == 0 {
				c.Integration = "gl"
			}
		})
	}
	for query, want := range map[string]int{
		"": 50, "?limit=200": 60, "?limit=1": 1, "?user_id=u1&limit=200": 20, "?integration=gl": 12,
		"?status=ACTIVE": 30, "?status=ACTIVE&user_id=u1&integration=gl": 2, "?user_id=none": 0,
	} {
		a := b.do("GET", "/v1/connections"+query, "")
		b.wants(a, 200, "")
		if got := len(a.json["connections"].([]any)); got != want {
			t.Errorf("list%s has %d, want %d", query, got, want)
		}
	}
	var seen []string
	for cursor := ""; ; {
		a := b.do("GET", "/v1/connections?limit=7"+cursor, "")
		b.wants(a, 200, "")
		for _, c := range a.json["connections"].([]any) {
			seen = append(seen, c.(map[string]any)["created_at"].(string))
		}
		next, more := a.json["next_cursor"].(string)
		if !more {
			break
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
	if len(seen) != 60 || !slices.IsSorted(seen) || len(slices.Compact(seen)) != 60 {
		t.Errorf("pages together show %d", len(seen))
	}
}

func TestConnect(t *testing.T) {
	b := newBench(t)
	c := b.put(func(c *tokenstore.Connection) { active("a")(c); c.RedirectURL = otherAppURL })
	a := b.do("POST", "/v1/connections/"+c.ID+"/connect", `{"state":"s1","scopes":["repo"]}`)
	b.wants(a, 200, "")
	link, _ := url.Parse(a.json["connect_url"].(string))
	q := link.Query()
	if q.Get("state") != "s1" || q.Get("scopes") != "repo" || q.Get("redirect_url") != otherAppURL || q.Get("connection_id") != c.ID {
		t.Errorf("link = %s", link)
	}
	a = b.do("POST", "/v1/connections/"+c.ID+"/connect", `{"redirect_url":"`+appURL+`"}`)
	if !strings.Contains(a.text, url.QueryEscape(appURL)) {
		t.Errorf("link = %s; want it to return to the URL asked for", a.text)
	}
	if got := b.stored(c.ID); got.Revision != c.Revision {
		t.Error("making a link changed the connection")
	}
	c = b.put(func(c *tokenstore.Connection) { c.Disabled = true })
	b.wants(b.do("POST", "/v1/connections/"+c.ID+"/connect", ""), 409, "connection_not_active")
	c = b.put(func(c *tokenstore.Connection) { c.Integration = "gone" })
	for _, body := range []string{"", `{"credentials":{"api_key":"k"}}`, `{"scopes":["repo"]}`, `{"auth_scheme":"API_KEY"}`} {
		a = b.do("POST", "/v1/connections/"+c.ID+"/connect", body)
		b.wants(a, 409, "connection_not_active")
		if a.json["reason"] != "integration_missing" {
			t.Errorf("%s: reason = %v", body, a.json["reason"])
		}
	}
}

func TestRefresh(t *testing.T) {
	expired := func(c *tokenstore.Connection) { active("a")(c); c.Expire(tokenstore.ReasonInvalidGrant) }
	waiting := &tokenstore.UnavailableError{RetryAfter: 1500 * time.Millisecond, Cause: errors.New("HTTP 500")}
	tests := []struct {
		name   string
		change func(*tokenstore.Connection)
		err    error
		status int
		code   string
		reason any
		link   bool
		after  string
	}{
		{"renewed", active("a"), nil, 200, "", nil, false, ""},
		{"dead", expired, fmt.Errorf("refresh: %w", tokenstore.ErrReconnect), 424, "reconnect_required", "invalid_grant", true, ""},
		{"dying", active("a"), tokenstore.ErrReconnect, 424, "reconnect_required", "invalid_grant", true, ""},
		{"failing", active("a"), fmt.Errorf("refresh: %w", waiting), 503, "refresh_unavailable", nil, false, "2"},
		{"initiated", staged("a"), tokenstore.ErrNotActive, 409, "connection_not_active", "initiated", true, ""},
		{"disabled", func(c *tokenstore.Connection) { c.Disabled = true }, tokenstore.ErrNotActive, 409, "connection_not_active", "disabled", false, ""},
		{"integration gone", func(c *tokenstore.Connection) { active("a")(c); c.Integration = "gone" }, tokenstore.ErrNotActive, 409, "connection_not_active", "integration_missing", false, ""},
		{"no refresh token", active("a"), tokenstore.ErrNotRenewed, 409, "not_refreshable", nil, false, ""},
		{"store out", active("a"), tokenstore.ErrUnavailable, 503, "store_unavailable", nil, false, ""},
		{"store full", active("a"), &tokenstore.UnavailableError{RetryAfter: 3 * time.Second, Cause: fmt.Errorf("storing: %w", tokenstore.ErrFull)}, 507, "store_full", nil, false, "3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			c := b.put(tt.change)
			b.refresher.err = tt.err
			a := b.do("POST", "/v1/connections/"+c.ID+"/refresh", "")
			b.wants(a, tt.status, tt.code)
			if _, link := a.json["connect_url"]; link != tt.link || a.json["reason"] != tt.reason {
				t.Errorf("connect_url %v, reason %v; want %v, %v", link, a.json["reason"], tt.link, tt.reason)
			}
			if got := a.header.Get("Retry-After"); got != tt.after {
				t.Errorf("Retry-After = %q, want %q", got, tt.after)
			}
			if tt.err == nil {
				if a.json["id"] != c.ID || a.json["generation"] != float64(1) {
					t.Errorf("answer = %s", a.text)
				}
				b.logged("connection refreshed", c.ID)
			}
		})
	}
}
