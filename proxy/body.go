package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// graceRead is how long an app that is sending may take for its next
	// bytes once the answer is complete, before its connection is cut.
	graceRead = 50 * time.Millisecond
	// lingerRead is how long the server may go on reading an app's body that
	// nobody wants, so that the app sees the answer before a reset.
	lingerRead = 500 * time.Millisecond
)

// errAttemptOver is what an attempt reads whose turn has passed.
var errAttemptOver = errors.New("attempt is over")

// source is the body of an app's request, which attempts to send it read one
// after another. What is read is kept in the spool, up to a limit; while it
// holds everything, a further attempt can begin.
//
// As long as a further attempt may come, one goroutine reads the app, the pump:
// first when an attempt wants more than there is, then one buffer ahead of it. No
// attempt does so itself: a transport waits for the Read it is in before it lets
// go of a request, and the app may stall for ever. The only attempt that is left
// once the spool was too small reads the app itself, which spares a copy and a
// change of goroutines for each piece. If it is closed before there is an answer,
// hurry ends that read.
//
// A buffer that is given back is soon another request's, so nobody may have it
// any more. All of a source's buffers are in the spool, and the pump's: it is the
// only one that writes into them, and it does so unlocked; attempts copy out of
// them, under the lock and only what the spool or piece has. So the pump gives
// back a spool that was lost at its end, when the piece was taken or is withdrawn;
// dropLocked one that no attempt will read any more, and finish any other, when the
// pump has ended. No pump begins after that: begin makes no more attempts, and all
// that there were are closed or at the end. A source that nobody finishes may leave
// its spool to the garbage collector.
type source struct {
	body  io.Reader
	limit int64
	hurry func(soon bool) // has a read of the app end soon, or not after all; nil where nothing can

	mu      sync.Mutex // guards what follows; not held while the app is read
	changed *sync.Cond // on every change
	current *attempt
	held    bool   // the current attempt may not go on for now
	spool   spool  // all that was read, unless lost, until nobody will read it again
	lost    bool   // more was read than the spool may keep
	piece   []byte // once lost: what was read last and not yet taken; in the spool's buffer
	err     error  // how the body ended
	wanted  bool   // more is to be read
	reading bool   // the app is being read
	running bool   // the pump is there
	hurried bool   // the app's next bytes had to come soon
	last    bool   // no further attempt will begin
	done    bool   // nothing more is to be read
}

// newSource returns a source that keeps limit bytes of body. hurry has a read of
// the body end soon, and may be nil.
func newSource(body io.Reader, limit int64, hurry func(soon bool)) *source {
	s := &source{body: body, limit: limit, hurry: hurry}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// hurry returns what cuts off an app that does not go on with its body, or takes
// that back.
func hurry(w http.ResponseWriter, major int) func(soon bool) {
	return func(soon bool) {
		var deadline time.Time // none
		if soon {
			deadline = time.Now()
			if major == 1 { // else it is one stream of many: cutting it harms no answer
				deadline = deadline.Add(graceRead)
			}
		}
		_ = http.NewResponseController(w).SetReadDeadline(deadline)
	}
}

// attempt reads a source from its start. Its source's lock guards it.
type attempt struct {
	s        *source
	pos      int // in the spool, and behind it in the piece
	closed   bool
	ended    bool   // it was told that the body ends
	answered bool   // its answer has begun
	atEOF    func() // called when the body has been read to its end
}

// begin ends the current attempt and starts another. It reports false if what
// was read is lost, or no further attempt was to be.
func (s *source) begin(atEOF func()) (*attempt, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
	if s.lost || s.last || s.done {
		return nil, false
	}
	s.current = &attempt{s: s, atEOF: atEOF}
	return s.current, true
}

// answered says that the answer of the current attempt has begun, and must not be
// cut off with the app any more. A transport that got a refusal may have closed the
// attempt a moment before.
func (s *source) answered() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.answered = true
	if s.hurried {
		s.hurried = false
		s.hurry(false)
	}
}

// hold lets the current attempt have no more, while it is decided whether
// there will be another. It reports whether there can be. A nil source has no
// body and always can.
func (s *source) hold() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost && len(s.piece) > 0 && s.current.pos == s.spool.size { // it was read ahead, and nobody has it
		s.spool.size += len(s.piece)
		s.lost, s.piece = false, nil
	}
	s.held = !s.lost
	return s.held
}

// release lets the current attempt go on.
func (s *source) release() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	s.changed.Broadcast()
}

// stop ends the current attempt.
func (s *source) stop() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
}

func (s *source) stopLocked() {
	s.held = false
	if s.current != nil {
		s.current.closed = true
	}
	s.changed.Broadcast()
}

// ended reports whether the app's body was read to its end.
func (s *source) ended() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Is(s.err, io.EOF)
}

// sent reports whether the current attempt has had the whole body, and was told
// so: what is held back may be no more than that.
func (s *source) sent() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.ended
}

// isGone reports whether the app has broken off: by what became of its body, or of
// ctx, the request's, which a server also ends when a read was cut off here.
func (s *source) isGone(ctx context.Context) bool {
	if s == nil {
		return ctx.Err() != nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return (s.err != nil && !errors.Is(s.err, io.EOF)) || (ctx.Err() != nil && !s.hurried)
}

// leave says that no further attempt will begin: the source ends with the
// current one.
func (s *source) leave() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = true
	s.done = s.done || s.current == nil || s.current.closed
	s.dropLocked()
	s.changed.Broadcast()
}

