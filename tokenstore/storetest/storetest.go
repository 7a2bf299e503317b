// Package storetest is what tokenstore.Store means, as tests: every engine
// passes Run.
package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Run tests the contract. open returns an empty store, which Run closes.
func Run(t *testing.T, open func(t *testing.T) tokenstore.Store) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(c contract)
	}{
		{"create", contract.create},
		{"unknown connection", contract.unknownConnection},
		{"every field is kept", contract.everyField},
		{"update", contract.update},
		{"refused update", contract.refusedUpdate},
		{"unchanged", contract.unchanged},
		{"records are copies", contract.copies},
		{"concurrent updates", contract.concurrentUpdates},
		{"concurrent creates", contract.concurrentCreates},
		{"delete", contract.deletion},
		{"list filters", contract.listFilters},
		{"list follows updates", contract.listFollows},
		{"list pages", contract.listPages},
		{"list while connections come and go", contract.listWhileChanging},
		{"list misuse", contract.listMisuse},
		{"list by labels", contract.listLabels},
		{"labels follow updates", contract.labelsFollow},
		{"due", contract.due},
		{"flow", contract.flow},
		{"every field of a flow is kept", contract.everyFlowField},
		{"flow update", contract.flowUpdate},
		{"flow is taken once", contract.takenOnce},
		{"flows are forgotten", contract.forgottenFlows},
		{"taken flows", contract.takenFlows},
		{"events are in order", contract.eventOrder},
		{"every field of an event is kept", contract.everyEventField},
		{"news of connections", contract.connectionNews},
		{"news of flows", contract.flowNews},
		{"no news of what was not changed", contract.noNews},
		{"events of a connection", contract.eventFilter},
		{"list of events misuse", contract.eventMisuse},
		{"concurrent events", contract.concurrentEvents},
		{"note", contract.note},
		{"every field of a note is kept", contract.everyNoteField},
		{"long note", contract.longNote},
		{"list of notes", contract.listNotes},
		{"notes are forgotten", contract.forgottenNotes},
		{"concurrent notes", contract.concurrentNotes},
		{"ended context", contract.endedContext},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close = %v", err)
				}
			})
			test.run(contract{t, s})
		})
	}
}

// contract is one test of the suite with a store of its own.
type contract struct {
	*testing.T
	s tokenstore.Store
}

// created stores a connection after edit, which may be nil, has had its say.
func (c contract) created(edit func(*tokenstore.Connection)) tokenstore.Connection {
	c.Helper()
	conn := tokenstore.Connection{
		ID: tokenstore.NewID(), Integration: "github", Provider: "github", UserID: "user-1",
		Status: tokenstore.StatusActive, AuthScheme: tokenstore.AuthOAuth2,
	}
	if edit != nil {
		edit(&conn)
	}
	conn, err := c.s.CreateConnection(c.Context(), conn)
	if err != nil {
		c.Fatalf("CreateConnection = %v", err)
	}
	return conn
}

// createdFlow stores an open flow after edit, which may be nil, has had its say.
func (c contract) createdFlow(id string, edit func(*tokenstore.Flow)) tokenstore.Flow {
	c.Helper()
	now := time.Now().UTC()
	f := tokenstore.Flow{
		ID: id, Integration: "github", UserID: "user-1", ConnectionID: tokenstore.NewID(),
		Stage: tokenstore.FlowOpen, CreatedAt: now, ExpiresAt: now.Add(tokenstore.FlowLife),
	}
	if edit != nil {
		edit(&f)
	}
	if err := c.s.CreateFlow(c.Context(), f); err != nil {
		c.Fatalf("CreateFlow = %v", err)
	}
	return f
}

func (c contract) want(what string, got, want error) {
	c.Helper()
	if !errors.Is(got, want) {
		c.Errorf("%s = %v, want %v", what, got, want)
	}
}

func (c contract) same(what string, got, want any) {
	c.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		c.Errorf("%s is not as expected (-want +got):\n%s", what, diff)
	}
}

// stored checks that the store has exactly want.
func (c contract) stored(want tokenstore.Connection) {
	c.Helper()
	got, err := c.s.Connection(c.Context(), want.ID)
	if err != nil {
		c.Errorf("Connection = %v", err)
		return
	}
	c.same("the stored connection", got, want)
}

func (c contract) endedContext() {
	conn, f := c.created(nil), c.createdFlow("flow", nil)
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	ran := func() { c.Error("a change ran under an ended context") }

	_, err := c.s.CreateConnection(ctx, tokenstore.Connection{ID: tokenstore.NewID()})
	c.want("CreateConnection", err, context.Canceled)
	_, err = c.s.Connection(ctx, conn.ID)
	c.want("Connection", err, context.Canceled)
	_, err = c.s.UpdateConnection(ctx, conn.ID, func(*tokenstore.Connection) error { ran(); return nil })
	c.want("UpdateConnection", err, context.Canceled)
	_, err = c.s.DeleteConnection(ctx, conn.ID)
	c.want("DeleteConnection", err, context.Canceled)
	_, _, err = c.s.ListConnections(ctx, tokenstore.Filter{}, "", 1)
	c.want("ListConnections", err, context.Canceled)
	_, err = c.s.DueConnections(ctx, time.Now())
	c.want("DueConnections", err, context.Canceled)
	c.want("CreateFlow", c.s.CreateFlow(ctx, f), context.Canceled)
	_, err = c.s.Flow(ctx, f.ID)
	c.want("Flow", err, context.Canceled)
	_, err = c.s.UpdateFlow(ctx, f.ID, func(*tokenstore.Flow) error { ran(); return nil })
	c.want("UpdateFlow", err, context.Canceled)
	_, err = c.s.TakenFlows(ctx)
	c.want("TakenFlows", err, context.Canceled)
	c.want("AppendEvents", c.s.AppendEvents(ctx, tokenstore.Event{}), context.Canceled)
	c.want("AppendEvents of none", c.s.AppendEvents(ctx), context.Canceled)
	_, _, err = c.s.ListEvents(ctx, tokenstore.EventFilter{}, "", 1)
	c.want("ListEvents", err, context.Canceled)
	_, err = c.s.NewestConnection(ctx, tokenstore.Filter{})
	c.want("NewestConnection", err, context.Canceled)
	_, err = c.s.Note(ctx, "note")
	c.want("Note", err, context.Canceled)
	_, err = c.s.UpdateNote(ctx, "note", func(*tokenstore.Note) error { ran(); return nil })
	c.want("UpdateNote", err, context.Canceled)
	c.want("DeleteNote", c.s.DeleteNote(ctx, "note"), context.Canceled)
	_, err = c.s.ListNotes(ctx, "")
	c.want("ListNotes", err, context.Canceled)
	c.same("the events", c.events(tokenstore.EventFilter{}), []tokenstore.Event(nil))
	c.stored(conn)
}
