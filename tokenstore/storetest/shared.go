package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// RunShared tests what tokenstore.Shared adds to the contract. open returns an
// empty store, which RunShared closes. Leases last for real time here.
func RunShared(t *testing.T, open func(t *testing.T) tokenstore.Shared) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(c contract, s tokenstore.Shared)
	}{
		{"lease", contract.lease},
		{"lease ends by itself", contract.leaseEnds},
		{"lease is taken once", contract.leaseOnce},
		{"hold", contract.hold},
		{"changes", contract.changes},
		{"revisions", contract.revisions},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close = %v", err)
				}
			})
			test.run(contract{t, s}, s)
		})
	}
}

func (c contract) lease(s tokenstore.Shared) {
	ctx := c.Context()
	c.want("TakeLease", s.TakeLease(ctx, "refresh/1", "a", time.Hour), nil)
	c.want("TakeLease by another", s.TakeLease(ctx, "refresh/1", "b", time.Hour), tokenstore.ErrLeased)
	c.want("TakeLease of another name", s.TakeLease(ctx, "refresh/2", "b", time.Hour), nil)
	c.want("TakeLease by its holder", s.TakeLease(ctx, "refresh/1", "a", time.Hour), nil)
	c.want("RenewLease by another", s.RenewLease(ctx, "refresh/1", "b", time.Hour), tokenstore.ErrLeaseLost)
	c.want("RenewLease", s.RenewLease(ctx, "refresh/1", "a", time.Hour), nil)
	c.want("DropLease by another", s.DropLease(ctx, "refresh/1", "b"), nil)
	c.want("TakeLease after another's DropLease", s.TakeLease(ctx, "refresh/1", "b", time.Hour), tokenstore.ErrLeased)
	c.want("DropLease", s.DropLease(ctx, "refresh/1", "a"), nil)
	c.want("RenewLease after DropLease", s.RenewLease(ctx, "refresh/1", "a", time.Hour), tokenstore.ErrLeaseLost)
	c.want("TakeLease after DropLease", s.TakeLease(ctx, "refresh/1", "b", time.Hour), nil)
}

func (c contract) leaseEnds(s tokenstore.Shared) {
	ctx := c.Context()
	c.want("TakeLease", s.TakeLease(ctx, "l", "a", 50*time.Millisecond), nil)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := s.TakeLease(ctx, "l", "b", time.Hour)
		if err == nil {
			break
		}
		if !errors.Is(err, tokenstore.ErrLeased) || time.Now().After(deadline) {
			c.Fatalf("TakeLease of one that has ended = %v", err)
		}
	}
	c.want("RenewLease of one that has ended", s.RenewLease(ctx, "l", "a", time.Hour), tokenstore.ErrLeaseLost)
	// A renewal never shortens.
	c.want("RenewLease for less", s.RenewLease(ctx, "l", "b", time.Nanosecond), nil)
	c.want("TakeLease", s.TakeLease(ctx, "l", "a", time.Hour), tokenstore.ErrLeased)
}

func (c contract) leaseOnce(s tokenstore.Shared) {
	var all sync.WaitGroup
	var taken atomic.Int32
	for i := range 16 {
		all.Go(func() {
			err := s.TakeLease(c.Context(), "l", fmt.Sprint(i), time.Hour)
			switch {
			case err == nil:
				taken.Add(1)
			case !errors.Is(err, tokenstore.ErrLeased):
				c.Errorf("TakeLease = %v", err)
			}
		})
	}
	all.Wait()
	if n := taken.Load(); n != 1 {
		c.Errorf("%d of 16 took one lease", n)
	}
}

func (c contract) hold(s tokenstore.Shared) {
	h, err := tokenstore.TakeHold(c.Context(), s, "l", time.Minute)
	if err != nil {
		c.Fatalf("TakeHold = %v", err)
	}
	_, err = tokenstore.TakeHold(c.Context(), s, "l", time.Minute)
	c.want("TakeHold twice", err, tokenstore.ErrLeased)
	select {
	case <-h.Lost():
		c.Error("a hold was lost")
	default:
	}
	h.Release()
	if h, err = tokenstore.TakeHold(c.Context(), s, "l", time.Minute); err != nil {
		c.Fatalf("TakeHold after Release = %v", err)
	}
	h.Release()
}

// seen looks until the changes have what is wanted of an ID, and returns it.
func (c contract) seen(s tokenstore.Shared, mark *tokenstore.ChangeMark, id string, wanted func(tokenstore.Change) bool) {
	c.Helper()
	for deadline := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		changes, next, err := s.Changes(c.Context(), *mark)
		if err != nil {
			c.Fatalf("Changes = %v", err)
		}
		*mark = next
		for _, ch := range changes {
			if ch.ID == id && wanted(ch) {
				return
			}
		}
		if time.Now().After(deadline) {
			c.Errorf("a change was not told within a second: %v", changes)
			return
		}
	}
}

func (c contract) changes(s tokenstore.Shared) {
	before := c.created(nil)
	changes, mark, err := s.Changes(c.Context(), "")
	if err != nil || len(changes) > 0 {
		c.Fatalf("Changes from now on = %v, %v; want none", changes, err)
	}
	conn := c.created(nil)
	c.seen(s, &mark, conn.ID, func(ch tokenstore.Change) bool { return ch.Revision == 1 && ch.Relisted && !ch.Deleted })
	for _, id := range []string{conn.ID, before.ID} {
		_, err = s.UpdateConnection(c.Context(), id, func(got *tokenstore.Connection) error { got.Name = "new"; return nil })
		c.want("UpdateConnection", err, nil)
		c.seen(s, &mark, id, func(ch tokenstore.Change) bool { return ch.Revision == 2 && !ch.Deleted })
	}
	_, err = s.UpdateConnection(c.Context(), conn.ID, func(got *tokenstore.Connection) error { got.Disabled = true; return nil })
	c.want("UpdateConnection", err, nil)
	c.seen(s, &mark, conn.ID, func(ch tokenstore.Change) bool { return ch.Revision == 3 && ch.Relisted })
	_, err = s.DeleteConnection(c.Context(), conn.ID)
	c.want("DeleteConnection", err, nil)
	c.seen(s, &mark, conn.ID, func(ch tokenstore.Change) bool { return ch.Deleted })
	_, _, err = s.Changes(c.Context(), "no mark at all")
	c.want("Changes after what is no mark", err, tokenstore.ErrBadCursor)
}

func (c contract) revisions(s tokenstore.Shared) {
	one, two := c.created(nil), c.created(nil)
	_, err := s.UpdateConnection(c.Context(), two.ID, func(got *tokenstore.Connection) error { got.Name = "new"; return nil })
	c.want("UpdateConnection", err, nil)
	got, err := s.Revisions(c.Context(), []string{one.ID, two.ID, tokenstore.NewID(), ""})
	c.want("Revisions", err, nil)
	c.same("the revisions", got, map[string]uint64{one.ID: 1, two.ID: 2})
	got, err = s.Revisions(c.Context(), nil)
	if err != nil || len(got) > 0 {
		c.Errorf("Revisions of nothing = %v, %v", got, err)
	}
}