// dropLocked gives back what is kept once nobody will read it again: a stream may
// come as the answer, and last for days.
func (s *source) dropLocked() {
	read := s.done || (s.err != nil && s.current.pos >= s.spool.size)
	if s.last && read && !s.running && !s.reading {
		s.spool.free()
	}
}

// cut ends the source. An app that does not send is cut off.
func (s *source) cut() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutLocked()
}

func (s *source) cutLocked() {
	s.done = true
	s.stopLocked()
	s.hurryLocked()
}

// finish ends the source and returns when nobody reads the app any more, which
// takes a moment at most. major is the version of HTTP that the app speaks.
func (s *source) finish(rc *http.ResponseController, major int) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutLocked()
	for s.running || s.reading {
		s.changed.Wait()
	}
	s.spool.free()
	if !errors.Is(s.err, io.EOF) && major == 1 {
		_ = rc.SetReadDeadline(time.Now().Add(lingerRead))
	}
}

// hurryLocked has the app's next bytes come soon or not at all.
func (s *source) hurryLocked() {
	if s.reading && s.hurry != nil {
		s.hurried = true
		s.hurry(true)
	}
}

// pump reads the app whenever more is wanted, until the body has ended, more was
// read than is kept, and that taken, or the source is done.
func (s *source) pump() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.done && (len(s.piece) > 0 || (s.err == nil && !s.lost)) {
		if s.lost || !s.wanted {
			s.changed.Wait()
			continue
		}
		buf := s.spool.room()
		if left := s.limit - int64(s.spool.size); left >= waitBuffer {
			buf = buf[:min(int64(len(buf)), left)] // all that may be kept is
		}
		n, err := s.readLocked(buf)
		s.wanted, s.err = false, err
		s.keep(buf[:n])
	}
	s.running, s.piece = false, nil
	if s.lost {
		s.spool.free()
	}
	s.dropLocked()
	s.changed.Broadcast()
}

// readLocked reads the app, unlocked.
func (s *source) readLocked(p []byte) (int, error) {
	s.reading = true
	s.mu.Unlock()
	n, err := s.body.Read(p)
	s.mu.Lock()
	s.reading = false
	s.changed.Broadcast()
	return n, err
}

// keep takes what was read: into the spool, where it stands already, as long as
// it may be sent again, else as a piece. What one attempt asked for and another
// gets, and what was read ahead, may go beyond the limit: it is no more than one
// buffer, and the other has yet to read what stands before it.
func (s *source) keep(b []byte) {
	late := s.held || s.current.closed || s.current.pos < s.spool.size
	if late || int64(s.spool.size+len(b)) <= s.limit {
		s.spool.size += len(b)
		return
	}
	s.lost, s.piece = true, b
}

// Read implements io.Reader.
func (a *attempt) Read(p []byte) (int, error) {
	s := a.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var n int
		switch {
		case a.closed:
			return 0, errAttemptOver
		case s.held:
		case s.lost && len(s.piece) > 0:
			n = copy(p, s.piece)
			s.piece = s.piece[n:]
			a.pos += n
			return n, a.took(len(s.piece) == 0)
		case !s.lost && a.pos < s.spool.size:
			n = s.spool.read(p, a.pos)
			a.pos += n
			return n, a.took(a.pos == s.spool.size)
		case s.err != nil:
			return 0, a.took(true)
		case s.lost && !s.running && !s.reading:
			return a.readOn(p)
		case !s.lost:
			s.wantLocked()
		}
		s.changed.Wait()
	}
}

// readOn reads the app, for an attempt that is the last.
func (a *attempt) readOn(p []byte) (int, error) {
	n, err := a.s.readLocked(p)
	if a.closed && !errors.Is(err, io.EOF) {
		return 0, errAttemptOver // the app is not to blame
	}
	a.s.err = err
	return n, a.took(true)
}

// took returns how the body ended, if it did and this was all of it. If there
// may be more, that is read while the transport passes this on.
func (a *attempt) took(all bool) error {
	s := a.s
	switch {
	case !all:
		return nil
	case s.err == nil && !s.lost:
		s.wantLocked()
		return nil
	case errors.Is(s.err, io.EOF):
		a.ended = true
		a.atEOF()
	}
	s.changed.Broadcast() // the pump need not keep the piece
	s.dropLocked()
	return s.err
}

// wantLocked has the app read once more.
func (s *source) wantLocked() {
	if s.wanted {
		return
	}
	s.wanted = true
	if !s.running {
		s.running = true
		go s.pump()
	}
	s.changed.Broadcast()
}

// Close implements io.Closer. The app's body is the server's to close.
func (a *attempt) Close() error {
	s := a.s
	s.mu.Lock()
	defer s.mu.Unlock()
	a.closed = true
	if s.lost && !a.answered && s.current == a {
		s.hurryLocked()
	}
	s.done = s.done || (s.last && s.current == a)
	s.dropLocked()
	s.changed.Broadcast()
	return nil
}
