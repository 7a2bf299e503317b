// Package audit writes the audit log: who did what to which connection, and
// what was refused to whom. Changes of a record carry their events with them
// (tokenstore.Connection.Happened); this is the way in for everything else.
package audit

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/lanyard-proxy/lanyard/guard"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// The budget of refusals. Strangers can bring those about at will, and each
// line takes the place of the oldest in the log: all of them together take a
// week at the least to push out a log's 500,000.
const (
	senderBurst = 100             // lines at once for one address and type of event
	senderEvery = time.Second     // for one more
	allBurst    = 400             // lines at once for all together
	allEvery    = 5 * time.Second // for one more
	// maxSenders bounds how many are counted by themselves. Those beyond are
	// counted together.
	maxSenders = 32
	// countEvery is how late at most the log tells what was over the budget.
	countEvery = time.Minute
	// maxText bounds each text of a refusal, in bytes: more than any name has that
	// is taken anywhere, and nothing that fills a disk.
	maxText = 512
	// writeTime bounds one write, which goes on when its caller has hung up:
	// nobody gets out of the log by leaving early.
	writeTime = 5 * time.Second
	// usePatience is how long a call waits for the line about its token's use:
	// longer than a write takes where all is well.
	usePatience = 200 * time.Millisecond
)

// Store is where events go.
type Store interface {
	AppendEvents(ctx context.Context, events ...tokenstore.Event) error
}

// Log writes events into the store. Its methods are safe for concurrent use.
type Log struct {
	store  Store
	logger *zap.Logger
	stop   chan struct{}
	over   chan struct{} // closed when nothing is counted any more

	uses sync.WaitGroup // writes that their callers may not have waited for

	each *guard.Buckets // of lines, by sender
	all  *rate.Limiter  // of all senders together

	mu      sync.Mutex
	failing bool                        // guarded by mu; the last event could not be written
	rest    map[sender]tokenstore.Event // guarded by mu :: whose got no line → what those have in common
}

type sender struct {
	network string // empty for those that share
	what    tokenstore.EventType
}

func senderOf(e *tokenstore.Event) sender { return sender{guard.Network(e.Actor.From), e.Type} }

// New returns a Log. Close has to be called at its end, before the store's.
func New(store Store, logger *zap.Logger) *Log {
	l := &Log{
		store: store, logger: logger, stop: make(chan struct{}), over: make(chan struct{}),
		each: guard.NewBuckets(senderEvery, senderBurst), all: rate.NewLimiter(rate.Every(allEvery), allBurst),
		rest: map[sender]tokenstore.Event{},
	}
	go l.keepCounting()
	return l
}

// Close writes what was only counted so far, and waits for what Used has begun.
// Nothing may be called after it.
func (l *Log) Close() {
	close(l.stop)
	<-l.over
	l.uses.Wait()
}

// Record writes events of what was done. When it returns nil they are stored
// and synced. The error wraps tokenstore.ErrUnavailable or ErrFull.
func (l *Log) Record(ctx context.Context, events ...tokenstore.Event) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := l.store.AppendEvents(ctx, events...); err != nil {
		return fmt.Errorf("audit: writing events: %w", err)
	}
	return nil
}

// Used writes that a token is used. It waits for that, but a moment only: a token
// that is valid is used while the store is slow or out. Where it could not be
// written, lost is called, perhaps in another goroutine, and that is logged as
// with Refused.
func (l *Log) Used(ctx context.Context, e tokenstore.Event, lost func()) {
	written := make(chan struct{})
	l.uses.Go(func() {
		defer close(written)
		err := l.Record(ctx, e)
		if err != nil {
			lost()
		}
		l.note(err)
	})
	patience := time.NewTimer(usePatience)
	defer patience.Stop()
	select {
	case <-written:
	case <-patience.C:
	}
}

// Refused writes an event of what was refused, as Denied, before it returns. It
// is for what strangers can bring about at will, so there is a budget: a line
// each up to 100 at once and then one a second, for each address and type, and
// less where there are many of those. What is beyond is counted, and told within
// a minute by one line with Count and what those events have in common. What a
// call costs depends on that budget alone, never on what it tells, so that
// nobody can learn that from the time it takes. A store that can't write changes
// nothing for the caller: it is logged once, and the event is counted, too.
func (l *Log) Refused(ctx context.Context, e tokenstore.Event) {
	e.Denied = true
	for _, text := range texts(&e) {
		if len(*text) > maxText {
			*text = strings.ToValidUTF8((*text)[:maxText], "")
		}
	}
	if !l.hasLine(e) {
		return
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	l.settle([]tokenstore.Event{e}, l.store.AppendEvents(ctx, e))
}

// hasLine reports whether there is a line left for e, and counts it if not.
func (l *Log) hasLine(e tokenstore.Event) bool {
	who := senderOf(&e)
	if l.each.Take(string(who.what)+" "+who.network) == 0 && l.all.Allow() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(e)
	return false
}

// count adds e to what got no line. l.mu is held.
func (l *Log) count(e tokenstore.Event) {
	who := senderOf(&e)
	sum, ok := l.rest[who]
	if !ok && len(l.rest) >= maxSenders {
		who.network = ""
		sum, ok = l.rest[who]
	}
	n := sum.Count + max(e.Count, 1)
	if !ok {
		sum = e
		sum.At = time.Time{}
	}
	one := texts(&e)
	for i, all := range texts(&sum) {
		if *all != *one[i] {
			*all = ""
		}
	}
	sum.Count = n
	l.rest[who] = sum
}

// texts are the members of an event that strangers may have a hand in.
func texts(e *tokenstore.Event) [7]*string {
	return [7]*string{
		&e.ConnectionID, &e.Integration, &e.UserID, &e.Reason, &e.Actor.Kind, &e.Actor.Name, &e.Actor.From,
	}
}

// settle counts refusals that could not be written.
func (l *Log) settle(events []tokenstore.Event, err error) {
	l.note(err)
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.count(e)
	}
}

// note logs when the store begins to refuse events, and when that is over: not
// each event, since every call may bring one.
func (l *Log) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch failed := err != nil; {
	case failed && !l.failing:
		l.logger.Error("audit events not written", zap.Error(err))
	case !failed && l.failing:
		l.logger.Info("audit events are written again")
	}
	l.failing = err != nil
}

// keepCounting writes the counts from time to time, and at the end.
func (l *Log) keepCounting() {
	defer close(l.over)
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.writeCounts()
		case <-l.stop:
			l.writeCounts()
			return
		}
	}
}

// writeCounts writes what was counted.
func (l *Log) writeCounts() {
	l.mu.Lock()
	events := slices.Collect(maps.Values(l.rest))
	clear(l.rest)
	l.mu.Unlock()
	if len(events) == 0 {
		return
	}
	slices.SortFunc(events, func(a, b tokenstore.Event) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Actor.From, b.Actor.From))
	})
	ctx, cancel := detached(context.Background())
	defer cancel()
	// They are few (maxSenders), so that a store writes all or none of them.
	l.settle(events, l.store.AppendEvents(ctx, events...))
}

func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), writeTime)
}
