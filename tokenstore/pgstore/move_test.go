package pgstore_test

import (
	"context"
	"errors"
	"iter"
	"path"
	"strings"
	"testing"

	"github.com/lanyard-proxy/lanyard/internal/pgtest"
	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/pgstore"
	"github.com/lanyard-proxy/lanyard/tokenstore/storetest"
)

// fillAll makes one of everything, and some thousand connections.
func fillAll(t *testing.T, s tokenstore.Store) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	full := storetest.FullConnection()
	_, err := s.CreateConnection(t.Context(), full)
	must(err)
	for range 3 {
		_, err := s.UpdateConnection(t.Context(), full.ID, func(c *tokenstore.Connection) error {
			c.Token.Generation++
			c.Happened(tokenstore.Event{Type: tokenstore.EventRefreshed})
			return nil
		})
		must(err)
	}
	for i := range 1100 {
		c := tokenstore.Connection{ID: tokenstore.NewID(), Integration: "fake", UserID: "u", Status: tokenstore.StatusInitiated, Labels: map[string]string{"a": "b"}}
		if i%10 == 0 {
			c.Happened(tokenstore.Event{Type: tokenstore.EventBegun})
		}
		_, err := s.CreateConnection(t.Context(), c)
		must(err)
		if i == 5 {
			_, err := s.DeleteConnection(t.Context(), c.ID, tokenstore.Event{Type: tokenstore.EventDeleted})
			must(err)
		}
	}
	must(s.CreateFlow(t.Context(), storetest.FullFlow()))
	_, err = s.UpdateNote(t.Context(), "webhook/a", func(n *tokenstore.Note) error {
		n.Text = secret.New("position")
		return nil
	})
	must(err)
	must(s.AppendEvents(t.Context(), tokenstore.Event{Type: tokenstore.EventBackup}))
}

