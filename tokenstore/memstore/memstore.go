// Package memstore is a tokenstore.Store in memory, for tests. It starts no
// goroutine, so that it works under testing/synctest. Shared makes it a
// tokenstore.Shared, as if several processes had it.
package memstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Store implements tokenstore.Store. Nothing in it outlives the process.
type Store struct {
	mu          sync.Mutex                       // guards all below
	connections map[string]tokenstore.Connection // :: ID → connection
	deleted     map[string]bool                  // :: ID of a connection that was deleted → true
	flows       map[string]tokenstore.Flow       // :: ID → flow
	events      []tokenstore.Event               // by Seq, which begins with 1
	notes       map[string]tokenstore.Note       // :: ID → note
	leases      map[string]lease                 // :: name → who holds it
	changes     []tokenstore.Change              // all there ever were
	failWrites  error
}

var _ tokenstore.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{
		connections: make(map[string]tokenstore.Connection),
		deleted:     make(map[string]bool),
		flows:       make(map[string]tokenstore.Flow),
		notes:       make(map[string]tokenstore.Note),
		leases:      make(map[string]lease),
	}
}

// FailWrites makes every write from now on change nothing and return err, as a
// store with a full disk does. Nil ends that.
func (s *Store) FailWrites(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failWrites = err
}

// Close implements tokenstore.Store.
func (s *Store) Close() error { return nil }

// CreateConnection implements tokenstore.Store.
func (s *Store) CreateConnection(ctx context.Context, c tokenstore.Connection) (tokenstore.Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return tokenstore.Connection{}, err
	}
	if _, taken := s.connections[c.ID]; taken || s.deleted[c.ID] {
		return tokenstore.Connection{}, fmt.Errorf("memstore: connection %q: %w", c.ID, tokenstore.ErrExists)
	}
	c = c.Clone()
	now := time.Now().UTC()
	if c.CreatedAt.IsZero() {
		c.CreatedAt = now
	}
	c.UpdatedAt, c.Revision = now, 1
	s.add(c.TakeNews())
	s.connections[c.ID] = c
	s.changed(nil, &c)
	return c.Clone(), nil
}

// Connection implements tokenstore.Store.
func (s *Store) Connection(ctx context.Context, id string) (tokenstore.Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return tokenstore.Connection{}, err
	}
	return s.connection(id)
}

func (s *Store) connection(id string) (tokenstore.Connection, error) {
	c, ok := s.connections[id]
	if !ok {
		return tokenstore.Connection{}, fmt.Errorf("memstore: connection: %w", tokenstore.ErrNotFound)
	}
	return c.Clone(), nil
}

// UpdateConnection implements tokenstore.Store.
func (s *Store) UpdateConnection(
	ctx context.Context, id string, change func(*tokenstore.Connection) error,
) (tokenstore.Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return tokenstore.Connection{}, err
	}
	c, err := s.connection(id)
	if err != nil {
		return tokenstore.Connection{}, err
	}
	old := c.Clone()
	err = change(&c)
	if errors.Is(err, tokenstore.ErrUnchanged) {
		return s.connection(id)
	}
	if err != nil {
		return tokenstore.Connection{}, err
	}
	if c.ID != id {
		return tokenstore.Connection{}, errors.New("memstore: a connection's ID can't be changed")
	}
	c.UpdatedAt, c.Revision = time.Now().UTC(), old.Revision+1
	s.add(c.TakeNews())
	s.connections[id] = c.Clone() // change may have kept its pointer
	s.changed(&old, &c)
	return c, nil
}

// DeleteConnection implements tokenstore.Store.
func (s *Store) DeleteConnection(
	ctx context.Context, id string, news ...tokenstore.Event,
) (tokenstore.Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return tokenstore.Connection{}, err
	}
	c, err := s.connection(id)
	if err != nil {
		return tokenstore.Connection{}, err
	}
	delete(s.connections, id)
	s.deleted[id] = true
	s.changed(&c, nil)
	c.News = news
	s.add(c.TakeNews())
	return c, nil
}

// ListConnections implements tokenstore.Store, but looks at every connection.
func (s *Store) ListConnections(
	ctx context.Context, f tokenstore.Filter, cursor string, limit int,
) (page []tokenstore.Connection, next string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if limit < 1 {
		return nil, "", errors.New("memstore: limit of a list is less than 1")
	}
	var after tokenstore.Position
	if cursor != "" {
		if after, err = tokenstore.ParseCursor(cursor); err != nil {
			return nil, "", err
		}
	}
	for _, c := range s.connections {
		if f.Matches(&c) && (cursor == "" || tokenstore.PositionOf(&c).Compare(after) > 0) {
			page = append(page, c)
		}
	}
	slices.SortFunc(page, func(a, b tokenstore.Connection) int {
		return tokenstore.PositionOf(&a).Compare(tokenstore.PositionOf(&b))
	})
	if len(page) > limit {
		page = page[:limit]
		next = tokenstore.PositionOf(&page[limit-1]).Cursor()
	}
	for i := range page {
		page[i] = page[i].Clone()
	}
	return page, next, nil
}

