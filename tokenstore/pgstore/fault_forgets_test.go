package pgstore_test

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
)

// F051: a standby that had not got the last commits takes over. Whoever wrote
// them knows them still, and puts them back before anything else is read.
func TestForgottenWritesArePutBack(t *testing.T) {
	pair := pgtest.NewPair(t, pgtest.Asynchronous)
	dsn, keys := pair.Database(t), faultKeys(t)
	core, logs := observer.New(zapcore.WarnLevel)
	s, err := pgstore.Open(t.Context(), secret.New(dsn), pgstore.Config{Codec: keys, Logger: zap.New(core)})
	must(t, err)
	defer s.Close()
	ctx := t.Context()
	made := func() tokenstore.Connection {
		t.Helper()
		c, err := s.CreateConnection(ctx, aConnection())
		must(t, err)
		return c
	}
	rotated, expired, deleted, kept, later := made(), made(), made(), made(), made()
	must(t, pair.CatchUp())
	must(t, pair.Detach())

	change := func(s *pgstore.Store, id string, how func(*tokenstore.Connection)) tokenstore.Connection {
		t.Helper()
		c, err := s.UpdateConnection(ctx, id, func(c *tokenstore.Connection) error { how(c); return nil })
		must(t, err)
		return c
	}
	rename := func(c *tokenstore.Connection) { c.Name += "+" }
	change(s, rotated.ID, rename)
	rotated = change(s, rotated.ID, rename)
	expired = change(s, expired.ID, func(c *tokenstore.Connection) { c.Status = tokenstore.StatusExpired })
	_, err = s.DeleteConnection(ctx, deleted.ID)
	must(t, err)
	fresh := made()
	change(s, later.ID, rename)
	must(t, pair.Failover())

	// Another has written this one after what was forgotten: that stays.
	other := faultStore(t, pair.DSN(dsn[strings.LastIndex(dsn, "/")+1:strings.Index(dsn, "?")]), keys)
	change(other, later.ID, rename)
	later = change(other, later.ID, rename)

	if _, err := s.Connection(ctx, kept.ID); err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]tokenstore.Connection{
		"rotated": rotated, "expired": expired, "untouched": kept, "made": fresh, "changed by another": later,
	} {
		for whose, store := range map[string]*pgstore.Store{"own": s, "another's": other} {
			got, err := store.Connection(ctx, want.ID)
			if err != nil || got.Revision != want.Revision || got.Name != want.Name || got.Status != want.Status {
				t.Errorf("the one that was %s, read by the %s store: revision %d, %q, %s, %v; want revision %d, %q, %s",
					what, whose, got.Revision, got.Name, got.Status, err, want.Revision, want.Name, want.Status)
			}
		}
	}
	if _, err := other.Connection(ctx, deleted.ID); !errors.Is(err, tokenstore.ErrNotFound) {
		t.Errorf("the one that was deleted: %v; want ErrNotFound", err)
	}
	// The lists are as they were, too.
	page, _, err := other.ListConnections(ctx, tokenstore.Filter{Status: tokenstore.StatusExpired}, "", 10)
	if err != nil || len(page) != 1 || page[0].ID != expired.ID {
		t.Errorf("the list of EXPIRED: %v, %v", page, err)
	}
	page, _, err = other.ListConnections(ctx, tokenstore.Filter{Status: tokenstore.StatusActive}, "", 10)
	if err != nil || len(page) != 4 {
		t.Errorf("the list of ACTIVE has %d, %v; want 4", len(page), err)
	}
	if n := logs.FilterMessage("the database had forgotten a write, put back").Len(); n != 4 {
		t.Errorf("%d of 4 were logged as put back: %v", n, logs.All())
	}
}
