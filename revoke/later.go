package revoke

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/seal"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// patience is how long a provider is asked again.
	patience = 24 * time.Hour
	// noteLife is how long the store keeps a note: long enough for the next
	// start to tell what was given up.
	noteLife = 8 * 24 * time.Hour
	// maxPending bounds what is tried again.
	maxPending = 4096
	// maxPause is the longest wait between two tries.
	maxPause = time.Hour
	// notePrefix begins the ID of every note of a revocation that is to be made.
	notePrefix = "revocation/"
)

// pauses is how long a revocation that failed waits before each new try, and
// then maxPause each time.
var pauses = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// pending is what has ended here and is to end at the provider.
type pending struct {
	note  string // the ID of its note
	noted bool   // the store has that
	since time.Time
	// held is what held it. Without an ID no connection did.
	held tokenstore.Connection

	tries int       // guarded by Revoker.mu, once queued
	next  time.Time // guarded by Revoker.mu, once queued
}

func newPending(note string) *pending { return &pending{note: note, since: time.Now().UTC()} }

func random() string { return rand.Text() }

// prepare notes what is about to be erased.
func (r *Revoker) prepare(ctx context.Context, id string) *pending {
	p := newPending(r.noteID(ctx))
	if c, err := r.cfg.Store.Connection(ctx, id); err == nil { // else the change itself tells
		r.keep(ctx, p, heldBy(&c))
	}
	return p
}

// keep has the note of p say what held holds, if there is anything to ask the
// provider. A store that can't write one keeps nothing from being erased.
func (r *Revoker) keep(ctx context.Context, p *pending, held tokenstore.Connection) {
	same := p.noted && sameCredentials(&p.held, &held)
	if p.held = held; same {
		return
	}
	if _, reason := r.provider(&held); reason != "" {
		r.forget(ctx, p)
		return
	}
	record := held
	record.UpdatedAt = p.since // when it was erased
	text, err := seal.ConnectionText(&record)
	if err == nil {
		_, err = r.cfg.Store.UpdateNote(ctx, p.note, func(n *tokenstore.Note) error {
			n.Text, n.KeepUntil = text, p.since.Add(noteLife)
			return nil
		})
	}
	if err != nil {
		r.log.Warn("revocation not noted: a restart would forget it", p.fields(zap.Error(err))...)
		return
	}
	p.noted = true
}

// forget removes the note of p, if it has one. One that stays is taken up by the
// next start, which revokes once more what is revoked.
func (r *Revoker) forget(ctx context.Context, p *pending) {
	if !p.noted {
		return
	}
	if err := r.cfg.Store.DeleteNote(ctx, p.note); err != nil {
		r.log.Warn("note of a revocation not removed", p.fields(zap.Error(err))...)
		return
	}
	p.noted = false
}

// unchanged removes the note of p after a change that was refused. One that only
// took too long may yet be made: then Recover finds out.
func (r *Revoker) unchanged(ctx context.Context, p *pending) {
	if ctx.Err() == nil {
		r.forget(ctx, p)
	}
}

// end asks the provider once to end what p holds, and goes on behind the caller
// if that fails, and with what a renewal under way brings (nil: none is).
func (r *Revoker) end(ctx context.Context, p *pending, late func(context.Context) (tokenstore.Token, bool)) Outcome {
	if _, reason := r.provider(&p.held); reason != "" {
		return Outcome{Reason: reason}
	}
	// What is late may come while the provider is being asked.
	follows := late != nil && r.follow(p.held, late) //nolint:contextcheck // it outlives its caller
	out := r.first(ctx, p)
	if follows {
		return Outcome{Pending: true}
	}
	return out
}

// first tries once, and again later if that fails.
func (r *Revoker) first(ctx context.Context, p *pending) Outcome {
	spared, err := r.try(ctx, &p.held)
	switch {
	case err == nil && spared != "":
		r.forget(ctx, p)
		return Outcome{Reason: spared}
	case err == nil:
		r.forget(ctx, p)
		return Outcome{Done: true}
	case !r.enqueue(p, err):
		r.gaveUp(p, err)
		r.forget(ctx, p)
		return Outcome{Reason: ReasonUnavailable}
	}
	r.log.Warn("revocation at the provider not confirmed yet", p.fields(zap.Error(err))...)
	return Outcome{Pending: true}
}

