package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/lanyard-proxy/lanyard/secret"
	"github.com/lanyard-proxy/lanyard/tokenstore"
)

const (
	// pollEvery is how late at most an event is looked at.
	pollEvery = 500 * time.Millisecond
	// saveEvery is how often at most an endpoint's place is written: what was
	// taken in the last second before a crash is sent twice.
	saveEvery = time.Second
	// pageSize is how many events are read at once.
	pageSize = 200
	// storeAgain is how long after a failure the store is asked again.
	storeAgain = 5 * time.Second
	// storeTime bounds one round of questions.
	storeTime = 5 * time.Second
	// forget is how long the place of an endpoint is kept that is configured no
	// more, or while Lanyard does not run: longer than any event is tried.
	forget = 7 * 24 * time.Hour
	// renewEvery is how often a place is written that has not changed.
	renewEvery = 6 * time.Hour
)

// maxAhead bounds the events in memory that wait for an endpoint. Tests lower it.
var maxAhead = 1000

// notePrefix begins the IDs of the notes that say how far endpoints have come.
const notePrefix = "webhook/"

// placeNote is such a note.
type placeNote struct {
	// By is whose turn it was written in, on a store that several processes have:
	// each begins with a new one. Nobody writes behind another's.
	By  string `json:"by,omitempty"`
	Seq uint64 `json:"seq"` // of the last event that was read
	// Waiting are the Seqs up to there that were not taken yet, in order: what
	// was taken behind them is not sent again.
	Waiting []uint64 `json:"waiting,omitempty"`
}

// waiting is an event that waits for an endpoint.
type waiting struct {
	event tokenstore.Event
	// until is when it is given up. Its clock is this process's: one that is put
	// right, or a machine that slept, gives nothing up.
	until time.Time
}

// worker sends to one endpoint.
type worker struct {
	sender   *Sender
	endpoint Endpoint
	log      *zap.Logger
	note     string  // the ID of the note with its place
	before   *worker // for the same URL, as it was configured before; may be nil

	ctx  context.Context //nolint:containedctx // the worker's life
	stop context.CancelFunc
	over chan struct{} // closed when nothing is sent any more
	gone atomic.Bool   // the endpoint has said so: 410

	term    *term         // while it is this worker's to send
	slots   chan struct{} // one for each request under way
	lanes   sync.WaitGroup
	failing atomic.Bool // the last request was not taken

	mu     sync.Mutex
	read   uint64               // guarded by mu; the Seq up to which the log was read
	ahead  map[uint64]bool      // guarded by mu; :: Seq of those that wait
	queues map[string][]waiting // guarded by mu; :: connection ID → what waits, in order, for the lane that sends it
	pause  time.Time            // guarded by mu; the endpoint wants nothing before

	// Only of run:
	placed      bool      // read is known, and on a shared store, the note ours
	saved       string    // the text of the note
	savedAt     time.Time // when it was written
	storeFailed bool      // and that was logged
}

func newWorker(s *Sender, e Endpoint, before *worker) *worker {
	w := &worker{
		sender: s, endpoint: e, before: before,
		log:   s.cfg.Logger.With(zap.String("webhook", shown(e.URL))),
		note:  notePrefix + secret.New(e.URL).Hash(),
		over:  make(chan struct{}),
		slots: make(chan struct{}, atOnce),
		ahead: map[uint64]bool{}, queues: map[string][]waiting{},
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	// The place is found here and not in run, so that what happens from now on is
	// sent.
	if _, ok := s.cfg.Store.(tokenstore.Shared); ok {
		w.try(w.begin)
		return w
	}
	w.newTerm(nil)
	if before == nil {
		w.try(w.place)
	}
	return w
}

// run follows the log while it is the worker's to send, until it is stopped, or
// the endpoint has gone.
func (w *worker) run() {
	defer close(w.over)
	if w.before != nil {
		<-w.before.over // so that nothing is sent out of its order
		w.before = nil
	}
	for w.term != nil || w.await() {
		w.follow()
		w.leave()
	}
}

func (w *worker) follow() {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for w.term.ctx.Err() == nil && w.term.hold.Held() {
		wait := tick.C
		if !w.try(w.round) {
			wait = time.After(storeAgain)
		}
		select {
		case <-w.term.ctx.Done():
		case <-wait:
		}
	}
}

// try asks the store, and reports whether it has answered. It logs the first of
// several failures.
func (w *worker) try(ask func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(w.ctx, storeTime)
	defer cancel()
	err := ask(ctx)
	if err == nil || w.ctx.Err() != nil || errors.Is(err, errTaken) {
		w.storeFailed = false
		return true
	}
	if !w.storeFailed {
		w.log.Error("webhooks wait for the store", zap.Error(err))
	}
	w.storeFailed = true
	return false
}

func (w *worker) round(ctx context.Context) error {
	if err := w.place(ctx); err != nil {
		return err
	}
	if err := w.look(ctx); err != nil {
		return err
	}
	return w.save(ctx)
}

// place finds where the endpoint stands: where its note says, or at the log's
// end.
func (w *worker) place(ctx context.Context) error {
	if w.placed {
		return nil
	}
	at, was, again, err := w.noted(ctx)
	switch {
	case err != nil:
		return err
	case at == nil:
		if at, err = w.logEnd(ctx); err != nil {
			return err
		}
		fallthrough
	case w.term.name != "":
		at.By = w.term.name
		err = w.write(ctx, at.text(), func(n *tokenstore.Note) bool { return n.Text.Equal(was) })
	}
	if err != nil {
		return err
	}
	w.enqueue(again) //nolint:contextcheck // what is sent has the term's
	w.mu.Lock()
	w.read = at.Seq
	w.mu.Unlock()
	w.saved, w.placed = at.text(), true
	return nil
}

// noted returns the place that the note tells, nil if there is none in this log,
// the note's text, and what waits since then.
func (w *worker) noted(ctx context.Context) (at *placeNote, was secret.String, again []tokenstore.Event, err error) {
	store := w.sender.cfg.Store
	n, err := store.Note(ctx, w.note)
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return nil, n.Text, nil, nil
	case errors.Is(err, tokenstore.ErrCorrupt):
		w.log.Error("webhooks begin anew: the note of how far they were is damaged", zap.Error(err))
		return nil, n.Text, nil, store.DeleteNote(ctx, w.note)
	}
	at = &placeNote{}
	if err == nil {
		err = n.Text.DecodeJSON(at)
	}
	if err != nil {
		return nil, n.Text, nil, fmt.Errorf("reading the place of a webhook: %w", err)
	}
	_, _, err = store.ListEvents(ctx, tokenstore.EventFilter{}, tokenstore.EventCursor(at.Seq), 1)
	if errors.Is(err, tokenstore.ErrBadCursor) {
		w.log.Warn("webhooks begin anew: the audit log was put back to what it was before")
		return nil, n.Text, nil, nil
	}
	if err != nil {
		return nil, n.Text, nil, err
	}
	for _, seq := range at.Waiting {
		page, _, err := store.ListEvents(ctx, tokenstore.EventFilter{}, tokenstore.EventCursor(seq-1), 1)
		switch {
		case err != nil:
			return nil, n.Text, nil, err
		case len(page) == 0 || page[0].Seq != seq:
			w.log.Error("the audit log has forgotten an event before its webhook was taken", zap.Uint64("seq", seq))
		default:
			again = append(again, page[0])
		}
	}
	return at, n.Text, again, nil
}

