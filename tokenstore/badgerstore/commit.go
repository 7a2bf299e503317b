package badgerstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxBatch is how many writes may wait, and so the most that share one sync.
const maxBatch = 1024

// maxPatience is how long a group waits at most for those who may join it.
const maxPatience = 5 * time.Millisecond

var errClosed = fmt.Errorf("badgerstore: %w: it is closed", tokenstore.ErrUnavailable)

// entryOverhead is more than Badger counts for an entry beside key and value.
const entryOverhead = 64

// job is one write that waits for the committer.
type job struct {
	run func(w *write) error
	// new says that it makes a connection or a flow, for which there must be
	// more room than for other writes.
	new  bool
	last bool       // it changes nothing, and comes when the store is frozen
	done chan error // gets the answer; buffered, since nobody waits after Close

	// claimed is set by whoever comes first: the committer to run the job, or
	// the caller to give it up. So run is never under way when the call returns.
	claimed atomic.Bool

	err      error // what run returned
	panicked any   // what run panicked with
}

// write is what one job sees and does: it reads what the jobs before it have
// written, committed or not, and collects its own entries, which become part of
// the transaction together or not at all.
type write struct {
	gen     *generation // that txn is of
	txn     *badger.Txn
	entries []*badger.Entry
	events  eventRange // after this job

	// found is the key of the one connection that the job has read, if it has, and
	// revision what it read there: 0 for nothing.
	found    []byte
	revision uint64
}

func (w *write) set(key, value []byte) { w.setEntry(badger.NewEntry(key, value)) }

func (w *write) setEntry(e *badger.Entry) { w.entries = append(w.entries, e) }

// remove deletes a key. An entry without a value stands for that, which is free
// because values are never empty here.
func (w *write) remove(key []byte) { w.setEntry(badger.NewEntry(key, nil)) }

// write has the committer run one job and returns its answer. A context that
// ends before the job's turn gives it up; after that the answer is waited for,
// so that a caller always knows whether it wrote. A panic in run is the caller's.
func (s *Store) write(ctx context.Context, run func(w *write) error) error {
	return s.submit(ctx, &job{run: run, done: make(chan error, 1)})
}

// writeNew is write for what makes a connection or a flow, which is refused
// while there is still room for the others.
func (s *Store) writeNew(ctx context.Context, run func(w *write) error) error {
	return s.submit(ctx, &job{run: run, new: true, done: make(chan error, 1)})
}

func (s *Store) submit(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.refused(); err != nil {
		return err
	}
	select {
	case <-s.closing:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	case s.jobs <- j:
	}
	select {
	case err := <-j.done:
		return j.result(err)
	case <-ctx.Done():
		if j.claimed.CompareAndSwap(false, true) {
			return ctx.Err()
		}
	case <-s.stopped:
		if j.claimed.CompareAndSwap(false, true) { // queued after the committer's last look
			return errClosed
		}
	}
	return j.result(<-j.done)
}

func (j *job) result(err error) error {
	if j.panicked != nil {
		panic(j.panicked)
	}
	return err
}

// committer runs jobs in the order they came and commits as many as are waiting
// in one transaction: Badger syncs once for each transaction and one after the
// other, so that this is what makes durable writes fast.
type committer struct {
	*generation // that it writes to
	hit         func(place string) error
	space       *space
	frozen      *atomic.Bool // the store's
	headKey     []byte
	digest      *digester // of headKey
	txn         *badger.Txn
	next        head   // of the transaction
	disk        disk   // when the transaction began
	ran         []*job // of this transaction: they wait for the commit
	entries     int64  // in the transaction
	bytes       int64  // in the transaction, rather over than under what Badger counts
	broken      error  // why nothing can be written until the store was reopened

	last int           // how many jobs were in the transaction before
	took time.Duration // to commit it
}

// commitJobs is the committer's goroutine. Close ends it, after the jobs that
// were queued before.
func (s *Store) commitJobs() {
	defer close(s.stopped)
	c := &committer{generation: s.gen, hit: s.hit, space: s.space, frozen: &s.frozen, headKey: s.keys.headKey(), digest: newDigester(s.keys.headKey())}
	var reopened chan *generation // nil unless the store is being reopened
	for {
		select {
		case j := <-s.jobs:
			c.add(j)
			c.addWaiting(s.jobs)
			if c.broken != nil && reopened == nil {
				reopened, s.failed = make(chan *generation), true
				go func() { reopened <- s.reopen(c.generation) }()
			}
		case g := <-reopened:
			reopened = nil
			if g != nil { // else Close was called, and the store is as it was
				s.use(g)
				c.generation, c.broken = g, nil
			}
		case <-s.closing:
			c.addWaiting(s.jobs)
			s.failed = c.broken != nil
			if reopened != nil {
				s.use(<-reopened)
			}
			return
		}
	}
}

