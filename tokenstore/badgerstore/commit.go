package badgerstore

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// maxBatch is how many writes may wait, and so the most that share one sync.
const maxBatch = 1024

var errClosed = fmt.Errorf("badgerstore: %w: it is closed", tokenstore.ErrUnavailable)

// entryOverhead is more than Badger counts for an entry beside key and value.
const entryOverhead = 64

// job is one write that waits for the committer.
type job struct {
	run  func(w *write) error
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
	txn     *badger.Txn
	entries []*badger.Entry
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
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{run: run, done: make(chan error, 1)}
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
	db      *badger.DB
	txn     *badger.Txn
	ran     []*job // of this transaction: they wait for the commit
	entries int64  // in the transaction
	bytes   int64  // in the transaction, rather over than under what Badger counts
	broken  error  // why nothing can be written any more
}

// commitJobs is the committer's goroutine. Close ends it, after the jobs that
// were queued before.
func (s *Store) commitJobs() {
	defer close(s.stopped)
	c := &committer{db: s.db}
	for {
		select {
		case j := <-s.jobs:
			c.add(j)
			c.addWaiting(s.jobs)
		case <-s.closing:
			c.addWaiting(s.jobs)
			return
		}
	}
}

// addWaiting runs what waits in the queue and commits.
func (c *committer) addWaiting(jobs <-chan *job) {
	for len(c.ran) < maxBatch {
		select {
		case j := <-jobs:
			c.add(j)
			continue
		default:
		}
		break
	}
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
	if c.txn == nil {
		c.txn = c.db.NewTransaction(true)
	}
	w := &write{txn: c.txn}
	if j.err = j.try(w); j.err == nil {
		j.err = c.put(w)
	}
	c.ran = append(c.ran, j)
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
		c.txn = c.db.NewTransaction(true)
	}
	for _, e := range w.entries {
		var err error
		if e.Value == nil {
			err = c.txn.Delete(e.Key)
		} else {
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

// commit writes the transaction, syncs it, and answers its jobs.
//
// After a commit that failed nothing is written any more: what of it is on the
// disk can't be known, nor whether a later sync would be true. The store has to
// be opened again.
func (c *committer) commit() {
	if c.txn == nil {
		c.answer(nil)
		return
	}
	if err := c.txn.Commit(); err != nil {
		c.broken = fmt.Errorf("%w: a write failed, and the store must be opened again: %w", tokenstore.ErrUnavailable, err)
	}
	c.answer(c.broken)
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