func (n *placeNote) text() string {
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // numbers alone
	}
	return string(b)
}

// look takes over what the log has, as far as there is room.
func (w *worker) look(ctx context.Context) error {
	for {
		w.mu.Lock()
		after, limit := w.read, min(maxAhead-len(w.ahead), pageSize)
		w.mu.Unlock()
		if limit <= 0 {
			return nil
		}
		page, _, err := w.sender.cfg.Store.ListEvents(ctx, tokenstore.EventFilter{}, tokenstore.EventCursor(after), limit)
		if errors.Is(err, tokenstore.ErrBadCursor) {
			w.placed = false // the next look begins anew
		}
		if err != nil {
			return err
		}
		if len(page) > 0 && page[0].Seq > after+1 {
			w.log.Error("the audit log has forgotten events before their webhooks were taken", zap.Uint64("events", page[0].Seq-after-1))
		}
		w.enqueue(page) //nolint:contextcheck // what is sent has the term's
		if len(page) < limit {
			return nil
		}
	}
}

func (w *worker) enqueue(page []tokenstore.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range page {
		w.read = e.Seq
		if !w.endpoint.wants(e.Type) {
			continue
		}
		w.ahead[e.Seq] = true
		queue, busy := w.queues[e.ConnectionID]
		w.queues[e.ConnectionID] = append(queue, waiting{e, time.Now().Add(giveUpAfter)})
		if !busy {
			w.lanes.Go(func() { w.lane(e.ConnectionID) })
		}
	}
}

// lane sends what waits of one connection, one after the other.
func (w *worker) lane(id string) {
	for {
		w.mu.Lock()
		queue := w.queues[id]
		if len(queue) == 0 {
			delete(w.queues, id)
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		if !w.deliver(queue[0]) {
			return
		}
		w.mu.Lock()
		w.queues[id] = w.queues[id][1:]
		delete(w.ahead, queue[0].event.Seq)
		w.mu.Unlock()
	}
}

// save writes what was read and what of it still waits, if that is time.
func (w *worker) save(ctx context.Context) error {
	age := time.Since(w.savedAt)
	if !w.placed || age < saveEvery {
		return nil
	}
	w.mu.Lock()
	at := placeNote{By: w.term.name, Seq: w.read, Waiting: slices.Sorted(maps.Keys(w.ahead))}
	w.mu.Unlock()
	text := at.text()
	if text == w.saved && age < renewEvery {
		return nil
	}
	return w.write(ctx, text, w.ours)
}

// write writes the note, or ends the worker's term if may says of what is there
// that another has written it.
func (w *worker) write(ctx context.Context, text string, may func(*tokenstore.Note) bool) error {
	_, err := w.sender.cfg.Store.UpdateNote(ctx, w.note, func(n *tokenstore.Note) error {
		if !may(n) {
			return errTaken
		}
		n.Text = secret.New(text)
		n.KeepUntil = time.Now().Add(forget)
		return nil
	})
	if err != nil {
		if errors.Is(err, errTaken) {
			w.term.end()
		}
		return fmt.Errorf("writing the place of a webhook: %w", err)
	}
	w.saved, w.savedAt = text, time.Now()
	return nil
}
