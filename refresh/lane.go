package refresh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// errEndpointDown is the cause of a renewal that was not tried, since the token
// endpoint has refused or failed others.
var errEndpointDown = errors.New("not tried while the token endpoint is failing")

// errBusy puts off a renewal that nobody waits for.
var errBusy = errors.New("enough renewals are waiting")

const (
	// downAfter is how many different connections have to fail, with none in
	// between that doesn't, until the endpoint is taken to be down. One
	// connection's trouble is its own.
	downAfter = 3
	// maxDown is the longest wait before the endpoint is tried again: it is back
	// in use within a minute. A longer Retry-After holds for the connection that
	// got it, and here for maxAsked, since it may be about that one alone.
	maxDown  = 30 * time.Second
	maxAsked = time.Minute
	// othersFirst is how long connections that failed leave the next try to
	// those that did not.
	othersFirst = 3 * time.Second
	// aheadWaiting is how many renewals may queue that a sweep has begun, which
	// is about what the default pace takes in between two; as many again may
	// that requests and the keeper begin, with nobody waiting.
	aheadWaiting = 128
	// aheadTurn gives every so many turns to those that nobody waits for.
	aheadTurn = 4
)

// lane is the way to the token endpoint of one integration. It keeps to the
// provider's pace, and it is a circuit breaker: while the endpoint is down, one
// renewal at a time finds out whether it still is, and the others are told at
// once.
type lane struct {
	integration string
	logger      *zap.Logger

	mu          sync.Mutex // guards all below
	provider    Provider   // whose endpoint it is; another one begins anew
	concurrency int
	interval    time.Duration
	underway    int
	turns       int       // given, ever
	next        time.Time // nobody begins before
	waking      bool      // a timer will call admit
	urgent      []*turn   // those that somebody waits for, in order
	ahead       []*turn   // the others, in order

	// epoch counts what makes the failures of requests that began before say
	// nothing new: a success, a failure that counted, another provider.
	epoch   int
	worked  bool            // it has, with this provider
	failed  map[string]bool // connections that failed since one that did not
	down    bool
	probe   *turn     // the one under way to find out, if any
	tries   int       // in a row that found it down
	retryAt time.Time // while down: the next try
	cause   error     // while down: why
	closed  bool      // nobody begins any more
}

// turn is one renewal on its way through a lane. A nil one is of a renewal that
// needs no provider.
type turn struct {
	lane  *lane
	id    string     // the connection's
	begin chan error // buffered; gets nil, or why not
	// Guarded by lane.mu.
	admitted bool // it takes one of the places under way
	epoch    int  // when it was admitted
}

// lane returns the lane of an integration whose provider is p now. r.mu is held.
func (r *Refresher) lane(integration string, p Provider) *lane {
	l := r.lanes[integration]
	if l == nil {
		l = &lane{integration: integration, logger: r.cfg.Logger, failed: map[string]bool{}}
		r.lanes[integration] = l
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !sameProvider(l.provider, p) { // the configuration has changed: whatever was wrong may be right now
		l.provider, l.worked, l.next = p, false, time.Time{}
		l.concurrency, l.interval = p.Pace()
		l.epoch++
		l.up()
		l.admit()
	}
	return l
}

// queue puts a renewal in, or returns why it should not even begin. Every turn
// needs an end.
func (l *lane) queue(id string, why reason) (*turn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &turn{lane: l, id: id, begin: make(chan error, 1)}
	if err := l.enter(t, why); err != nil {
		return nil, err
	}
	return t, nil
}

// enter puts a turn in. l.mu is held.
func (l *lane) enter(t *turn, why reason) error {
	if l.closed {
		return errClosing
	}
	now := wallNow()
	if l.down && why != askedRenewal && (l.probe != nil || now.Before(l.retryAt) || l.failedOf(t.id, now)) {
		return l.downError(now)
	}
	if why.waitedFor() {
		l.urgent = append(l.urgent, t)
	} else {
		if len(l.ahead) >= aheadWaiting && (why == sweepRenewal || len(l.ahead) >= 2*aheadWaiting) {
			return errBusy
		}
		l.ahead = append(l.ahead, t)
	}
	l.admit()
	return nil
}

// failedOf reports whether a connection is among those that found the endpoint
// down, and others go first. l.mu is held.
func (l *lane) failedOf(id string, now time.Time) bool {
	return l.failed[id] && now.Before(l.retryAt.Add(othersFirst))
}

func (l *lane) downError(now time.Time) error {
	return unavailable(l.retryAt.Sub(now), fmt.Errorf("%w: %w", errEndpointDown, l.cause))
}

// hurry moves a turn to those that somebody waits for.
func (t *turn) hurry() {
	if t == nil {
		return
	}
	l := t.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.ahead, t); i >= 0 {
		l.ahead = slices.Delete(l.ahead, i, i+1)
		l.urgent = append(l.urgent, t)
	}
}

