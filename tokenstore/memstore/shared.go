package memstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// Shared is a Store that several who know nothing of each other work on, as
// processes do on a database.
type Shared struct{ *Store }

var _ tokenstore.Shared = Shared{}

type lease struct {
	owner string
	until time.Time
}

// TakeLease implements tokenstore.Shared.
func (s Shared) TakeLease(ctx context.Context, name, owner string, life time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return err
	}
	now := time.Now()
	if l := s.leases[name]; l.owner != owner && now.Before(l.until) {
		return fmt.Errorf("memstore: %w", tokenstore.ErrLeased)
	}
	s.leases[name] = lease{owner, now.Add(life)}
	return nil
}

// RenewLease implements tokenstore.Shared.
func (s Shared) RenewLease(ctx context.Context, name, owner string, life time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return err
	}
	now := time.Now()
	l := s.leases[name]
	if l.owner != owner || !now.Before(l.until) {
		return fmt.Errorf("memstore: %w", tokenstore.ErrLeaseLost)
	}
	if end := now.Add(life); end.After(l.until) {
		l.until = end
	}
	s.leases[name] = l
	return nil
}

// DropLease implements tokenstore.Shared.
func (s Shared) DropLease(ctx context.Context, name, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(ctx); err != nil {
		return err
	}
	if s.leases[name].owner == owner {
		delete(s.leases, name)
	}
	return nil
}

// Changes implements tokenstore.Shared.
func (s Shared) Changes(ctx context.Context, since tokenstore.ChangeMark) ([]tokenstore.Change, tokenstore.ChangeMark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, since, err
	}
	end := tokenstore.ChangeMark(strconv.Itoa(len(s.changes)))
	if since == "" {
		return nil, end, nil
	}
	n, err := strconv.Atoi(string(since))
	if err != nil || n > len(s.changes) {
		return nil, since, fmt.Errorf("memstore: %w: it is no mark", tokenstore.ErrBadCursor)
	}
	return append([]tokenstore.Change(nil), s.changes[n:]...), end, nil
}

// Revisions implements tokenstore.Shared.
func (s Shared) Revisions(ctx context.Context, ids []string) (map[string]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	revisions := map[string]uint64{}
	for _, id := range ids {
		if c, ok := s.connections[id]; ok {
			revisions[id] = c.Revision
		}
	}
	return revisions, nil
}

// changed notes what has become of old, which is nil if it is new; now is nil if
// it is deleted.
func (s *Store) changed(old, now *tokenstore.Connection) {
	ch := tokenstore.Change{Relisted: old == nil}
	if now == nil {
		ch.ID, ch.Deleted, ch.Relisted = old.ID, true, true
	} else {
		ch.ID, ch.Revision = now.ID, now.Revision
		ch.Relisted = old == nil || old.Status != now.Status || old.Disabled != now.Disabled
	}
	s.changes = append(s.changes, ch)
}