func TestMove(t *testing.T) {
	c, ks := pgtest.Shared(t), faultKeys(t)
	from := opened(t, c.Database(t), ks)
	fillAll(t, from)
	if err := errors.Join(from.BeginFreeze(t.Context(), "me"), from.Freeze(t.Context(), "me")); err != nil {
		t.Fatal(err)
	}
	dsn, cfg := secret.New(c.Database(t)), pgstore.Config{Codec: ks}
	var n tokenstore.Counts
	check := func(got iter.Seq2[tokenstore.Record, error]) error {
		n = tokenstore.Counts{}
		return tokenstore.CompareRecords(from.Records(t.Context()), got, n.Add)
	}
	for range 2 { // begun again after a kill
		if err := pgstore.Load(t.Context(), dsn, cfg, from.Records(t.Context()), check); err != nil {
			t.Fatal(err)
		}
		if n.Connections != 1100 || n.Deleted != 1 || n.Flows != 1 || n.Notes != 1 || n.Events < 113 {
			t.Errorf("moved %+v", n)
		}
		if _, err := pgstore.Open(t.Context(), dsn, cfg); !errors.Is(err, tokenstore.ErrLoading) {
			t.Errorf("Open before the end = %v, want ErrLoading", err)
		}
	}
	if err := pgstore.EndLoad(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	if err := pgstore.Load(t.Context(), dsn, cfg, from.Records(t.Context()), check); !errors.Is(err, tokenstore.ErrNotEmpty) {
		t.Errorf("Load over a store = %v, want ErrNotEmpty", err)
	}
	to, err := pgstore.Open(t.Context(), dsn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = to.Close() }()
	if err := check(to.Records(t.Context())); err != nil {
		t.Error(err)
	}
	// It goes on where the other ended.
	if err := to.AppendEvents(t.Context(), tokenstore.Event{Type: tokenstore.EventRekey}); err != nil {
		t.Fatal(err)
	}
	last, _, err := to.ListEvents(t.Context(), tokenstore.EventFilter{NewestFirst: true}, "", 1)
	if err != nil || len(last) != 1 || last[0].Seq != uint64(n.Events)+1 {
		t.Errorf("the next event: %+v, %v; want number %d", last, err, n.Events+1)
	}
	page, _, err := to.ListConnections(t.Context(), tokenstore.Filter{UserID: "u", Labels: map[string]string{"a": "b"}}, "", 2000)
	if err != nil || len(page) != 1099 {
		t.Errorf("%d are listed, %v; want 1,099", len(page), err)
	}
}

// TestLoadFails: after an error nothing is there.
func TestLoadFails(t *testing.T) {
	c, ks := pgtest.Shared(t), faultKeys(t)
	dsn, cfg := secret.New(c.Database(t)), pgstore.Config{Codec: ks}
	broken := errors.New("broken")
	full := storetest.FullConnection()
	records := func(yield func(tokenstore.Record, error) bool) {
		_ = yield(tokenstore.Record{Connection: &full}, nil)
	}
	check := func(iter.Seq2[tokenstore.Record, error]) error { return broken }
	if err := pgstore.Load(t.Context(), dsn, cfg, records, check); !errors.Is(err, broken) {
		t.Errorf("Load = %v, want what check returns", err)
	}
	s, err := pgstore.Open(t.Context(), dsn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for r, err := range s.Records(t.Context()) {
		t.Errorf("there is %+v, %v", r, err)
	}
}

// TestFreeze: no write of anybody passes, until it is thawed or given up.
func TestFreeze(t *testing.T) {
	c, ks := pgtest.Shared(t), faultKeys(t)
	dsn := c.Database(t)
	s, other := opened(t, dsn, ks), opened(t, dsn, ks)
	full := storetest.FullConnection()
	if _, err := s.CreateConnection(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	write := func() error {
		_, err := other.UpdateConnection(t.Context(), full.ID, func(c *tokenstore.Connection) error { c.Name += "x"; return nil })
		return err
	}
	moving := func(want bool) {
		t.Helper()
		if got, err := other.Moving(t.Context()); err != nil || got != want {
			t.Errorf("Moving = %v, %v; want %v", got, err, want)
		}
	}
	moving(false)
	if err := s.BeginFreeze(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	moving(true)
	if err := write(); err != nil {
		t.Errorf("what was under way can't be written: %v", err)
	}
	if err := s.Freeze(t.Context(), "another"); !errors.Is(err, tokenstore.ErrNotFrozen) {
		t.Errorf("Freeze by another = %v, want ErrNotFrozen", err)
	}
	if err := s.Freeze(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	_, created := other.CreateConnection(t.Context(), tokenstore.Connection{ID: tokenstore.NewID()})
	_, deleted := other.DeleteConnection(t.Context(), full.ID)
	_, noted := other.UpdateNote(t.Context(), "a", func(*tokenstore.Note) error { return nil })
	for what, err := range map[string]error{
		"update": write(), "create": created, "delete": deleted, "note": noted,
		"flow": other.CreateFlow(t.Context(), storetest.FullFlow()), "event": other.AppendEvents(t.Context(), tokenstore.Event{}),
	} {
		if !errors.Is(err, tokenstore.ErrReadOnly) {
			t.Errorf("%s = %v, want ErrReadOnly", what, err)
		}
	}
	if _, err := other.Connection(t.Context(), full.ID); err != nil {
		t.Errorf("reading: %v", err)
	}
	if err := s.Thaw(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	moving(false)
	if err := write(); err != nil {
		t.Error(err)
	}
	// Whoever froze it was killed.
	if err := errors.Join(s.BeginFreeze(t.Context(), "me"), s.Freeze(t.Context(), "me")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SQL("\\c "+strings.TrimSuffix(path.Base(dsn), "?sslmode=disable"), "update lanyard_move set until = now()"); err != nil {
		t.Fatal(err)
	}
	moving(false)
	if err := write(); err != nil {
		t.Error(err)
	}
	if err := s.Moved(t.Context(), "me", "elsewhere"); !errors.Is(err, tokenstore.ErrNotFrozen) {
		t.Errorf("Moved after that = %v, want ErrNotFrozen", err)
	}
}

// TestMoved: a store that is elsewhere does not open, until it is taken back.
func TestMoved(t *testing.T) {
	c, ks := pgtest.Shared(t), faultKeys(t)
	dsn := c.Database(t)
	s := opened(t, dsn, ks)
	ctx := context.Background()
	if err := errors.Join(s.BeginFreeze(ctx, "me"), s.Freeze(ctx, "me"), s.Moved(ctx, "me", "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if _, err := pgstore.Open(ctx, secret.New(dsn), pgstore.Config{Codec: ks}); !errors.Is(err, tokenstore.ErrMoved) {
		t.Errorf("Open = %v, want ErrMoved", err)
	}
	if err := s.BeginFreeze(ctx, "me"); !errors.Is(err, tokenstore.ErrMoved) {
		t.Errorf("BeginFreeze = %v, want ErrMoved", err)
	}
	if from, err := pgstore.Unmove(ctx, secret.New(dsn)); err != nil || from != "elsewhere" {
		t.Errorf("Unmove = %q, %v", from, err)
	}
	again := opened(t, dsn, ks)
	if _, err := again.CreateConnection(ctx, tokenstore.Connection{ID: tokenstore.NewID()}); err != nil {
		t.Error(err)
	}
}