// wait returns nil when the renewal may begin, or why it may not.
func (t *turn) wait(ctx context.Context) error {
	if t == nil {
		return nil
	}
	select {
	case err := <-t.begin:
		return err
	case <-ctx.Done():
		return fmt.Errorf("refresh: waiting for the provider's pace: %w", ctx.Err())
	}
}

// resume puts a turn back in that has ended, and waits for it. One that goes on
// goes on.
func (t *turn) resume(ctx context.Context) error {
	l := t.lane
	l.mu.Lock()
	if t.admitted {
		l.mu.Unlock()
		return nil
	}
	err := l.enter(t, dueRenewal)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return t.wait(ctx)
}

// leave gives the place under way to the next, or takes the turn out of the
// queue.
func (t *turn) leave() {
	l := t.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.admitted {
		t.admitted = false
		l.underway--
		l.admit()
		return
	}
	other := func(o *turn) bool { return o == t }
	l.urgent, l.ahead = slices.DeleteFunc(l.urgent, other), slices.DeleteFunc(l.ahead, other)
}

// end is leave at the very end of the renewal, when all that it had to report is
// reported, or while it has to wait for something else than the provider.
func (t *turn) end() {
	if t == nil {
		return
	}
	t.leave()
	l := t.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.probe == t {
		l.probe = nil
	}
	l.admit()
}

// admit lets those begin whose turn it is. l.mu is held.
func (l *lane) admit() {
	for l.underway < l.concurrency && len(l.urgent)+len(l.ahead) > 0 && l.probe == nil {
		now := time.Now()
		if wait := l.next.Sub(now); wait > 0 {
			if !l.waking {
				l.waking = true
				time.AfterFunc(wait, l.wake)
			}
			return
		}
		queue := &l.urgent
		if len(l.urgent) == 0 || (len(l.ahead) > 0 && l.turns%aheadTurn == aheadTurn-1) {
			queue = &l.ahead
		}
		t := (*queue)[0]
		*queue = (*queue)[1:]
		l.turns++
		l.underway++
		l.next = now.Add(l.interval)
		t.admitted, t.epoch = true, l.epoch
		if l.down {
			l.probe = t
		}
		t.begin <- nil
	}
}

func (l *lane) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waking = false
	l.admit()
}

// report says how the request to p ended: nil, or its error. What the provider
// says of a connection's own grant shows that the endpoint works.
func (t *turn) report(p Provider, err error) {
	if t == nil {
		return
	}
	refusal, refused := errors.AsType[*tokenstore.RefusalError](err)
	works := err == nil || (refused && (refusal.Kind == tokenstore.RefusedGrant || refusal.Kind == tokenstore.RefusedScope))
	l := t.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !sameProvider(l.provider, p): // it says nothing of the one that there is now
	case works:
		l.up()
		l.epoch++
		l.worked = true
	default:
		l.fail(t, err)
	}
}

// fail counts a failure. l.mu is held.
func (l *lane) fail(t *turn, err error) {
	now := wallNow()
	asked := now.Add(min(askedWait(err), maxAsked))
	if t.epoch != l.epoch || (l.down && l.failedOf(t.id, now)) {
		if l.down && asked.After(l.retryAt) {
			l.retryAt = asked
		}
		return
	}
	l.failed[t.id] = true
	// A refused client is everybody's trouble, unless it has just worked.
	atOnce := clientRefused(err) && !l.worked
	if !l.down && !atOnce && len(l.failed) < downAfter {
		return
	}
	if !l.down {
		l.logger.Error("token endpoint is failing", zap.String("integration", l.integration),
			zap.Bool("client_refused", clientRefused(err)), zap.Error(err))
	}
	l.epoch++
	l.tries++
	l.down, l.cause = true, err
	l.retryAt = now.Add(min(backOff(l.tries), maxDown))
	if asked.After(l.retryAt) {
		l.retryAt = asked
	}
	l.turnAway(l.downError(now))
}

// close turns away those who wait, and everybody after them.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.turnAway(errClosing)
}

// clientRefused reports whether a provider refused our client.
func clientRefused(err error) bool {
	refusal, ok := errors.AsType[*tokenstore.RefusalError](err)
	return ok && refusal.Kind == tokenstore.RefusedClient
}

// up ends the trouble. l.mu is held.
func (l *lane) up() {
	if l.down {
		l.logger.Info("token endpoint is tried as usual again", zap.String("integration", l.integration))
	}
	l.down, l.probe, l.tries, l.cause = false, nil, 0, nil
	clear(l.failed)
}

// turnAway tells those who wait that there is no use in it now. l.mu is held.
func (l *lane) turnAway(err error) {
	for _, t := range slices.Concat(l.urgent, l.ahead) {
		t.begin <- err
	}
	l.urgent, l.ahead = nil, nil
}

// askedWait returns what a provider's answer asked to wait, zero if nothing.
func askedWait(err error) time.Duration {
	if e, ok := errors.AsType[*tokenstore.RefusalError](err); ok {
		return e.RetryAfter
	}
	if e, ok := errors.AsType[*tokenstore.UnreadableError](err); ok {
		return e.RetryAfter
	}
	return 0
}
