package webhook

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// On a store that several processes have, one of them sends to an endpoint: the
// one that holds its lease. The others stand by. Who takes over marks the note of
// the place as its own, behind which nobody else writes.

// standBy is how often those who stand by ask whether they may send.
const standBy = 5 * time.Second

// errTaken: another process sends, and has written the place.
var errTaken = errors.New("another process sends these webhooks")

// term is a time in which a worker sends: its whole life, or where several
// processes could, as long as it holds the endpoint's lease.
type term struct {
	name string           // in the note; empty where nobody else could send
	hold *tokenstore.Hold // nil: the same
	ctx  context.Context  //nolint:containedctx // the term
	end  context.CancelFunc

	sendCtx context.Context    //nolint:containedctx // the requests': it ends a little later
	endSend context.CancelFunc // ends what is under way
}

// newTerm begins a term under this lease.
func (w *worker) newTerm(hold *tokenstore.Hold) {
	t := &term{hold: hold}
	t.ctx, t.end = context.WithCancel(w.ctx)
	t.sendCtx, t.endSend = context.WithCancel(context.Background())
	w.term = t
	if hold == nil {
		return
	}
	t.name = rand.Text()
	w.lanes.Go(func() {
		select {
		case <-t.ctx.Done():
		case <-hold.Lost():
			t.end()
			t.endSend()
		}
	})
}

// await waits until the worker may send, and begins its term. It reports false if
// the worker was stopped.
func (w *worker) await() bool {
	shared, ok := w.sender.cfg.Store.(tokenstore.Shared)
	for ok && w.ctx.Err() == nil {
		w.try(func(ctx context.Context) error {
			hold, err := tokenstore.TakeHold(ctx, shared, w.note, 0)
			if err == nil {
				w.newTerm(hold)
			}
			if errors.Is(err, tokenstore.ErrLeased) {
				return nil
			}
			return err
		})
		if w.term != nil {
			return true
		}
		sleep(w.ctx, standBy)
	}
	return false
}

// leave ends the worker's term. What is under way goes on for a moment, if it is
// still the worker's.
func (w *worker) leave() {
	t := w.term
	t.end()
	if !t.hold.Held() {
		t.endSend()
	}
	time.AfterFunc(stopGrace, t.endSend)
	w.lanes.Wait()
	if t.hold.Held() {
		w.savedAt = time.Time{}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), storeTime)
		err := w.save(ctx)
		cancel()
		if err != nil && !errors.Is(err, errTaken) {
			w.log.Warn("place of webhooks not written, some will come twice", zap.Error(err))
		}
	}
	t.endSend()
	t.hold.Release()
	w.mu.Lock()
	clear(w.ahead)
	clear(w.queues)
	w.mu.Unlock()
	w.term, w.placed = nil, false
}

// logEnd returns the place of who has read all there is.
func (w *worker) logEnd(ctx context.Context) (*placeNote, error) {
	end, err := tokenstore.EventsEnd(ctx, w.sender.cfg.Store)
	if err != nil {
		return nil, err
	}
	at := &placeNote{}
	at.Seq, err = tokenstore.ParseEventCursor(end)
	return at, err
}

// begin lets an endpoint that is new begin where the log ends now, whoever sends.
func (w *worker) begin(ctx context.Context) error {
	end, err := w.logEnd(ctx)
	if err != nil {
		return err
	}
	text := end.text()
	_, err = w.sender.cfg.Store.UpdateNote(ctx, w.note, func(n *tokenstore.Note) error {
		if !n.Text.IsZero() {
			return tokenstore.ErrUnchanged
		}
		n.Text, n.KeepUntil = secret.New(text), time.Now().Add(forget)
		return nil
	})
	if errors.Is(err, tokenstore.ErrCorrupt) {
		return nil // who sends begins anew
	}
	return err
}

// ours reports whether n was written in this term.
func (w *worker) ours(n *tokenstore.Note) bool {
	if w.term.name == "" {
		return true
	}
	var at placeNote
	return n.Text.DecodeJSON(&at) == nil && at.By == w.term.name
}
