package tokenstore

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of leases.
var (
	// ErrLeased is returned to one who wants a lease that another holds.
	ErrLeased = errors.New("lease is held by another")
	// ErrLeaseLost is returned to a holder whose lease has ended, and may have
	// been taken by another.
	ErrLeaseLost = errors.New("lease was lost")
)

// Shared is a Store that several processes work on at the same time. What may
// be done by one of them alone is done under a lease; what the others write is
// seen in Changes.
//
// A lease keeps others from beginning what its holder is doing. It is no proof:
// a process that stood still goes on after its lease has ended. Whatever must not
// be overwritten is therefore written on a condition of the record itself (an
// update's change looks at what is there), and a request that must be made once
// has its deadline before the lease's end, both counted from before the lease was
// taken.
type Shared interface {
	Store
	// TakeLease takes the lease with this name for life, by the store's clock. It
	// returns ErrLeased while another holds it. A name has 1 to 512 bytes and
	// stands in the store in clear text. Owner tells holders from one another:
	// one who holds the lease already takes it anew.
	TakeLease(ctx context.Context, name, owner string, life time.Duration) error
	// RenewLease has the lease end in life from now, but no earlier than it would
	// have. It returns ErrLeaseLost if owner does not hold it any more.
	RenewLease(ctx context.Context, name, owner string, life time.Duration) error
	// DropLease gives the lease back. It is no error if owner does not hold it.
	DropLease(ctx context.Context, name, owner string) error

	// Changes returns which connections were written since mark was given out, by
	// whomever, and the mark for the next look. The zero mark is now: it returns
	// no change. A change may be told more than once, and is told to everybody
	// who looks at least once a second at most one second after the write has
	// returned.
	Changes(ctx context.Context, since ChangeMark) ([]Change, ChangeMark, error)
	// Revisions returns the Revision of those of the connections that are there.
	// It looks at no record, and is for at most 10,000 IDs.
	Revisions(ctx context.Context, ids []string) (map[string]uint64, error)
}

// ChangeMark is how far a reader of Changes has come. It is the store's own, and
// of no meaning to others.
type ChangeMark string

// Change is a connection that was written.
type Change struct {
	ID       string
	Revision uint64 // that it has now, unless Deleted
	Deleted  bool
	// Relisted says that it was made, or that its status, or whether it is
	// disabled, has changed: who looks for a user's connection may find another.
	Relisted bool
}

// The lives of a lease that Hold keeps.
const (
	holdLife  = 15 * time.Second
	holdEvery = 5 * time.Second
)

// Hold is a lease that is renewed until it is released. The nil Hold is that of
// a store which no other process has: it is never lost.
type Hold struct {
	store Shared
	name  string
	owner string
	until atomic.Pointer[time.Time] // when it ends if it is not renewed, by our own clock
	lost  chan struct{}
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// TakeHold takes the lease with this name of a store that is Shared, and nothing
// of another one: it then returns nil. The lease lasts for at least life from now,
// and is renewed as long as it is not released: when the process ends without
// that, it is free 15 seconds after the last renewal, or when life has passed,
// whichever is later. ctx is for taking it alone.
//
// It returns ErrLeased while another holds it, also another Hold of this process.
func TakeHold(ctx context.Context, s Store, name string, life time.Duration) (*Hold, error) {
	shared, ok := s.(Shared)
	if !ok {
		return nil, nil //nolint:nilnil // the nil Hold is one that can't be lost
	}
	owner, before := rand.Text(), time.Now()
	if err := shared.TakeLease(ctx, name, owner, max(life, holdLife)); err != nil {
		return nil, err
	}
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	h := &Hold{store: shared, name: name, owner: owner, lost: make(chan struct{}), stop: stop}
	h.until.Store(new(before.Add(max(life, holdLife))))
	h.done.Go(func() { h.keep(keep) })
	return h, nil
}

// keep renews the lease. A store that does not answer is asked again: the lease
// is lost only if the store says so, or has said nothing for as long as it lasts.
func (h *Hold) keep(ctx context.Context) {
	tick := time.NewTicker(holdEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := time.Now()
		try, cancel := context.WithTimeout(ctx, holdEvery)
		err := h.store.RenewLease(try, h.name, h.owner, holdLife)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if until := before.Add(holdLife); until.After(*h.until.Load()) {
				h.until.Store(&until)
			}
		case errors.Is(err, ErrLeaseLost) || !h.Held():
			close(h.lost)
			return
		}
	}
}

// Lost returns what is closed when the lease is held no more though it was not
// released.
func (h *Hold) Lost() <-chan struct{} {
	if h == nil {
		return nil
	}
	return h.lost
}

// Held reports whether the lease was not lost, as far as this process can know
// without asking: one that stood still and goes on learns by it that the lease
// has ended, before it is told by Lost.
func (h *Hold) Held() bool {
	if h == nil {
		return true
	}
	select {
	case <-h.lost:
		return false
	default:
		return time.Now().Before(*h.until.Load())
	}
}

// Release gives the lease back. It may be called once.
//
//nolint:contextcheck // it is given back whoever has lost patience
func (h *Hold) Release() {
	if h == nil {
		return
	}
	h.stop()
	h.done.Wait()
	// What can't be given back ends by itself.
	ctx, cancel := context.WithTimeout(context.Background(), holdEvery)
	defer cancel()
	_ = h.store.DropLease(ctx, h.name, h.owner)
}