// addWaiting runs what waits in the queue and commits. Those whom the last commit
// has answered may be about to write again, and would else all wait for the
// syncing of the first of them: so a group waits for as many as were in the one
// before, but no longer than half of what that took to commit. Where syncing is
// slow all of them come into one group, and where it is fast some get ready while
// the others are synced.
func (c *committer) addWaiting(jobs <-chan *job) {
	var patience <-chan time.Time
	for late := false; len(c.ran) < maxBatch; {
		select {
		case j := <-jobs:
			c.add(j)
			continue
		default:
		}
		if late || len(c.ran) >= c.last {
			break
		}
		if patience == nil {
			patience = time.After(min(c.took/2, maxPatience))
		}
		select {
		case j := <-jobs:
			c.add(j)
		case <-patience:
			late = true
		}
	}
	c.last = len(c.ran)
	c.commit()
}

// add runs one job and puts its entries into the transaction. One that errs is
// refused alone, but answered with the others: what it saw may fail to be
// committed.
func (c *committer) add(j *job) {
	if !j.claimed.CompareAndSwap(false, true) {
		return
	}
	if c.broken != nil {
		j.done <- c.broken
		return
	}
	if c.frozen.Load() && !j.last {
		j.done <- tokenstore.ErrReadOnly
		return
	}
	if c.txn == nil {
		c.begin()
	}
	w := &write{gen: c.generation, txn: c.txn, events: c.next.events}
	if j.err = c.disk.refuseWrite(j.new); j.err == nil {
		j.err = j.try(w)
	}
	if j.err == nil {
		j.err = c.put(w)
	}
	c.ran = append(c.ran, j)
}

// begin begins a transaction. Badger may only be given what the disk has room
// for.
func (c *committer) begin() {
	c.txn, c.disk, c.next = c.db.NewTransaction(true), c.space.lookForWrite(), c.head
	c.next.seq = c.txn.ReadTs() + 1 // Badger counts, and nobody else writes
	c.entries, c.bytes = 1, int64(len(keyHead)+headLen)+entryOverhead
}

// try runs the job in this goroutine, which must outlive a panic in it.
func (j *job) try(w *write) (err error) {
	defer func() {
		if j.panicked = recover(); j.panicked != nil {
			err = fmt.Errorf("%w: the change panicked", tokenstore.ErrUnavailable)
		}
	}()
	return j.run(w)
}

// put adds a job's entries to the transaction, and to one of its own if they
// don't fit into this one.
func (c *committer) put(w *write) error {
	entries, size := int64(len(w.entries)), int64(0)
	for _, e := range w.entries {
		size += int64(len(e.Key)+len(e.Value)) + entryOverhead
	}
	if c.entries+entries >= c.db.MaxBatchCount() || c.bytes+size >= c.db.MaxBatchSize() {
		c.commit()
		if c.broken != nil {
			return c.broken
		}
		c.begin()
		if err := c.disk.refuseWrite(false); err != nil {
			return err
		}
	}
	for _, e := range w.entries {
		err := c.count(w, e)
		switch {
		case err != nil:
		case e.Value == nil:
			err = c.txn.Delete(e.Key)
		default:
			err = c.txn.SetEntry(e)
		}
		if err != nil {
			// Half of the entries are in the transaction, which is given up with
			// whatever else is in it. IDs and sizes are checked before, so this
			// is not a way to make others' writes fail.
			err = fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
			c.answer(err)
			return err
		}
	}
	c.entries += entries
	c.bytes += size
	return nil
}

// commit writes the transaction, syncs it, puts its number into the mark, syncs
// that, and answers its jobs.
//
// After a failure nothing is written any more: what of the transaction is on the
// disk can't be known, nor whether a later sync would be true. The store has to
// be opened again.
func (c *committer) commit() {
	if c.txn == nil || c.entries == 1 { // nothing but the head
		c.answer(nil)
		return
	}
	c.space.writes()
	began := time.Now()
	if err := c.tryCommit(); err != nil {
		c.broken = fmt.Errorf("%w: a write failed, and the store is being reopened: %w", tokenstore.ErrUnavailable, err)
	}
	c.took = time.Since(began)
	c.head = c.next
	c.space.wrote(c.files, c.bytes)
	c.answer(c.broken)
}

func (c *committer) tryCommit() error {
	if err := c.txn.Set([]byte(keyHead), c.next.encode(c.headKey)); err != nil {
		return err
	}
	if err := c.hit("store.commit"); err != nil {
		return err
	}
	c.before.begin(c.db)
	err := c.txn.Commit()
	c.before.end()
	if err != nil {
		return err
	}
	if err := c.hit("store.sync"); err != nil {
		return err
	}
	if err := c.hit("store.mark"); err != nil {
		return err
	}
	return c.mark.write(c.next.seq)
}

// answer ends the transaction: its jobs get failure, or what they returned.
func (c *committer) answer(failure error) {
	if c.txn != nil {
		c.txn.Discard() // does nothing after a commit
	}
	for _, j := range c.ran {
		if failure != nil {
			j.err = failure
		}
		j.done <- j.err
	}
	c.txn, c.ran, c.entries, c.bytes = nil, nil, 0, 0
}
