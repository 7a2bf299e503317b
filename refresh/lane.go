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
	// maxDown is the longest wait before the endpoint is tried again, unless it
	// asked for longer: it is back in use within a minute.
	maxDown = 30 * time.Second
	// aheadWaiting is how many renewals that nobody waits for may queue. It is
	// what the default pace takes in, between two sweeps.
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

	mu          sync.Mutex
	provider    Provider // whose endpoint it is; another one begins anew
	concurrency int
	interval    time.Duration
	underway    int
	turns       int       // taken, ever
	next        time.Time // nobody begins before
	waking      bool      // a timer will call admit
	urgent      []*turn   // those that somebody waits for, in order
	ahead       []*turn   // the others, in order

	failed  map[string]bool // connections that failed since one that did not
	down    bool
	probing bool      // one is under way to find out
	tries   int       // in a row that found it down
	retryAt time.Time // while down: the next try
	cause   error     // while down: why
	closed  bool      // nobody begins any more
}

// turn is one renewal that waits to begin.
type turn struct {
	begin chan error // buffered; gets nil, or why not
}

// lane returns the lane of an integration whose provider is p now.
func (r *Refresher) lane(integration string, p Provider) *lane {
	r.mu.Lock()
	l := r.lanes[integration]
	if l == nil {
		l = &lane{integration: integration, logger: r.cfg.Logger, failed: map[string]bool{}}
		r.lanes[integration] = l
	}
	r.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.provider != p { // the configuration has changed: whatever was wrong may be right now
		l.provider = p
		l.concurrency, l.interval = p.Pace()
		l.up()
	}
	return l
}

// refuses returns why a renewal should not even be begun, or nil.
func (l *lane) refuses(why reason) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusesLocked(why)
}

func (l *lane) refusesLocked(why reason) error {
	if l.closed {
		return errClosing
	}
	if now := wallNow(); l.down && why != askedRenewal && (l.probing || now.Before(l.retryAt)) {
		return unavailable(l.retryAt.Sub(now), fmt.Errorf("%w: %w", errEndpointDown, l.cause))
	}
	if why == aheadRenewal && len(l.ahead) >= aheadWaiting {
		return errBusy
	}
	return nil
}

// enter waits until the renewal may go to the provider. Every nil needs one
// leave.
func (l *lane) enter(ctx context.Context, why reason) error {
	l.mu.Lock()
	if err := l.refusesLocked(why); err != nil {
		l.mu.Unlock()
		return err
	}
	t := &turn{begin: make(chan error, 1)}
	queue := &l.urgent
	if why == aheadRenewal {
		queue = &l.ahead
	}
	*queue = append(*queue, t)
	l.admit()
	l.mu.Unlock()

	select {
	case err := <-t.begin:
		return err
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	*queue = slices.DeleteFunc(*queue, func(other *turn) bool { return other == t })
	select {
	case err := <-t.begin: // its turn came in that moment
		return err
	default:
		return fmt.Errorf("refresh: waiting for the provider's pace: %w", ctx.Err())
	}
}

// admit lets those begin whose turn it is. l.mu is held.
func (l *lane) admit() {
	for l.underway < l.concurrency && len(l.urgent)+len(l.ahead) > 0 && !l.probing {
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
		l.probing = l.down
		t.begin <- nil
	}
}

func (l *lane) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waking = false
	l.admit()
}

// leave says that the request that enter let begin is over.
func (l *lane) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.underway--
	l.probing = false
	l.admit()
}

// report says how a request for a connection ended: nil, or its error. What the
// provider says of a connection's own grant shows that the endpoint works.
func (l *lane) report(id string, err error) {
	refusal, refused := errors.AsType[*tokenstore.RefusalError](err)
	works := err == nil || (refused && (refusal.Kind == tokenstore.RefusedGrant || refusal.Kind == tokenstore.RefusedScope))
	client := clientRefused(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if works {
		l.up()
		return
	}
	l.failed[id] = true
	if !l.down && !client && len(l.failed) < downAfter {
		return
	}
	if !l.down {
		l.logger.Error("token endpoint is failing", zap.String("integration", l.integration), zap.Bool("client_refused", client), zap.Error(err))
	}
	l.tries++
	l.down, l.cause = true, err
	l.retryAt = wallNow().Add(max(min(backOff(l.tries), maxDown), askedWait(err)))
	l.turnAway(unavailable(time.Until(l.retryAt), fmt.Errorf("%w: %w", errEndpointDown, l.cause)))
}

// close turns away those who wait, and everybody after them.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.turnAway(errClosing)
}

// clientRefused reports whether a provider refused our client, which is no
// connection's fault.
func clientRefused(err error) bool {
	refusal, ok := errors.AsType[*tokenstore.RefusalError](err)
	return ok && refusal.Kind == tokenstore.RefusedClient
}

// up ends the trouble. l.mu is held.
func (l *lane) up() {
	if l.down {
		l.logger.Info("token endpoint works again", zap.String("integration", l.integration))
	}
	l.down, l.probing, l.tries, l.cause = false, false, 0, nil
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
