package refresh_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/refresh"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/memstore"
)

// What comes after another process has revoked or deleted the connection is told,
// unless somebody here waits for it already.
func TestLateIsTold(t *testing.T) {
	for name, how := range map[string]struct {
		end    func(s tokenstore.Store, id string) error
		waited bool
		want   []string
	}{
		"revoked": {end: revokeAt, want: []string{"at-1"}},
		"deleted": {
			end: func(s tokenstore.Store, id string) error {
				_, err := s.DeleteConnection(context.Background(), id)
				return err
			},
			want: []string{"at-1"},
		},
		"waited for": {end: revokeAt, waited: true},
		"neither":    {end: func(tokenstore.Store, string) error { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := &authority{delay: 10 * time.Second}
				c := &cluster{t: t, store: memstore.Shared{Store: memstore.New()}, end: end}
				c.id = c.add(-time.Minute)
				var mu sync.Mutex
				var told []string
				r := refresh.New(refresh.Config{
					Store: c.store, Logger: zap.NewNop(),
					Provider: func(string, map[string]string) (refresh.Provider, bool) { return end, true },
					Late: func(was tokenstore.Connection, tok tokenstore.Token) {
						mu.Lock()
						defer mu.Unlock()
						if was.ID != c.id || was.UserID != "u1" {
							t.Errorf("of %+v", was)
						}
						told = append(told, tok.AccessToken.Reveal())
					},
				})
				go func() { _, _ = (&node{Refresher: r}).call(t.Context(), c.id) }()
				time.Sleep(5 * time.Second)
				if how.waited && r.Late(c.id) == nil {
					t.Error("none is under way")
				}
				if err := how.end(c.store, c.id); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if err := r.Close(t.Context()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(told, how.want) {
					t.Errorf("told of %v, want %v", told, how.want)
				}
			})
		})
	}
}

func revokeAt(s tokenstore.Store, id string) error {
	_, err := s.UpdateConnection(context.Background(), id, func(c *tokenstore.Connection) error {
		c.Revoke()
		return nil
	})
	return err
}