// follow ends what late brings, behind the caller. It reports whether there is
// still time for that.
func (r *Revoker) follow(held tokenstore.Connection, late func(context.Context) (tokenstore.Token, bool)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.lates.Go(func() {
		t, came := late(r.lateCtx)
		if !came {
			return
		}
		ctx, cancel := detached(r.lateCtx)
		defer cancel()
		held.Token, held.Staged = t, nil
		p := newPending(r.noteID(ctx))
		r.keep(ctx, p, heldBy(&held))
		if out := r.first(ctx, p); !out.Pending {
			r.ended(p, out.Reason)
		}
	})
	return true
}

// enqueue has p tried again after failure. Where there is no room, or no time,
// the next start finds its note; it reports false if there is none either.
func (r *Revoker) enqueue(p *pending, failure error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.queue) >= maxPending {
		return p.noted
	}
	p.next = time.Now().Add(p.pause(failure))
	r.queue[p] = true
	r.wake()
	return true
}

// pause returns how long p waits after failure, and counts the try.
func (p *pending) pause(failure error) time.Duration {
	wait := maxPause
	if p.tries < len(pauses) {
		wait = pauses[p.tries]
	}
	p.tries++
	if refusal, ok := errors.AsType[*tokenstore.RefusalError](failure); ok {
		wait = max(wait, min(refusal.RetryAfter, maxPause))
	}
	return wait
}

func (r *Revoker) wake() {
	select {
	case r.wakeUp <- struct{}{}:
	default: // it is awake already
	}
}

// loop begins the tries whose time has come.
func (r *Revoker) loop() {
	for {
		timer := time.NewTimer(r.beginDue())
		select {
		case <-r.ctx.Done():
			timer.Stop()
			return
		case <-r.wakeUp:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// beginDue begins the tries that are due, one at a time for an integration, and
// returns how long it is until the next are.
func (r *Revoker) beginDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, wait := time.Now(), maxPause
	due := map[string][]*pending{}
	for p := range r.queue {
		switch left := p.next.Sub(now); {
		case r.busy[p.held.Integration]: // which wakes the loop at its end
		case left <= 0:
			due[p.held.Integration] = append(due[p.held.Integration], p)
		default:
			wait = min(wait, left)
		}
	}
	for integration, list := range due {
		r.busy[integration] = true
		r.work.Go(func() {
			r.tryAll(list)
			r.mu.Lock()
			delete(r.busy, integration)
			r.mu.Unlock()
			r.wake()
		})
	}
	return wait
}

// tryAll tries each once. After one whose provider can't be asked the others
// wait as long.
func (r *Revoker) tryAll(list []*pending) {
	for i, p := range list {
		if r.runLost() {
			r.startOver()
		}
		if !r.queued(p) { // another process has it by now
			continue
		}
		spared, err := r.try(r.ctx, &p.held)
		if r.ctx.Err() != nil && err != nil {
			return
		}
		ctx, cancel := detached(r.ctx)
		switch {
		case err == nil:
			r.dequeue(p)
			r.forget(ctx, p)
			r.ended(p, spared)
		case time.Since(p.since) >= patience:
			r.dequeue(p)
			r.forget(ctx, p)
			r.gaveUp(p, err)
		default:
			r.putOff(p, list[i+1:], err)
		}
		cancel()
		if _, answered := errors.AsType[*tokenstore.RefusalError](err); err != nil && !answered {
			return
		}
	}
}

// putOff has p tried later, and with it those behind it if its provider gave no
// answer.
func (r *Revoker) putOff(p *pending, behind []*pending, failure error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.next = time.Now().Add(p.pause(failure))
	if left := time.Until(p.since.Add(patience)); left > 0 {
		p.next = time.Now().Add(min(time.Until(p.next), left)) // the last try is at the end
	}
	if _, answered := errors.AsType[*tokenstore.RefusalError](failure); answered {
		return
	}
	for _, b := range behind {
		b.next = p.next
	}
}

func (r *Revoker) dequeue(p *pending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.queue, p)
}

// stillHolds reports whether c has never lost what held was noted of: it was not
// connected again since. What it holds may have been renewed.
func stillHolds(c, held *tokenstore.Connection) bool {
	live := holds(held.Token) && holds(c.Token) && !c.ConnectedAt.After(held.UpdatedAt)
	return live || sameCredentials(new(heldBy(c)), held)
}

func (r *Revoker) ended(p *pending, spared string) {
	r.log.Info("revocation at the provider ended", p.fields(zap.Bool("spared", spared != ""))...)
}

func (r *Revoker) gaveUp(p *pending, err error) {
	r.log.Warn("revocation at the provider given up", p.fields(zap.Error(err))...)
}

func (p *pending) fields(more zap.Field) []zap.Field {
	return append(connectionFields(&p.held), more)
}