// DueConnections implements tokenstore.Store.
func (s *Store) DueConnections(ctx context.Context, t time.Time) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var due []tokenstore.Position
	for _, c := range s.connections {
		if at := c.Due(); !at.IsZero() && !at.After(t) {
			due = append(due, tokenstore.Position{CreatedAt: at, ID: c.ID})
		}
	}
	slices.SortFunc(due, tokenstore.Position.Compare)
	var ids []string
	for _, d := range due {
		ids = append(ids, d.ID)
	}
	return ids, nil
}

// CreateFlow implements tokenstore.Store.
func (s *Store) CreateFlow(ctx context.Context, f tokenstore.Flow) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return err
	}
	if _, err := s.flow(f.ID); err == nil {
		return fmt.Errorf("memstore: flow: %w", tokenstore.ErrExists)
	}
	s.add(f.News)
	f.News = nil
	s.flows[f.ID] = f.Clone()
	return nil
}

// Flow implements tokenstore.Store.
func (s *Store) Flow(ctx context.Context, id string) (tokenstore.Flow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return tokenstore.Flow{}, err
	}
	return s.flow(id)
}

// flow forgets the flow if its time has come.
func (s *Store) flow(id string) (tokenstore.Flow, error) {
	f, ok := s.flows[id]
	if ok && !time.Now().Before(f.KeepUntil()) {
		delete(s.flows, id)
		ok = false
	}
	if !ok {
		return tokenstore.Flow{}, fmt.Errorf("memstore: flow: %w", tokenstore.ErrNotFound)
	}
	return f.Clone(), nil
}

// UpdateFlow implements tokenstore.Store.
func (s *Store) UpdateFlow(
	ctx context.Context, id string, change func(*tokenstore.Flow) error,
) (tokenstore.Flow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return tokenstore.Flow{}, err
	}
	f, err := s.flow(id)
	if err != nil {
		return tokenstore.Flow{}, err
	}
	err = change(&f)
	if errors.Is(err, tokenstore.ErrUnchanged) {
		return s.flow(id)
	}
	if err != nil {
		return tokenstore.Flow{}, err
	}
	if f.ID != id {
		return tokenstore.Flow{}, errors.New("memstore: a flow's ID can't be changed")
	}
	s.add(f.News)
	f.News = nil
	s.flows[id] = f.Clone() // change may have kept its pointer
	return f, nil
}

// TakenFlows implements tokenstore.Store.
func (s *Store) TakenFlows(ctx context.Context) ([]tokenstore.Flow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var taken []tokenstore.Flow
	for id := range s.flows {
		if f, err := s.flow(id); err == nil && f.Stage == tokenstore.FlowTaken {
			taken = append(taken, f)
		}
	}
	return taken, nil
}

// AppendEvents implements tokenstore.Store.
func (s *Store) AppendEvents(ctx context.Context, events ...tokenstore.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return err
	}
	s.add(events)
	return nil
}

// ListEvents implements tokenstore.Store, but looks at every event.
func (s *Store) ListEvents(
	ctx context.Context, f tokenstore.EventFilter, cursor string, limit int,
) (page []tokenstore.Event, next string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if limit < 1 {
		return nil, "", errors.New("memstore: limit of a list is less than 1")
	}
	after, err := tokenstore.ParseEventCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	if after > uint64(len(s.events)) {
		return nil, "", fmt.Errorf("memstore: %w: it is beyond the newest event", tokenstore.ErrBadCursor)
	}
	oldest := len(s.events) - tokenstore.MaxEvents
	if f.NewestFirst {
		page, next = s.eventsBefore(f, oldest, after, limit)
		return page, next, nil
	}
	for i, e := range s.events {
		if len(page) == limit {
			break
		}
		if i >= oldest && e.Seq > after && (f.ConnectionID == "" || f.ConnectionID == e.ConnectionID) {
			page, cursor = append(page, e), tokenstore.EventCursor(e.Seq)
		}
	}
	return page, cursor, nil
}

func (s *Store) eventsBefore(f tokenstore.EventFilter, oldest int, before uint64, limit int) (page []tokenstore.Event, next string) {
	for i, e := range slices.Backward(s.events) {
		if i < oldest || before != 0 && e.Seq >= before || f.ConnectionID != "" && f.ConnectionID != e.ConnectionID {
			continue
		}
		if page = append(page, e); len(page) == limit {
			return page, tokenstore.EventCursor(e.Seq)
		}
	}
	return page, ""
}

func (s *Store) add(events []tokenstore.Event) {
	for _, e := range events {
		e.Seq = uint64(len(s.events) + 1)
		if e.At.IsZero() {
			e.At = time.Now().UTC()
		}
		s.events = append(s.events, e)
	}
}

func (s *Store) writable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.failWrites
}
